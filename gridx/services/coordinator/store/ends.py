"""How attempts and jobs end: paid, given back, cancelled. An end happens once; what is late changes nothing.

An end is one transaction: the guarded updates of the attempt and the job, the postings that pay for it, and
what follows from it. Many ends are written by few statements.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from gridx.messages import AttemptState, JobState, Microcredits
from gridx.services.coordinator import ledger
from gridx.services.coordinator.states import (
    LIVE_JOBS,
    PAID,
    UNPAID,
    after_failure,
    after_fault,
    attempt_sources,
    job_sources,
    retry_delay_s,
)
from gridx.services.coordinator.store import files, postings
from gridx.services.coordinator.store.aftermath import Consequences, release_entry
from gridx.services.coordinator.store.attempts import Live, expect, find_live, one_of
from gridx.services.coordinator.store.records import Aftermath, ArrayRecord, Begin, End, Finished, JobRecord
from gridx.services.coordinator.store.rows import SELECT_JOB, job_record, moment
from gridx.services.coordinator.store.writer import Noted

# What an attempt's start would have written is written with its end where both came at once. A start that was
# told late, by a worker that had been cut off, is put back by the time that was paid.
_END_ATTEMPT = {
    target: "UPDATE attempts SET state = ?, ended_at = ?, reason = ?, fault = ?, charged_ms = ?, charge = ?,"
    " fee = ?, started_at = min(coalesce(started_at, ?), ?), runtime = coalesce(?, runtime)"
    f" WHERE id = ? AND state IN {one_of(attempt_sources(target))}"
    for target in PAID | UNPAID
}
_END_JOB = {
    target: "UPDATE jobs SET state = ?, ended_at = ?, reason = ?, faults = faults + ?, charge = charge + ?,"
    " exit_code = ?, signal = ?, peak_memory_bytes = ?, started_at = min(coalesce(started_at, ?), ?)"
    f" WHERE id = ? AND attempt_id = ? AND state IN {one_of(job_sources(target) & LIVE_JOBS)}"
    for target in JobState
    if target.ended
}
_QUEUE_AGAIN = (
    "UPDATE jobs SET state = 'queued', reason = '', started_at = NULL, faults = faults + ?"
    f" WHERE id = ? AND attempt_id = ? AND state IN {one_of(job_sources(JobState.QUEUED))}"
)
_TRY_AGAIN = (
    "UPDATE jobs SET state = 'queued', reason = '', started_at = NULL, failures = failures + 1,"
    " charge = charge + ?, not_before = ?"
    " WHERE id = ? AND attempt_id = ? AND failures < retries"
    f" AND state IN {one_of(job_sources(JobState.QUEUED))}"
)
_EARN = "UPDATE workers SET earned = earned + ? WHERE id = ?"
_CANCEL_LIVE = (
    "UPDATE jobs SET state = 'cancelling', reason = ?"
    f" WHERE id = ? AND state IN {one_of(job_sources(JobState.CANCELLING))}"
)
_CANCEL_LIVE_ELEMENTS = (
    "UPDATE jobs SET state = 'cancelling', reason = ?"
    f" WHERE array_id = ? AND state IN {one_of(job_sources(JobState.CANCELLING))} RETURNING id"
)


class Ending(NamedTuple):
    """An attempt's end; ``begin`` when it was not told yet that it runs."""

    attempt_id: int
    end: End
    begin: Begin | None


Ended = Noted[Finished | None, Aftermath]


def finish(db: sqlite3.Connection, now: int, endings: Sequence[Ending]) -> list[Ended]:
    """End attempts and pay the workers' owners; end their jobs and give back the rest. None: fenced.

    A job whose program failed and that has retries left is queued again in place of its end.

    Raises:
        ValueError: an end that is not paid, or a charge over what is held.
    """
    ends = _Ends(db, now)
    finished = [_finish(db, ends, ending) for ending in endings]
    # What follows from any of them is told once.
    notes = [ends.write(), *[None] * (len(finished) - 1)]
    found = [one and replace(one, job=ends.after_all(one.job)) for one in finished]
    return [Noted(one, note) for one, note in zip(found, notes, strict=True)]


