"""What follows from ends, in the same transaction: arrays that stop or end, jobs that waited for others.

An end may end others, which end others in turn; all of them are worked off one after the other, however long
the chain is.
"""

from __future__ import annotations

import sqlite3
from collections import deque

from msgspec.structs import replace

from gridx.credits import format_credits
from gridx.messages import JobState
from gridx.services.coordinator import ledger
from gridx.services.coordinator.store import postings
from gridx.services.coordinator.store.arrays import Arrays
from gridx.services.coordinator.store.records import Aftermath, ArrayRecord, JobRecord, Stop
from gridx.services.coordinator.store.rows import SELECT_JOB, job_record

_CANCEL_QUEUED = (
    "UPDATE jobs SET state = 'cancelled', reason = ?, ended_at = ? WHERE id = ? AND state = 'queued'"
)
_CHILDREN = "SELECT job_id, needs FROM dependencies WHERE parent_id = ? AND NOT met ORDER BY job_id"
_MET = "UPDATE dependencies SET met = 1 WHERE job_id = ? AND parent_id = ?"
_ENDED_PARENTS_IN = (
    "SELECT DISTINCT parent_id, state = 'succeeded' FROM dependencies JOIN jobs ON jobs.id = parent_id"
    " WHERE NOT met AND parent_id > ? AND parent_id <= ? AND ended_at IS NOT NULL"
)


def release_entry(
    payer: int, amount: int, job_id: int | None = None, array_id: int | None = None
) -> postings.Entry:
    """What goes back to the payer."""
    return postings.Entry(
        "release", ledger.release_postings(postings.ESCROW, payer, amount), job_id, array_id=array_id
    )


class Consequences:
    """Works off what follows; the updates of jobs that ended must have been written before.

    Args:
        book: what moves is entered here; the caller writes it.
    """

    def __init__(self, db: sqlite3.Connection, now: int, book: postings.Book) -> None:
        self._db = db
        self._now = now
        self._book = book
        self.arrays = Arrays(db, now)
        self._ended: deque[tuple[int, bool]] = deque()
        self._aftermath = Aftermath()

    def ended(self, job: JobRecord) -> None:
        """A job ended, with its attempt or without."""
        self._ended.append((job.id, job.state is JobState.SUCCEEDED))

    def uncovered(self, job_id: int) -> None:
        """An element was not let start."""
        self._aftermath.uncovered.append(job_id)

    def cancel_queued(self, job_id: int, reason: str) -> bool:
        """End a job that waits; False when it does not."""
        if not self._db.execute(_CANCEL_QUEUED, (reason, self._now, job_id)).rowcount:
            return False
        job = self._job(job_id)
        payer = postings.account_of(self._db, job.user_id)
        if job.array_id is None:
            held = job.held
            self._book.enter(release_entry(payer, held, job.id))
        else:
            # The record is of after the update; the counts want to know that it waited.
            held = self.arrays.end(_waiting(job), JobState.CANCELLED)
            self._book.enter(release_entry(payer, held, job.id, job.array_id))
        self._book.count(payer, held=-held, waiting=-1)
        self._ended.append((job_id, False))
        return True

    def stop(self, array: ArrayRecord, why: Stop, reason: str) -> None:
        """Cancel what waits of an array and let nothing of it start any more."""
        cancelled, back = self.arrays.stop(array.id, why, reason)
        payer = postings.account_of(self._db, array.user_id)
        self._book.enter(release_entry(payer, back, array_id=array.id))
        self._book.count(payer, held=-back, waiting=-cancelled)
        self._aftermath.payers.add(array.user_id)
        for parent_id, succeeded in self._db.execute(_ENDED_PARENTS_IN, (array.id, array.id + array.count)):
            self._ended.append((parent_id, bool(succeeded)))

    def work_off(self) -> Aftermath | None:
        """Do all that follows and write the arrays; None: nothing did."""
        while True:
            for array in self.arrays.touched():
                self._look_at(array)
            if not self._ended:
                break
            self._parent_ended(*self._ended.popleft())
        self._aftermath.arrays = self.arrays.write()
        found = self._aftermath
        return found if found.arrays or found.cancelled or found.met or found.uncovered else None

    def _look_at(self, array: ArrayRecord) -> None:
        """An array has changed: whether too many of it failed, its budget is used up, or it has ended."""
        if array.state.ended:
            self._ended.append((array.id, array.state is JobState.SUCCEEDED))
        elif array.stop:
            return
        elif array.max_fails is not None and array.failed > array.max_fails:
            self.stop(array, "fails", _too_many(array))
        elif self._is_used_up(array):
            self.stop(array, "budget", f"the budget of {format_credits(array.hold)} credits is used up")

    def _is_used_up(self, array: ArrayRecord) -> bool:
        """Nothing is under way that could give anything back, and what is left suffices for no element."""
        if array.running or array.held >= min(array.unit, array.cover):
            return False
        return not array.affords(self.arrays.most_spent_on_waiting(array.id))

    def _parent_ended(self, parent_id: int, succeeded: bool) -> None:
        for child_id, needs in self._db.execute(_CHILDREN, (parent_id,)).fetchall():
            if succeeded or needs == "end":
                self._db.execute(_MET, (child_id, parent_id))
                self._aftermath.met.append((child_id, parent_id))
                continue
            reason = f"job {parent_id}, which had to succeed first, {self._how(parent_id)}"
            array = self.arrays.find(child_id)
            if array is not None:
                if not array.stop and not array.state.ended:
                    self.stop(array, "parent", reason)
            elif self.cancel_queued(child_id, reason):
                job = self._job(child_id)
                self._aftermath.cancelled.append(job)
                self._aftermath.payers.add(job.user_id)

    def _how(self, parent_id: int) -> str:
        array = self.arrays.find(parent_id)
        state = self._job(parent_id).state if array is None else array.state
        return ENDS.get(state, state.value)

    def _job(self, job_id: int) -> JobRecord:
        return job_record(self._db.execute(f"{SELECT_JOB} jobs.id = ?", (job_id,)).fetchone())


ENDS = {
    JobState.FAILED: "failed",
    JobState.TIMED_OUT: "ran out of time",
    JobState.OUT_OF_MEMORY: "ran out of memory",
    JobState.CANCELLED: "was cancelled",
    JobState.LOST: "was lost",
}
"""How a job that did not succeed ended, in a sentence."""


def _waiting(job: JobRecord) -> JobRecord:
    return replace(job, state=JobState.QUEUED, ended_at=None)


def _too_many(array: ArrayRecord) -> str:
    if not array.max_fails:
        return "one of its elements failed"
    return f"more than {array.max_fails:,} of its elements failed"
