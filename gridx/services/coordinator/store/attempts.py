"""The life of a job in the database, each step guarded by state and attempt: what is late changes nothing."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

from msgspec.structs import replace

from gridx.errors import NotFound
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
    WorkerRecord,
)
from gridx.services.coordinator.store.rows import (
    JOB,
    SELECT_JOB,
    SELECT_WORKER,
    attempt_record,
    job_record,
    moment,
    select_live,
    worker_record,
)


def _in(states: Iterable[StrEnum]) -> str:
    """An SQL list of states; they are words of an enum, never text from outside."""
    return "(" + ", ".join(f"'{state.value}'" for state in sorted(states)) + ")"


_LIVE = select_live(_in(LIVE_ATTEMPTS), _in(LIVE_JOBS))
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
_CANCEL_QUEUED = (
    "UPDATE jobs SET state = 'cancelled', reason = ?, ended_at = ? WHERE id = ? AND state = 'queued'"
)
_CANCEL_LIVE = (
    "UPDATE jobs SET state = 'cancelling', reason = ?"
    f" WHERE id = ? AND state IN {_in(job_sources(JobState.CANCELLING))}"
)


class _Live(NamedTuple):
    """A live attempt, its job, and the accounts that its end moves."""

    job: JobRecord
    attempt: AttemptRecord
    payer: int
    payee: int


def _live(db: sqlite3.Connection, attempt_id: int) -> _Live | None:
    row = db.execute(_LIVE, (attempt_id,)).fetchone()
    if row is None:
        return None
    return _Live(job_record(row), attempt_record(row[len(JOB) :]), row[-2], row[-1])


def _one(rowcount: int, what: str) -> None:
    """A guard that must hold, since the row was seen in this transaction; else all is rolled back."""
    if rowcount != 1:
        raise RuntimeError(f"{what}: {rowcount} rows instead of one")


def assign(db: sqlite3.Connection, now: int, placements: Sequence[NewAttempt]) -> list[AttemptRecord | None]:
    """Begin an attempt for each job that is still queued.

    Raises:
        NotFound: no such worker.
    """
    workers: dict[int, WorkerRecord] = {}
    waiting: Counter[int] = Counter()
    placed: list[AttemptRecord | None] = []
    for new in placements:
        if new.worker_id not in workers:
            workers[new.worker_id] = _worker(db, new.worker_id)
        gpus = json.dumps(new.gpus)
        cursor = db.execute(_ASSIGN_ATTEMPT, (new.worker_id, gpus, new.runtime, now, new.job_id))
        if cursor.rowcount != 1:
            placed.append(None)
            continue
        attempt_id = cursor.lastrowid
        assert attempt_id is not None
        _one(db.execute(_ASSIGN_JOB, (attempt_id, new.worker_id, new.job_id)).rowcount, "assign")
        number, account = db.execute(
            "SELECT jobs.attempts, accounts.id FROM jobs JOIN accounts ON accounts.user_id = jobs.user_id"
            " WHERE jobs.id = ?",
            (new.job_id,),
        ).fetchone()
        waiting[account] -= 1
        placed.append(_assigned(attempt_id, number, new, workers[new.worker_id], now))
    postings.post(db, now, [], {account: postings.Counters(waiting=n) for account, n in waiting.items()})
    return placed


def _worker(db: sqlite3.Connection, worker_id: int) -> WorkerRecord:
    row = db.execute(f"{SELECT_WORKER} workers.id = ?", (worker_id,)).fetchone()
    if row is None:
        raise NotFound(f"There is no worker {worker_id}.", "gridx workers lists them.")
    return worker_record(row)


def _assigned(attempt_id: int, number: int, new: NewAttempt, worker: WorkerRecord, now: int) -> AttemptRecord:
    """The row just written, without reading it again."""
    return AttemptRecord(
        id=attempt_id,
        job_id=new.job_id,
        number=number,
        worker_id=worker.id,
        worker_name=worker.name,
        worker_owner=worker.owner,
        worker_user_id=worker.user_id,
        state=AttemptState.ASSIGNED,
        gpus=new.gpus,
        runtime=new.runtime,
        assigned_at=moment(now),
        started_at=None,
        ended_at=None,
        started_mono_ms=None,
        boot_id="",
        reason="",
        charged_ms=0,
        charge=0,
        fee=0,
        stdout_bytes=0,
        stderr_bytes=0,
    )


def start(
    db: sqlite3.Connection, now: int, attempt_id: int, mono_ms: int, boot_id: str, runtime: str
) -> JobRecord | None:
    """The program runs. None: not the current attempt, or it had started already."""
    live = _live(db, attempt_id)
    if live is None or live.attempt.state is not AttemptState.ASSIGNED:
        return None
    job = live.job
    _one(db.execute(_START_ATTEMPT, (now, mono_ms, boot_id, runtime, attempt_id)).rowcount, "start")
    _one(db.execute(_START_JOB, (now, job.id, attempt_id)).rowcount, "start of the job")
    state = JobState.RUNNING if job.state is JobState.ASSIGNED else job.state
    return replace(job, state=state, started_at=moment(now))


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
    if not 0 <= end.fee <= end.charge <= live.job.hold:
        raise ValueError(f"charge {end.charge} with fee {end.fee} does not fit the hold {live.job.hold}")
    attempt = _end_attempt(db, now, live, end, fault=False)
    job = _end_job(db, now, live, end, fault=False)
    if end.charge:
        db.execute(
            "UPDATE workers SET earned = earned + ? WHERE id = ?", (end.charge - end.fee, attempt.worker_id)
        )
    return Finished(job, attempt, job.user_id, attempt.worker_user_id)


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
    job = live.job
    target = after_fault(job.state, job.faults + fault, job.max_attempts)
    _end_attempt(db, now, live, End(target, state, reason), fault)
    if target is JobState.QUEUED:
        _one(db.execute(_QUEUE_AGAIN, (fault, job.id, attempt_id)).rowcount, "requeue")
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
    return _end_job(db, now, live, End(target, state, reason), fault)


def cancel(db: sqlite3.Connection, now: int, job_id: int, reason: str) -> JobRecord | None:
    """Cancel: at once while it waits, else when its worker has killed it. Repeats change nothing."""
    if db.execute(_CANCEL_QUEUED, (reason, now, job_id)).rowcount:
        hold, payer = db.execute(
            "SELECT jobs.hold, accounts.id FROM jobs JOIN accounts ON accounts.user_id = jobs.user_id"
            " WHERE jobs.id = ?",
            (job_id,),
        ).fetchone()
        postings.post(db, now, [_release(payer, hold, job_id)], {payer: postings.Counters(-hold, waiting=-1)})
    else:
        db.execute(_CANCEL_LIVE, (reason, job_id))
    row = db.execute(f"{SELECT_JOB} jobs.id = ?", (job_id,)).fetchone()
    return None if row is None else job_record(row)


def _end_attempt(db: sqlite3.Connection, now: int, live: _Live, end: End, fault: bool) -> AttemptRecord:
    state = end.attempt_state
    changed = db.execute(
        _END_ATTEMPT[state],
        (
            state.value,
            now,
            end.reason,
            fault,
            end.charged_ms,
            end.charge,
            end.fee,
            live.attempt.id,
        ),
    ).rowcount
    _one(changed, "end of the attempt")
    return replace(
        live.attempt,
        state=state,
        ended_at=moment(now),
        reason=end.reason,
        charged_ms=end.charged_ms,
        charge=end.charge,
        fee=end.fee,
    )


def _end_job(db: sqlite3.Connection, now: int, live: _Live, end: End, fault: bool) -> JobRecord:
    """The job's last step and its money, in one: the charge to the worker's owner, the rest back."""
    job, payer, payee = live.job, live.payer, live.payee
    reason = end.reason or (job.reason if job.state is JobState.CANCELLING else "")
    changed = db.execute(
        _END_JOB[end.job_state],
        (
            end.job_state.value,
            now,
            reason,
            fault,
            end.charge,
            end.exit_code,
            end.signal,
            end.peak_memory_bytes,
            job.id,
            live.attempt.id,
        ),
    ).rowcount
    _one(changed, "end of the job")
    paid = ledger.settle_postings(postings.ESCROW, payee, postings.TREASURY, end.charge, end.fee)
    counters = {payer: postings.Counters(held=-job.hold, spent=end.charge)}
    # Payer and payee are one where a job ran on its owner's own worker.
    counters[payee] = counters.get(payee, postings.Counters())._replace(earned=end.charge - end.fee)
    postings.post(
        db,
        now,
        [
            postings.Entry("settle", paid, job.id, live.attempt.id),
            _release(payer, job.hold - end.charge, job.id),
        ],
        counters,
    )
    return replace(
        job,
        state=end.job_state,
        reason=reason,
        ended_at=moment(now),
        faults=job.faults + fault,
        charge=end.charge,
        exit_code=end.exit_code,
        signal=end.signal,
        peak_memory_bytes=end.peak_memory_bytes,
        current_attempt_id=None,
    )


def _release(payer: int, amount: int, job_id: int) -> postings.Entry:
    return postings.Entry("release", ledger.release_postings(postings.ESCROW, payer, amount), job_id)
