"""One attempt's conversation with its supervisor, on the worker's side: counts, caps, times.

Nothing here knows what kind of sandbox it is. What the supervisor says is used where a lie would only hurt
the job's own owner; the clock, the caps and the end of the attempt are the worker's.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from gridx.errors import SandboxBroken
from gridx.messages import Stream
from gridx.services.worker.sandbox.base import OutputSink, RunRequest, StartedHook
from gridx.services.worker.sandbox.collection import Collection
from gridx.services.worker.sandbox.frames import (
    Began,
    Collecting,
    End,
    FileBegins,
    FileData,
    FileEnds,
    Frame,
    FrameError,
    FrameParser,
    Left,
    NotBegun,
    Output,
    Ready,
    Usage,
    Witnessed,
)
from gridx.services.worker.sandbox.inflow import pieces
from gridx.services.worker.sandbox.judgement import Ending, How
from gridx.services.worker.sandbox.supervisor import collect_within_s

READY_WITHIN_S: Final = 60.0
"""From a sandbox's start to its supervisor's first word; the first use of an image reads it from disk."""
BEGIN_WITHIN_S: Final = 30.0
"""From the request, or the last piece of its files, to the job's first instruction."""
COLLECT_GRACE_S: Final = 30.0
"""How much longer than it was told to take a supervisor may collect files."""
TIME_IS_OVER: Final = b"T"
"""Told to a supervisor, this ends its job; what the job left is still wanted."""
SILENCE_S: Final = 10.0
"""The supervisor speaks every second; after this silence somebody is asked whether it can still be heard."""
YIELD_WITHIN_S: Final = 0.7
"""How long a supervisor that was told to end its job may take, before it is killed with everything else."""
DRAIN_WITHIN_S: Final = 3.0
"""How long output that was under way when a sandbox was killed may take to arrive."""


WORDS: Final = 1000
WORDS_PER_S: Final = 4
WORDS_PER_FILE: Final = 4
"""How much a supervisor may say besides output and the bytes of files. It speaks once a second; what is not
counted by any cap would otherwise keep a worker busy for as long as a job may run."""


class Channel(Protocol):
    """Two byte streams to and from a supervisor."""

    async def send(self, data: bytes) -> None:
        """Write all of it. Raises ConnectionError when nobody reads any more."""

    async def receive(self) -> bytes:
        """The next bytes, at most some 64 KiB; empty at the end."""

    async def end_input(self) -> None:
        """Close the supervisor's stdin, which tells it to end its job. Never raises."""

    def last_words(self) -> str:
        """The end of what the supervisor itself wrote to stderr: its traceback, if it broke."""


