"""What becomes of an attempt: its worker's words, its end, its loss. A step is committed before it is told.

Frames of one attempt are worked off one after the other, those of different attempts at the same time. What a
worker says about an attempt that is not its own, or not current, changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Final, Protocol, TypeVar

from gridx import safetext
from gridx.clock import Clock
from gridx.config import Settings
from gridx.errors import GridError, Unavailable
from gridx.messages import (
    Accepted,
    Ack,
    AttemptState,
    Cancel,
    Finished,
    Job,
    JobState,
    Output,
    Refused,
    Released,
    Sending,
    Started,
    Stream,
    Worker,
)
from gridx.services.coordinator import ledger
from gridx.services.coordinator.fleet import Fleet
from gridx.services.coordinator.jobs.backlog import Backlog
from gridx.services.coordinator.jobs.views import job_view
from gridx.services.coordinator.live import Ask, AttemptFrame, Live
from gridx.services.coordinator.states import JOB_END_OF_OUTCOME
from gridx.services.coordinator.store import Store
from gridx.services.coordinator.store.records import Begin, End, JobRecord, OutputChunk

log = logging.getLogger("gridx.coordinator")

T = TypeVar("T")

MARKER_BYTES: Final = 4096
"""What a worker may add to a stream past its cap, to say that it was cut."""
RETRY_S: Final = 1.0
"""Between two tries of a write for which the disk had no room."""
MAX_GAPS: Final = 3
"""After so many ends with output missing, the end is taken as it is."""
MAX_UNWRITTEN_BYTES: Final = 4 << 20
"""What one worker may have sent that is not written yet."""
REFUSED_FOR_S: Final = 30.0
RELEASED_FOR_S: Final = 5.0
"""How long a worker that refused a job, or gave it back, is not asked again to run it."""


class Hub(Protocol):
    """Who is told of changes; see ``events.Hub``. Nothing here blocks or raises."""

    def job_changed(
        self, owner_id: int, job_id: int, view: Callable[[], Job], array_id: int | None = None
    ) -> None:
        """A job or array is new or changed; ``view`` is called before this returns, or not at all."""

    def elements_changed(self, array_id: int, count: int) -> None:
        """Any of an array's elements may have ended, without a word about each."""

    def output_arrived(
        self, owner_id: int, job_id: int, attempt_number: int, stream: Stream, offset: int, data: bytes
    ) -> None:
        """Bytes were stored."""

    def worker_changed(self, worker: Worker) -> None:
        """A worker came, went, or sent a sample."""

    def credits_changed(self, user_ids: Iterable[int]) -> None:
        """Balances moved."""


