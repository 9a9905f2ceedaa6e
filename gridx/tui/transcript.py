"""The output of one job, put together from what was read and what arrives, as lines.

Offsets count within a stream of an attempt. What is known already is skipped, and a gap is told, to be read
over HTTP. Pure: bytes in, lines out; the text is safe to print.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from gridx.messages import STREAMS, Stream
from gridx.safetext import StreamCleaner

TAB: Final = 8
MAX_LINE_CHARS: Final = 4096
"""A longer line is shown as several, so that one that never ends costs no more than others."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Text of a stream to show: a new line, or with ``amend`` the last line as it is now."""

    stream: Stream
    text: str
    amend: bool = False


@dataclass(slots=True)
class _Source:
    """One stream of the current attempt."""

    offset: int = 0
    cleaner: StreamCleaner = field(default_factory=StreamCleaner)
    open_line: str = ""
    is_open: bool = False
    returned: bool = False
    """A carriage return came: what follows is written over the open line."""


class Transcript:
    """What one job has written so far."""

    def __init__(self) -> None:
        self.attempt = 0
        self._sources: dict[Stream, _Source] = {stream: _Source() for stream in STREAMS}
        self._last: Stream | None = None

    def begin(self, attempt: int) -> None:
        """Another attempt begins: its offsets count from 0."""
        self.attempt = attempt
        self._sources = {stream: _Source() for stream in STREAMS}
        self._last = None

    def offset(self, stream: Stream) -> int:
        """Bytes of a stream that are known."""
        return self._sources[stream].offset

    def feed(self, stream: Stream, offset: int, data: bytes) -> list[Piece] | None:
        """Take bytes in; None where some before them are missing."""
        source = self._sources[stream]
        if offset > source.offset:
            return None
        data = data[source.offset - offset :]
        source.offset += len(data)
        return list(self._pieces(stream, source, data)) if data else []

    def _pieces(self, stream: Stream, source: _Source, data: bytes) -> Iterator[Piece]:
        # A carriage return before a newline is a line's end; alone it takes the line back to its beginning.
        for part in _split(data):
            if part == b"\r":
                source.returned = True
                continue
            text = source.cleaner.feed(part)
            if not text:
                continue
            if source.returned and not text.startswith("\n"):
                source.open_line = ""
            source.returned = False
            *complete, tail = text.split("\n")
            for line in complete:
                yield from self._go_on(stream, source, line, empty=not source.is_open)
                source.open_line, source.is_open = "", False
            yield from self._go_on(stream, source, tail)

    def _go_on(self, stream: Stream, source: _Source, text: str, *, empty: bool = False) -> Iterator[Piece]:
        """Add text to the open line of a stream; ``empty``: a line without text is a line too."""
        if source.is_open and self._last != stream:
            # The other stream wrote in between: what is shown above stays, and the rest is a line of its own.
            source.open_line, source.is_open = "", not text
        while text or empty:
            room = MAX_LINE_CHARS - len(source.open_line)
            source.open_line += text[:room]
            yield Piece(stream, source.open_line.expandtabs(TAB), source.is_open)
            self._last, source.is_open, empty = stream, True, False
            text = text[room:]
            if text:
                source.open_line, source.is_open = "", False


def _split(data: bytes) -> Iterator[bytes]:
    """Bytes between carriage returns, and the returns."""
    first, *rest = data.split(b"\r")
    if first:
        yield first
    for part in rest:
        yield b"\r"
        if part:
            yield part