def _finish(db: sqlite3.Connection, ends: _Ends, ending: Ending) -> Finished | None:
    end = ending.end
    if end.attempt_state not in PAID or not end.job_state.ended:
        raise ValueError(f"{end.attempt_state} does not end a job as {end.job_state}")
    if ending.attempt_id in ends.attempt_ids:
        return None
    live = find_live(db, ending.attempt_id)
    if live is None:
        return None
    if not 0 <= end.fee <= end.charge <= live.job.held:
        raise ValueError(f"charge {end.charge} with fee {end.fee} does not fit the {live.job.held} held")
    begin = ending.begin if live.attempt_state is AttemptState.ASSIGNED else None
    retries = 0 if ends.stopped(live.job) else live.job.retries
    if after_failure(live.job.state, end.attempt_state, live.job.failures, retries) is JobState.QUEUED:
        # The job does not keep how this one ended, so the attempt says it.
        end = replace(end, reason=end.reason or _how(end))
        ends.end_attempt(ending.attempt_id, end, begin=begin)
        job = ends.try_again(ending.attempt_id, live, end)
    else:
        ends.end_attempt(ending.attempt_id, end, begin=begin)
        job = ends.end_job(ending.attempt_id, live, end, begin=begin)
    given = files.take_outputs(db, ends.now, ending.attempt_id, end.files, end.left)
    job = replace(job, files=given.files, file_bytes=given.size)
    return Finished(job, job.user_id, live.payee_id)


def _how(end: End) -> str:
    if end.signal is not None:
        return f"signal {end.signal}"
    return "" if end.exit_code is None else f"exit code {end.exit_code}"


def requeue(
    db: sqlite3.Connection, now: int, attempt_id: int, state: AttemptState, reason: str, fault: bool
) -> Noted[JobRecord | None, Aftermath]:
    """End an attempt unpaid; its job waits again, or has had too many, or was being cancelled. None: fenced.

    Raises:
        ValueError: a state that is paid.
    """
    if state not in UNPAID:
        raise ValueError(f"{state} is no unpaid end")
    live = find_live(db, attempt_id)
    if live is None:
        return Noted(None, None)
    ends = _Ends(db, now)
    job, stopped = live.job, ends.stopped(live.job)
    target = after_fault(job.state, job.faults + fault, job.max_attempts)
    if target is JobState.QUEUED and stopped:
        target = JobState.CANCELLED
    ends.end_attempt(attempt_id, End(target, state, reason), fault=fault)
    files.drop_sent(db, attempt_id)
    if target is JobState.QUEUED:
        ended = ends.queue_again(attempt_id, live, fault=fault)
    else:
        if target is JobState.LOST:
            times = "once" if job.max_attempts == 1 else f"{job.max_attempts} times"
            reason = f"Tried {times}, and each time the machine failed. The last: {reason or state.value}"
        else:
            reason = job.reason or stopped
        ended = ends.end_job(attempt_id, live, End(target, state, reason), fault=fault)
    aftermath = ends.write()
    return Noted(ends.after_all(ended), aftermath)


def cancel(db: sqlite3.Connection, now: int, job_id: int, reason: str) -> Noted[JobRecord | None, Aftermath]:
    """Cancel: at once while it waits, else when its worker has killed it. Repeats change nothing."""
    book = postings.Book()
    follows = Consequences(db, now, book)
    aftermath = None
    if follows.cancel_queued(job_id, reason):
        aftermath = follows.work_off()
        book.write(db, now)
    else:
        db.execute(_CANCEL_LIVE, (reason, job_id))
    row = db.execute(f"{SELECT_JOB} jobs.id = ?", (job_id,)).fetchone()
    return Noted(None if row is None else job_record(row), aftermath)


class CancelledArray(NamedTuple):
    """An array after its cancel, and the elements whose workers have to kill them."""

    array: ArrayRecord
    live: list[int]


def cancel_array(
    db: sqlite3.Connection, now: int, array_id: int, reason: str
) -> Noted[CancelledArray | None, Aftermath]:
    """Cancel what waits of an array at once, what runs when its workers have killed it.

    None: no such array. Repeats change nothing; one that is stopped, but has something running, is cancelled.
    """
    book = postings.Book()
    follows = Consequences(db, now, book)
    array = follows.arrays.find(array_id)
    if array is None:
        return Noted(None, None)
    if array.state.ended or array.stop == "cancel":
        return Noted(CancelledArray(array, []), None)
    follows.stop(array, "cancel", reason)
    live = [row[0] for row in db.execute(_CANCEL_LIVE_ELEMENTS, (reason, array_id)).fetchall()]
    aftermath = follows.work_off()
    book.write(db, now)
    assert aftermath is not None
    return Noted(CancelledArray(aftermath.arrays[array_id], live), aftermath)


