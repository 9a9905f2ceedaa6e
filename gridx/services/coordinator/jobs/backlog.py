"""What waits: the queue of the scheduler with the records of its jobs, and why each of them waits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from gridx.clock import Clock
from gridx.config import Settings
from gridx.services.coordinator import ledger
from gridx.services.coordinator.fleet import Fleet
from gridx.services.coordinator.jobs.arrays import WaitingArray
from gridx.services.coordinator.jobs.held_back import HeldBack, pause_s
from gridx.services.coordinator.jobs.payloads import Payloads
from gridx.services.coordinator.ledger import Prices
from gridx.services.coordinator.scheduler import (
    Need,
    Obstacle,
    Placement,
    Plan,
    Queue,
    Rank,
    Rules,
    Shares,
    WaitingJob,
    obstacle,
    plan,
)
from gridx.services.coordinator.store.records import ArrayRecord, JobRecord, Payload

LONGEST_PAUSE_S: Final = 3600.0
"""A worker that refuses a job again and again is still asked this often."""
SEEN_FOR_S: Final = 1.0
BUDGET_IS_OUT: Final = "waits for others of its array to end: its budget covers no more at a time"
_COMMON: Final = Prices(core_hour=1_000_000, gib_hour=100_000, gpu_hour=10_000_000)
"""What jobs weigh against each other in fair share where they cost nothing."""


def need_of(job: JobRecord) -> Need:
    """What a job asks of a machine."""
    return Need(job.cpu_millis, job.memory_mb, job.gpus, job.language, job.runtime, job.python)


def weight_of(job: JobRecord) -> float:
    """How much a job counts in fair share: what an hour of it costs."""
    size = (job.cpu_millis, job.memory_mb, job.gpus)
    return float(ledger.price_per_hour(job.prices, *size) or ledger.price_per_hour(_COMMON, *size))


def _covers(array: ArrayRecord, charge: int) -> bool:
    """Whether the budget lets an element start now, ``charge`` of which was spent on it before."""
    return array.held >= array.cover or array.affords(charge)


class Wait(NamedTuple):
    """Why a job waits.

    Attributes:
        place: in the queue, counted from 1; None: it has none yet.
        never: no worker that is connected could ever run it.
    """

    reason: str = ""
    place: int | None = None
    never: bool = False


class Backlog:
    """The waiting jobs. ``changed`` is set when a round of placement may have something to do."""

    def __init__(self, fleet: Fleet, settings: Settings, clock: Clock) -> None:
        self._fleet = fleet
        self._clock = clock
        self._rules = Rules(
            settings.scheduler.half_life_s,
            settings.scheduler.reserve_after_s,
            settings.scheduler.max_running_per_user,
        )
        self._queue = Queue()
        self._shares = Shares(settings.scheduler.half_life_s)
        self._records: dict[int, JobRecord] = {}
        self._held_back = HeldBack()
        self._broke_on: dict[int, set[int]] = {}
        self._refused_by: dict[int, dict[int, float]] = {}
        self._refusals: dict[int, Counter[int]] = {}
        self._reserved: dict[int, int] = {}
        self._arrays: dict[int, WaitingArray] = {}
        self._uncovered: set[int] = set()
        self.payloads = Payloads()
        self._obstacles: dict[tuple[object, ...], Obstacle] = {}
        self._scores_seen: dict[int, float] = {}
        self._seen_at = (-1, 0.0)
        self.changed = asyncio.Event()
        fleet.on_change(self.changed.set)

    def __len__(self) -> int:
        hidden = sum(array.hidden + len(array.parked) for array in self._arrays.values())
        return len(self._queue) + len(self._held_back) + hidden

    # -- coming and going --------------------------------------------------------------------------------

    def add(self, record: JobRecord, payload: Payload | None = None, waits_for: Sequence[int] = ()) -> None:
        """Let a queued job wait for its turn; ``waits_for``: once these have ended."""
        if payload is not None:
            self.payloads.keep(record.id, payload)
        if waits_for:
            self._held_back.behind(record, waits_for)
            return
        array = self._arrays.get(record.array_id) if record.array_id is not None else None
        if array is not None:
            array.tried.add(record.id)
        if record.not_before is not None:
            left_s = pause_s(record, (record.not_before - self._clock.now()).total_seconds())
            if left_s > 0:
                self._held_back.later(record, self._clock.monotonic() + left_s)
                return
        self._let_in(record)

    def _let_in(self, record: JobRecord) -> None:
        self._records[record.id] = record
        self._put(record)
        self.changed.set()

    def remove(self, job_id: int) -> None:
        """The job does not wait any more, and will not run."""
        self._records.pop(job_id, None)
        self._held_back.remove(job_id)
        waiting = self._queue.remove(job_id)
        if waiting is not None and (array := self._arrays.get(waiting.array_id)) is not None:
            array.window.pop(job_id, None)
            array.tried.discard(job_id)
        self.forget(job_id)

    # -- arrays ------------------------------------------------------------------------------------------

    def add_array(
        self,
        record: ArrayRecord,
        ids: Sequence[int],
        indices: Sequence[int],
        payload: Payload | None = None,
        waits_for: Sequence[int] = (),
    ) -> None:
        """Let the elements of an array wait that were never tried: their ids and indices, in order."""
        if payload is not None:
            self.payloads.keep(record.id, payload)
        array = self._arrays[record.id] = WaitingArray(record, ids, indices)
        if waits_for:
            self._held_back.behind(record, waits_for)
        else:
            self._fill(array)

    def array_changed(self, record: ArrayRecord) -> None:
        """An array has changed: more of it may start, or nothing any more."""
        array = self._arrays.get(record.id)
        if array is None:
            return
        array.record = record
        if record.stop or not record.queued:
            self._drop_waiting(array)
            if record.state.ended:
                del self._arrays[record.id]
                self.payloads.drop(record.id)
            return
        for job in array.affordable():
            self._let_in(job)
        self._fill(array)

    def met(self, number: int, parent: int) -> None:
        """A job or an array, ``number``, waits for one less."""
        record = self._held_back.met(number, parent)
        if isinstance(record, JobRecord):
            self.add(record)
        elif record is not None:
            self._fill(self._arrays[number])

    def uncovered(self, job_ids: Iterable[int]) -> None:
        """These elements were not let start: their array's budget does not cover them just now."""
        self._uncovered.update(job_ids)

    def put_back(self, record: JobRecord) -> bool:
        """A job that was taken and was not let start waits on, where that was for its array's budget."""
        if record.id not in self._uncovered:
            return False
        self._uncovered.discard(record.id)
        array = self._arrays.get(record.array_id or 0)
        if array is not None:
            array.parked[record.id] = record
            for job in array.affordable():
                self._let_in(job)
        return array is not None

    def _drop_waiting(self, array: WaitingArray) -> None:
        """Nothing of it waits any more."""
        for job_id in array.in_queue():
            self._records.pop(job_id, None)
            self._held_back.remove(job_id)
            self._queue.remove(job_id)
        for job_id in (*array.tried, *array.parked):
            self.forget(job_id)
        record = array.record
        self._held_back.remove(record.id)
        self._queue.unseen(record.user_id, record.id, None, 0)
        self._arrays[record.id] = WaitingArray(record, (), ())

    def _fill(self, array: WaitingArray) -> None:
        """Let as many of its elements into the queue as it may hold."""
        record = array.record
        if self._held_back.why(record, 0.0):
            return
        entered = array.enter()
        for job in entered:
            self._put(job)
        rank = Rank(-record.model.priority, array.first_hidden) if array.hidden else None
        self._queue.unseen(record.user_id, record.id, rank, array.hidden)
        if entered:
            self.changed.set()

    def forget(self, job_id: int) -> None:
        """The job has ended: nothing about it matters for placement any more."""
        self._broke_on.pop(job_id, None)
        self._refused_by.pop(job_id, None)
        self._refusals.pop(job_id, None)
        self._reserved.pop(job_id, None)
        self.payloads.drop(job_id)

    def broke(self, job_id: int, worker_ids: Iterable[int]) -> None:
        """The job broke on these workers: they are tried last from now on."""
        self._broke_on.setdefault(job_id, set()).update(worker_ids)

    def refused(self, job_id: int, worker_id: int, for_s: float) -> None:
        """A worker would not run the job: it is not asked again for a while, and each time for longer."""
        times = self._refusals.setdefault(job_id, Counter())
        pause_s = min(LONGEST_PAUSE_S, for_s * 2 ** min(times[worker_id], 20))
        times[worker_id] += 1
        self._refused_by.setdefault(job_id, {})[worker_id] = self._clock.monotonic() + pause_s

    def ask_again(self) -> None:
        """Let go of what only time held back: workers that refused a job, jobs after their failure."""
        now = self._clock.monotonic()
        for record in self._held_back.due(now):
            self._let_in(record)
        for job_id, workers in list(self._refused_by.items()):
            over = [worker_id for worker_id, until in workers.items() if until <= now]
            for worker_id in over:
                del workers[worker_id]
            if not workers:
                del self._refused_by[job_id]
            if over and job_id in self._records:
                self._put(self._records[job_id])
                self.changed.set()

    # -- placement ---------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """Decide a round for the fleet as it is now."""
        decided = plan(
            self._queue,
            self._fleet.machines(),
            self._scores(),
            self._clock.monotonic(),
            self._rules,
            running=self._fleet.running_jobs(),
        )
        self._reserved = dict(decided.reserved)
        return decided

    def take(self, placement: Placement) -> JobRecord:
        """Take a placed job out."""
        job_id = placement.job_id
        waiting = self._queue.take(job_id, self._clock.monotonic(), favoured=placement.favoured)
        assert waiting is not None
        self._reserved.pop(job_id, None)
        record = self._records.pop(job_id, None)
        if record is not None:
            if (array := self._arrays.get(record.array_id or 0)) is not None:
                array.tried.discard(job_id)
            return record
        array = self._arrays[waiting.array_id]
        return array.element(job_id, array.window.pop(job_id))

    def used(self, owner_id: int, usage: float, ended_at: datetime | None = None) -> None:
        """Count what an owner consumed, in microcredits; ``ended_at`` when that was before this start."""
        now = self._clock.monotonic()
        ago = 0.0 if ended_at is None else (self._clock.now() - ended_at).total_seconds()
        self._shares.add(owner_id, usage, now, ended_at=now - max(0.0, ago))

    def tidy(self) -> None:
        """Forget usage that has decayed to nothing."""
        self._shares.forget(self._clock.monotonic())

    # -- why it waits ------------------------------------------------------------------------------------

    def waits(self, record: JobRecord | ArrayRecord) -> Wait:
        """Why a queued job or array waits, and its place in the queue."""
        if why := self._held_back.why(record, self._clock.monotonic()):
            return Wait(why)
        if isinstance(record, ArrayRecord):
            if not _covers(record, 0):
                return Wait(BUDGET_IS_OUT)
            return self._waits_as(self._waiting(record.model))
        job = self._queue.get(record.id)
        if job is None:
            array = self._arrays.get(record.array_id or 0)
            if array is None:
                return Wait()
            if not _covers(array.record, record.charge):
                return Wait(BUDGET_IS_OUT)
            job = self._waiting(record)
        return self._waits_as(job)

    def _waits_as(self, job: WaitingJob) -> Wait:
        self._look()
        ahead = self._queue.ahead(job.owner_id, job.rank, self._scores_seen)
        obstacle = self._obstacle(job, job.id in self._reserved)
        return Wait(obstacle.seen_by(ahead), ahead + 1, obstacle.never)

    def would_wait(self, owner_id: int, owner: str, need: Need) -> str:
        """Why a job that is submitted now would wait; empty when it could start at once."""
        job = WaitingJob(0, owner_id, need, owner_name=owner.casefold())
        self._look()
        ahead = self._queue.ahead(owner_id, None, self._scores_seen)
        return self._obstacle(job, False).seen_by(ahead)

    def _look(self) -> None:
        """What reasons are made from is found once for each state of the fleet."""
        now = self._clock.monotonic()
        version, at = self._seen_at
        if version != self._fleet.version or not 0 <= now - at < SEEN_FOR_S:
            self._obstacles.clear()
            self._scores_seen = self._scores()
            self._seen_at = (self._fleet.version, now)

    def _obstacle(self, job: WaitingJob, kept: bool) -> Obstacle:
        """Jobs of a shape have the same obstacle."""
        key = (job.shape, job.owner_id, kept)
        found = self._obstacles.get(key)
        if found is None:
            found = self._obstacles[key] = obstacle(
                job,
                self._fleet.machines(),
                kept=kept,
                running=self._fleet.running_jobs().get(job.owner_id, 0),
                most=self._rules.max_running,
            )
        return found

    def _scores(self) -> dict[int, float]:
        owners = [line.owner_id for line in self._queue.lines]
        return self._shares.scores(owners, self._fleet.running(), self._clock.monotonic())

    def _put(self, record: JobRecord) -> None:
        self._queue.add(self._waiting(record), self._clock.monotonic())

    def _waiting(self, record: JobRecord) -> WaitingJob:
        return WaitingJob(
            record.id,
            record.user_id,
            need_of(record),
            record.priority,
            weight_of(record),
            frozenset(self._broke_on.get(record.id, ())),
            frozenset(self._refused_by.get(record.id, ())),
            record.owner.casefold(),
            record.array_id or 0,
        )
