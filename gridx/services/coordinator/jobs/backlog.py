"""What waits: the queue of the scheduler with the records of its jobs, and why each of them waits."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from gridx.clock import Clock
from gridx.config import Settings
from gridx.services.coordinator import ledger
from gridx.services.coordinator.fleet import Fleet
from gridx.services.coordinator.jobs.held_back import HeldBack, pause_s
from gridx.services.coordinator.ledger import Prices
from gridx.services.coordinator.scheduler import (
    Need,
    Obstacle,
    Placement,
    Plan,
    Queue,
    Rules,
    Shares,
    WaitingJob,
    obstacle,
    plan,
)
from gridx.services.coordinator.store.records import JobRecord, Payload

PAYLOAD_CACHE_BYTES: Final = 32 << 20
"""Programs of waiting jobs kept at hand, so that most need not be read again to be sent."""
LONGEST_PAUSE_S: Final = 3600.0
"""A worker that refuses a job again and again is still asked this often."""
SEEN_FOR_S: Final = 1.0
_COMMON: Final = Prices(core_hour=1_000_000, gib_hour=100_000, gpu_hour=10_000_000)
"""What jobs weigh against each other in fair share where they cost nothing."""


def need_of(job: JobRecord) -> Need:
    """What a job asks of a machine."""
    return Need(job.cpu_millis, job.memory_mb, job.gpus, job.language, job.runtime, job.python)


def weight_of(job: JobRecord) -> float:
    """How much a job counts in fair share: what an hour of it costs."""
    size = (job.cpu_millis, job.memory_mb, job.gpus)
    return float(ledger.price_per_hour(job.prices, *size) or ledger.price_per_hour(_COMMON, *size))


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
        self._payloads: OrderedDict[int, Payload] = OrderedDict()
        self._payload_bytes = 0
        self._obstacles: dict[tuple[object, ...], Obstacle] = {}
        self._scores_seen: dict[int, float] = {}
        self._seen_at = (-1, 0.0)
        self.changed = asyncio.Event()
        fleet.on_change(self.changed.set)

    def __len__(self) -> int:
        return len(self._queue) + len(self._held_back)

    # -- coming and going --------------------------------------------------------------------------------

    def add(self, record: JobRecord, payload: Payload | None = None) -> None:
        """Let a queued job wait for its turn."""
        if payload is not None:
            self._remember(record.id, payload)
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
        self._queue.remove(job_id)
        self.forget(job_id)

    def forget(self, job_id: int) -> None:
        """The job has ended: nothing about it matters for placement any more."""
        self._broke_on.pop(job_id, None)
        self._refused_by.pop(job_id, None)
        self._refusals.pop(job_id, None)
        self._reserved.pop(job_id, None)
        self.drop_payload(job_id)

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
        self._queue.take(placement.job_id, self._clock.monotonic(), favoured=placement.favoured)
        self._reserved.pop(placement.job_id, None)
        return self._records.pop(placement.job_id)

    def payload(self, job_id: int) -> Payload | None:
        """The job's program, if it is at hand."""
        return self._payloads.get(job_id)

    def used(self, owner_id: int, usage: float, ended_at: datetime | None = None) -> None:
        """Count what an owner consumed, in microcredits; ``ended_at`` when that was before this start."""
        now = self._clock.monotonic()
        ago = 0.0 if ended_at is None else (self._clock.now() - ended_at).total_seconds()
        self._shares.add(owner_id, usage, now, ended_at=now - max(0.0, ago))

    def tidy(self) -> None:
        """Forget usage that has decayed to nothing."""
        self._shares.forget(self._clock.monotonic())

    # -- why it waits ------------------------------------------------------------------------------------

    def waits(self, record: JobRecord) -> tuple[str, int | None]:
        """Why a queued job waits, and its place in the queue counted from 1; a place of None: none yet."""
        job = self._queue.get(record.id)
        if job is None:
            return self._held_back.why(record, self._clock.monotonic()), None
        self._look()
        ahead = self._queue.ahead(job.owner_id, job.rank, self._scores_seen)
        return self._obstacle(job, record.id in self._reserved).seen_by(ahead), ahead + 1

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
        job = WaitingJob(
            record.id,
            record.user_id,
            need_of(record),
            record.priority,
            weight_of(record),
            frozenset(self._broke_on.get(record.id, ())),
            frozenset(self._refused_by.get(record.id, ())),
            record.owner.casefold(),
        )
        self._queue.add(job, self._clock.monotonic())

    # -- programs ----------------------------------------------------------------------------------------

    def _remember(self, job_id: int, payload: Payload) -> None:
        self.drop_payload(job_id)
        self._payloads[job_id] = payload
        self._payload_bytes += _size(payload)
        while self._payload_bytes > PAYLOAD_CACHE_BYTES:
            # The last to have come is the last to run; it is read again when its turn comes.
            _, dropped = self._payloads.popitem(last=True)
            self._payload_bytes -= _size(dropped)

    def drop_payload(self, job_id: int) -> None:
        """The program need not be kept at hand any more."""
        payload = self._payloads.pop(job_id, None)
        if payload is not None:
            self._payload_bytes -= _size(payload)


def _size(payload: Payload) -> int:
    """About how many bytes a payload takes in memory."""
    texts = [payload.code, *payload.args, *payload.env.keys(), *payload.env.values()]
    return sum(len(text) for text in texts) + 64 * len(texts)
