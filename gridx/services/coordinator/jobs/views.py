"""Records as their owners see them: jobs, attempts, receipts. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET, UnsetType

from gridx.messages import Attempt, AttemptReceipt, Job, JobSpec, Receipt
from gridx.services.coordinator import ledger
from gridx.services.coordinator.states import PAID
from gridx.services.coordinator.store.records import AttemptRecord, JobRecord, Payload


def job_view(
    record: JobRecord,
    *,
    reason: str | None = None,
    position: int | None = None,
    spec: JobSpec | UnsetType = UNSET,
    attempts: list[Attempt] | UnsetType = UNSET,
) -> Job:
    """A job as its owner sees it. ``reason`` and ``position`` are for one that waits."""
    return Job(
        id=record.id,
        name=record.name,
        owner=record.owner,
        state=record.state,
        language=record.language,
        cpus=record.cpu_millis / 1000,
        memory_mb=record.memory_mb,
        gpus=record.gpus,
        timeout_s=record.timeout_s,
        priority=record.priority,
        max_attempts=record.max_attempts,
        created_at=record.created_at,
        runtime=record.runtime,
        python=record.python,
        reason=record.reason if reason is None else reason,
        attempt=record.attempts,
        worker_id=record.worker_id,
        worker_name=record.worker_name,
        started_at=record.started_at,
        ended_at=record.ended_at,
        exit_code=record.exit_code,
        signal=record.signal,
        peak_memory_bytes=record.peak_memory_bytes,
        stdout_bytes=record.stdout_bytes,
        stderr_bytes=record.stderr_bytes,
        hold=record.hold,
        charge=record.charge,
        retry_of=record.retry_of,
        queue_position=position,
        retries=record.retries,
        failures=record.failures,
        not_before=record.not_before,
        array_id=record.array_id,
        array_index=record.array_index,
        files=record.files,
        file_bytes=record.file_bytes,
        spec=spec,
        attempts=attempts,
    )


def spec_view(record: JobRecord, payload: Payload) -> JobSpec:
    """What was submitted."""
    return JobSpec(
        code=payload.code,
        language=record.language,
        name=record.name,
        args=payload.args,
        env=payload.env,
        cpus=record.cpu_millis / 1000,
        memory_mb=record.memory_mb,
        gpus=record.gpus,
        timeout_s=record.timeout_s,
        priority=record.priority,
        max_attempts=record.max_attempts,
        runtime=record.runtime,
        python=record.python,
        inputs=payload.inputs,
        outputs=payload.outputs,
        retries=record.retries,
        retry_delay_s=record.retry_delay_s,
    )


def attempt_view(record: AttemptRecord) -> Attempt:
    """One execution."""
    return Attempt(
        id=record.id,
        number=record.number,
        state=record.state,
        worker_id=record.worker_id,
        worker_name=record.worker_name,
        worker_owner=record.worker_owner,
        assigned_at=record.assigned_at,
        started_at=record.started_at,
        ended_at=record.ended_at,
        reason=record.reason,
        runtime=record.runtime,
        gpus=list(record.gpus),
    )


def receipt_view(job: JobRecord, attempts: Sequence[AttemptRecord]) -> Receipt:
    """The whole account of a job; while it has not ended, nothing of the hold is released."""
    size = (job.cpu_millis, job.memory_mb, job.gpus)
    return Receipt(
        job_id=job.id,
        owner=job.owner,
        state=job.state,
        hold=job.hold,
        charge=job.charge,
        released=job.hold - job.charge if job.state.ended else 0,
        attempts=[
            AttemptReceipt(
                attempt_id=attempt.id,
                number=attempt.number,
                state=attempt.state,
                worker_id=attempt.worker_id,
                worker_name=attempt.worker_name,
                worker_owner=attempt.worker_owner,
                charged_ms=attempt.charged_ms,
                lines=ledger.lines(job.prices, *size, attempt.charged_ms) if attempt.state in PAID else [],
                charge=attempt.charge,
                fee=attempt.fee,
                gpus=list(attempt.gpus),
                runtime=attempt.runtime,
                reason=attempt.reason,
            )
            for attempt in attempts
        ],
    )
