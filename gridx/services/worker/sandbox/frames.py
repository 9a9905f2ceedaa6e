"""Reads the supervisor's frames; believes none of them further than a bound.

The first may be a witness's (``witness.py``), all others are the supervisor's (``boot.py``).

A supervisor that a job has taken over can send what it likes. Every frame is of a known kind, in the order
that the conversation has, no longer than its kind allows, its numbers in range; anything else is a
:class:`FrameError`, and what is buffered is never more than one frame.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from gridx.messages import Stream
from gridx.messages.files import FilePath

PROTOCOL: Final = 1
_HEADER: Final = 5
CHUNK: Final = 1 << 16

_Counter = Annotated[int, Meta(ge=0, le=2**53)]


class FrameError(Exception):
    """What came is no frame, or none that may come now. Whoever sent it is no supervisor any more."""


class Ready(Struct, frozen=True, forbid_unknown_fields=True):
    """The supervisor has started and waits for a job."""

    protocol: int
    python: Annotated[str, Meta(pattern=r"\A3\.[0-9]{1,2}\Z")]
    pid: _Counter


class Witnessed(Struct, frozen=True, forbid_unknown_fields=True):
    """What the container looks like from inside, before its supervisor starts; see ``witness.py``."""

    pid: _Counter
    status: dict[str, str]
    namespaces: dict[str, str]
    mounts: list[tuple[str, str, str, str]]
    """Where, the mount's own options, the kind of file system, and the file system's options."""
    hidden: list[str]
    interfaces: list[str]
    refused: dict[str, int]
    limits: dict[str, str]
    hostname: str


class Began(Struct, frozen=True):
    """The job's own code runs from now on."""


class Output(Struct, frozen=True):
    """Bytes of a stream, in order."""

    stream: Stream
    data: bytes


class Usage(Struct, frozen=True, forbid_unknown_fields=True):
    """What the job has used so far; once a second, so that silence means trouble."""

    cpu_ms: _Counter
    peak: _Counter
    """Bytes."""


class End(Struct, frozen=True, forbid_unknown_fields=True):
    """How the job ended, and whether its place is as it was before."""

    exit_code: Annotated[int, Meta(ge=0, le=255)] | None
    signal: Annotated[int, Meta(ge=1, le=128)] | None
    flooded: Literal["", "stdout", "stderr"]
    broke: Literal["", "memory", "pids"]
    memory_error: bool
    clean: bool
    dirt: Annotated[str, Meta(max_length=1000)]
    cpu_ms: _Counter
    peak: _Counter
    oom_kills: _Counter


class NotBegun(Struct, frozen=True, forbid_unknown_fields=True):
    """The job's files could not be written into its folder."""

    why: Annotated[str, Meta(max_length=2000)]


class Collecting(Struct, frozen=True):
    """The job has ended; what it left in its ``out`` folder follows."""


class FileBegins(Struct, frozen=True, forbid_unknown_fields=True):
    """A file of so many bytes follows."""

    path: FilePath
    size: _Counter


class FileData(Struct, frozen=True):
    """The next bytes of the file."""

    data: bytes


class FileEnds(Struct, frozen=True, forbid_unknown_fields=True):
    """The file is over; ``why`` says why it is not whole, and is empty when it is."""

    why: Annotated[str, Meta(max_length=1000)]


class Left(Struct, frozen=True, forbid_unknown_fields=True):
    """Something in the ``out`` folder that does not come, and why."""

    path: Annotated[str, Meta(max_length=1000)]
    why: Annotated[str, Meta(max_length=1000)]


Frame = (
    Witnessed
    | Ready
    | NotBegun
    | Began
    | Output
    | Usage
    | Collecting
    | FileBegins
    | FileData
    | FileEnds
    | Left
    | End
)

_LIMITS: Final = {
    b"W": CHUNK,
    b"R": 1024,
    b"N": 16384,
    b"S": 0,
    b"O": CHUNK,
    b"E": CHUNK,
    b"U": 1024,
    b"C": 0,
    b"F": 16384,
    b"D": CHUNK,
    b"G": 8192,
    b"L": 16384,
    b"X": 8192,
}
_DATA: Final = b"OED"
_STREAMS: Final[dict[bytes, Stream]] = {b"O": "stdout", b"E": "stderr"}
_BARE: Final[dict[bytes, type[Began | Collecting]]] = {b"S": Began, b"C": Collecting}
_KINDS: Final[
    dict[bytes, type[Witnessed | Ready | NotBegun | Usage | FileBegins | FileEnds | Left | End]]
] = {
    b"W": Witnessed,
    b"R": Ready,
    b"N": NotBegun,
    b"U": Usage,
    b"F": FileBegins,
    b"G": FileEnds,
    b"L": Left,
    b"X": End,
}
# What may come after what; a place that is used again goes from the end of one job to the next one.
_NEXT: Final = {
    "": b"WR",
    "W": b"R",
    "R": b"NS",
    "N": b"",
    "S": b"OEUCX",
    "C": b"FLX",
    "F": b"DG",
    "G": b"FLX",
    "X": b"NS",
}


class FrameParser:
    """Turns chunks of bytes, cut anywhere, into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._state = ""

    @property
    def buffered(self) -> int:
        """Bytes that wait for the rest of their frame."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes; the frames that they complete.

        Raises:
            FrameError: and from then on nothing more is to be read.
        """
        self._buffer += data
        frames: list[Frame] = []
        start = 0
        try:
            while len(self._buffer) - start >= _HEADER:
                kind = bytes(self._buffer[start : start + 1])
                length = int.from_bytes(self._buffer[start + 1 : start + _HEADER])
                if kind not in _LIMITS or length > _LIMITS[kind]:
                    raise FrameError(f"a frame of kind {kind!r} with {length} bytes")
                if not length and kind in _DATA:
                    # Without an end of them they would cost time, and no cap would count them.
                    raise FrameError(f"a frame of kind {kind!r} without bytes")
                if kind not in _NEXT[self._state]:
                    raise FrameError(f"a frame of kind {kind!r} after {self._state or 'nothing'}")
                end = start + _HEADER + length
                if len(self._buffer) < end:
                    break
                frames.append(self._frame(kind, bytes(self._buffer[start + _HEADER : end])))
                if kind in b"WRNSCFGX":
                    self._state = kind.decode()
                start = end
        finally:
            del self._buffer[:start]
        return frames

    @staticmethod
    def _frame(kind: bytes, payload: bytes) -> Frame:
        if kind in _STREAMS:
            return Output(_STREAMS[kind], payload)
        if kind == b"D":
            return FileData(payload)
        if kind in _BARE:
            return _BARE[kind]()
        try:
            return msgspec.json.decode(payload, type=_KINDS[kind])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise FrameError(f"the payload of a frame of kind {kind!r}: {error}") from None
