"""Sizes, bounds and the base of everything that crosses a wire."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

PROTOCOL_VERSION: Final = 2
MICROCREDITS: Final = 1_000_000
"""Microcredits in one credit."""

MAX_CODE_BYTES: Final = 1 << 20
MAX_BODY_BYTES: Final = 8 << 20
MAX_FRAME_BYTES: Final = 4 << 20
MAX_OUTPUT_FRAME_BYTES: Final = 256 << 10
MAX_ARRAY: Final = 100_000
"""Elements of an array, whatever the coordinator's own cap."""
MAX_BATCH: Final = 256
"""Frames in one WebSocket message."""

Microcredits = int
Stream = Literal["stdout", "stderr"]
STREAMS: Final[tuple[Stream, Stream]] = ("stdout", "stderr")

# Bounds. 2**53 is the largest integer that every JSON reader keeps exact.
Id = Annotated[int, Meta(ge=1, le=2**53)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Amount = Annotated[int, Meta(ge=1, le=2**53)]
Percent = Annotated[float, Meta(ge=0, le=100)]
Gauge = Annotated[float, Meta(ge=0, le=1e15)]
UserName = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}\Z")]
Password = Annotated[str, Meta(min_length=8, max_length=1024, pattern=r"\A[^\x00]*\Z")]
Line = Annotated[str, Meta(max_length=200, pattern=r"\A[^\x00-\x1f\x7f]*\Z")]
"""One line of text that people read; no control characters."""
Text = Annotated[str, Meta(max_length=4000, pattern=r"\A[^\x00]*\Z")]
Argument = Annotated[str, Meta(max_length=32768, pattern=r"\A[^\x00]*\Z")]
EnvName = Annotated[str, Meta(max_length=128, pattern=r"\A[A-Za-z_][A-Za-z0-9_]*\Z")]
RuntimeName = Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9._-]{0,63}\Z")]
PythonVersion = Annotated[str, Meta(pattern=r"\A3\.[0-9]{1,2}\Z")]
GpuUuid = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9-]{1,96}\Z")]
Identity = Annotated[str, Meta(pattern=r"\A[a-f0-9]{32}\Z")]


class Wire(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=False):
    """Base of everything that is decoded from outside: frozen, named, no unknown fields."""
