"""Accepting jobs: all of a submission or none, with their credits set aside."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from gridx.credits import format_credits
from gridx.errors import InsufficientCredits, InvalidField, TooMany
from gridx.messages import JobState, Microcredits
from gridx.services.coordinator import ledger
from gridx.services.coordinator.store import idempotency, postings
from gridx.services.coordinator.store.arrays import find_array
from gridx.services.coordinator.store.blobs import use_inputs
from gridx.services.coordinator.store.dependencies import depend
from gridx.services.coordinator.store.records import (
    Accepted,
    Aftermath,
    ArrayRecord,
    Idempotency,
    JobRecord,
    NewArray,
    NewJob,
    Submitted,
)
from gridx.services.coordinator.store.rows import SELECT_JOB, job_record, moment
from gridx.services.coordinator.store.writer import Noted

_INSERT_JOB = (
    "INSERT INTO jobs (id, user_id, state, language, name, cpu_millis, memory_mb, gpus, timeout_s, priority,"
    " max_attempts, runtime, python, core_hour, gib_hour, gpu_hour, fee_ppm, hold, created_at, retries,"
    " retry_delay_s, retry_of, array_id, array_index)"
    " VALUES (?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_PAYLOAD = (
    "INSERT INTO job_payloads (job_id, code, args, env, inputs, outputs) VALUES (?, ?, ?, ?, ?, ?)"
)
_INSERT_ARRAY = (
    "INSERT INTO arrays (id, user_id, name, count, first_index, total_count, max_fails, max_credits, unit,"
    " hold, held, queued, state, created_at, retry_of)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?)"
)
_INSERT_ARRAY_PAYLOAD = (
    "INSERT INTO array_payloads (array_id, code, args, env, inputs, outputs) VALUES (?, ?, ?, ?, ?, ?)"
)
_INSERT_ELEMENT = "INSERT INTO array_elements (array_id, position, args, inputs) VALUES (?, ?, ?, ?)"


class Submission(NamedTuple):
    """Jobs that a user wants to have accepted, all or none; ``max_queued`` of theirs may wait."""

    user_id: int
    jobs: Sequence[NewJob]
    key: Idempotency | None
    max_queued: int


@dataclass(slots=True)
class _Payer:
    """A user's account as the submissions before this one leave it."""

    owner: str
    account: int
    balance: Microcredits
    waiting: int


def submit(
    db: sqlite3.Connection, now: int, submissions: Sequence[Submission]
) -> list[Noted[Submitted, Aftermath]]:
    """Queue jobs and hold their price.

    Raises:
        InsufficientCredits: the balance does not cover all of a submission.
        TooMany: the user would have more than ``max_queued`` waiting.
        Conflict: the key came with another body; what should have succeeded first did not.
        NotFound: what it should wait for is not there, or another's.
        InvalidField: an input was not uploaded; a budget is too small for one element.
    """
    entrance = _Entrance(db, now)
    accepted = [entrance.accept(submission) for submission in submissions]
    entrance.write()
    notes = [Aftermath(accepted=entrance.accepted), *[None] * (len(accepted) - 1)]
    return [Noted(one, note) for one, note in zip(accepted, notes, strict=True)]


