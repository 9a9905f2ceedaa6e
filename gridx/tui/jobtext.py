"""A job as text: what it asked for, its timeline, its attempts, its receipt. Safe to print, never markup."""

from __future__ import annotations

import re
from datetime import datetime

from rich.cells import cell_len
from textual.content import Content

from gridx import safetext
from gridx.credits import format_credits
from gridx.messages import Attempt, AttemptReceipt, Job, JobFiles, JobSpec, Receipt
from gridx.tui import arrays, describe, figures
from gridx.tui.cells import wrap_words
from gridx.tui.look import ATTEMPT_LOOKS, JOB_LOOKS, Look

Said = str | tuple[str, str]
LABEL = 12
MOMENT = 18
"""Cells before what happened, in the timeline."""
_CLOCK = re.compile(r"\d\d:\d\d:\d\d | {18}")
BAR = 30
SHOWN = 8
"""Files and jobs that are named; the others are counted."""


def whole(
    job: Job, receipt: Receipt | None, now: datetime, files: JobFiles | None = None, width: int = 80
) -> Content:
    """Everything there is to say about a job besides its program, in lines of at most ``width`` cells."""
    parts: list[Said] = []
    parts += _facts(job, now)
    parts += _timeline(job, now)
    if files is not None:
        parts += _files(files)
    if receipt is not None:
        parts += _receipt(receipt)
    return _hanging(Content.assemble(*parts), width)


def _hanging(text: Content, width: int) -> Content:
    """The text with its long lines broken between words, and what follows a break below the value."""
    lines: list[Content] = []
    for line in text.split("\n", allow_blank=True):
        indent = MOMENT if _CLOCK.match(line.plain) else LABEL
        if cell_len(line.plain) <= width or width <= indent + 10:
            lines.append(line)
            continue
        head, rest = line[:indent], line[indent:]
        pieces = wrap_words(rest.plain, width - indent)
        lines += [
            Content.assemble(head if n == 0 else " " * indent, rest[start:end].rstrip())
            for n, (start, end) in enumerate(pieces)
        ]
    return Content("\n").join(lines)


def _row(label: str, *value: Said) -> list[Said]:
    return [(f"{label:<{LABEL}}", "$foreground 62%"), *value, "\n"]


def _heading(text: str) -> list[Said]:
    return [("\n" + text + "\n", "bold $primary")]


def _state(look: Look) -> tuple[str, str]:
    name = look.style.split()[0]
    return look.text, "$foreground 62%" if name == "muted" else f"bold ${name}"


def _facts(job: Job, now: datetime) -> list[Said]:
    parts: list[Said] = _array(job, now)
    parts += _row("asked for", describe.job_asks(job))
    spec = job.spec if isinstance(job.spec, JobSpec) else None
    if spec is not None and spec.args:
        parts += _row("arguments", safetext.line(" ".join(spec.args), limit=200))
    if spec is not None and spec.env:
        parts += _row("environment", safetext.line(" ".join(sorted(spec.env)), limit=200))
    if spec is not None:
        parts += _given(spec)
    python = f"Python {job.python}" if job.python else "any Python"
    parts += _row("runtime", safetext.line(f"{job.runtime or 'any'}, {python}"))
    parts += _row("priority", f"{job.priority}, at most {job.max_attempts} attempts")
    parts += _tries(job)
    if job.retry_of:
        parts += _row("retry of", f"job {job.retry_of}")
    if job.array is None:
        out, err = figures.size(job.stdout_bytes), figures.size(job.stderr_bytes)
        parts += _row("output", f"stdout {out}, stderr {err}")
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


def _array(job: Job, now: datetime) -> list[Said]:
    """How far an array is, and what it was allowed; or of which array the job is an element."""
    if job.array_id is not None:
        return _row("element", f"{job.array_index} of array {job.array_id}")
    progress = job.array
    if progress is None:
        return []
    parts = _row("elements", (arrays.bar(progress, BAR), "$primary"), f" of {progress.count:,}")
    parts += _row("", arrays.parts(progress))
    if pace := arrays.pace(job, now):
        parts += _row("pace", pace)
    if progress.max_fails is not None:
        parts += _row("stops", f"with more than {progress.max_fails} failures")
    if progress.max_credits is not None:
        parts += _row("budget", f"{format_credits(progress.max_credits)} credits for all of it")
    return parts


def _given(spec: JobSpec) -> list[Said]:
    """Its input files, what comes back, and what has to end before it."""
    parts: list[Said] = []
    if spec.inputs:
        total = figures.size(sum(file.size for file in spec.inputs))
        parts += _row("inputs", f"{len(spec.inputs)} files, {total}")
        for file in spec.inputs[:SHOWN]:
            parts += _row("", f"{safetext.line(file.path, limit=100)}  {figures.size(file.size)}")
        if len(spec.inputs) > SHOWN:
            parts += _row("", f"and {len(spec.inputs) - SHOWN} more")
    if spec.outputs != ["*"]:
        parts += _row("gives back", safetext.line(", ".join(spec.outputs), limit=200) or "nothing")
    for after in spec.after[:SHOWN]:
        how = "has succeeded" if after.when == "success" else "has ended"
        parts += _row("starts when", f"job {after.job_id} {how}")
    if len(spec.after) > SHOWN:
        parts += _row("", f"and {len(spec.after) - SHOWN} more")
    return parts


def _tries(job: Job) -> list[Said]:
    """How often its own failures are tried again."""
    if not job.retries:
        return []
    said = f"{job.failures} of {job.retries} used"
    if job.not_before is not None and not job.state.ended:
        said += f", the next not before {job.not_before.astimezone():%H:%M:%S}"
    return _row("retries", said)


def _files(files: JobFiles) -> list[Said]:
    """What it gave back, and what it left behind and why."""
    if not files.files and not files.left:
        return []
    parts = _heading("Files")
    for file in files.files[:SHOWN]:
        parts += [f"{figures.size(file.size):>9}  {safetext.line(file.path, limit=200)}\n"]
    if len(files.files) > SHOWN:
        parts += [f"{'':>9}  and {len(files.files) - SHOWN} more\n"]
    for left in files.left[:SHOWN]:
        parts += [(f"{'left':>9}  {safetext.line(left.path)}: {safetext.line(left.why)}\n", "$warning")]
    if files.expires_at is not None and files.files:
        parts += [
            (f"{'':>9}  kept until {files.expires_at.astimezone():%Y-%m-%d %H:%M}\n", "$foreground 62%")
        ]
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
