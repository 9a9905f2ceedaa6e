"""Records as their owners see them: jobs, attempts, receipts. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from gridx.messages import (
    ArrayProgress,
    ArraySpec,
    Attempt,
    AttemptReceipt,
    Dependency,
    Job,
    JobSpec,
    LeftFile,
    OutputFile,
    Receipt,
)
from gridx.services.coordinator import ledger
from gridx.services.coordinator.jobs.backlog import Wait
from gridx.services.coordinator.states import PAID
from gridx.services.coordinator.store.records import ArrayRecord, AttemptRecord, JobRecord, Payload


def job_view(
    record: JobRecord,
    wait: Wait | None = None,
    *,
    spec: JobSpec | UnsetType = UNSET,
    attempts: list[Attempt] | UnsetType = UNSET,
) -> Job:
    """A job as its owner sees it. ``wait`` is for one that waits."""
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
        reason=record.reason if wait is None else wait.reason,
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
        queue_position=wait.place if wait else None,
        unschedulable=wait is not None and wait.never,
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


def array_view(
    record: ArrayRecord,
    wait: Wait | None = None,
    *,
    spec: JobSpec | UnsetType = UNSET,
) -> Job:
    """An array as its owner sees it: one job, with where its elements are."""
    model = record.model
    return Job(
        id=record.id,
        name=record.name,
        owner=record.owner,
        state=record.state,
        language=model.language,
        cpus=model.cpu_millis / 1000,
        memory_mb=model.memory_mb,
        gpus=model.gpus,
        timeout_s=model.timeout_s,
        priority=model.priority,
        max_attempts=model.max_attempts,
        created_at=record.created_at,
        runtime=model.runtime,
        python=model.python,
        reason=record.reason or (wait.reason if wait else ""),
        started_at=record.started_at,
        ended_at=record.ended_at,
        hold=record.held,
        charge=record.charge,
        retry_of=record.retry_of,
        queue_position=wait.place if wait else None,
        unschedulable=wait is not None and wait.never,
        retries=model.retries,
        array=ArrayProgress(
            count=record.count,
            queued=record.queued,
            running=record.running,
            succeeded=record.succeeded,
            failed=record.failed,
            cancelled=record.cancelled,
            max_fails=record.max_fails,
            max_credits=record.max_credits,
        ),
        spec=spec,
    )


def array_receipt(record: ArrayRecord, left: list[LeftFile]) -> Receipt:
    """The sums of an array; each element has a receipt of its own."""
    return Receipt(
        job_id=record.id,
        owner=record.owner,
        state=record.state,
        hold=record.hold,
        charge=record.charge,
        released=record.hold - record.held - record.charge,
        attempts=[],
        left=left,
    )


def array_spec(record: ArrayRecord, payload: Payload, after: Sequence[Dependency]) -> JobSpec:
    """What was submitted, but for what each element has of its own."""
    array = ArraySpec(
        count=record.count,
        first=record.first_index,
        max_fails=record.max_fails,
        max_credits=record.max_credits,
    )
    return replace(spec_view(record.model, payload, after), array=array)


def spec_view(record: JobRecord, payload: Payload, after: Sequence[Dependency] = ()) -> JobSpec:
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
        after=list(after),
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


def receipt_view(
    job: JobRecord,
    attempts: Sequence[AttemptRecord],
    files: Mapping[int, tuple[list[OutputFile], list[LeftFile]]],
) -> Receipt:
    """The whole account of a job; while it has not ended, nothing of the hold is released.

    Args:
        files: what came back of an attempt and what did not, by its id.
    """
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
                files=files.get(attempt.id, ([], []))[0],
                left=files.get(attempt.id, ([], []))[1],
            )
            for attempt in attempts
        ],
    )
