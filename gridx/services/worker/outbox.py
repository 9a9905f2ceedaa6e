"""What one connection has still to tell the coordinator, in which order and how much at a time.

Words about attempts (accepted, refused, released) and signs of life go first. Output follows by byte
offset, in turns over the attempts, and ``finished`` goes after the last byte and
the last file, which do not come this way. What is in flight is bounded:
every so many bytes a light sample is sent, and its answer says that all before it has arrived. So a slow line
never holds more than a second or two of output in front of a sign of life, and no buffer grows.

An outbox lives as long as its connection. What it did not tell is told by the next one, from the spool.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from gridx.messages import (
    MAX_BATCH,
    STREAMS,
    Finished,
    Output,
    Sample,
    Sending,
    Started,
    Stream,
    StreamOffsets,
    WorkerFrame,
)
from gridx.services.worker.spool import Entry, Spool

WINDOW_BYTES: Final = 64 << 10
"""Output on its way that is not known to have arrived."""
PIECE_BYTES: Final = 16 << 10
"""Output of one stream in one message."""
MARK_BYTES: Final = 16 << 10
"""Output after which a light sample is sent, to learn that it has arrived."""
GATHER_S: Final = 0.02
"""How long output that is not urgent is gathered after some was sent."""
MESSAGE_GAP_S: Final = 0.002
"""Between two messages: a burst travels in few of them."""
FRAMES_PER_ATTEMPT: Final = 4
"""Started, a piece of each stream, finished: what one message says of one attempt at most."""
REMIND_S: Final = 10.0
"""A result that was not acknowledged for so long is told again on the same connection."""


@dataclass(slots=True)
class Report:
    """What there is to tell of one attempt: grows while it runs, complete when ``finished`` is set."""

    entry: Entry
    runtime: str
    started: bool = False
    finished: Finished | None = None
    """How it ended, with all files that it gave back."""
    ready: Finished | None = None
    """What is told of that: its files are at the coordinator, or stay behind."""

    def end(self, finished: Finished) -> None:
        """It ended; with files, its end is told when they are at the coordinator."""
        self.finished = finished
        self.ready = None if finished.files else finished

    @property
    def attempt_id(self) -> int:
        """The attempt."""
        return self.entry.attempt_id


@dataclass(slots=True)
class _Told:
    """What this connection has told of one attempt."""

    offsets: dict[Stream, int] = field(default_factory=lambda: dict.fromkeys(STREAMS, 0))
    started: bool = False
    sending: bool = False
    finished_at: float | None = None


class Outbox:
    """Everything that is to be told over one connection.

    Args:
        reports: the attempts that the worker holds; read anew each time, so it may grow and shrink.
        offsets: bytes that the coordinator has, by attempt.
        mark: makes a light sample and notes that it was sent.
    """

    def __init__(
        self,
        spool: Spool,
        reports: Mapping[int, Report],
        offsets: Mapping[int, StreamOffsets],
        mark: Callable[[], Sample],
    ) -> None:
        self._spool = spool
        self._reports = reports
        self._mark = mark
        self._control: deque[WorkerFrame] = deque()
        self._due: dict[int, None] = dict.fromkeys(reports)
        self._told = {
            attempt_id: _Told({"stdout": have.stdout, "stderr": have.stderr})
            for attempt_id, have in offsets.items()
        }
        self._marks: deque[tuple[int, int]] = deque()
        self._unmarked = 0
        self._in_flight = 0
        self._output_at = float("-inf")
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._all_told = asyncio.Event()
        if self._due:
            self._wake.set()

    async def told(self) -> None:
        """Wait until everything that there is to tell has been handed to the connection."""
        while self._control or self._due:
            self._all_told.clear()
            await self._all_told.wait()

    def put(self, *frames: WorkerFrame) -> None:
        """Tell these next."""
        self._control.extend(frames)
        self._hurry.set()
        self._wake.set()

    def touch(self, attempt_id: int, *, hurry: bool = False) -> None:
        """There is more to tell of an attempt."""
        self._due[attempt_id] = None
        if hurry:
            self._hurry.set()
        self._wake.set()

    def confirm(self, seq: int) -> None:
        """The coordinator answered this sample: everything told before it has arrived."""
        while self._marks and self._marks[0][0] <= seq:
            self._in_flight -= self._marks.popleft()[1]
        if self._due:
            self._wake.set()

    def remind(self) -> None:
        """Tell again what was told long ago and is still not acknowledged."""
        late = asyncio.get_running_loop().time() - REMIND_S
        for attempt_id in self._told.keys() & self._reports.keys():
            told = self._told[attempt_id]
            if told.finished_at is not None and told.finished_at < late:
                told.finished_at = None
                self.touch(attempt_id, hurry=True)
        for attempt_id in self._told.keys() - self._reports.keys():
            del self._told[attempt_id]

    async def run(self, send: Callable[[list[WorkerFrame]], Awaitable[None]]) -> None:
        """Tell everything as it comes, for ever; awaiting ``send`` is the back-pressure."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            wait_s = self._output_at + GATHER_S - loop.time()
            if wait_s > 0 and not self._hurry.is_set():
                try:
                    async with asyncio.timeout(wait_s):
                        await self._hurry.wait()
                except TimeoutError:
                    pass
            self._wake.clear()
            self._hurry.clear()
            while batch := await self._batch():
                await send(batch)
                await asyncio.sleep(MESSAGE_GAP_S)
            self._all_told.set()

    async def _batch(self) -> list[WorkerFrame]:
        """What goes into the next message; empty when there is nothing, or nothing may be sent now."""
        frames: list[WorkerFrame] = []
        while self._control and len(frames) < MAX_BATCH - 1:
            frame = self._control.popleft()
            if isinstance(frame, Sample):
                self._marked(frame.seq)
            frames.append(frame)
        if not self._control and self._due:
            frames += await self._about_attempts(MAX_BATCH - 1 - len(frames))
        if self._unmarked >= MARK_BYTES:
            sample = self._mark()
            self._marked(sample.seq)
            frames.append(sample)
        return frames

    async def _about_attempts(self, room: int) -> list[WorkerFrame]:
        """Started, output and finished of the attempts whose turn it is, at most ``room`` frames."""
        reports = self._next_in_turn(room // FRAMES_PER_ATTEMPT)
        chunks = await self._read(reports)
        frames: list[WorkerFrame] = []
        for report in reports:
            if self._reports.get(report.attempt_id) is not report:
                continue
            told = self._told.setdefault(report.attempt_id, _Told())
            if report.started and not told.started:
                frames.append(Started(attempt_id=report.attempt_id, runtime=report.runtime))
                told.started = True
            for stream, data in chunks.get(report.attempt_id, ()):
                offset = told.offsets[stream]
                frames.append(Output(attempt_id=report.attempt_id, stream=stream, offset=offset, data=data))
                told.offsets[stream] += len(data)
                self._unmarked += len(data)
                self._in_flight += len(data)
                self._output_at = asyncio.get_running_loop().time()
            if all(told.offsets[stream] >= report.entry.lengths[stream] for stream in STREAMS):
                if report.ready is not None and told.finished_at is None:
                    frames.append(report.ready)
                    told.finished_at = asyncio.get_running_loop().time()
                elif report.finished is not None and report.ready is None and not told.sending:
                    frames.append(Sending(attempt_id=report.attempt_id))
                    told.sending = True
                self._due.pop(report.attempt_id, None)
        return frames

    async def _read(self, reports: Iterable[Report]) -> dict[int, list[tuple[Stream, bytes]]]:
        """The next bytes of these attempts as far as the window allows; one trip to the disk for all."""
        room = WINDOW_BYTES - self._in_flight
        wanted: list[tuple[Entry, Stream, int, int]] = []
        for report in reports:
            told = self._told.get(report.attempt_id) or _Told()
            for stream in STREAMS:
                size = min(report.entry.lengths[stream] - told.offsets[stream], room, PIECE_BYTES)
                if size > 0:
                    wanted.append((report.entry, stream, told.offsets[stream], size))
                    room -= size
                    # Behind the others, so that a flood lets them pass.
                    del self._due[report.attempt_id]
                    self._due[report.attempt_id] = None
        if not wanted:
            return {}
        return await self._spool.call(_read_all, wanted)

    def _next_in_turn(self, most: int) -> list[Report]:
        """Attempts with something to tell, longest waiting first."""
        picked: list[Report] = []
        for attempt_id in tuple(self._due):
            if len(picked) == most:
                break
            if attempt_id in self._reports:
                picked.append(self._reports[attempt_id])
            else:
                del self._due[attempt_id]
        return picked

    def _marked(self, seq: int) -> None:
        self._marks.append((seq, self._unmarked))
        self._unmarked = 0


def _read_all(wanted: list[tuple[Entry, Stream, int, int]]) -> dict[int, list[tuple[Stream, bytes]]]:
    found: dict[int, list[tuple[Stream, bytes]]] = {}
    for entry, stream, offset, size in wanted:
        if data := entry.read(stream, offset, size):
            found.setdefault(entry.attempt_id, []).append((stream, data))
    return found