class _Ends:
    """Ends that were found to be in order, to be written at once."""

    def __init__(self, db: sqlite3.Connection, now: int) -> None:
        self._db = db
        self.now = now
        self._updates: dict[str, list[tuple[object, ...]]] = defaultdict(list)
        self._book = postings.Book()
        self._follows = Consequences(db, now, self._book)
        self.attempt_ids: set[int] = set()

    def stopped(self, job: JobRecord) -> str:
        """Why the array of which the job is an element lets nothing start; empty when it does, or is none."""
        if job.array_id is None:
            return ""
        array = self._follows.arrays.get(job.array_id)
        return array.reason if array.stop else ""

    def after_all(self, job: JobRecord) -> JobRecord:
        """A job as it is once all is written: what follows may have cancelled an element that was to wait."""
        if job.state is not JobState.QUEUED or not self.stopped(job):
            return job
        return job_record(self._db.execute(f"{SELECT_JOB} jobs.id = ?", (job.id,)).fetchone())

    def end_attempt(
        self, attempt_id: int, end: End, *, fault: bool = False, begin: Begin | None = None
    ) -> None:
        """The attempt's last step."""
        self.attempt_ids.add(attempt_id)
        self._updates[_END_ATTEMPT[end.attempt_state]].append(
            (
                end.attempt_state.value,
                self.now,
                end.reason,
                fault,
                end.charged_ms,
                end.charge,
                end.fee,
                self.now if begin else None,
                self._begun_by(end),
                begin.runtime if begin else None,
                attempt_id,
            )
        )

    def end_job(
        self, attempt_id: int, live: Live, end: End, *, fault: bool = False, begin: Begin | None = None
    ) -> JobRecord:
        """The job's last step and its money, in one: the charge to the worker's owner, the rest back."""
        job = live.job
        reason = end.reason or (job.reason if job.state is JobState.CANCELLING else "")
        started = self.now if begin else None
        known = job.started_at if started is None else moment(started)
        self._updates[_END_JOB[end.job_state]].append(
            (
                end.job_state.value,
                self.now,
                reason,
                fault,
                end.charge,
                end.exit_code,
                end.signal,
                end.peak_memory_bytes,
                started,
                self._begun_by(end),
                job.id,
                attempt_id,
            )
        )
        self._settle(attempt_id, live, end)
        self._release(live, end)
        ended = replace(
            job,
            state=end.job_state,
            reason=reason,
            started_at=None if known is None else min(known, moment(self._begun_by(end))),
            ended_at=moment(self.now),
            faults=job.faults + fault,
            charge=job.charge + end.charge,
            exit_code=end.exit_code,
            signal=end.signal,
            peak_memory_bytes=end.peak_memory_bytes,
            current_attempt_id=None,
        )
        self._follows.ended(ended)
        return ended

    def try_again(self, attempt_id: int, live: Live, end: End) -> JobRecord:
        """The program failed and has a retry left: the attempt is paid, the job waits for the next."""
        job = live.job
        failures = job.failures + 1
        not_before = self.now + retry_delay_s(job.retry_delay_s, failures) * 1_000_000
        self._updates[_TRY_AGAIN].append((end.charge, not_before, job.id, attempt_id))
        self._settle(attempt_id, live, end)
        self._book.count(live.payer, held=-end.charge, waiting=1)
        if job.array_id is not None:
            self._follows.arrays.wait_again(job, end.charge)
        return replace(
            job,
            state=JobState.QUEUED,
            reason="",
            started_at=None,
            failures=failures,
            charge=job.charge + end.charge,
            not_before=moment(not_before),
            current_attempt_id=None,
        )

    def queue_again(self, attempt_id: int, live: Live, *, fault: bool) -> JobRecord:
        """The machine failed, or gave it back: nothing is paid, the job waits for another."""
        job = live.job
        self._updates[_QUEUE_AGAIN].append((fault, job.id, attempt_id))
        self._book.count(live.payer, waiting=1)
        if job.array_id is not None:
            self._follows.arrays.wait_again(job)
        return replace(
            job,
            state=JobState.QUEUED,
            reason="",
            started_at=None,
            faults=job.faults + fault,
            current_attempt_id=None,
        )

    def _begun_by(self, end: End) -> int:
        """When what is paid had begun at the latest."""
        return self.now - end.charged_ms * 1000

    def _settle(self, attempt_id: int, live: Live, end: End) -> None:
        """Out of escrow, to the worker's owner."""
        job = live.job
        paid = ledger.settle_postings(postings.ESCROW, live.payee, postings.TREASURY, end.charge, end.fee)
        self._book.enter(postings.Entry("settle", paid, job.id, attempt_id, array_id=job.array_id))
        self._book.count(live.payer, spent=end.charge)
        self._book.count(live.payee, earned=end.charge - end.fee)
        if end.charge:
            self._updates[_EARN].append((end.charge - end.fee, job.worker_id))

    def _release(self, live: Live, end: End) -> None:
        """Back to the job's owner: what was held for it, or what its array need not hold any more."""
        job = live.job
        back: Microcredits
        if job.array_id is None:
            back = job.held - end.charge
        else:
            back = self._follows.arrays.end(job, end.job_state, end.charge)
        self._book.enter(release_entry(live.payer, back, job.id, job.array_id))
        self._book.count(live.payer, held=-end.charge - back)

    def write(self) -> Aftermath | None:
        """Write all of them, and what follows from them."""
        for statement, rows in self._updates.items():
            expect(len(rows), self._db.executemany(statement, rows).rowcount, "end")
        aftermath = self._follows.work_off()
        self._book.write(self._db, self.now)
        return aftermath
