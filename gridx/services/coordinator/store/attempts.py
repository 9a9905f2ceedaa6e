"""How attempts begin: given to a worker, then running. Each step is guarded: what is late changes nothing."""

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
from gridx.services.coordinator.states import LIVE_ATTEMPTS, LIVE_JOBS, attempt_sources
from gridx.services.coordinator.store import postings
from gridx.services.coordinator.store.aftermath import Consequences
from gridx.services.coordinator.store.records import (
    Aftermath,
    AttemptRecord,
    Begin,
    JobRecord,
    NewAttempt,
    WorkerRecord,
)
from gridx.services.coordinator.store.rows import (
    JOB,
    SELECT_JOB,
    SELECT_WORKER,
    job_record,
    moment,
    select_live,
    worker_record,
)
from gridx.services.coordinator.store.writer import Noted


def one_of(states: Iterable[StrEnum]) -> str:
    """An SQL list of states; they are words of an enum, never text from outside."""
    return "(" + ", ".join(f"'{state.value}'" for state in sorted(states)) + ")"


LIVE = select_live(one_of(LIVE_ATTEMPTS), one_of(LIVE_JOBS))
_ASSIGN_ATTEMPT = (
    "INSERT INTO attempts"
    " (job_id, number, worker_id, state, gpus, runtime, assigned_at, assigned_mono_ms, boot_id)"
    " SELECT id, attempts + 1, ?, 'assigned', ?, ?, ?, ?, ? FROM jobs WHERE id = ? AND state = 'queued'"
    " AND NOT EXISTS (SELECT 1 FROM dependencies WHERE job_id = coalesce(jobs.array_id, jobs.id) AND NOT met)"
    " RETURNING id, number"
)
_IS_ELEMENT = "SELECT 1 FROM jobs WHERE id = ? AND array_id IS NOT NULL"
_ASSIGN_JOB = (
    "UPDATE jobs SET state = 'assigned', reason = '', not_before = NULL, files = 0, file_bytes = 0,"
    " attempts = attempts + 1,"
    " attempt_id = ?, worker_id = ?"
    " WHERE id = ? AND state = 'queued' RETURNING user_id"
)
_START_ATTEMPT = (
    "UPDATE attempts SET state = 'running', started_at = ?, runtime = ?"
    f" WHERE id = ? AND state IN {one_of(attempt_sources(AttemptState.RUNNING))}"
)
# A job that is being cancelled stays so; that it started is still known, and charged.
_START_JOB = (
    "UPDATE jobs SET state = CASE state WHEN 'assigned' THEN 'running' ELSE state END, started_at = ?"
    " WHERE id = ? AND attempt_id = ? AND state IN ('assigned', 'cancelling')"
)


class Live(NamedTuple):
    """A job with a live attempt, and the accounts that its end moves."""

    job: JobRecord
    attempt_state: AttemptState
    payee_id: int
    """The worker's owner, a user's id."""
    payer: int
    payee: int


def find_live(db: sqlite3.Connection, attempt_id: int) -> Live | None:
    """The job of which this is the current attempt, and alive; None: what was said of it is stale."""
    row = db.execute(LIVE, (attempt_id,)).fetchone()
    if row is None:
        return None
    state, payee_id, payer, payee = row[len(JOB) :]
    return Live(job_record(row), AttemptState(state), payee_id, payer, payee)


def expect(rows: int, found: int, what: str) -> None:
    """A guard that must hold, since the rows were seen in this transaction; else all is rolled back."""
    if rows != found:
        raise RuntimeError(f"{what}: {found} rows instead of {rows}")


def assign(
    db: sqlite3.Connection, now: int, placements: Sequence[NewAttempt], mono_ms: int, boot_id: str
) -> Noted[list[AttemptRecord | None], Aftermath]:
    """Begin an attempt for each job that is still queued and waits for no other.

    An element begins only if what its array holds covers it as well as those that run; else it is in
    ``Aftermath.uncovered``.

    Raises:
        NotFound: no such worker.
    """
    workers: dict[int, WorkerRecord] = {}
    taken: Counter[int] = Counter()
    book = postings.Book()
    follows = Consequences(db, now, book)
    placed: list[AttemptRecord | None] = []
    for new in placements:
        if new.worker_id not in workers:
            workers[new.worker_id] = _worker(db, new.worker_id)
        element = _waiting_element(db, new.job_id)
        if element is not None and not _affordable(follows, element):
            placed.append(None)
            continue
        gpus = json.dumps(new.gpus)
        values = (new.worker_id, gpus, new.runtime, now, mono_ms, boot_id, new.job_id)
        begun = db.execute(_ASSIGN_ATTEMPT, values).fetchall()
        if not begun:
            placed.append(None)
            continue
        attempt_id, number = begun[0]
        owners = db.execute(_ASSIGN_JOB, (attempt_id, new.worker_id, new.job_id)).fetchall()
        expect(1, len(owners), "assign")
        taken[owners[0][0]] += 1
        if element is not None:
            follows.arrays.begin(element)
        placed.append(_assigned(attempt_id, number, new, workers[new.worker_id], now, mono_ms, boot_id))
    for user_id, jobs in taken.items():
        book.count(postings.account_of(db, user_id), waiting=-jobs)
    aftermath = follows.work_off()
    book.write(db, now)
    return Noted(placed, aftermath)


def _waiting_element(db: sqlite3.Connection, job_id: int) -> JobRecord | None:
    """The job, if it is an element of an array and waits."""
    # Most are none, and this is asked of every job.
    if db.execute(_IS_ELEMENT, (job_id,)).fetchone() is None:
        return None
    row = db.execute(f"{SELECT_JOB} jobs.id = ? AND jobs.state = 'queued'", (job_id,)).fetchone()
    return None if row is None else job_record(row)


def _affordable(follows: Consequences, element: JobRecord) -> bool:
    assert element.array_id is not None
    array = follows.arrays.get(element.array_id)
    if array.stop or not array.affords(element.charge):
        follows.uncovered(element.id)
        return False
    return True


def _worker(db: sqlite3.Connection, worker_id: int) -> WorkerRecord:
    row = db.execute(f"{SELECT_WORKER} workers.id = ?", (worker_id,)).fetchone()
    if row is None:
        raise NotFound(f"There is no worker {worker_id}.", "gridx workers lists them.")
    return worker_record(row)


def _assigned(
    attempt_id: int,
    number: int,
    new: NewAttempt,
    worker: WorkerRecord,
    now: int,
    mono_ms: int,
    boot_id: str,
) -> AttemptRecord:
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
        assigned_mono_ms=mono_ms,
        boot_id=boot_id,
        reason="",
        charged_ms=0,
        charge=0,
        fee=0,
        stdout_bytes=0,
        stderr_bytes=0,
    )


def start(db: sqlite3.Connection, now: int, attempt_id: int, begin: Begin) -> JobRecord | None:
    """The program runs. None: not the current attempt, or it had started already."""
    live = find_live(db, attempt_id)
    if live is None or live.attempt_state is not AttemptState.ASSIGNED:
        return None
    job = live.job
    values = (now, begin.runtime, attempt_id)
    expect(1, db.execute(_START_ATTEMPT, values).rowcount, "start")
    expect(1, db.execute(_START_JOB, (now, job.id, attempt_id)).rowcount, "start of the job")
    state = JobState.RUNNING if job.state is JobState.ASSIGNED else job.state
    return replace(job, state=state, started_at=moment(now))
