"""The output of jobs on the terminal and in pipes: live, each stream to its own, and harmless.

Escape sequences of a job can move the cursor, write the clipboard or answer for the person, and a pipe may
end in a terminal too. So both are cleaned; ``--raw`` gives the bytes.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from gridx import safetext
from gridx.messages import STREAMS, Stream

if TYPE_CHECKING:
    from gridx.client import Client

STREAMS_OF: Final[dict[str, tuple[Stream, ...]]] = {
    "stdout": ("stdout",),
    "stderr": ("stderr",),
    "both": STREAMS,
}


class Writer:
    """Writes one stream of a job to the stream of the same name of this process."""

    def __init__(self, stream: Stream, *, raw: bool) -> None:
        self._text = sys.stdout if stream == "stdout" else sys.stderr
        self._cleaner = None if raw else safetext.StreamCleaner()

    def write(self, data: bytes) -> None:
        """The next bytes."""
        self._put(data if self._cleaner is None else self._encoded(self._cleaner.feed(data)))

    def end(self) -> None:
        """What was held back because its end had not come yet."""
        if self._cleaner is not None:
            self._put(self._encoded(self._cleaner.feed(b"", final=True)))
            self._cleaner = safetext.StreamCleaner()

    def _encoded(self, text: str) -> bytes:
        return text.encode(self._text.encoding or "utf-8", "replace")

    def _put(self, data: bytes) -> None:
        self._text.flush()
        self._text.buffer.write(data)
        self._text.buffer.flush()


async def follow(grid: Client, job_id: int, stream: Stream, *, raw: bool, attempt: int | None = None) -> None:
    """Write a stream as it comes until the job has ended; says where another attempt begins anew."""
    writer = Writer(stream, raw=raw)
    number = attempt
    async for part in grid.follow_attempts(job_id, stream, attempt=attempt):
        if number is not None and part.attempt != number:
            writer.end()
            from gridx.commands import printing

            printing.note(f"-- attempt {part.attempt} of job {job_id}, {stream} from its beginning --")
        number = part.attempt
        writer.write(part.data)
    writer.end()
