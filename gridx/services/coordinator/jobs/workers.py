"""The side of the workers: who joins, what they say, and what their owners ask of them."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from gridx.config import Settings
from gridx.errors import Conflict, Forbidden, NotFound
from gridx.messages import (
    Ack,
    Cancel,
    Drain,
    Hello,
    Offering,
    Pause,
    Released,
    Renewed,
    Resume,
    Resumed,
    Sample,
    StreamOffsets,
    Welcome,
    Worker,
    WorkerFrame,
)
from gridx.services.coordinator.fleet import Fleet
from gridx.services.coordinator.jobs.lifecycle import Lifecycle
from gridx.services.coordinator.member import Link
from gridx.services.coordinator.store import Store
from gridx.services.coordinator.store.records import UserRecord, WorkerRecord


class WorkerSide:
    """What a worker's connection and a worker's owner may do."""

    def __init__(self, store: Store, fleet: Fleet, lifecycle: Lifecycle, settings: Settings) -> None:
        self._store = store
        self._fleet = fleet
        self._lifecycle = lifecycle
        self._settings = settings
        self._lease_s = settings.coordinator.lease_s

    # -- what owners ask of their machines ------------------------------------------------------------------

    async def pause_worker(self, user: UserRecord, worker_id: int, *, give_back: bool = False) -> Worker:
        """Let the worker take nothing new until it is resumed; it stays so over restarts.

        Args:
            give_back: what runs there is given back at once, and runs elsewhere.

        Raises:
            Conflict: something is to be given back, and the worker is not connected.
        """
        record = self._may_steer(user, worker_id)
        if give_back and self._fleet.link(worker_id) is None:
            raise Conflict(
                f"Worker {worker_id} is not connected, so it cannot be told to give its jobs back.",
                "On that machine: gridx worker pause --give-back",
            )
        return await self._set_paused(
            record, Pause(paused=True, give_back=give_back, by_owner=record.user_id == user.id)
        )

    async def resume_worker(self, user: UserRecord, worker_id: int) -> Worker:
        """Let the worker take jobs again; its owner's word also ends a pause that was made at the machine."""
        record = self._may_steer(user, worker_id)
        return await self._set_paused(record, Pause(paused=False, by_owner=record.user_id == user.id))

    async def drain_worker(self, user: UserRecord, worker_id: int) -> Worker:
        """Let the worker finish what it runs and leave.

        Raises:
            Conflict: it is not connected.
        """
        self._may_steer(user, worker_id)
        if not self._fleet.send(worker_id, Drain()):
            raise Conflict(f"Worker {worker_id} is not connected.", "There is nothing to drain.")
        self._fleet.drained(worker_id)
        return self._worker(worker_id)

    async def heartbeat(self, user: UserRecord, worker_id: int, attempts: list[int]) -> Worker:
        """A sign of life over HTTP: renews the leases of these attempts where they are this worker's."""
        record = self._fleet.record(worker_id)
        if record is None:
            raise _no_worker(worker_id)
        if record.user_id != user.id:
            raise Forbidden(f"Worker {worker_id} is not yours.", "Only its owner speaks for it.")
        self._fleet.renew(worker_id, attempts)
        return self._worker(worker_id)

    async def _set_paused(self, worker: WorkerRecord, frame: Pause) -> Worker:
        record = await self._store.set_worker_paused(worker.id, frame.paused)
        if record is None:
            raise _no_worker(worker.id)
        self._fleet.paused(record)
        self._fleet.send(worker.id, frame)
        return self._worker(worker.id)

    async def _resumed_there(self, worker_id: int) -> None:
        """Its owner has resumed it at the machine."""
        record = await self._store.set_worker_paused(worker_id, False)
        if record is not None:
            self._fleet.paused(record)
            self._fleet.send(worker_id, Pause(paused=False))

    def _may_steer(self, user: UserRecord, worker_id: int) -> WorkerRecord:
        record = self._fleet.record(worker_id)
        if record is None:
            raise _no_worker(worker_id)
        if record.user_id != user.id and user.role != "admin":
            raise Forbidden(
                f"Worker {worker_id} is {record.owner}'s.", "Only its owner or an admin may do that."
            )
        return record

    def _worker(self, worker_id: int) -> Worker:
        worker = self._fleet.worker(worker_id)
        if worker is None:
            raise _no_worker(worker_id)
        return worker

    # -- what workers say -----------------------------------------------------------------------------------

    def attach(self, record: WorkerRecord, hello: Hello, link: Link) -> None:
        """A worker has said hello: welcome it, take up the attempts that it names, give up the others.

        What it does not name died with its process, or never reached it: no lease needs to run out for that.
        """
        named, released = {*hello.running, *hello.spooled}, set(hello.released)
        mine = {live.id: live for live in self._fleet.live_of_worker(record.id)}
        resume = [
            Resume(
                attempt_id=attempt_id,
                current=attempt_id in mine,
                offsets=StreamOffsets(**mine[attempt_id].stored)
                if attempt_id in mine
                else StreamOffsets(stdout=0, stderr=0),
            )
            for attempt_id in sorted(named)
        ]
        link.send(
            Welcome(
                worker_id=record.id,
                owner=record.owner,
                heartbeat_s=self._settings.coordinator.heartbeat_s,
                lease_s=self._lease_s,
                resume=resume,
            )
        )
        if record.paused:
            link.send(Pause(paused=True))
        if over := sorted(released - mine.keys()):
            link.send(Ack(attempt_ids=over))
        self._fleet.connect(record, hello.offer, link, hello.state, hello.state_reason)
        self._fleet.renew(record.id, named & mine.keys())
        for live in mine.values():
            if live.id in released:
                # It was given back while nobody could be told.
                self._lifecycle.take(
                    record.id, Released(attempt_id=live.id, reason="given back by its owner")
                )
                continue
            if live.id not in named:
                why = "its worker came back without it" if live.accepted else "its worker never received it"
                self._lifecycle.spawn(self._lifecycle.lose(live, why, fault=live.accepted))
                continue
            live.accepted = True
            if live.asked is not None:
                link.send(Cancel(attempt_ids=[live.id], reason=live.asked.value))

    async def room(self, worker_id: int) -> None:
        """Wait while too much of what a worker sent is still to be written."""
        await self._lifecycle.room(worker_id)

    def detach(self, worker_id: int, link: Link) -> None:
        """The worker's connection has ended. Its leases run on: it may come back."""
        self._fleet.disconnect(worker_id, link)

    def received(self, worker_id: int, link: Link, frames: Sequence[WorkerFrame]) -> None:
        """Take what a worker sent, in order. Signs of life are answered at once; the rest is worked off.

        Of what it says about itself only the last word counts, so that a message costs no more than one.
        """
        sample: Sample | None = None
        offering: Offering | None = None
        for frame in frames:
            if isinstance(frame, Sample):
                # One without readings leaves those of the one before.
                known = sample.sample if sample else None
                sample = frame if frame.sample is not None else replace(frame, sample=known)
                strange = self._fleet.renew(worker_id, frame.attempts)
                link.send(Renewed(seq=frame.seq))
                if strange:
                    link.send(Cancel(attempt_ids=strange, reason="not yours any more"))
            elif isinstance(frame, Offering):
                offering = frame
            elif isinstance(frame, Resumed):
                if self._fleet.is_steered(worker_id):
                    self._lifecycle.spawn(self._resumed_there(worker_id))
            elif not isinstance(frame, Hello):
                self._lifecycle.take(worker_id, frame)
        if offering is not None:
            self._fleet.offering(worker_id, offering.offer)
        if sample is not None:
            self._fleet.sampled(worker_id, sample)


def _no_worker(worker_id: int) -> NotFound:
    return NotFound(f"There is no worker {worker_id}.", "gridx workers lists them.")
