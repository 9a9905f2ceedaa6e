"""Files that go into a job and come out of it: named by where they lie, known by their SHA-256.

A path is relative to the job's folder (inputs) or to its ``out`` folder (outputs), with forward slashes. What
could leave that folder, or confuse who reads the name, is no path.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

from msgspec import Meta

from gridx.messages.bounds import Count, Id, Line, Wire

MAX_INPUTS: Final = 2000
"""Files that one job may be given; more go into an archive."""
MAX_OUTPUT_FILES: Final = 2000
"""Files that one attempt may give back, whatever the coordinator's own cap."""

# Not absolute, no empty, "." or ".." part, no control character, backslash or mark that turns text around, no
# part over 255 characters. A colon is left out because Windows takes it for a drive or a stream.
PATH_PATTERN: Final = (
    r"\A(?!/)(?:(?!\.{1,2}(?:/|\Z))"
    r"[^/\\:\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]{1,255}"
    r"(?:/(?!\Z)|\Z))+\Z"
)
MAX_PATH: Final = 1000
FilePath = Annotated[str, Meta(max_length=MAX_PATH, pattern=PATH_PATTERN)]
Digest = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
"""SHA-256 in lower-case hexadecimal digits."""


class InputFile(Wire, frozen=True):
    """A file that the job finds at ``path`` in its folder. ``size`` is in bytes."""

    path: FilePath
    sha256: Digest
    size: Count
    executable: bool = False


class OutputFile(Wire, frozen=True):
    """A regular file that the job left in ``out/``, which is not part of ``path``."""

    path: FilePath
    sha256: Digest
    size: Count


class LeftFile(Wire, frozen=True):
    """Something in ``out/`` that did not come back, with its name made safe to show, and why."""

    path: Line
    why: Line


class FileCaps(Wire, frozen=True):
    """What may come back of one attempt: bytes in all, files, folders below each other."""

    total_bytes: Count
    files: Annotated[int, Meta(ge=0, le=MAX_OUTPUT_FILES)]
    depth: Annotated[int, Meta(ge=1, le=100)]


class JobFiles(Wire, frozen=True):
    """What a job's last attempt gave back; ``expires_at`` is when that is deleted, null before its end."""

    job_id: Id
    attempt: int
    files: list[OutputFile]
    left: list[LeftFile]
    expires_at: datetime | None = None


class BlobState(Wire, frozen=True):
    """How much of an upload has come: the next byte wanted is ``offset``; it is there when ``complete``."""

    sha256: Digest
    size: Count
    offset: Count
    complete: bool


class Digests(Wire, frozen=True):
    """Files that are asked for."""

    sha256: Annotated[list[Digest], Meta(max_length=MAX_INPUTS)]


class BlobStates(Wire, frozen=True):
    """How much of each file has come, in the order in which they were asked for."""

    blobs: list[BlobState]


class Freed(Wire, frozen=True):
    """What was deleted: files, and their bytes."""

    files: Count
    bytes: Count


class KeptFiles(Wire, frozen=True):
    """What is kept of one job, or of one array."""

    job_id: Id
    name: str
    files: Count
    bytes: Count


class FileUsage(Wire, frozen=True):
    """What one user's files take, and what is allowed; ``inputs`` are uploads, ``outputs`` came from jobs."""

    input_bytes: Count
    output_bytes: Count
    quota_bytes: Count
    keep_days: int
    largest: list[KeptFiles] = []
    """Jobs and arrays of which most is kept, the largest first."""


class Limits(Wire, frozen=True):
    """Every limit that a submission meets, told beforehand. Sizes are in bytes."""

    code_bytes: int
    file_bytes: int
    """The largest single file."""
    inputs: int
    quota_bytes: int
    used_bytes: int
    output_cap_bytes: int
    """Kept of each of stdout and stderr."""
    out_files: FileCaps
    array_elements: int
    queued: int
    running: int
    """Jobs of one user at a time; 0: as many as there is room for."""
