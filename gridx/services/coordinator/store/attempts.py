"""The life of a job in the database, each step guarded by state and attempt: what is late changes nothing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

from gridx.messages import AttemptState, JobState
from gridx.services.coordinator import ledger
from gridx.services.coordinator.states import (
    LIVE_ATTEMPTS,
    LIVE_JOBS,
    PAID,
    UNPAID,
    after_fault,
    attempt_sources,
    job_sources,
)
from gridx.services.coordinator.store import postings
from gridx.services.coordinator.store.records import (
    AttemptRecord,
    End,
    Finished,
    JobRecord,
    NewAttempt,
)
from gridx.services.coordinator.store.rows import SELECT_ATTEMPT, SELECT_JOB, attempt_record, job_record


def _in(states: Iterable[StrEnum]) -> str:
    """An SQL list of states; they are words of an enum, never text from outside."""
    return "(" + ", ".join(f"'{state.value}'" for state in sorted(states)) + ")"


# The live attempt and its job, by the attempt's id: no row, and the event is stale.
_LIVE = (
    "SELECT jobs.id, jobs.state, jobs.user_id, jobs.hold, jobs.faults, jobs.max_attempts, jobs.reason,"
    " payer.id, attempts.state, attempts.worker_id, workers.user_id, payee.id"
    " FROM attempts JOIN jobs ON jobs.attempt_id = attempts.id AND jobs.id = attempts.job_id"
    " JOIN workers ON workers.id = attempts.worker_id"
    " JOIN accounts AS payer ON payer.user_id = jobs.user_id"
    " JOIN accounts AS payee ON payee.user_id = workers.user_id"
    f" WHERE attempts.id = ? AND attempts.state IN {_in(LIVE_ATTEMPTS)} AND jobs.state IN {_in(LIVE_JOBS)}"
)
_ASSIGN_ATTEMPT = (
    "INSERT INTO attempts (job_id, number, worker_id, state, gpus, runtime, assigned_at)"
    " SELECT id, attempts + 1, ?, 'assigned', ?, ?, ? FROM jobs WHERE id = ? AND state = 'queued'"
)
_ASSIGN_JOB = (
    "UPDATE jobs SET state = 'assigned', reason = '', attempts = attempts + 1, attempt_id = ?, worker_id = ?"
    " WHERE id = ? AND state = 'queued'"
)
_START_ATTEMPT = (
    "UPDATE attempts SET state = 'running', started_at = ?, started_mono_ms = ?, boot_id = ?, runtime = ?"
    f" WHERE id = ? AND state IN {_in(attempt_sources(AttemptState.RUNNING))}"
)
# A job that is being cancelled stays so; that it started is still known, and charged.
_START_JOB = (
    "UPDATE jobs SET state = CASE state WHEN 'assigned' THEN 'running' ELSE state END, started_at = ?"
    " WHERE id = ? AND attempt_id = ? AND state IN ('assigned', 'cancelling')"
)
_END_ATTEMPT = {
    target: "UPDATE attempts SET state = ?, ended_at = ?, reason = ?, fault = ?, charged_ms = ?, charge = ?,"
    f" fee = ? WHERE id = ? AND state IN {_in(attempt_sources(target))}"
    for target in PAID | UNPAID
}
_END_JOB = {
    target: "UPDATE jobs SET state = ?, ended_at = ?, reason = ?, faults = faults + ?, charge = ?,"
    " exit_code = ?, signal = ?, peak_memory_bytes = ?"
    f" WHERE id = ? AND attempt_id = ? AND state IN {_in(job_sources(target) & LIVE_JOBS)}"
    for target in JobState
    if target.ended
}
_QUEUE_AGAIN = (
    "UPDATE jobs SET state = 'queued', reason = '', started_at = NULL, faults = faults + ?"
    f" WHERE id = ? AND attempt_id = ? AND state IN {_in(job_sources(JobState.QUEUED))}"
)


class _Live(NamedTuple):
    job_id: int
    job_state: str
    user_id: int
    hold: int
    faults: int
    max_attempts: int
    reason: str
    payer: int
    attempt_state: str
    worker_id: int
    payee_id: int
    payee: int


def _live(db: sqlite3.Connection, attempt_id: int) -> _Live | None:
    row = db.execute(_LIVE, (attempt_id,)).fetchone()
    return None if row is None else _Live(*row)


def _job(db: sqlite3.Connection, job_id: int) -> JobRecord:
    return job_record(db.execute(f"{SELECT_JOB} jobs.id = ?", (job_id,)).fetchone())


def _attempt(db: sqlite3.Connection, attempt_id: int) -> AttemptRecord:
    return attempt_record(db.execute(f"{SELECT_ATTEMPT} attempts.id = ?", (attempt_id,)).fetchone())


def _one(rowcount: int, what: str) -> None:
    """A guard that must hold, since the row was seen in this transaction; else all is rolled back."""
    if rowcount != 1:
        raise RuntimeError(f"{what}: {rowcount} rows instead of one")


def assign(db: sqlite3.Connection, now: int, placements: Sequence[NewAttempt]) -> list[AttemptRecord | None]:
    """Begin an attempt for each job that is still queued."""
    placed: list[AttemptRecord | None] = []
    for new in placements:
        cursor = db.execute(
            _ASSIGN_ATTEMPT, (new.worker_id, json.dumps(new.gpus), new.runtime, now, new.job_id)
        )
        if cursor.rowcount != 1:
            placed.append(None)
            continue
        attempt_id = cursor.lastrowid
        assert attempt_id is not None
        _one(db.execute(_ASSIGN_JOB, (attempt_id, new.worker_id, new.job_id)).rowcount, "assign")
        placed.append(_attempt(db, attempt_id))
    return placed


def start(
    db: sqlite3.Connection, now: int, attempt_id: int, mono_ms: int, boot_id: str, runtime: str
) -> JobRecord | None:
    """The program runs. None: not the current attempt, or it had started already."""
    live = _live(db, attempt_id)
    if live is None or live.attempt_state != AttemptState.ASSIGNED:
        return None
    _one(db.execute(_START_ATTEMPT, (now, mono_ms, boot_id, runtime, attempt_id)).rowcount, "start")
    _one(db.execute(_START_JOB, (now, live.job_id, attempt_id)).rowcount, "start of the job")
    return _job(db, live.job_id)


def finish(db: sqlite3.Connection, now: int, attempt_id: int, end: End) -> Finished | None:
    """End the job with its attempt, pay the worker's owner, give back the rest. None: fenced.

    Raises:
        ValueError: an end that is not paid, or a charge over the hold.
    """
    if end.attempt_state not in PAID or not end.job_state.ended:
        raise ValueError(f"{end.attempt_state} does not end a job as {end.job_state}")
    live = _live(db, attempt_id)
    if live is None:
        return None
    if not 0 <= end.fee <= end.charge <= live.hold:
        raise ValueError(f"charge {end.charge} with fee {end.fee} does not fit the hold {live.hold}")
    _end_attempt(db, now, attempt_id, end, fault=False)
    _end_job(db, now, live, attempt_id, end, fault=False)
    if end.charge:
        db.execute(
            "UPDATE workers SET earned = earned + ? WHERE id = ?", (end.charge - end.fee, live.worker_id)
        )
    return Finished(_job(db, live.job_id), _attempt(db, attempt_id), live.user_id, live.payee_id)


def requeue(
    db: sqlite3.Connection, now: int, attempt_id: int, state: AttemptState, reason: str, fault: bool
) -> JobRecord | None:
    """End an attempt unpaid; its job waits again, or has had too many, or was being cancelled. None: fenced.

    Raises:
        ValueError: a state that is paid.
    """
    if state not in UNPAID:
        raise ValueError(f"{state} is no unpaid end")
    live = _live(db, attempt_id)
    if live is None:
        return None
    target = after_fault(JobState(live.job_state), live.faults + fault, live.max_attempts)
    end = End(job_state=target, attempt_state=state, reason=reason)
    _end_attempt(db, now, attempt_id, end, fault)
    if target is JobState.QUEUED:
        _one(db.execute(_QUEUE_AGAIN, (fault, live.job_id, attempt_id)).rowcount, "requeue")
    else:
        if target is JobState.LOST:
            times = "once" if live.max_attempts == 1 else f"{live.max_attempts} times"
            reason = f"Tried {times}, and each time the machine failed. The last: {reason or state.value}"
        else:
            reason = ""
        _end_job(db, now, live, attempt_id, End(target, state, reason), fault)
    return _job(db, live.job_id)


def cancel(db: sqlite3.Connection, now: int, job_id: int, reason: str) -> JobRecord | None:
    """Cancel: at once while it waits, else when its worker has killed it. Repeats change nothing."""
    if db.execute(
        "UPDATE jobs SET state = 'cancelled', reason = ?, ended_at = ? WHERE id = ? AND state = 'queued'",
        (reason, now, job_id),
    ).rowcount:
        hold, account = db.execute(
            "SELECT jobs.hold, accounts.id FROM jobs JOIN accounts ON accounts.user_id = jobs.user_id"
            " WHERE jobs.id = ?",
            (job_id,),
        ).fetchone()
        _settle(db, now, job_id, None, account, account, hold, 0, 0)
        return _job(db, job_id)
    db.execute(
        f"UPDATE jobs SET state = 'cancelling', reason = ? WHERE id = ?"
        f" AND state IN {_in(job_sources(JobState.CANCELLING))}",
        (reason, job_id),
    )
    row = db.execute(f"{SELECT_JOB} jobs.id = ?", (job_id,)).fetchone()
    return None if row is None else job_record(row)


def _end_attempt(db: sqlite3.Connection, now: int, attempt_id: int, end: End, fault: bool) -> None:
    changed = db.execute(
        _END_ATTEMPT[end.attempt_state],
        (
            end.attempt_state.value,
            now,
            end.reason,
            fault,
            end.charged_ms,
            end.charge,
            end.fee,
            attempt_id,
        ),
    ).rowcount
    _one(changed, "end of the attempt")


def _end_job(db: sqlite3.Connection, now: int, live: _Live, attempt_id: int, end: End, fault: bool) -> None:
    """The job's last step and its money, in one."""
    changed = db.execute(
        _END_JOB[end.job_state],
        (
            end.job_state.value,
            now,
            end.reason or (live.reason if live.job_state == JobState.CANCELLING else ""),
            fault,
            end.charge,
            end.exit_code,
            end.signal,
            end.peak_memory_bytes,
            live.job_id,
            attempt_id,
        ),
    ).rowcount
    _one(changed, "end of the job")
    _settle(db, now, live.job_id, attempt_id, live.payer, live.payee, live.hold, end.charge, end.fee)


def _settle(
    db: sqlite3.Connection,
    now: int,
    job_id: int,
    attempt_id: int | None,
    payer: int,
    payee: int,
    hold: int,
    charge: int,
    fee: int,
) -> None:
    """Empty the job's hold: the charge to the worker's owner and the treasury, the rest back."""
    counters = {payer: postings.Counters(held=-hold, spent=charge)}
    before = counters.get(payee, postings.Counters())
    counters[payee] = before._replace(earned=charge - fee)
    postings.post(
        db,
        now,
        [
            postings.Entry(
                "settle",
                ledger.settle_postings(postings.ESCROW, payee, postings.TREASURY, charge, fee),
                job_id,
                attempt_id,
            ),
            postings.Entry("release", ledger.release_postings(postings.ESCROW, payer, hold - charge), job_id),
        ],
        counters,
    )
