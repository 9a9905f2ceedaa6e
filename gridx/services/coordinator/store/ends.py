"""How attempts and jobs end: paid, given back, cancelled. An end happens once; what is late changes nothing.

An end is one transaction: the guarded updates of the attempt and the job, and the postings that pay for it.
Many ends are written by few statements.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from gridx.messages import AttemptState, JobState
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
from gridx.services.coordinator.store import postings
from gridx.services.coordinator.store.attempts import Live, expect, find_live, one_of
from gridx.services.coordinator.store.records import Begin, End, Finished, JobRecord
from gridx.services.coordinator.store.rows import SELECT_JOB, job_record, moment

# What an attempt's start would have written is written with its end where both came at once.
_END_ATTEMPT = {
    target: "UPDATE attempts SET state = ?, ended_at = ?, reason = ?, fault = ?, charged_ms = ?, charge = ?,"
    " fee = ?, started_at = coalesce(started_at, ?), runtime = coalesce(?, runtime)"
    f" WHERE id = ? AND state IN {one_of(attempt_sources(target))}"
    for target in PAID | UNPAID
}
_END_JOB = {
    target: "UPDATE jobs SET state = ?, ended_at = ?, reason = ?, faults = faults + ?, charge = charge + ?,"
    " exit_code = ?, signal = ?, peak_memory_bytes = ?, started_at = coalesce(started_at, ?)"
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
_CANCEL_QUEUED = (
    "UPDATE jobs SET state = 'cancelled', reason = ?, ended_at = ? WHERE id = ? AND state = 'queued'"
)
_CANCEL_LIVE = (
    "UPDATE jobs SET state = 'cancelling', reason = ?"
    f" WHERE id = ? AND state IN {one_of(job_sources(JobState.CANCELLING))}"
)


class Ending(NamedTuple):
    """An attempt's end; ``begin`` when it was not told yet that it runs."""

    attempt_id: int
    end: End
    begin: Begin | None


def finish(db: sqlite3.Connection, now: int, endings: Sequence[Ending]) -> list[Finished | None]:
    """End attempts and pay the workers' owners; end their jobs and give back the rest. None: fenced.

    A job whose program failed and that has retries left is queued again in place of its end.

    Raises:
        ValueError: an end that is not paid, or a charge over what is held.
    """
    ends = _Ends(now)
    finished = [_finish(db, ends, ending) for ending in endings]
    ends.write(db)
    return finished


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
    target = after_failure(live.job.state, end.attempt_state, live.job.failures, live.job.retries)
    if target is JobState.QUEUED:
        # The job does not keep how this one ended, so the attempt says it.
        end = replace(end, reason=end.reason or _how(end))
        ends.end_attempt(ending.attempt_id, end, begin=begin)
        job = ends.try_again(ending.attempt_id, live, end)
    else:
        ends.end_attempt(ending.attempt_id, end, begin=begin)
        job = ends.end_job(ending.attempt_id, live, end, begin=begin)
    return Finished(job, job.user_id, live.payee_id)


def _how(end: End) -> str:
    if end.signal is not None:
        return f"signal {end.signal}"
    return "" if end.exit_code is None else f"exit code {end.exit_code}"


def requeue(
    db: sqlite3.Connection, now: int, attempt_id: int, state: AttemptState, reason: str, fault: bool
) -> JobRecord | None:
    """End an attempt unpaid; its job waits again, or has had too many, or was being cancelled. None: fenced.

    Raises:
        ValueError: a state that is paid.
    """
    if state not in UNPAID:
        raise ValueError(f"{state} is no unpaid end")
    live = find_live(db, attempt_id)
    if live is None:
        return None
    job = live.job
    target = after_fault(job.state, job.faults + fault, job.max_attempts)
    ends = _Ends(now)
    ends.end_attempt(attempt_id, End(target, state, reason), fault=fault)
    if target is JobState.QUEUED:
        ends.write(db)
        expect(1, db.execute(_QUEUE_AGAIN, (fault, job.id, attempt_id)).rowcount, "requeue")
        postings.post(db, now, [], {live.payer: postings.Counters(waiting=1)})
        return replace(
            job,
            state=target,
            reason="",
            started_at=None,
            faults=job.faults + fault,
            current_attempt_id=None,
        )
    if target is JobState.LOST:
        times = "once" if job.max_attempts == 1 else f"{job.max_attempts} times"
        reason = f"Tried {times}, and each time the machine failed. The last: {reason or state.value}"
    else:
        reason = job.reason
    ended = ends.end_job(attempt_id, live, End(target, state, reason), fault=fault)
    ends.write(db)
    return ended


