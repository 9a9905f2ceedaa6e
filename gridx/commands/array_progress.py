"""How far an array is: a bar on a terminal, a line now and then elsewhere; both to stderr."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from gridx.commands import printing
from gridx.errors import Unreachable
from gridx.messages import ArrayProgress, Job

if TYPE_CHECKING:
    from gridx.client import Client

BAR_EVERY_S: Final = 0.5
LINE_EVERY_S: Final = 10.0
RATE_OVER_S: Final = 30.0
"""The rate is of the last so many seconds."""
_FULL, _EMPTY = "#", "."


class Rate:
    """Elements ended in a second, of late, and the time that is left at that rate."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def saw(self, now: float, done: int) -> None:
        """So many had ended at this time, in seconds of any clock."""
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[0][0] > RATE_OVER_S:
            self._seen.popleft()

    @property
    def per_s(self) -> float:
        """0 while it is not known."""
        if len(self._seen) < 2:
            return 0.0
        (first_at, first), (last_at, last) = self._seen[0], self._seen[-1]
        return (last - first) / (last_at - first_at) if last_at > first_at else 0.0

    def left_s(self, still: int) -> float | None:
        """Until so many more have ended; None while there is no telling."""
        return still / self.per_s if self.per_s > 0 else None


def words(progress: ArrayProgress, rate: Rate) -> str:
    """``523 of 1,000 ended, 12 running, 3 failed, 41/s, 12 s left``."""
    done = ended(progress)
    parts = [f"{done:,} of {progress.count:,} ended"]
    for count, word in (
        (progress.running, "running"),
        (progress.failed, "failed"),
        (progress.cancelled, "cancelled"),
    ):
        if count:
            parts.append(f"{count:,} {word}")
    left_s = rate.left_s(progress.count - done)
    if left_s is not None and done < progress.count:
        parts.append(f"{_per_second(rate.per_s)}, {printing.seconds(left_s)} left")
    return ", ".join(parts)


def ended(progress: ArrayProgress) -> int:
    """Elements that have ended, however."""
    return progress.succeeded + progress.failed + progress.cancelled


def _per_second(rate: float) -> str:
    return f"{rate:.0f}/s" if rate >= 10 else f"{rate:.1f}/s" if rate >= 0.1 else f"{rate * 60:.1f}/min"


def bar(progress: ArrayProgress, text: str, width: int) -> str:
    """One line of at most ``width`` cells."""
    room = width - len(text) - 4
    if room < 5:
        return text[:width]
    room = min(room, 40)
    full = room * ended(progress) // progress.count
    return f"[{_FULL * full}{_EMPTY * (room - full)}] {text}"


async def follow(grid: Client, array_id: int, *, quiet: bool = False) -> Job:
    """Show how an array gets on until it has ended, over restarts of the coordinator."""
    from gridx.client_follow import Patience  # here: --help need not load what speaks HTTP

    live = sys.stderr.isatty() and not quiet
    rate = Rate()
    told = ""
    told_at = time.monotonic()
    patience = Patience()
    while True:
        try:
            job = await grid.job(array_id)
        except Unreachable as error:
            await patience.another_try(error)
            continue
        patience = Patience()
        progress = job.array
        assert progress is not None
        now = time.monotonic()
        rate.saw(now, ended(progress))
        if job.state.ended:
            if live:
                sys.stderr.write("\r\x1b[K")
                sys.stderr.flush()
            return job
        waits = f"waits: {job.reason}" if job.reason and not progress.running else ""
        text = ", ".join(filter(None, (words(progress, rate), printing.one_line(waits))))
        if live:
            sys.stderr.write(f"\r\x1b[K{bar(progress, text, shutil.get_terminal_size().columns - 1)}")
            sys.stderr.flush()
        elif not quiet and text != told and now - told_at >= LINE_EVERY_S:
            printing.note(f"Array {array_id}: {text}")
            told, told_at = text, now
        await asyncio.sleep(BAR_EVERY_S)
