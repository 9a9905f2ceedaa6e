"""Hours of a week as people write them: ``18:00-08:00``, ``mon-fri 18:00-08:00, sat-sun``.

Pure, and by the clock on the wall: what is open at half past eight is so on the day the clocks change, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Final

from gridx.errors import ConfigError

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES: Final = 24 * 60
WEEK_MINUTES: Final = 7 * DAY_MINUTES
MAX_CHARS: Final = 500
EXAMPLE: Final = 'Write hours like "18:00-08:00" or "mon-fri 18:00-08:00, sat-sun".'


@dataclass(frozen=True, slots=True)
class Span:
    """One entry: days (0 is Monday), and from when to when on each, in minutes.

    ``end`` is at most 24 hours after ``begin``; past midnight it reaches into the day after.
    """

    days: tuple[int, ...]
    begin: int = 0
    end: int = DAY_MINUTES

    def __str__(self) -> str:
        parts = []
        if len(self.days) < 7:
            parts.append(_days_text(self.days))
        if (self.begin, self.end) != (0, DAY_MINUTES):
            parts.append(f"{_clock(self.begin)}-{_clock(self.end % DAY_MINUTES or DAY_MINUTES)}")
        return " ".join(parts) or "mon-sun"


@dataclass(frozen=True, slots=True)
class Hours:
    """When something is open; without a span it always is."""

    spans: tuple[Span, ...] = ()

    def __str__(self) -> str:
        return ", ".join(map(str, self.spans))

    def open_at(self, moment: datetime) -> bool:
        """Whether it is open at a local time."""
        if not self.spans:
            return True
        minute = _minute_of_week(moment)
        return any(
            (minute - day * DAY_MINUTES - span.begin) % WEEK_MINUTES < span.end - span.begin
            for span in self.spans
            for day in span.days
        )

    def next_change(self, moment: datetime) -> datetime | None:
        """When it opens or closes next, in local time; None when it never does."""
        now_open = self.open_at(moment)
        midnight = datetime.combine(moment.date(), time(), moment.tzinfo)
        turns = sorted(
            midnight + timedelta(days=ahead, minutes=minute % DAY_MINUTES)
            for ahead in range(8)
            for minute in {edge for span in self.spans for edge in (span.begin, span.end)}
        )
        return next((turn for turn in turns if turn > moment and self.open_at(turn) != now_open), None)


def parse(text: str, key: str = "worker.hours") -> Hours:
    """Hours from their text; nothing written means always.

    Raises:
        ConfigError: it is not understood; says which part and what is allowed.
    """
    if len(text) > MAX_CHARS:
        raise ConfigError(f"{key} has {len(text):,} characters; {MAX_CHARS} are allowed.", EXAMPLE, key=key)
    if not text.strip():
        return Hours()
    spans = []
    for part in text.split(","):
        try:
            spans.append(_span(part.lower().split()))
        except ValueError as error:
            raise ConfigError(
                f"{key}: {part.strip()!r} is not understood: {error}.", EXAMPLE, key=key
            ) from None
    return Hours(tuple(spans))


def when(moment: datetime, now: datetime) -> str:
    """A coming local time in words: ``at 18:00``, ``tomorrow at 08:00``, ``on sat at 00:00``."""
    days = (moment.date() - now.date()).days
    clock = f"{moment:%H:%M}"
    if days < 1:
        return f"at {clock}"
    return f"tomorrow at {clock}" if days == 1 else f"on {DAYS[moment.weekday()]} at {clock}"


def _span(words: list[str]) -> Span:
    if not words:
        raise ValueError("nothing stands between two commas")
    times = [word for word in words if word[0].isdigit()]
    named = [word for word in words if not word[0].isdigit()]
    if len(times) > 1 or (times and words[-1] != times[0]):
        raise ValueError("an entry is days, then one time; several entries are separated by commas")
    days = tuple(sorted({day for word in named for day in _days(word)})) if named else tuple(range(7))
    if not times:
        return Span(days)
    found = re.fullmatch(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})", times[0], re.ASCII)
    if not found:
        raise ValueError(f"{times[0]} is not a time like 18:00-08:00")
    begin, end = _minutes(found[1], found[2]), _minutes(found[3], found[4])
    if begin == end % DAY_MINUTES and end != DAY_MINUTES:
        raise ValueError("it begins and ends at the same time; for the whole day leave the time out")
    if begin == DAY_MINUTES:
        raise ValueError("a day begins at 00:00")
    return Span(days, begin, end if end > begin else end + DAY_MINUTES)


def _days(word: str) -> list[int]:
    first, dash, last = word.partition("-")
    for name in (first, last) if dash else (first,):
        if name not in DAYS:
            raise ValueError(f"{name or word} is not a day; the days are {', '.join(DAYS)}")
    begin = DAYS.index(first)
    count = (DAYS.index(last) - begin) % 7 if dash else 0
    return [(begin + step) % 7 for step in range(count + 1)]


def _minutes(hour: str, minute: str) -> int:
    minutes = int(hour) * 60 + int(minute)
    if int(minute) > 59 or minutes > DAY_MINUTES:
        raise ValueError(f"{hour}:{minute} is no time of day")
    return minutes


def _minute_of_week(moment: datetime) -> int:
    return moment.weekday() * DAY_MINUTES + moment.hour * 60 + moment.minute


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _days_text(days: tuple[int, ...]) -> str:
    """Runs of three and more as a range; a run may go over the end of the week."""
    start = next((day for day in days if (day - 1) % 7 not in days), 0)
    runs: list[list[int]] = []
    for step in range(7):
        day = (start + step) % 7
        if day not in days:
            continue
        if runs and (runs[-1][-1] + 1) % 7 == day:
            runs[-1].append(day)
        else:
            runs.append([day])
    return " ".join(f"{DAYS[run[0]]}-{DAYS[run[-1]]}" if len(run) > 1 else DAYS[run[0]] for run in runs)
