"""A job as text: what it asked for, its timeline, its attempts, its receipt. Safe to print, never markup."""

from __future__ import annotations

from datetime import datetime

from textual.content import Content

from gridx import safetext
from gridx.credits import format_credits
from gridx.messages import Attempt, AttemptReceipt, Job, JobSpec, Receipt
from gridx.tui import describe, figures
from gridx.tui.look import ATTEMPT_LOOKS, JOB_LOOKS, Look

Said = str | tuple[str, str]
LABEL = 12


def whole(job: Job, receipt: Receipt | None, now: datetime) -> Content:
    """Everything there is to say about a job besides its program."""
    parts: list[Said] = []
    parts += _facts(job, now)
    parts += _timeline(job, now)
    if receipt is not None:
        parts += _receipt(receipt)
    return Content.assemble(*parts)


def _row(label: str, *value: Said) -> list[Said]:
    return [(f"{label:<{LABEL}}", "$foreground 62%"), *value, "\n"]


def _heading(text: str) -> list[Said]:
    return [("\n" + text + "\n", "bold $primary")]


def _state(look: Look) -> tuple[str, str]:
    name = look.style.split()[0]
    return look.text, "$foreground 62%" if name == "muted" else f"bold ${name}"


def _facts(job: Job, now: datetime) -> list[Said]:
    parts: list[Said] = []
    parts += _row("asked for", describe.job_asks(job))
    spec = job.spec if isinstance(job.spec, JobSpec) else None
    if spec is not None and spec.args:
        parts += _row("arguments", safetext.line(" ".join(spec.args), limit=200))
    if spec is not None and spec.env:
        parts += _row("environment", safetext.line(" ".join(sorted(spec.env)), limit=200))
    python = f"Python {job.python}" if job.python else "any Python"
    parts += _row("runtime", safetext.line(f"{job.runtime or 'any'}, {python}"))
    parts += _row("priority", f"{job.priority}, at most {job.max_attempts} attempts")
    if job.retry_of:
        parts += _row("retry of", f"job {job.retry_of}")
    parts += _row(
        "output", f"stdout {figures.size(job.stdout_bytes)}, stderr {figures.size(job.stderr_bytes)}"
    )
    if job.peak_memory_bytes is not None:
        parts += _row("peak memory", figures.size(job.peak_memory_bytes))
    if (run := describe.job_run(job, now)) != "":
        parts += _row("ran", run)
    if job.exit_code is not None:
        parts += _row("exit code", str(job.exit_code))
    if job.signal is not None:
        parts += _row("signal", str(job.signal))
    if note := describe.job_note(job):
        parts += _row("ended" if job.state.ended else "because", note)
    return parts


def _timeline(job: Job, now: datetime) -> list[Said]:
    parts = _heading("Timeline")
    parts += _moment(job.created_at, job.created_at, "submitted")
    attempts = job.attempts if isinstance(job.attempts, list) else []
    for attempt in attempts:
        parts += _attempt(job, attempt)
    if job.ended_at is not None:
        parts += _moment(job.ended_at, job.created_at, _state(JOB_LOOKS[job.state]))
    else:
        place = f", place {job.queue_position} in the queue" if job.queue_position else ""
        parts += _moment(now, job.created_at, _state(JOB_LOOKS[job.state]), place)
    return parts


def _moment(at: datetime, since: datetime, *what: Said) -> list[Said]:
    later = (at - since).total_seconds()
    return [
        (f"{at.astimezone():%H:%M:%S} ", "$foreground 62%"),
        (f"{'+' + figures.span(later) if later >= 0.05 else '':>8} ", "$foreground 62%"),
        *what,
        "\n",
    ]


def _attempt(job: Job, attempt: Attempt) -> list[Said]:
    where = f"{safetext.line(attempt.worker_name)} of {safetext.line(attempt.worker_owner)}"
    parts = _moment(attempt.assigned_at, job.created_at, f"attempt {attempt.number} to {where}")
    if attempt.started_at is not None:
        runtime = f" in {safetext.line(attempt.runtime)}" if attempt.runtime else ""
        parts += _moment(attempt.started_at, job.created_at, f"started{runtime}")
    if attempt.ended_at is not None:
        reason = f": {safetext.line(attempt.reason)}" if attempt.reason else ""
        look = _state(ATTEMPT_LOOKS[attempt.state])
        parts += _moment(attempt.ended_at, job.created_at, f"attempt {attempt.number} ", look, reason)
    if attempt.gpus:
        parts += [" " * 18, (f"GPUs {safetext.line(', '.join(attempt.gpus))}\n", "$foreground 62%")]
    return parts


def _receipt(receipt: Receipt) -> list[Said]:
    parts = _heading("Receipt")
    parts += _row("held", f"{format_credits(receipt.hold)} credits")
    for attempt in receipt.attempts:
        parts += _charge(attempt)
    parts += _row("charged", (f"{format_credits(receipt.charge)} credits", "bold"))
    parts += _row("given back", f"{format_credits(receipt.released)} credits")
    return parts


def _charge(attempt: AttemptReceipt) -> list[Said]:
    where = safetext.line(attempt.worker_name)
    if not attempt.charge and not attempt.charged_ms:
        why = safetext.line(attempt.reason) or f"{attempt.state.replace('_', ' ')}"
        return _row(f"attempt {attempt.number}", f"on {where}: nothing ({why})")
    parts = _row(
        f"attempt {attempt.number}",
        f"on {where}: {attempt.charged_ms / 1000:.3f} s, {format_credits(attempt.charge)} credits",
    )
    for line in attempt.lines:
        amount = f"{line.quantity:g} {safetext.line(line.unit)} at {format_credits(line.per_hour)} an hour"
        parts += [
            " " * LABEL,
            (f"{line.item:<7}{amount}: {format_credits(line.amount)}\n", "$foreground 62%"),
        ]
    if attempt.fee:
        parts += [" " * LABEL, (f"of which fee {format_credits(attempt.fee)}\n", "$foreground 62%")]
    for gpu in attempt.gpus:
        parts += [" " * LABEL, (f"GPU {safetext.line(gpu)}\n", "$foreground 62%")]
    return parts
