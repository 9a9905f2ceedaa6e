"""Rows to records: the columns of each record, by the path that the models know, and the way back.

The writer reads with plain SQL inside its transaction, the readers through the models. Both take the columns
from here, so a record is made in one way.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from gridx.messages import AttemptState, InputFile, JobState
from gridx.services.coordinator.ledger import Prices
from gridx.services.coordinator.states import LIVE_JOBS
from gridx.services.coordinator.store.records import (
    ArrayRecord,
    AttemptRecord,
    BalanceRecord,
    EntryRecord,
    JobRecord,
    Payload,
    TokenRecord,
    UserRecord,
    WorkerRecord,
)

Row = Sequence[Any]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def micros(moment: datetime) -> int:
    """Microseconds since 1970, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


def moment(value: int) -> datetime:
    """The time of a stored number."""
    return _EPOCH + timedelta(microseconds=value)


def _moment_or_none(value: int | None) -> datetime | None:
    return None if value is None else moment(value)


def select(table: str, columns: Sequence[str], joins: dict[str, str], rest: str) -> str:
    """SELECT for the writer: a column ``a__b`` is column ``b`` of the join named ``a``."""
    names = [name.replace("__", ".") if "__" in name else f"{table}.{name}" for name in columns]
    return f"SELECT {', '.join(names)} FROM {table} {' '.join(joins.values())} {rest}"


USER: Final = ("id", "username", "role", "password_hash", "disabled", "created_at")


def user_record(row: Row) -> UserRecord:
    return UserRecord(row[0], row[1], row[2], row[3], bool(row[4]), moment(row[5]))


TOKEN: Final = ("id", "user_id", "label", "created_at", "expires_at", "last_used_at")


def token_record(row: Row) -> TokenRecord:
    return TokenRecord(row[0], row[1], row[2], moment(row[3]), moment(row[4]), _moment_or_none(row[5]))


WORKER: Final = ("id", "user_id", "user__username", "identity", "name", "version", "joined_at", "paused")
SELECT_WORKER: Final = select(
    "workers", WORKER, {"user": "JOIN users AS user ON user.id = workers.user_id"}, "WHERE "
)


def worker_record(row: Row) -> WorkerRecord:
    return WorkerRecord(row[0], row[1], row[2], row[3], row[4], row[5], moment(row[6]), bool(row[7]))


JOB: Final = (
    "id",
    "user_id",
    "user__username",
    "state",
    "reason",
    "language",
    "name",
    "cpu_millis",
    "memory_mb",
    "gpus",
    "timeout_s",
    "priority",
    "max_attempts",
    "runtime",
    "python",
    "core_hour",
    "gib_hour",
    "gpu_hour",
    "fee_ppm",
    "hold",
    "charge",
    "attempts",
    "faults",
    "attempt_id",
    "worker_id",
    "worker__name",
    "created_at",
    "started_at",
    "ended_at",
    "exit_code",
    "signal",
    "peak_memory_bytes",
    "attempt__stdout_bytes",
    "attempt__stderr_bytes",
    "retry_of_id",
    "array_id",
    "array_index",
    "retries",
    "retry_delay_s",
    "failures",
    "not_before",
    "files",
    "file_bytes",
)
_JOB_COLUMNS: Final = ["retry_of" if name == "retry_of_id" else name for name in JOB]
"""As the tables call them."""
SELECT_JOB: Final = select(
    "jobs",
    _JOB_COLUMNS,
    {
        "user": "JOIN users AS user ON user.id = jobs.user_id",
        "worker": "LEFT JOIN workers AS worker ON worker.id = jobs.worker_id",
        "attempt": "LEFT JOIN attempts AS attempt ON attempt.id = jobs.attempt_id",
    },
    "WHERE ",
)


def job_record(row: Row) -> JobRecord:
    state = JobState(row[3])
    return JobRecord(
        id=row[0],
        user_id=row[1],
        owner=row[2],
        state=state,
        reason=row[4],
        language=row[5],
        name=row[6],
        cpu_millis=row[7],
        memory_mb=row[8],
        gpus=row[9],
        timeout_s=row[10],
        priority=row[11],
        max_attempts=row[12],
        runtime=row[13],
        python=row[14],
        prices=Prices(row[15], row[16], row[17], row[18]),
        hold=row[19],
        charge=row[20],
        attempts=row[21],
        faults=row[22],
        current_attempt_id=row[23] if state in LIVE_JOBS else None,
        worker_id=row[24],
        worker_name=row[25] or "",
        created_at=moment(row[26]),
        started_at=_moment_or_none(row[27]),
        ended_at=_moment_or_none(row[28]),
        exit_code=row[29],
        signal=row[30],
        peak_memory_bytes=row[31],
        stdout_bytes=row[32] or 0,
        stderr_bytes=row[33] or 0,
        retry_of=row[34],
        array_id=row[35],
        array_index=row[36],
        retries=row[37],
        retry_delay_s=row[38],
        failures=row[39],
        not_before=_moment_or_none(row[40]),
        files=row[41],
        file_bytes=row[42],
    )


def as_submitted(record: JobRecord) -> JobRecord:
    """A job without anything that happened to it."""
    return replace(
        record,
        state=JobState.QUEUED,
        reason="",
        charge=0,
        attempts=0,
        faults=0,
        current_attempt_id=None,
        worker_id=None,
        worker_name="",
        started_at=None,
        ended_at=None,
        exit_code=None,
        signal=None,
        peak_memory_bytes=None,
        stdout_bytes=0,
        stderr_bytes=0,
        failures=0,
        not_before=None,
        files=0,
        file_bytes=0,
    )


