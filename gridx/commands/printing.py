"""What commands print: aligned tables, amounts, times, JSON; every text of others passes ``safetext``."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import IO, Any, Final

import click
import msgspec

from gridx import safetext
from gridx.messages import ArrayProgress, Job, JobState, LeftFile
from gridx.quantities import size_words

COLOURS: Final = {
    JobState.QUEUED: "yellow",
    JobState.ASSIGNED: "yellow",
    JobState.RUNNING: "cyan",
    JobState.CANCELLING: "yellow",
    JobState.SUCCEEDED: "green",
    JobState.FAILED: "red",
    JobState.TIMED_OUT: "red",
    JobState.OUT_OF_MEMORY: "red",
    JobState.CANCELLED: None,
    JobState.LOST: "red",
}
"""Never the only sign: the word stands there too."""


def coloured(stream: IO[str]) -> bool:
    """Whether colours may be used: on a terminal, and NO_COLOR is not set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def out(text: str = "") -> None:
    """Print lines to stdout. The text is safe already: made here, or by the functions of this module."""
    click.echo(text, color=coloured(sys.stdout))


def one_line(text: str) -> str:
    """Text that holds words of others, as one line that is safe to print."""
    return safetext.line(text, limit=1000)


def note(text: str) -> None:
    """Tell the person something that is no result: to stderr."""
    click.echo(safetext.clean(text), err=True)


def as_json(value: Any) -> None:
    """Print a value as JSON in ASCII, so that no character of anybody's can act on a terminal."""
    text = json.dumps(msgspec.to_builtins(value), indent=2, ensure_ascii=True)
    click.echo(text.replace("\x7f", "\\u007f"))


def json_line(value: Any) -> None:
    """Print a value as one line of JSON in ASCII."""
    click.echo(json.dumps(value, ensure_ascii=True).replace("\x7f", "\\u007f"))


def elements(progress: ArrayProgress) -> str:
    """Where the elements of an array are: ``1,000 elements: 12 running, 523 succeeded``."""
    counts = (
        (progress.queued, "queued"),
        (progress.running, "running"),
        (progress.succeeded, "succeeded"),
        (progress.failed, "failed"),
        (progress.cancelled, "cancelled"),
    )
    many = f"{progress.count:,} element{'s' if progress.count != 1 else ''}"
    return f"{many}: {', '.join(f'{count:,} {word}' for count, word in counts if count)}"


def left_behind(left: Sequence[LeftFile]) -> None:
    """What did not come back of ``out/``, and why; of an array with the element's index in front."""
    table(("LEFT BEHIND", "WHY"), [(one.path, one.why) for one in left])


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print rows under a head, aligned; columns named in ``right`` to the right."""
    cells = [list(head), *([safetext.line(cell) for cell in row] for row in rows)]
    widths = [max(width(row[i]) for row in cells) for i in range(len(head))]
    for number, row in enumerate(cells):
        line = []
        for i, cell in enumerate(row):
            pad = " " * (widths[i] - width(cell))
            last = i == len(row) - 1
            line.append(pad + cell if head[i] in right else cell + ("" if last else pad))
        text = "  ".join(line).rstrip()
        out(click.style(text, bold=True) if number == 0 else _tinted(text, row))


def fields(pairs: Sequence[tuple[str, str]]) -> None:
    """Print names and values, a line each; a value that is empty is left out."""
    shown = [(name, value) for name, value in pairs if value]
    longest = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        out(f"{name.ljust(longest)}  {safetext.line(value, limit=2000)}")


def width(text: str) -> int:
    """Cells that a text takes on a terminal."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def state_words(job: Job) -> str:
    """State of a job, with the exit code or signal where there is one."""
    words = job.state.value.replace("_", " ")
    if job.array is not None:
        ended = job.array.count - job.array.queued - job.array.running
        return f"{words} ({ended:,} of {job.array.count:,} ended)"
    if job.state is JobState.FAILED and job.exit_code is not None:
        return f"{words} ({job.exit_code})"
    if job.state is JobState.FAILED and job.signal is not None:
        return f"{words} (signal {job.signal})"
    return words


def when(at: datetime | None) -> str:
    """A time of day, in the reader's zone."""
    return "" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def took(start: datetime | None, end: datetime | None) -> str:
    """How long something took, or takes until now."""
    if start is None:
        return ""
    return seconds(((end or datetime.now(UTC)) - start).total_seconds())


def seconds(duration_s: float) -> str:
    """A duration as people say it: ``0.42 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if duration_s < 60:
        return f"{max(0.0, duration_s):.2f} s" if duration_s < 10 else f"{duration_s:.0f} s"
    minutes, rest = divmod(int(duration_s), 60)
    if minutes < 60:
        return _two(minutes, "min", rest, "s")
    hours, minutes = divmod(minutes, 60)
    return _two(hours, "h", minutes, "min") if hours < 48 else _two(hours // 24, "d", hours % 24, "h")


def _two(large: int, unit: str, small: int, subunit: str) -> str:
    return f"{large} {unit}" + (f" {small} {subunit}" if small else "")


size: Final = size_words


def counted(value: float, unit: str) -> str:
    """A number with its unit: ``1 core``, ``0.5 cores``, ``2 GPUs``; symbols like GiB have no plural."""
    plural = "s" if value != 1 and unit in ("core", "GPU") else ""
    return f"{number(value)} {unit}{plural}"


def number(value: float) -> str:
    """A number without needless zeros."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _tinted(text: str, row: Sequence[str]) -> str:
    for state, colour in COLOURS.items():
        word = state.value.replace("_", " ")
        if colour and any(cell == word or cell.startswith(f"{word} (") for cell in row):
            return text.replace(word, click.style(word, fg=colour), 1)
    return text
