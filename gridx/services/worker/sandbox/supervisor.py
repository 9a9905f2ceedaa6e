"""The worker's side of the supervisor: how ``boot.py`` gets in, and how a job is put to it."""

from __future__ import annotations

import functools
import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gridx.messages.files import MAX_PATH, PATH_PATTERN
from gridx.services.worker.sandbox.base import FLOOD_FACTOR, RunRequest
from gridx.services.worker.sandbox.languages import LANGUAGES

# The fixed command of every sandbox: reads programs from stdin one after the other. The last, which stays, is
# the supervisor. So a runtime needs nothing but Python, no file is mounted, and the supervisor is always of
# the worker's own version.
LOADER: Final = (
    "import os\n"
    "def take(n):\n"
    "    data = b''\n"
    "    while len(data) < n:\n"
    "        part = os.read(0, n - len(data))\n"
    "        if not part: raise SystemExit\n"
    "        data += part\n"
    "    return data\n"
    "while True: exec(compile(take(int.from_bytes(take(4), 'big')), 'boot.py', 'exec', dont_inherit=True))\n"
)

MIN_FLOOD: Final = 1 << 16
"""An attempt whose output cap is tiny is still not ended for a few lines."""

DEFAULT_PATH: Final = "/usr/local/bin:/usr/bin:/bin"


COLLECT_S: Final = 60.0
COLLECT_BYTES_PER_S: Final = 4 << 20
"""How long files may take to come out: so long, and longer by what this pace makes of their cap."""


@functools.cache
def greeting() -> bytes:
    """What goes first into a new sandbox's stdin: the supervisor, ahead of it what it carries files with."""
    sources = [Path(__file__).with_name(name).read_bytes() for name in ("porter.py", "boot.py")]
    return b"".join(struct.pack(">I", len(source)) + source for source in sources)


@functools.cache
def looking_greeting() -> bytes:
    """The same with a look around ahead of it, whose frame comes before the supervisor's first."""
    source = Path(__file__).with_name("witness.py").read_text("utf-8")
    # In a namespace of its own, so that the supervisor finds its own empty.
    program = (
        f"exec(compile({source!r}, 'witness.py', 'exec', dont_inherit=True), {{'__name__': '__main__'}})"
    )
    encoded = program.encode()
    return struct.pack(">I", len(encoded)) + encoded + greeting()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a kind of sandbox gives a job besides the request.

    Attributes:
        folder: the job's directory, as the job sees it.
        alone: the supervisor is the first process of a PID namespace.
        cgroup: the sandbox has a cgroup of its own that keeps memory and processes; else the supervisor does.
        clean: folders to empty after the job so that the place can be used again; empty: it will not be.
        rlimits: names and values for ``setrlimit``.
    """

    folder: str
    alone: bool
    cgroup: bool
    clean: tuple[str, ...] = ()
    rlimits: dict[str, int] = field(default_factory=dict)
    nice: int = 0
    path: str = DEFAULT_PATH
    env: dict[str, str] = field(default_factory=dict)


def flood_limit(cap: int) -> int:
    """Bytes in one stream that end an attempt."""
    return max(cap * FLOOD_FACTOR, MIN_FLOOD)


def environment(request: RunRequest, around: Surroundings) -> dict[str, str]:
    """The job's whole environment: nothing of the worker's own."""
    return {
        "PATH": around.path,
        "HOME": around.folder,
        "LANG": "C.UTF-8",
        **around.env,
        **request.env,
        "GRIDX_JOB": str(request.job_id),
        "GRIDX_ATTEMPT": str(request.number),
    }


def collect_within_s(request: RunRequest) -> float:
    """How long what the job leaves may take to come out."""
    return COLLECT_S + request.out_files.total_bytes / COLLECT_BYTES_PER_S


def _wanted(request: RunRequest) -> dict[str, Any] | None:
    """What is wanted of the job's ``out`` folder, as the supervisor reads it."""
    if request.files is None or not request.outputs:
        return None
    return {
        "patterns": list(request.outputs),
        "name": PATH_PATTERN,
        "longest": MAX_PATH,
        "bytes": request.out_files.total_bytes,
        "files": request.out_files.files,
        "depth": request.out_files.depth,
        "within_s": collect_within_s(request),
    }


def encode_request(request: RunRequest, around: Surroundings) -> bytes:
    """One job, as the supervisor reads it; the bytes of its files follow."""
    header = json.dumps(
        {
            "program": LANGUAGES[request.language].file,
            "command": LANGUAGES[request.language].command,
            "args": list(request.args),
            "inputs": [
                {"path": file.path, "size": file.size, "executable": file.executable}
                for file, _ in request.inputs
            ],
            "wanted": _wanted(request),
            "env": environment(request, around),
            "folder": around.folder,
            "alone": around.alone,
            "cgroup": around.cgroup,
            "clean": list(around.clean),
            "memory": request.memory_mb << 20,
            "pids": request.pids,
            "cap": request.output_cap_bytes,
            "flood": flood_limit(request.output_cap_bytes),
            "rlimits": around.rlimits,
            "nice": around.nice,
        }
    ).encode()
    code = request.code.encode("utf-8", "surrogatepass")
    return struct.pack(">II", len(header), len(code)) + header + code