class Lifecycle:
    """Takes attempts from their beginning to their end."""

    def __init__(
        self, store: Store, fleet: Fleet, backlog: Backlog, hub: Hub, settings: Settings, clock: Clock
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._backlog = backlog
        self._hub = hub
        self._clock = clock
        self._lease_s = settings.coordinator.lease_s
        self._cap_bytes = settings.coordinator.output_cap_bytes + MARKER_BYTES
        self._tasks: set[asyncio.Task[Any]] = set()
        self._unwritten: Counter[int] = Counter()
        self._eased = asyncio.Event()
        self.ended: Counter[str] = Counter()
        """Attempts by how they ended, since the start."""

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something that must come to its end even when nobody waits for it any more."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    async def stop(self) -> None:
        """Drop what is not committed yet: it is told again by the workers."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def tell(self, record: JobRecord) -> None:
        """Tell whoever may know how a job stands."""

        def view() -> Job:
            if record.state is not JobState.QUEUED:
                return job_view(record)
            return job_view(record, self._backlog.waits(record))

        self._hub.job_changed(record.user_id, record.id, view, record.array_id)

    # -- frames ------------------------------------------------------------------------------------------

    def take(self, worker_id: int, frame: AttemptFrame) -> None:
        """Take a frame about an attempt from the worker that sent it."""
        live = self._fleet.live(frame.attempt_id)
        if live is None or live.worker_id != worker_id:
            # Another's, unknown, or over: it changes nothing, and the worker may forget it.
            if isinstance(frame, Finished | Refused | Released):
                self._fleet.send(worker_id, Ack(attempt_ids=[frame.attempt_id]))
            return
        live.accepted = True
        if isinstance(frame, Accepted):
            return
        if isinstance(frame, Sending):
            if live.sending_since is None:
                live.sending_since = self._clock.monotonic()
            return
        live.inbox.append((frame, self._clock.monotonic()))
        self._unwritten[worker_id] += _size(frame)
        if not live.busy:
            live.busy = True
            self.spawn(self._work_off(live))

    async def _work_off(self, live: Live) -> None:
        try:
            while live.inbox:
                frames = list(live.inbox)
                begin = await self._begin_and_write(live, frames)
                for frame, at in frames:
                    if isinstance(frame, Finished):
                        await self._finish(live, frame, at, begin)
                    elif isinstance(frame, Refused):
                        await self._refused(live, frame)
                    elif isinstance(frame, Released):
                        await self._released(live, frame)
                for _ in frames:
                    self._written(live, *live.inbox.popleft())
        finally:
            live.busy = False
            while live.inbox:
                self._written(live, *live.inbox.popleft())

    async def room(self, worker_id: int) -> None:
        """Wait while too much of what a worker sent is not written yet; its line is not read meanwhile."""
        while self._unwritten[worker_id] > MAX_UNWRITTEN_BYTES:
            self._eased.clear()
            await self._eased.wait()

    def _written(self, live: Live, frame: AttemptFrame, _: float) -> None:
        self._unwritten[live.worker_id] -= _size(frame)
        if not self._unwritten[live.worker_id]:
            del self._unwritten[live.worker_id]
        self._eased.set()

    async def _begin_and_write(self, live: Live, frames: list[tuple[AttemptFrame, float]]) -> Begin | None:
        """Commit that the program runs, and its output, in one go.

        When its end is among the frames, the begin is returned instead, to be committed with it.
        """
        begin: Begin | None = None
        for frame, at in frames:
            if isinstance(frame, Started) and not live.started:
                live.started = True
                live.running_since = at
                begin = Begin(frame.runtime)
        outputs = [frame for frame, _ in frames if isinstance(frame, Output)]
        over = any(isinstance(frame, Finished) for frame, _ in frames)
        if begin is not None and outputs and not over:
            await asyncio.gather(self._start(live, begin), self._write(live, outputs))
            return None
        if outputs:
            await self._write(live, outputs)
        if begin is not None and not over:
            await self._start(live, begin)
            return None
        return begin

    async def _start(self, live: Live, begin: Begin) -> None:
        record = await self._patiently(
            live,
            lambda: self._store.start_attempt(live.id, runtime=begin.runtime),
        )
        if record is not None and self._fleet.live(live.id) is live:
            live.job = record
            self.tell(record)

    async def _write(self, live: Live, frames: list[Output]) -> None:
        """Store output that follows what is there, up to the cap; what is there already is skipped."""
        chunks: list[OutputChunk] = []
        ends = dict(live.stored)
        for frame in frames:
            end = ends[frame.stream]
            data = frame.data[max(0, end - frame.offset) : max(0, self._cap_bytes - frame.offset)]
            if frame.offset <= end and data:
                chunks.append(OutputChunk(live.id, frame.stream, end, data))
                ends[frame.stream] = end + len(data)
        if not chunks:
            return
        lengths = await self._patiently(live, lambda: self._store.append_output(chunks))
        for chunk, length in zip(chunks, lengths or (), strict=False):
            if length < chunk.offset + len(chunk.data):
                continue
            live.stored[chunk.stream] = length
            self._hub.output_arrived(
                live.job.user_id, live.job.id, live.attempt.number, chunk.stream, chunk.offset, chunk.data
            )

    async def _patiently(self, live: Live, write: Callable[[], Awaitable[T]]) -> T | None:
        """Write as soon as the store can; give up when the attempt has ended meanwhile."""
        while True:
            try:
                return await write()
            except Unavailable as error:
                if error.details.get("reason") in ("stopping", "store_failed"):
                    raise
                if self._fleet.live(live.id) is not live:
                    return None
                log.warning("attempt %d waits for the store: %s", live.id, error.message)
                await asyncio.sleep(RETRY_S)

    # -- ends --------------------------------------------------------------------------------------------

    async def _finish(self, live: Live, frame: Finished, at: float, begin: Begin | None) -> None:
        if self._fleet.live(live.id) is not live:
            self._fleet.send(live.worker_id, Ack(attempt_ids=[live.id]))
            return
        missing = await self._missing(live, frame)
        broke = frame.outcome == "broken" or (frame.outcome == "cancelled" and live.asked is None)
        if begin is not None and (missing or broke):
            await self._start(live, begin)
        if missing:
            return
        reason = safetext.line(frame.reason, limit=500)
        if frame.outcome == "broken":
            await self.give_back(live, AttemptState.BROKEN, reason or "its machine broke", fault=True)
        elif broke:
            why = reason or "its worker killed it without being asked"
            await self.give_back(live, AttemptState.BROKEN, why, fault=True)
        else:
            await self._settle(live, frame, at, reason, begin)
        self._fleet.send(live.worker_id, Ack(attempt_ids=[live.id]))

    async def _missing(self, live: Live, frame: Finished) -> bool:
        """Whether output or files have to come again before the end is taken; the worker reconnects then."""
        if live.gaps >= MAX_GAPS:
            return False
        claimed: dict[Stream, int] = {"stdout": frame.stdout_bytes, "stderr": frame.stderr_bytes}
        missing: list[str] = [
            stream for stream, size in claimed.items() if min(size, self._cap_bytes) > live.stored[stream]
        ]
        if frame.files and frame.outcome != "broken":
            missing += ["files"] if await self._store.missing_outputs(live.id, frame.files) else []
        if not missing:
            return False
        live.gaps += 1
        log.warning("attempt %d ended, but a part of its %s is missing", live.id, " and ".join(missing))
        link = self._fleet.link(live.worker_id)
        if link is not None:
            link.hang_up(f"{' and '.join(missing)}: a part is missing; send it once more")
        return True

    async def _settle(self, live: Live, frame: Finished, at: float, reason: str, begin: Begin | None) -> None:
        """The end that the program itself came to: it is paid for."""
        job = live.job
        if frame.outcome == "cancelled" and live.asked is Ask.OVERRUN:
            attempt_state = AttemptState.TIMED_OUT
            reason = reason or f"ran longer than its limit of {job.timeout_s} s"
        else:
            attempt_state = AttemptState(frame.outcome)
        if attempt_state is AttemptState.CANCELLED and job.reason:
            reason = job.reason  # who cancelled it is known here, and is not for a worker to say
        same_boot = live.attempt.boot_id == self._store.boot_id
        measured = int(at * 1000) - live.attempt.assigned_mono_ms if same_boot else None
        charged_ms = ledger.charged_ms(measured, frame.wall_ms, job.timeout_s) if live.started else 0
        cost = ledger.cost(job.prices, job.cpu_millis, job.memory_mb, job.gpus, charged_ms)
        paid = ledger.settlement(job.held, cost, job.prices.fee_ppm)
        end = End(
            job_state=JOB_END_OF_OUTCOME[attempt_state],
            attempt_state=attempt_state,
            reason=reason,
            exit_code=frame.exit_code,
            signal=frame.signal,
            peak_memory_bytes=frame.peak_memory_bytes,
            charged_ms=charged_ms,
            charge=paid.charge,
            fee=paid.fee,
            files=frame.files,
            left=frame.left,
        )
        live.ending = True
        try:
            finished = await self._patiently(
                live, lambda: self._store.finish_attempt(live.id, end, begin=begin)
            )
        finally:
            live.ending = False
        self._fleet.end(live)
        if finished is None:
            return
        self.ended[attempt_state] += 1
        self._fleet.did_well(live.worker_id)
        self._fleet.earned(live.worker_id, paid.to_worker)
        self._backlog.used(job.user_id, live.weight * charged_ms / ledger.MS_PER_HOUR)
        if finished.job.state.ended:
            self._ended(finished.job, {finished.payer_id, finished.payee_id})
            return
        self._backlog.add(finished.job)
        self.tell(finished.job)
        self._hub.credits_changed({finished.payer_id, finished.payee_id})

    async def _refused(self, live: Live, frame: Refused) -> None:
        reason = safetext.line(frame.reason) or "refused by its worker"
        self._backlog.refused(live.job.id, live.worker_id, REFUSED_FOR_S)
        await self.give_back(live, AttemptState.REFUSED, reason, fault=False)
        self._fleet.send(live.worker_id, Ack(attempt_ids=[live.id]))

    async def _released(self, live: Live, frame: Released) -> None:
        reason = safetext.line(frame.reason) or "given back by its worker"
        self._backlog.refused(live.job.id, live.worker_id, RELEASED_FOR_S)
        await self.give_back(live, AttemptState.RELEASED, reason, fault=False)
        self._fleet.send(live.worker_id, Ack(attempt_ids=[live.id]))

    async def give_back(self, live: Live, state: AttemptState, reason: str, *, fault: bool) -> None:
        """End an attempt unpaid by its machine's doing; its job waits again, or has had too many of these.

        Raises:
            Unavailable: the store cannot write; the attempt lives on, and this can be tried again.
        """
        if live.ending or self._fleet.live(live.id) is not live:
            return
        live.ending = True
        try:
            record = await self._store.requeue_attempt(live.id, state, reason, fault=fault)
        finally:
            live.ending = False
        self._fleet.end(live)
        if record is None:
            return
        self.ended[state] += 1
        level = logging.WARNING if fault else logging.INFO
        log.log(
            level,
            "attempt %d of job %d: %s on worker %d: %s",
            live.id,
            record.id,
            state,
            live.worker_id,
            reason,
        )
        if fault or state is AttemptState.REFUSED:
            self._fleet.broke(live.worker_id, reason)
        if record.state.ended:
            self._ended(record, {record.user_id})
            return
        if fault or not live.accepted:
            # A worker that is not reached would be given the job again and again; others have it first.
            self._backlog.broke(record.id, [live.worker_id])
        self._backlog.add(record)
        self.tell(record)

    async def lose(self, live: Live, reason: str, *, fault: bool = True) -> None:
        """The attempt is not the worker's any more; should it still run there, it is to be killed."""
        state = AttemptState.LOST if fault else AttemptState.RELEASED
        try:
            await self.give_back(live, state, reason, fault=fault)
        except GridError as error:
            # The next sweep finds it again.
            live.lease_until = self._clock.monotonic()
            log.warning("attempt %d cannot be given up now: %s", live.id, error.message)
        else:
            self._fleet.send(live.worker_id, Cancel(attempt_ids=[live.id], reason=reason[:200]))

    def ask(self, live: Live, ask: Ask) -> None:
        """Ask the worker to kill the attempt; it has a lease's time to do it."""
        live.asked = ask
        live.give_up_at = self._clock.monotonic() + self._lease_s
        reason = live.job.reason if ask is Ask.CANCEL and live.job.reason else ask.value
        self._fleet.send(live.worker_id, Cancel(attempt_ids=[live.id], reason=reason))

    def _ended(self, record: JobRecord, user_ids: set[int]) -> None:
        self._backlog.forget(record.id)
        self.tell(record)
        self._hub.credits_changed(user_ids)

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, GridError):
            # Whoever asked has been told; a user without credits is no event of the coordinator's.
            level = logging.INFO if error.status < 500 else logging.WARNING
            log.log(level, "not done: %s", error.message)
        else:
            log.error("a step of an attempt failed", exc_info=error)


def _size(frame: AttemptFrame) -> int:
    """About how many bytes a frame takes in memory."""
    return 512 + len(frame.data) if isinstance(frame, Output) else 512
