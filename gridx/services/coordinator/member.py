"""One worker of the fleet: its record, its connection, what it offers and what lives on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from gridx.errors import GridError
from gridx.messages import CoordinatorFrame, MachineSample, Offer, Worker
from gridx.services.coordinator.backoff import Backoff
from gridx.services.coordinator.live import Live
from gridx.services.coordinator.scheduler import Machine
from gridx.services.coordinator.store.records import WorkerRecord

State = Literal["online", "offline", "paused", "closed", "draining", "unready"]


class Link(Protocol):
    """A worker's connection. Nothing here blocks or raises; a reader that does not keep up is dropped."""

    def send(self, *frames: CoordinatorFrame) -> None:
        """Let frames go out, in order."""

    def reject(self, error: GridError) -> None:
        """Say why, as the last word, and close."""

    def hang_up(self, why: str) -> None:
        """Close; the worker comes back by itself."""


class Watcher(Protocol):
    """Who is told of changes; see ``events.Hub``."""

    def worker_changed(self, worker: Worker) -> None:
        """A worker came, went, or sent a sample."""


@dataclass(slots=True, eq=False)
class Member:
    """One worker of the fleet."""

    record: WorkerRecord
    offer: Offer | None = None
    link: Link | None = None
    told: State = "online"
    told_reason: str = ""
    draining: bool = False
    sample: MachineSample | None = None
    seen_at: float | None = None
    earned: int = 0
    backoff: Backoff = field(default_factory=Backoff)
    live: dict[int, Live] = field(default_factory=dict)
    machine: Machine | None = None
    """What the scheduler sees, kept until something changes."""

    @property
    def private(self) -> bool:
        """Whether it runs its owner's jobs only."""
        return self.offer is not None and (self.offer.own_jobs_only or not self.offer.isolated)

    @property
    def only_users(self) -> frozenset[str]:
        """Folded names of the users whose jobs it takes, its owner among them; none: everybody's."""
        if self.offer is None or not self.offer.only_users:
            return frozenset()
        return frozenset(name.casefold() for name in (*self.offer.only_users, self.record.owner))