class Line:
    """A channel with its parser: frames in the order they came."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.witnessed: Witnessed | None = None
        """What was seen inside before the supervisor started, if anybody looked."""
        self._parser = FrameParser()

    async def frames(self) -> list[Frame] | None:
        """The next frames, maybe none yet; None at the end of the stream.

        Raises:
            SandboxBroken: what came is not the supervisor's language.
        """
        data = await self.channel.receive()
        if not data:
            return None
        try:
            return self._parser.feed(data)
        except FrameError as error:
            raise SandboxBroken(f"The sandbox's supervisor sent {error}.") from None

    async def ready(self) -> Ready:
        """Wait for the supervisor's first word.

        Raises:
            SandboxBroken: it ended before, or it is none.
        """
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                while (frames := await self.frames()) is not None:
                    for frame in frames:
                        if isinstance(frame, Ready):
                            if frame is not frames[-1] or self._parser.buffered:
                                raise SandboxBroken("The sandbox's supervisor spoke before it was asked.")
                            return frame
                        if isinstance(frame, Witnessed):
                            self.witnessed = frame
        except TimeoutError:
            raise SandboxBroken(f"The sandbox was not ready within {READY_WITHIN_S:.0f} s.") from None
        raise SandboxBroken(f"The sandbox ended before it was ready. {self.channel.last_words()}".strip())


def marker(cap: int) -> bytes:
    """What stands at the end of output that was cut."""
    return b"\n[gridx: the output is cut here, at its cap of %d bytes]\n" % cap


class CappedSink:
    """Hands output on up to the cap, then the marker, then nothing."""

    def __init__(self, sink: OutputSink, cap: int) -> None:
        self._sink, self._cap = sink, cap
        self._sent: dict[Stream, int] = {"stdout": 0, "stderr": 0}

    async def write(self, stream: Stream, data: bytes) -> None:
        """Take the next bytes of a stream.

        Raises:
            SandboxBroken: more came than the supervisor may pass on.
        """
        before = self._sent[stream]
        self._sent[stream] = before + len(data)
        if before > self._cap:
            raise SandboxBroken("The sandbox's supervisor passed on more output than it may.")
        kept = data[: self._cap - before]
        if kept:
            await self._sink(stream, kept)
        if before + len(data) > self._cap:
            await self._sink(stream, marker(self._cap))


class Dialogue:
    """Puts one job to a supervisor and follows it to its end.

    Args:
        kill: ends the sandbox by force; the stream ends after it. Called when the supervisor does not yield.
        check: called after a silence; raises SandboxBroken when the sandbox can no longer be heard.
    """

    def __init__(
        self,
        line: Line,
        request: RunRequest,
        sink: OutputSink,
        started: StartedHook,
        *,
        kill: Callable[[], Awaitable[None]],
        check: Callable[[], Awaitable[None]],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._line, self._request, self._started = line, request, started
        self._collection = Collection(request)
        self._sink = CappedSink(sink, request.output_cap_bytes)
        self._kill, self._check, self._monotonic = kill, check, monotonic
        self._began = asyncio.Event()
        self._program_ended = asyncio.Event()
        self._began_at = self._ended_at = 0.0
        self._heard_at = self._put_at = monotonic()
        self._listens = False
        self._words = 0
        self._end: End | None = None
        self._not_begun = ""
        self._usage: Usage | None = None

    async def run(self, encoded: bytes, cancel: asyncio.Event) -> Ending:
        """Send the request and follow it.

        Raises:
            SandboxBroken: the machine's fault, or the supervisor's.
        """
        follow = asyncio.create_task(self._follow(encoded), name=f"attempt {self._request.attempt_id}")
        cancelled = asyncio.create_task(cancel.wait())
        began = asyncio.create_task(self._began.wait())
        try:
            how = await self._watch(follow, cancelled, began)
            if how != "ended":
                await self._stop(follow, collect=how == "timed_out")
            elif (error := follow.exception()) is not None:
                raise error
        finally:
            # Awaiting them, too: whoever is cancelled here must not leave a sink half written.
            for task in (follow, cancelled, began):
                task.cancel()
            await asyncio.gather(follow, cancelled, began, return_exceptions=True)
        if how == "ended" and self._end is None and not self._not_begun:
            how = "vanished"
        await self._collection.give_up()
        ended_at = self._ended_at or self._monotonic()
        wall_ms = round((ended_at - self._began_at) * 1000) if self._began.is_set() else 0
        return Ending(
            how,
            self._end,
            self._usage,
            wall_ms,
            self._began.is_set(),
            self._not_begun,
            self._collection.files,
            self._collection.left,
        )

    async def _watch(
        self, follow: asyncio.Task[None], cancelled: asyncio.Task[bool], began: asyncio.Task[bool]
    ) -> How:
        asked = self._heard_at
        while True:
            waiting: set[asyncio.Task[None] | asyncio.Task[bool]] = {follow, cancelled}
            if not self._began.is_set():
                waiting.add(began)
            deadline = self._deadline()
            until = min(deadline, max(self._heard_at, asked) + SILENCE_S)
            await asyncio.wait(
                waiting, timeout=max(0.0, until - self._monotonic()), return_when=asyncio.FIRST_COMPLETED
            )
            if follow.done():
                return "ended"
            if cancelled.done():
                return "cancelled"
            now = self._monotonic()
            if now >= self._deadline():
                if self._program_ended.is_set():
                    raise SandboxBroken("The sandbox did not give the job's files out in time.")
                if self._began.is_set():
                    return "timed_out"
                raise SandboxBroken(f"The sandbox did not begin the job within {BEGIN_WITHIN_S:.0f} s.")
            if self._listens and now >= max(self._heard_at, asked) + SILENCE_S:
                asked = now
                await self._check()
            elif not self._listens:
                asked = now

    def _deadline(self) -> float:
        """When what is under way has to be over: putting the job and its files, running it, collecting."""
        if self._program_ended.is_set():
            return self._ended_at + self._collect_within_s()
        if self._began.is_set():
            return self._began_at + self._request.timeout_s
        return self._put_at + BEGIN_WITHIN_S

    def _collect_within_s(self) -> float:
        return collect_within_s(self._request) + COLLECT_GRACE_S

    async def _stop(self, follow: asyncio.Task[None], *, collect: bool) -> None:
        """Have the supervisor end the job, which gives exact figures; then kill, whatever it did.

        Args:
            collect: what the job left is still wanted.
        """
        if collect and self._request.outputs and self._request.files is not None:
            with contextlib.suppress(OSError):
                await self._line.channel.send(TIME_IS_OVER)
            ended = asyncio.create_task(self._program_ended.wait())
            await asyncio.wait({follow, ended}, timeout=YIELD_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            if self._program_ended.is_set():
                await asyncio.wait({follow}, timeout=self._collect_within_s())
        if not follow.done():
            await self._line.channel.end_input()
            await asyncio.wait({follow}, timeout=YIELD_WITHIN_S)
        if self._ended_at == 0:
            self._ended_at = self._monotonic()
        if not follow.done():
            await self._kill()
            await asyncio.wait({follow}, timeout=DRAIN_WITHIN_S)

    async def _follow(self, encoded: bytes) -> None:
        # What a supervisor that does not listen still has to say, maybe why, is read below.
        with contextlib.suppress(OSError):
            await self._line.channel.send(encoded)
            async for piece in pieces(self._request.inputs):
                self._put_at = self._monotonic()
                await self._line.channel.send(piece)
        self._put_at = self._heard_at = self._monotonic()
        while self._end is None and not self._not_begun:
            self._listens = True
            frames = await self._line.frames()
            self._listens = False
            if frames is None:
                break
            self._heard_at = self._monotonic()
            for frame in frames:
                await self._take(frame)
        if not self._program_ended.is_set():
            self._ended_at = self._monotonic()

    async def _take(self, frame: Frame) -> None:
        if self._end is not None or self._not_begun:
            raise SandboxBroken("The sandbox's supervisor went on after the end of its job.")
        if not isinstance(frame, (Output, FileData)):
            self._count_word()
        match frame:
            case Began():
                self._began_at = self._monotonic()
                self._began.set()
                await self._started()
            case Output(stream, data):
                await self._sink.write(stream, data)
            case Usage():
                self._usage = frame
                self._request.meter.read(frame.cpu_ms)
            case End():
                self._end = frame
                self._request.meter.read(frame.cpu_ms)
                if not self._program_ended.is_set():
                    self._ended_at = self._monotonic()
            case NotBegun(why):
                self._not_begun = why or "no reason was given"
            case Collecting():
                self._ended_at = self._monotonic()
                self._program_ended.set()
            case FileBegins() | FileData() | FileEnds() | Left():
                await self._collection.take(frame)
            case Ready() | Witnessed():
                raise SandboxBroken("The sandbox's supervisor started again in the middle of a job.")

    def _count_word(self) -> None:
        self._words += 1
        seconds = self._monotonic() - self._put_at
        files = self._request.out_files.files if self._request.outputs else 0
        if self._words > WORDS + WORDS_PER_S * seconds + WORDS_PER_FILE * files:
            raise SandboxBroken("The sandbox's supervisor says more than it has to say.")
