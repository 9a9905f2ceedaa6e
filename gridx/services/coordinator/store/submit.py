"""Accepting jobs: all of a submission or none, with their credits set aside."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from gridx.errors import TooMany
from gridx.messages import JobState
from gridx.services.coordinator import ledger
from gridx.services.coordinator.store import idempotency, postings
from gridx.services.coordinator.store.records import Idempotency, JobRecord, NewJob, Submitted
from gridx.services.coordinator.store.rows import SELECT_JOB, job_record, moment

_INSERT_JOB = (
    "INSERT INTO jobs (id, user_id, state, language, name, cpu_millis, memory_mb, gpus, timeout_s, priority,"
    " max_attempts, runtime, python, core_hour, gib_hour, gpu_hour, fee_ppm, hold, created_at, retry_of)"
    " VALUES (?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def submit(
    db: sqlite3.Connection,
    now: int,
    user_id: int,
    jobs: Sequence[NewJob],
    key: Idempotency | None,
    max_queued: int,
) -> Submitted:
    """Queue jobs and hold their price.

    Raises:
        InsufficientCredits: the balance does not cover all of them.
        TooMany: the user would have more than ``max_queued`` waiting.
        Conflict: the key came with another body.
    """
    if key and (earlier := idempotency.earlier(db, user_id, "submit", key)) is not None:
        found = [_job(db, job_id) for job_id in json.loads(earlier)]
        return Submitted([job for job in found if job is not None], replayed=True)
    row = db.execute(
        "SELECT users.username, accounts.id, accounts.balance, accounts.waiting FROM users"
        " JOIN accounts ON accounts.user_id = users.id WHERE users.id = ?",
        (user_id,),
    ).fetchone()
    if row is None:
        raise postings.no_such_user()
    owner, account, balance, waiting = row
    _check_quota(waiting, len(jobs), max_queued)
    total = sum(job.hold for job in jobs)
    if total > balance:
        these = "this job" if len(jobs) == 1 else "these jobs"
        raise postings.shortfall(
            balance,
            total,
            f"Setting aside the price of {these} takes",
            "Ask for less (a shorter timeout_s, fewer cpus, less memory_mb), or for a grant from an admin.",
        )
    last = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'").fetchone()
    numbered = list(enumerate(jobs, last[0] + 1 if last else 1))
    db.executemany(_INSERT_JOB, [_job_row(job_id, user_id, job, now) for job_id, job in numbered])
    db.executemany(
        "INSERT INTO job_payloads (job_id, code, args, env) VALUES (?, ?, ?, ?)",
        [(job_id, job.code, json.dumps(job.args), json.dumps(job.env)) for job_id, job in numbered],
    )
    postings.post(
        db,
        now,
        [
            postings.Entry("hold", ledger.hold_postings(account, postings.ESCROW, job.hold), job_id)
            for job_id, job in numbered
        ],
        {account: postings.Counters(held=total, waiting=len(jobs))},
    )
    if key:
        ids = json.dumps([job_id for job_id, _ in numbered])
        idempotency.remember(db, now, user_id, "submit", key, ids)
    return Submitted([_record(job_id, user_id, owner, job, now) for job_id, job in numbered], replayed=False)


def _check_quota(waiting: int, more: int, max_queued: int) -> None:
    if waiting + more > max_queued:
        raise TooMany(
            f"You have {waiting:,} jobs waiting; {more:,} more would be over the {max_queued:,} that one user"
            " may have.",
            "Wait until some have run, or cancel some.",
            waiting=waiting,
            limit=max_queued,
        )


def _job(db: sqlite3.Connection, job_id: int) -> JobRecord | None:
    row = db.execute(f"{SELECT_JOB} jobs.id = ?", (job_id,)).fetchone()
    return None if row is None else job_record(row)


def _job_row(job_id: int, user_id: int, job: NewJob, now: int) -> tuple[object, ...]:
    return (
        job_id,
        user_id,
        job.language,
        job.name,
        job.cpu_millis,
        job.memory_mb,
        job.gpus,
        job.timeout_s,
        job.priority,
        job.max_attempts,
        job.runtime,
        job.python,
        job.prices.core_hour,
        job.prices.gib_hour,
        job.prices.gpu_hour,
        job.prices.fee_ppm,
        job.hold,
        now,
        job.retry_of,
    )


def _record(job_id: int, user_id: int, owner: str, job: NewJob, now: int) -> JobRecord:
    """The row just written, without reading it again."""
    return JobRecord(
        id=job_id,
        user_id=user_id,
        owner=owner,
        state=JobState.QUEUED,
        reason="",
        language=job.language,
        name=job.name,
        cpu_millis=job.cpu_millis,
        memory_mb=job.memory_mb,
        gpus=job.gpus,
        timeout_s=job.timeout_s,
        priority=job.priority,
        max_attempts=job.max_attempts,
        runtime=job.runtime,
        python=job.python,
        prices=job.prices,
        hold=job.hold,
        charge=0,
        attempts=0,
        faults=0,
        current_attempt_id=None,
        worker_id=None,
        worker_name="",
        created_at=moment(now),
        started_at=None,
        ended_at=None,
        exit_code=None,
        signal=None,
        peak_memory_bytes=None,
        stdout_bytes=0,
        stderr_bytes=0,
        retry_of=job.retry_of,
    )
