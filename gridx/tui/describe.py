"""Jobs, workers and amounts as short texts that are safe to print."""

from __future__ import annotations

from datetime import datetime

from gridx import safetext
from gridx.credits import format_credits
from gridx.messages import Job, Microcredits
from gridx.tui import arrays, figures


def credits_short(amount: Microcredits) -> str:
    """An amount with as many digits as a narrow column needs; never rounded to nothing."""
    if amount == 0:
        return "0"
    for step, digits in ((1_000_000_000, 0), (10_000_000, 2), (100_000, 3), (1000, 4)):
        if abs(amount) >= step:
            return f"{amount / 1e6:,.{digits}f}"
    return format_credits(amount)


def job_title(job: Job) -> str:
    """The job's name, or what stands for it; of an array with its count, of an element with its index."""
    name = safetext.line(job.name, limit=100) or f"job {job.array_id or job.id}"
    if job.array is not None:
        return f"{arrays.counted(job.array)} {name}"
    return name if job.array_index is None else f"[{job.array_index}] {name}"


def job_age_s(job: Job, now: datetime) -> float:
    """Seconds since it was submitted."""
    return (now - job.created_at).total_seconds()


def job_run_s(job: Job, now: datetime) -> float | None:
    """Seconds that it has run, or ran; None before it started."""
    if job.started_at is None:
        return None
    return max(0.0, ((job.ended_at or now) - job.started_at).total_seconds())


def job_run(job: Job, now: datetime) -> str:
    """Its run time for a column."""
    seconds = job_run_s(job, now)
    return "" if seconds is None else figures.span(seconds)


def job_cost(job: Job) -> str:
    """What it cost, or at most will cost while it has not ended."""
    return credits_short(job.charge) if job.state.ended else f"<{credits_short(job.hold)}"


def job_note(job: Job) -> str:
    """Why it waits, how it ended, or nothing."""
    return safetext.line(job.reason, limit=300)


def job_place(job: Job, width: int) -> str:
    """Where it runs; of an array a bar of how far it is, in ``width`` cells."""
    return safetext.line(job.worker_name) if job.array is None else arrays.bar(job.array, width)


def job_asks(job: Job) -> str:
    """What it asked for."""
    gpus = f" · {job.gpus} GPU{'s' if job.gpus > 1 else ''}" if job.gpus else ""
    return (
        f"{figures.cores(round(job.cpus * 1000))} core{'' if job.cpus == 1 else 's'} · "
        f"{figures.mebibytes(job.memory_mb)}{gpus} · at most {figures.span(job.timeout_s)}"
    )