ARRAY: Final = (
    "id",
    "user_id",
    "user__username",
    "name",
    "count",
    "first_index",
    "total_count",
    "max_fails",
    "max_credits",
    "unit",
    "hold",
    "held",
    "charge",
    "open_charge",
    "running_charge",
    "queued",
    "running",
    "succeeded",
    "failed",
    "cancelled",
    "state",
    "reason",
    "stop",
    "changes",
    "created_at",
    "started_at",
    "ended_at",
    "retry_of_id",
)
SELECT_ARRAY: Final = select(
    "arrays",
    [*ARRAY[:-1], "retry_of"],
    {"user": "JOIN users AS user ON user.id = arrays.user_id"},
    "WHERE ",
)


def array_record(row: Row, first: JobRecord) -> ArrayRecord:
    """An array, with its first element."""
    return ArrayRecord(
        id=row[0],
        user_id=row[1],
        owner=row[2],
        name=row[3],
        count=row[4],
        first_index=row[5],
        total_count=row[6],
        max_fails=row[7],
        max_credits=row[8],
        unit=row[9],
        hold=row[10],
        held=row[11],
        charge=row[12],
        open_charge=row[13],
        running_charge=row[14],
        queued=row[15],
        running=row[16],
        succeeded=row[17],
        failed=row[18],
        cancelled=row[19],
        state=JobState(row[20]),
        reason=row[21],
        stop=row[22],
        changes=row[23],
        created_at=moment(row[24]),
        started_at=_moment_or_none(row[25]),
        ended_at=_moment_or_none(row[26]),
        retry_of=row[27],
        model=as_submitted(first),
    )


PAYLOAD: Final = ("job_id", "code", "args", "env", "inputs", "outputs")


def payload(row: Row) -> Payload:
    return Payload(
        row[1],
        json.loads(row[2]),
        json.loads(row[3]),
        input_files(row[4]),
        json.loads(row[5]),
    )


def input_files(text: str) -> list[InputFile]:
    return msgspec.json.decode(text, type=list[InputFile])


ATTEMPT: Final = (
    "id",
    "job_id",
    "number",
    "worker_id",
    "worker__name",
    "worker__user__username",
    "worker__user_id",
    "state",
    "gpus",
    "runtime",
    "assigned_at",
    "started_at",
    "ended_at",
    "assigned_mono_ms",
    "boot_id",
    "reason",
    "charged_ms",
    "charge",
    "fee",
    "stdout_bytes",
    "stderr_bytes",
    "pruned_at",
)


def attempt_record(row: Row) -> AttemptRecord:
    return AttemptRecord(
        id=row[0],
        job_id=row[1],
        number=row[2],
        worker_id=row[3],
        worker_name=row[4],
        worker_owner=row[5],
        worker_user_id=row[6],
        state=AttemptState(row[7]),
        gpus=tuple(json.loads(row[8])),
        runtime=row[9],
        assigned_at=moment(row[10]),
        started_at=_moment_or_none(row[11]),
        ended_at=_moment_or_none(row[12]),
        assigned_mono_ms=row[13],
        boot_id=row[14],
        reason=row[15],
        charged_ms=row[16],
        charge=row[17],
        fee=row[18],
        stdout_bytes=row[19],
        stderr_bytes=row[20],
        pruned_at=_moment_or_none(row[21]),
    )


def select_live(attempt_states: str, job_states: str) -> str:
    """SELECT by the attempt's id: no row, and what was said of it is stale.

    After the columns of the job: the attempt's state, the id of its worker's owner, and the accounts that its
    end moves, of the job's owner and of the worker's.
    """
    return select(
        "jobs",
        [*_JOB_COLUMNS, "attempt__state", "worker__user_id", "payer__id", "payee__id"],
        {
            "attempt": "JOIN attempts AS attempt ON attempt.job_id = jobs.id",
            "user": "JOIN users AS user ON user.id = jobs.user_id",
            "worker": "JOIN workers AS worker ON worker.id = attempt.worker_id",
            "payer": "JOIN accounts AS payer ON payer.user_id = jobs.user_id",
            "payee": "JOIN accounts AS payee ON payee.user_id = worker.user_id",
        },
        "WHERE attempt.id = ? AND attempt.id = jobs.attempt_id"
        f" AND attempt.state IN {attempt_states} AND jobs.state IN {job_states}",
    )


BALANCE: Final = ("user_id", "user__username", "balance", "held", "earned", "spent")
SELECT_BALANCE: Final = select(
    "accounts", BALANCE, {"user": "JOIN users AS user ON user.id = accounts.user_id"}, "WHERE "
)


def balance_record(row: Row) -> BalanceRecord:
    return BalanceRecord(*row)


ENTRY: Final = (
    "id",
    "transaction_id",
    "transaction__at",
    "transaction__kind",
    "amount",
    "transaction__job_id",
    "transaction__attempt_id",
    "transaction__note",
)


def entry_record(row: Row) -> EntryRecord:
    return EntryRecord(row[0], row[1], moment(row[2]), row[3], row[4], row[5], row[6], row[7])
