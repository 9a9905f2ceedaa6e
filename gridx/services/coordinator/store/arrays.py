"""Arrays inside a transaction: their counts and what they hold, read once, moved in memory, written once.

What lies in escrow for an array is one amount for all its elements. It is never more than what those that
have not ended may still cost; what is over goes back to the payer at once. It is never less than what those
that have a machine may still need: an element starts only when that holds with it, too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace

from gridx.messages import JobState, Microcredits
from gridx.services.coordinator.states import LIVE_JOBS
from gridx.services.coordinator.store.records import ArrayRecord, JobRecord, Stop
from gridx.services.coordinator.store.rows import (
    SELECT_ARRAY,
    SELECT_JOB,
    array_record,
    job_record,
    micros,
    moment,
)

_UPDATE = (
    "UPDATE arrays SET held = ?, charge = ?, open_charge = ?, running_charge = ?, queued = ?, running = ?,"
    " succeeded = ?, failed = ?, cancelled = ?, state = ?, reason = ?, stop = ?, changes = ?, started_at = ?,"
    " ended_at = ? WHERE id = ? AND changes = ? AND ended_at IS NULL"
)
_CANCEL_WAITING = (
    "UPDATE jobs SET state = 'cancelled', reason = ?, ended_at = ? WHERE array_id = ? AND state = 'queued'"
)


def state_of(array: ArrayRecord) -> JobState:
    """Where an array is, by the counts of its elements and whether it was stopped."""
    if array.queued + array.running:
        if array.stop == "cancel":
            return JobState.CANCELLING
        return JobState.QUEUED if array.queued == array.count else JobState.RUNNING
    if array.succeeded == array.count:
        return JobState.SUCCEEDED
    if array.stop in ("cancel", "budget", "parent") or (not array.failed and array.stop != "fails"):
        return JobState.CANCELLED
    return JobState.FAILED


def find_array(db: sqlite3.Connection, array_id: int) -> ArrayRecord | None:
    """An array by its number; None when there is none of this number."""
    row = db.execute(f"{SELECT_ARRAY} arrays.id = ?", (array_id,)).fetchone()
    if row is None:
        return None
    first = db.execute(f"{SELECT_JOB} jobs.id = ?", (array_id + 1,)).fetchone()
    return array_record(row, job_record(first))


class Arrays:
    """The arrays that one transaction touches."""

    def __init__(self, db: sqlite3.Connection, now: int) -> None:
        self._db = db
        self._now = now
        self._found: dict[int, ArrayRecord] = {}
        self._read: dict[int, int] = {}
        self._touched: dict[int, None] = {}

    def get(self, array_id: int) -> ArrayRecord:
        """An array as this transaction leaves it."""
        if array_id not in self._found:
            found = find_array(self._db, array_id)
            assert found is not None
            self._found[array_id] = found
            self._read[array_id] = found.changes
        return self._found[array_id]

    def find(self, array_id: int) -> ArrayRecord | None:
        """As ``get``, for a number that may be another's."""
        if array_id in self._found:
            return self._found[array_id]
        known = self._db.execute("SELECT 1 FROM arrays WHERE id = ?", (array_id,)).fetchone()
        return None if known is None else self.get(array_id)

    def begin(self, job: JobRecord) -> None:
        """A waiting element gets a machine."""
        array = self._of(job)
        self._put(
            replace(
                array,
                queued=array.queued - 1,
                running=array.running + 1,
                running_charge=array.running_charge + job.charge,
                started_at=array.started_at or moment(self._now),
            )
        )

    def wait_again(self, job: JobRecord, charge: Microcredits = 0) -> None:
        """An element's attempt ended and the element waits again; ``charge`` was paid for the attempt."""
        array = self._of(job)
        self._put(
            replace(
                array,
                queued=array.queued + 1,
                running=array.running - 1,
                held=array.held - charge,
                charge=array.charge + charge,
                open_charge=array.open_charge + charge,
                running_charge=array.running_charge - job.charge,
            )
        )

    def end(self, job: JobRecord, state: JobState, charge: Microcredits = 0) -> Microcredits:
        """An element ended, its last attempt paid with ``charge``; returns what goes back to the payer."""
        array = self._of(job)
        live = job.state in LIVE_JOBS
        array = replace(
            array,
            queued=array.queued - (not live),
            running=array.running - live,
            succeeded=array.succeeded + (state is JobState.SUCCEEDED),
            cancelled=array.cancelled + (state is JobState.CANCELLED),
            failed=array.failed + (state not in (JobState.SUCCEEDED, JobState.CANCELLED)),
            held=array.held - charge,
            charge=array.charge + charge,
            open_charge=array.open_charge - job.charge,
            running_charge=array.running_charge - (job.charge if live else 0),
        )
        return self._give_back(array)

    def stop(self, array_id: int, why: Stop, reason: str) -> tuple[int, Microcredits]:
        """Let nothing of it start any more, and cancel what waits: how many, and what goes back for them."""
        array = self.get(array_id)
        cancelled = self._db.execute(_CANCEL_WAITING, (reason, self._now, array_id)).rowcount
        if cancelled != array.queued:
            raise RuntimeError(f"array {array_id}: {cancelled} elements wait instead of {array.queued}")
        return cancelled, self._give_back(
            replace(
                array,
                stop=why,
                reason=reason,
                queued=0,
                cancelled=array.cancelled + cancelled,
                open_charge=array.running_charge,
            )
        )

    def most_spent_on_waiting(self, array_id: int) -> Microcredits:
        """The largest charge that fell on an element that waits: it needs the least to start."""
        found = self._db.execute(
            "SELECT coalesce(max(charge), 0) FROM jobs WHERE array_id = ? AND state = 'queued'", (array_id,)
        ).fetchone()
        return int(found[0])

    def touched(self) -> Iterable[ArrayRecord]:
        """Those that changed since this was asked last."""
        touched, self._touched = self._touched, {}
        return [self._found[array_id] for array_id in touched]

    def write(self) -> dict[int, ArrayRecord]:
        """Write what changed; returns the arrays as they are now."""
        written: dict[int, ArrayRecord] = {}
        for array_id, array in self._found.items():
            before = self._read[array_id]
            if array.changes == before:
                continue
            array = written[array_id] = replace(array, changes=before + 1)
            rows = self._db.execute(_UPDATE, (*_columns(array), array_id, before)).rowcount
            if rows != 1:
                raise RuntimeError(f"array {array_id}: {rows} rows instead of one")
        return written

    def _of(self, job: JobRecord) -> ArrayRecord:
        assert job.array_id is not None
        return self.get(job.array_id)

    def _give_back(self, array: ArrayRecord) -> Microcredits:
        surplus = max(0, array.held - array.cover)
        self._put(replace(array, held=array.held - surplus))
        return surplus

    def _put(self, array: ArrayRecord) -> None:
        state = state_of(array)
        self._found[array.id] = replace(
            array,
            state=state,
            changes=self._read[array.id] + 1,
            ended_at=moment(self._now) if state.ended else None,
        )
        self._touched[array.id] = None


_COUNTED: Final = (
    "held",
    "charge",
    "open_charge",
    "running_charge",
    "queued",
    "running",
    "succeeded",
    "failed",
    "cancelled",
)


def _columns(array: ArrayRecord) -> tuple[object, ...]:
    return (
        *(getattr(array, name) for name in _COUNTED),
        array.state.value,
        array.reason,
        array.stop,
        array.changes,
        None if array.started_at is None else micros(array.started_at),
        None if array.ended_at is None else micros(array.ended_at),
    )
