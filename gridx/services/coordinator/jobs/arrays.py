"""Waiting elements of arrays, as many in the scheduler's queue as it may place, the others as numbers alone.

Ten thousand elements that wait are two columns of integers. A round never places more than the window holds,
so that for the scheduler it is as if all were there.
"""

from __future__ import annotations

from array import array as column
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec.structs import replace

from gridx.services.coordinator.scheduler.placement import PLACEMENTS_A_ROUND
from gridx.services.coordinator.store.records import ArrayRecord, JobRecord

WINDOW: Final = 2 * PLACEMENTS_A_ROUND
"""Elements of one array in the scheduler's queue that were never tried."""


class WaitingArray:
    """What waits of one array.

    Attributes:
        record: the array as it is.
        window: elements that are in the queue and were never tried: their ids, with their indices.
        tried: elements that were tried before, or put back, and wait like jobs of their own.
        parked: those of them that the budget does not cover just now.
    """

    def __init__(self, record: ArrayRecord, ids: Sequence[int], indices: Sequence[int]) -> None:
        self.record = record
        self._ids = column("q", ids)
        self._indices = column("q", indices)
        self._next = 0
        self.window: dict[int, int] = {}
        self.tried: set[int] = set()
        self.parked: dict[int, JobRecord] = {}

    @property
    def hidden(self) -> int:
        """How many wait outside of the queue."""
        return len(self._ids) - self._next

    @property
    def first_hidden(self) -> int:
        """The id of the first of them."""
        return self._ids[self._next]

    def enter(self) -> list[JobRecord]:
        """Let elements into the window, as many as fit and as what is held covers."""
        room = min(WINDOW - len(self.window), self.hidden)
        unit = self.record.unit
        if unit and self.record.held < self.record.cover:
            slack = self.record.held - self.record.bound - len(self.window) * unit
            room = min(room, slack // unit)
        entered = range(self._next, self._next + max(0, room))
        self._next = entered.stop
        self.window.update((self._ids[at], self._indices[at]) for at in entered)
        return [self.element(self._ids[at], self._indices[at]) for at in entered]

    def affordable(self) -> list[JobRecord]:
        """Let go of what was parked and is covered now."""
        found = [job for job in self.parked.values() if self.record.affords(job.charge)]
        # One after the other, since each that starts takes its part; there is another look after every end.
        for job in found[:1]:
            del self.parked[job.id]
            self.tried.add(job.id)
        return found[:1]

    def element(self, job_id: int, index: int) -> JobRecord:
        """An element that was never tried."""
        return replace(self.record.model, id=job_id, array_index=index)

    def in_queue(self) -> Iterable[int]:
        """Ids of all that may be in the scheduler's queue or held back."""
        return [*self.window, *self.tried]
