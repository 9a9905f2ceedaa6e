"""An attempt that lives on a worker: what the coordinator knows of it beside what the store has."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from gridx.messages import Accepted, Finished, Output, Refused, Released, Sending, Started, Stream
from gridx.services.coordinator.store.records import AttemptRecord, JobRecord

AttemptFrame = Accepted | Refused | Started | Output | Sending | Finished | Released


class Ask(Enum):
    """Why the worker was asked to kill the attempt."""

    CANCEL = "cancelled"
    OVERRUN = "ran past its time limit"


@dataclass(slots=True, eq=False)
class Live:
    """One live attempt. All times are the coordinator's monotonic clock.

    Attributes:
        lease_until: when the attempt stops being the worker's without a sign of life.
        weight: what it costs in an hour, in microcredits.
        accepted: the worker said that it has it.
        sending_since: when the worker said that the program has ended and its files are on their way.
        asked: what the worker was asked for; it has until ``give_up_at`` to do it.
        stored: bytes of each stream that are in the store.
        inbox: frames of its worker that wait for the one before, with their arrival.
        ending: its end is being written.
        gaps: how often its end came while output was missing.
    """

    attempt: AttemptRecord
    job: JobRecord
    lease_until: float
    assigned_at: float
    weight: float
    accepted: bool = False
    started: bool = False
    running_since: float = 0.0
    sending_since: float | None = None
    asked: Ask | None = None
    give_up_at: float = float("inf")
    stored: dict[Stream, int] = field(default_factory=lambda: {"stdout": 0, "stderr": 0})
    inbox: deque[tuple[AttemptFrame, float]] = field(default_factory=deque)
    busy: bool = False
    ending: bool = False
    gaps: int = 0

    @property
    def id(self) -> int:
        """The attempt's id: the fencing token."""
        return self.attempt.id

    @property
    def worker_id(self) -> int:
        """On which worker it lives."""
        return self.attempt.worker_id
