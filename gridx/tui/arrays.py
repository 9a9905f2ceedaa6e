"""Arrays on the screen: how far one is, how fast it goes and how long it will take, in a few cells."""

from __future__ import annotations

from datetime import datetime

from gridx.messages import ArrayProgress, Job
from gridx.tui import figures


def done(progress: ArrayProgress) -> int:
    """Elements that have ended."""
    return progress.succeeded + progress.failed + progress.cancelled


def counted(progress: ArrayProgress) -> str:
    """How many of how many: ``54/100``."""
    return f"{done(progress)}/{progress.count}"


def bar(progress: ArrayProgress, width: int) -> str:
    """A bar of what has ended, and its percentage, in ``width`` cells."""
    part = done(progress) / progress.count if progress.count else 0.0
    filled, rest = figures.bar(part, max(1, width - 5))
    return f"{filled}{rest} {figures.percent(part)}"


def pace(job: Job, now: datetime) -> str:
    """How many elements end in a second or a minute, and how long the others will take at that."""
    progress = job.array
    if progress is None or job.started_at is None or job.state.ended:
        return ""
    ended, elapsed_s = done(progress), (now - job.started_at).total_seconds()
    if ended == 0 or elapsed_s <= 0:
        return ""
    rate = ended / elapsed_s
    left_s = (progress.count - ended) / rate
    told = next(
        (f"{rate * length:.1f}/{unit}" for unit, length in (("s", 1), ("min", 60)) if rate * length >= 1),
        f"{rate * 3600:.1f}/h",
    )
    return f"{told}, {figures.span(left_s)} left"


def parts(progress: ArrayProgress) -> str:
    """Where its elements are, in words; what there is none of is left out."""
    counts = (
        ("succeeded", progress.succeeded),
        ("failed", progress.failed),
        ("cancelled", progress.cancelled),
        ("running", progress.running),
        ("waiting", progress.queued),
    )
    return " · ".join(f"{count:,} {word}" for word, count in counts if count)


def note(job: Job, now: datetime) -> str:
    """All of it in a line."""
    if job.array is None:
        return ""
    return " · ".join(word for word in (parts(job.array), pace(job, now)) if word)