def cancel(db: sqlite3.Connection, now: int, job_id: int, reason: str) -> JobRecord | None:
    """Cancel: at once while it waits, else when its worker has killed it. Repeats change nothing."""
    if db.execute(_CANCEL_QUEUED, (reason, now, job_id)).rowcount:
        held, payer = db.execute(
            "SELECT jobs.hold - jobs.charge, accounts.id FROM jobs"
            " JOIN accounts ON accounts.user_id = jobs.user_id WHERE jobs.id = ?",
            (job_id,),
        ).fetchone()
        postings.post(db, now, [_release(payer, held, job_id)], {payer: postings.Counters(-held, waiting=-1)})
    else:
        db.execute(_CANCEL_LIVE, (reason, job_id))
    row = db.execute(f"{SELECT_JOB} jobs.id = ?", (job_id,)).fetchone()
    return None if row is None else job_record(row)


class _Ends:
    """Ends that were found to be in order, to be written at once."""

    def __init__(self, now: int) -> None:
        self._now = now
        self._updates: dict[str, list[tuple[object, ...]]] = defaultdict(list)
        self._book = postings.Book()
        self.attempt_ids: set[int] = set()

    def end_attempt(
        self, attempt_id: int, end: End, *, fault: bool = False, begin: Begin | None = None
    ) -> None:
        """The attempt's last step."""
        self.attempt_ids.add(attempt_id)
        self._updates[_END_ATTEMPT[end.attempt_state]].append(
            (
                end.attempt_state.value,
                self._now,
                end.reason,
                fault,
                end.charged_ms,
                end.charge,
                end.fee,
                self._now if begin else None,
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
        started = self._now if begin else None
        self._updates[_END_JOB[end.job_state]].append(
            (
                end.job_state.value,
                self._now,
                reason,
                fault,
                end.charge,
                end.exit_code,
                end.signal,
                end.peak_memory_bytes,
                started,
                job.id,
                attempt_id,
            )
        )
        self._pay(attempt_id, live, end)
        return replace(
            job,
            state=end.job_state,
            reason=reason,
            started_at=job.started_at if started is None else moment(started),
            ended_at=moment(self._now),
            faults=job.faults + fault,
            charge=job.charge + end.charge,
            exit_code=end.exit_code,
            signal=end.signal,
            peak_memory_bytes=end.peak_memory_bytes,
            current_attempt_id=None,
        )

    def try_again(self, attempt_id: int, live: Live, end: End) -> JobRecord:
        """The program failed and has a retry left: the attempt is paid, the job waits for the next."""
        job = live.job
        failures = job.failures + 1
        not_before = self._now + retry_delay_s(job.retry_delay_s, failures) * 1_000_000
        self._updates[_TRY_AGAIN].append((end.charge, not_before, job.id, attempt_id))
        self._settle(attempt_id, live, end)
        self._book.count(live.payer, held=-end.charge, spent=end.charge, waiting=1)
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

    def _pay(self, attempt_id: int, live: Live, end: End) -> None:
        self._settle(attempt_id, live, end)
        self._book.enter(_release(live.payer, live.job.held - end.charge, live.job.id))
        self._book.count(live.payer, held=-live.job.held, spent=end.charge)

    def _settle(self, attempt_id: int, live: Live, end: End) -> None:
        """Out of escrow, to the worker's owner."""
        paid = ledger.settle_postings(postings.ESCROW, live.payee, postings.TREASURY, end.charge, end.fee)
        self._book.enter(postings.Entry("settle", paid, live.job.id, attempt_id))
        self._book.count(live.payee, earned=end.charge - end.fee)
        if end.charge:
            self._updates[_EARN].append((end.charge - end.fee, live.job.worker_id))

    def write(self, db: sqlite3.Connection) -> None:
        """Write all of them."""
        for statement, rows in self._updates.items():
            expect(len(rows), db.executemany(statement, rows).rowcount, "end")
        self._book.write(db, self._now)


def _release(payer: int, amount: int, job_id: int) -> postings.Entry:
    return postings.Entry("release", ledger.release_postings(postings.ESCROW, payer, amount), job_id)