class _Entrance:
    """Checks submissions one after the other, and writes what was accepted at once."""

    def __init__(self, db: sqlite3.Connection, now: int) -> None:
        self._db = db
        self._now = now
        self._payers: dict[int, _Payer] = {}
        self._keys: dict[tuple[int, str], Submitted] = {}
        last = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'").fetchone()
        self._next_id = last[0] + 1 if last else 1
        self._jobs: list[tuple[object, ...]] = []
        self._payloads: list[tuple[object, ...]] = []
        self._arrays: list[tuple[object, ...]] = []
        self._array_payloads: list[tuple[object, ...]] = []
        self._elements: list[tuple[object, ...]] = []
        self._book = postings.Book()
        self.accepted: list[Accepted] = []

    def accept(self, submission: Submission) -> Submitted:
        """Take the jobs in, or raise and leave nothing behind that ``write`` would write."""
        user_id, jobs, key, max_queued = submission
        if key and (earlier := self._earlier(user_id, key)) is not None:
            return earlier
        payer = self._payer(user_id)
        count = sum(1 if job.array is None else len(job.array.indices) for job in jobs)
        _check_quota(payer.waiting, count, max_queued)
        total = sum(hold_for(job) for job in jobs)
        if total > payer.balance:
            raise _shortfall(payer.balance, total, count)
        payer.balance -= total
        payer.waiting += count
        self._book.count(payer.account, held=total, waiting=count)
        submitted = Submitted([], replayed=False)
        for job in jobs:
            record = self._queue(user_id, payer, job)
            submitted.jobs.append(record)
            waits_for = depend(self._db, user_id, record.id, job.after)
            self.accepted.append(Accepted(record, job, waits_for))
        records = submitted.jobs
        if key:
            ids = json.dumps([record.id for record in records])
            idempotency.remember(self._db, self._now, user_id, "submit", key, ids)
            self._keys[user_id, key.key] = submitted
        return submitted

    def write(self) -> None:
        """Write all that was accepted."""
        self._db.executemany(_INSERT_ARRAY, self._arrays)
        self._db.executemany(_INSERT_ARRAY_PAYLOAD, self._array_payloads)
        self._db.executemany(_INSERT_ELEMENT, self._elements)
        self._db.executemany(_INSERT_JOB, self._jobs)
        self._db.executemany(_INSERT_PAYLOAD, self._payloads)
        self._book.write(self._db, self._now)

    def _earlier(self, user_id: int, key: Idempotency) -> Submitted | None:
        """What the first request with this key was answered; None when this is the first."""
        earlier = idempotency.earlier(self._db, user_id, "submit", key)
        if earlier is None:
            return None
        if (unwritten := self._keys.get((user_id, key.key))) is not None:
            return Submitted(unwritten.jobs, replayed=True)
        found = [_job(self._db, id_) or find_array(self._db, id_) for id_ in json.loads(earlier)]
        return Submitted([job for job in found if job is not None], replayed=True)

    def _payer(self, user_id: int) -> _Payer:
        if user_id not in self._payers:
            row = self._db.execute(
                "SELECT users.username, accounts.id, accounts.balance, accounts.waiting FROM users"
                " JOIN accounts ON accounts.user_id = users.id WHERE users.id = ?",
                (user_id,),
            ).fetchone()
            if row is None:
                raise postings.no_such_user()
            self._payers[user_id] = _Payer(*row)
        return self._payers[user_id]

    def _queue(self, user_id: int, payer: _Payer, job: NewJob) -> JobRecord | ArrayRecord:
        if job.array is not None:
            return self._queue_array(user_id, payer, job, job.array)
        job_id = self._next_id
        self._next_id += 1
        use_inputs(self._db, self._now, user_id, job_id, job.inputs)
        self._jobs.append((job_id, user_id, *_job_columns(job, self._now), job.retry_of, None, None))
        self._payloads.append((job_id, *_payload_columns(job)))
        held = ledger.hold_postings(payer.account, postings.ESCROW, job.hold)
        self._book.enter(postings.Entry("hold", held, job_id))
        return _record(job_id, user_id, payer.owner, job, self._now)

    def _queue_array(self, user_id: int, payer: _Payer, job: NewJob, array: NewArray) -> ArrayRecord:
        array_id, count, hold = self._next_id, len(array.indices), hold_for(job)
        self._next_id += 1 + count
        use_inputs(self._db, self._now, user_id, array_id, job.inputs)
        if array.inputs is not None:
            for position, own in enumerate(array.inputs):
                use_inputs(self._db, self._now, user_id, array_id, own, f"array.inputs[{position}]")
        self._arrays.append(
            (
                array_id,
                user_id,
                job.name,
                count,
                array.indices[0],
                array.total_count,
                array.max_fails,
                array.max_credits,
                job.hold,
                hold,
                hold,
                count,
                self._now,
                array.retry_of,
            )
        )
        self._array_payloads.append((array_id, *_payload_columns(job)))
        columns = _job_columns(job, self._now)
        retried: Sequence[int | None] = array.retried or [None] * count
        self._jobs += [
            (array_id + 1 + position, user_id, *columns, retried[position], array_id, index)
            for position, index in enumerate(array.indices)
        ]
        if array.args is not None or array.inputs is not None:
            args, inputs = array.args or [[]] * count, array.inputs or [[]] * count
            self._elements += [
                (array_id, position, _json(args[position]), _json(inputs[position]))
                for position in range(count)
            ]
        held = ledger.hold_postings(payer.account, postings.ESCROW, hold)
        self._book.enter(postings.Entry("hold", held, array_id=array_id))
        first = replace(
            _record(array_id + 1, user_id, payer.owner, job, self._now),
            array_id=array_id,
            array_index=array.indices[0],
        )
        return _array_record(array_id, job, array, hold, first)


