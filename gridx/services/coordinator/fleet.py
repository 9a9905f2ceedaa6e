"""The workers that the coordinator knows: who is connected, what each offers, what lives on each.

Free capacity is computed from the attempts that live on a worker, never counted up and down: what ends,
however it ends, cannot leak any.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Final

from msgspec import structs

from gridx import safetext
from gridx.clock import Clock
from gridx.config import Settings
from gridx.errors import Conflict, TooMany
from gridx.messages import CoordinatorFrame, Offer, Sample, Worker
from gridx.services.coordinator.live import Live
from gridx.services.coordinator.member import Link, Member, State, Watcher
from gridx.services.coordinator.scheduler import Machine
from gridx.services.coordinator.store import Store
from gridx.services.coordinator.store.records import WorkerRecord

log = logging.getLogger("gridx.coordinator")

MAX_WORKERS: Final = 1000
"""Identities that one user may have; each is kept for ever."""
SHOWN_BACKOFF_S: Final = 0.5
"""A shorter pause is not worth a word."""


class Fleet:
    """All workers that have joined since the database was made; those connected have a link."""

    def __init__(self, store: Store, hub: Watcher, settings: Settings, clock: Clock) -> None:
        self._store = store
        self._hub = hub
        self._clock = clock
        self._lease_s = settings.coordinator.lease_s
        self._members: dict[int, Member] = {}
        self._live: dict[int, Live] = {}
        self._by_job: dict[int, Live] = {}
        self._running: dict[int, float] | None = None
        self._running_jobs: Counter[int] = Counter()
        self._untold: dict[int, Member] = {}
        self._changed: Callable[[], None] = lambda: None
        self.version = 0
        """Grows with everything that may change what could run where."""

    async def load(self) -> None:
        """Know the workers of earlier days, as offline."""
        earned = await self._store.worker_earnings()
        for record in await self._store.workers():
            self._members[record.id] = Member(record, earned=earned.get(record.id, 0))

    def on_change(self, callback: Callable[[], None]) -> None:
        """Be told when something changed that may let a job run, or keep it from running."""
        self._changed = callback

    # -- connections -------------------------------------------------------------------------------------

    def connect(
        self, record: WorkerRecord, offer: Offer, link: Link, told: State = "online", reason: str = ""
    ) -> None:
        """A worker has joined. Of two connections with one identity the newer wins.

        Args:
            told, reason: whether it takes new attempts, by its own word, and why not.
        """
        member = self._members.get(record.id)
        if member is None:
            member = self._members[record.id] = Member(record)
        older, member.link = member.link, link
        member.record, member.offer = record, offer
        member.told, member.told_reason, member.draining = told, safetext.line(reason), False
        member.seen_at = self._clock.monotonic()
        if older is not None and older is not link:
            log.warning("worker %d joined again; its older connection is closed", record.id)
            older.reject(
                Conflict(
                    f"Another connection of worker {record.id} has taken this one's place.",
                    "If two machines share one identity, give one of them a data folder of its own.",
                )
            )
        self._touch(member)

    def admit(self, user_id: int, identity: str) -> None:
        """Let a worker of this user in, new or known.

        Raises:
            TooMany: it would be one more than a user may have.
        """
        known = [
            member.record.identity for member in self._members.values() if member.record.user_id == user_id
        ]
        if identity not in known and len(known) >= MAX_WORKERS:
            raise TooMany(
                f"You have {MAX_WORKERS} workers already.",
                "A machine keeps its identity in its data folder: keep that folder, and it stays one worker.",
            )

    def disconnect(self, worker_id: int, link: Link) -> bool:
        """A connection has ended; False when a newer one had taken its place."""
        member = self._members.get(worker_id)
        if member is None or member.link is not link:
            return False
        member.link = None
        self._touch(member)
        return True

    def link(self, worker_id: int) -> Link | None:
        """The worker's connection; None while it is offline."""
        member = self._members.get(worker_id)
        return member.link if member else None

    def send(self, worker_id: int, *frames: CoordinatorFrame) -> bool:
        """Send frames to a worker; False when it is offline."""
        link = self.link(worker_id)
        if link is None:
            return False
        link.send(*frames)
        return True

    # -- what workers say --------------------------------------------------------------------------------

    def renew(self, worker_id: int, attempt_ids: Iterable[int]) -> list[int]:
        """A sign of life: renew the leases of these attempts; returns those that are not this worker's."""
        member = self._members[worker_id]
        member.seen_at = now = self._clock.monotonic()
        strange: list[int] = []
        for attempt_id in attempt_ids:
            live = member.live.get(attempt_id)
            if live is None:
                strange.append(attempt_id)
            else:
                live.lease_until = now + self._lease_s
        return strange

    def sampled(self, worker_id: int, frame: Sample) -> None:
        """Take what a sample says of the machine; its leases are renewed by :meth:`renew`."""
        member = self._members[worker_id]
        state: State = frame.state
        reason = safetext.line(frame.state_reason)
        moved = (state, reason) != (member.told, member.told_reason)
        member.told, member.told_reason = state, reason
        if frame.sample is not None:
            member.sample = frame.sample
        if moved:
            self._touch(member)
        elif frame.sample is not None:
            self._hub.worker_changed(self._view(member))

    def offering(self, worker_id: int, offer: Offer) -> None:
        """The worker's offer changed."""
        member = self._members[worker_id]
        member.offer = offer
        self._touch(member)

    # -- what owners ask ---------------------------------------------------------------------------------

    def record(self, worker_id: int) -> WorkerRecord | None:
        """The worker's record; None when there is no such worker."""
        member = self._members.get(worker_id)
        return member.record if member else None

    def paused(self, record: WorkerRecord) -> None:
        """The worker's owner paused or resumed it."""
        member = self._members[record.id]
        member.record = structs.replace(member.record, paused=record.paused)
        if not record.paused:
            member.draining = False
            if member.told == "paused":
                # It said so because it was told so; its next sample says what is true.
                member.told, member.told_reason = "online", ""
        self._touch(member)

    def is_steered(self, worker_id: int) -> bool:
        """Whether somebody paused or drained it through the coordinator."""
        member = self._members.get(worker_id)
        return member is not None and (member.record.paused or member.draining)

    def drained(self, worker_id: int) -> None:
        """The worker was told to take nothing new, until it joins anew."""
        member = self._members[worker_id]
        member.draining = True
        self._touch(member)

    # -- live attempts -----------------------------------------------------------------------------------

    def begin(self, live: Live) -> None:
        """An attempt lives on its worker from now on."""
        member = self._members[live.worker_id]
        member.live[live.id] = live
        self._live[live.id] = live
        self._by_job[live.job.id] = live
        self._running = None
        self._touch(member, later=True)

    def end(self, live: Live) -> None:
        """An attempt lives no more; saying so twice changes nothing."""
        if self._live.pop(live.id, None) is None:
            return
        member = self._members[live.worker_id]
        member.live.pop(live.id, None)
        if self._by_job.get(live.job.id) is live:
            del self._by_job[live.job.id]
        self._running = None
        self._touch(member, later=True)

    def live(self, attempt_id: int) -> Live | None:
        """A live attempt by its id."""
        return self._live.get(attempt_id)

    def live_of_job(self, job_id: int) -> Live | None:
        """The live attempt of a job."""
        return self._by_job.get(job_id)

    def live_of_worker(self, worker_id: int) -> list[Live]:
        """What lives on a worker."""
        member = self._members.get(worker_id)
        return list(member.live.values()) if member else []

    def all_live(self) -> Collection[Live]:
        """Everything that lives."""
        return self._live.values()

    def running(self) -> dict[int, float]:
        """By owner, what their live attempts cost in an hour."""
        if self._running is None:
            self._running = {}
            self._running_jobs = Counter(live.job.user_id for live in self._live.values())
            for live in self._live.values():
                owner_id = live.job.user_id
                self._running[owner_id] = self._running.get(owner_id, 0.0) + live.weight
        return self._running

    def running_jobs(self) -> Mapping[int, int]:
        """By owner, how many of their jobs have a machine."""
        self.running()
        return self._running_jobs

    # -- how it goes -------------------------------------------------------------------------------------

    def broke(self, worker_id: int, why: str) -> None:
        """An attempt broke on the worker, or it refused one: it gets nothing for a while."""
        member = self._members[worker_id]
        member.backoff.failed(self._clock.monotonic(), safetext.line(why))
        self._touch(member)

    def did_well(self, worker_id: int) -> None:
        """An attempt came to an end that is its program's own."""
        self._members[worker_id].backoff.succeeded(self._clock.monotonic())

    def earned(self, worker_id: int, amount: int) -> None:
        """The worker's owner was paid for it."""
        self._members[worker_id].earned += amount

    # -- views -------------------------------------------------------------------------------------------

    def machines(self) -> list[Machine]:
        """The connected workers as the scheduler sees them."""
        now = self._clock.monotonic()
        return [
            self._machine(member, now)
            for member in self._members.values()
            if member.link is not None and member.offer is not None
        ]

    def languages(self) -> set[str]:
        """What the fleet can run, by the last word of each worker; Python always."""
        return {"python"} | {
            language
            for member in self._members.values()
            if member.offer is not None
            for runtime in member.offer.runtimes
            for language in runtime.languages
        }

    def online(self) -> int:
        """How many workers are connected."""
        return sum(member.link is not None for member in self._members.values())

    def view(self) -> list[Worker]:
        """Every known worker, the ones offline included."""
        return [self._view(member) for member in self._members.values()]

    def worker(self, worker_id: int) -> Worker | None:
        """One worker; None when there is no such worker."""
        member = self._members.get(worker_id)
        return self._view(member) if member else None

    def tell(self) -> None:
        """Tell of the workers on which attempts began or ended since the last time."""
        untold, self._untold = self._untold, {}
        for member in untold.values():
            self._hub.worker_changed(self._view(member))

    def _touch(self, member: Member, *, later: bool = False) -> None:
        """Something about a worker changed. Attempts come and go by the hundred and are told of together."""
        self.version += 1
        member.machine = None
        if later:
            self._untold[member.record.id] = member
        else:
            self._untold.pop(member.record.id, None)
            self._hub.worker_changed(self._view(member))
        self._changed()

    def _machine(self, member: Member, now: float) -> Machine:
        closed, why = self._closed(member, now)
        machine = member.machine
        if machine is None:
            offer = member.offer
            assert offer is not None
            cpu, memory, gpus = _free(member)
            machine = member.machine = Machine(
                worker_id=member.record.id,
                owner_id=member.record.user_id,
                private=member.private,
                closed=closed,
                cpu_millis=offer.cpu_millis,
                memory_mb=offer.memory_mb,
                gpus=len(_gpus(offer)),
                runtimes=tuple(offer.runtimes),
                free_cpu_millis=cpu,
                free_memory_mb=memory,
                free_gpus=tuple(gpus),
                only_users=member.only_users,
                why=why,
            )
        elif (machine.closed, machine.why) != (closed, why):
            machine = member.machine = replace(machine, closed=closed, why=why)
        return machine

    def _closed(self, member: Member, now: float) -> tuple[str, str]:
        """Why the worker takes nothing new, in a word and in a sentence."""
        state, reason = self._state(member, now)
        if state != "online":
            return state, reason
        if member.backoff.left_s(now) > 0:
            return "pausing after failures", f"the last was that {member.backoff.why}"
        return "", ""

    @staticmethod
    def _state(member: Member, now: float) -> tuple[State, str]:
        if member.link is None:
            return "offline", ""
        if member.record.paused:
            return "paused", "by its owner"
        if member.draining and member.told == "online":
            return "draining", "by its owner"
        if member.told != "online":
            return member.told, member.told_reason
        left_s = member.backoff.left_s(now)
        if left_s > SHOWN_BACKOFF_S:
            return "online", f"gets nothing for {left_s:.0f} s after failures; the last: {member.backoff.why}"
        return "online", member.told_reason

    def _view(self, member: Member) -> Worker:
        now = self._clock.monotonic()
        state, reason = self._state(member, now)
        cpu, memory, gpus = _free(member) if member.link is not None else (0, 0, [])
        return Worker(
            id=member.record.id,
            name=member.record.name,
            owner=member.record.owner,
            state=state,
            state_reason=reason,
            offer=member.offer,
            free_cpu_millis=max(0, cpu),
            free_memory_mb=max(0, memory),
            free_gpus=gpus,
            jobs=[live.job.id for live in member.live.values()],
            last_seen_s=None if member.seen_at is None else round(max(0.0, now - member.seen_at), 1),
            joined_at=member.record.joined_at,
            version=member.record.version,
            sample=member.sample,
            earned=member.earned,
        )


def _gpus(offer: Offer) -> dict[str, None]:
    """The offered GPUs by UUID, each once, in order."""
    return dict.fromkeys(gpu.uuid for gpu in offer.gpus)


def _free(member: Member) -> tuple[int, int, list[str]]:
    """Free thousandths of a core, MiB and GPUs; negative where an offer shrank below what runs."""
    offer = member.offer
    if offer is None:
        return 0, 0, []
    used = {uuid for live in member.live.values() for uuid in live.attempt.gpus}
    return (
        offer.cpu_millis - sum(live.job.cpu_millis for live in member.live.values()),
        offer.memory_mb - sum(live.job.memory_mb for live in member.live.values()),
        [uuid for uuid in _gpus(offer) if uuid not in used],
    )