def hold_for(job: NewJob) -> Microcredits:
    """What is set aside for a new job, or for a whole array.

    Raises:
        InvalidField: the budget of an array does not cover one element.
    """
    if job.array is None:
        return job.hold
    budget = job.array.max_credits
    if budget is not None and budget < job.hold:
        raise InvalidField(
            f"array.max_credits: one element may cost {format_credits(job.hold)} credits, which is more than"
            f" the budget of {format_credits(budget)}.",
            "Give it a larger budget, or ask for less: a shorter timeout_s, fewer retries.",
            field="array.max_credits",
        )
    whole = job.hold * len(job.array.indices)
    return whole if budget is None else min(whole, budget)


def _check_quota(waiting: int, more: int, max_queued: int) -> None:
    if waiting + more > max_queued:
        raise TooMany(
            f"You have {waiting:,} jobs waiting; {more:,} more would be over the {max_queued:,} that one user"
            " may have.",
            "Wait until some have run, or cancel some.",
            waiting=waiting,
            limit=max_queued,
        )


def _shortfall(balance: Microcredits, price: Microcredits, jobs: int) -> InsufficientCredits:
    return postings.shortfall(
        balance,
        price,
        f"Setting aside the price of {'this job' if jobs == 1 else 'these jobs'} takes",
        "Ask for less (a shorter timeout_s, fewer cpus, less memory_mb), or for a grant from an admin.",
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _payload_columns(job: NewJob) -> tuple[str, str, str, str, str]:
    return job.code, _json(job.args), _json(job.env), _json(job.inputs), _json(job.outputs)


def _job(db: sqlite3.Connection, job_id: int) -> JobRecord | None:
    row = db.execute(f"{SELECT_JOB} jobs.id = ?", (job_id,)).fetchone()
    return None if row is None else job_record(row)


def _job_columns(job: NewJob, now: int) -> tuple[object, ...]:
    """What jobs of one kind have in common."""
    return (
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
        job.retries,
        job.retry_delay_s,
    )


def _array_record(
    array_id: int, job: NewJob, array: NewArray, hold: Microcredits, first: JobRecord
) -> ArrayRecord:
    """The row just written, without reading it again."""
    return ArrayRecord(
        id=array_id,
        user_id=first.user_id,
        owner=first.owner,
        name=job.name,
        count=len(array.indices),
        first_index=array.indices[0],
        total_count=array.total_count,
        max_fails=array.max_fails,
        max_credits=array.max_credits,
        unit=job.hold,
        hold=hold,
        held=hold,
        charge=0,
        open_charge=0,
        running_charge=0,
        queued=len(array.indices),
        running=0,
        succeeded=0,
        failed=0,
        cancelled=0,
        state=JobState.QUEUED,
        reason="",
        stop="",
        changes=0,
        created_at=first.created_at,
        started_at=None,
        ended_at=None,
        retry_of=array.retry_of,
        model=first,
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
        retries=job.retries,
        retry_delay_s=job.retry_delay_s,
    )
