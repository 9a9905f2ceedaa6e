"""The newest entries of one's account, as they are read page by page, and what came in and went out by day.

Only what is new is read again after each change. Pure but for the reading itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from datetime import date, timedelta
from itertools import islice
from typing import Final

from gridx.messages import Entry, EntryPage

DAYS: Final = 30
"""Days that are plotted, and read for it if they are not too many entries."""
PAGE: Final = 500
MAX_ENTRIES: Final = 4000

REASONS: Final = {
    "hold": "set aside",
    "release": "given back",
    "settle": "earned",
    "grant": "granted",
    "transfer": "",
}
"""What an entry without a note is for."""


def by_day(entries: Sequence[Entry], last: date, days: int) -> tuple[list[int], list[int]]:
    """What came in and what went out on each of the ``days`` up to ``last``, in microcredits.

    What was held and given back nets to what was spent.
    """
    gained: dict[date, int] = defaultdict(int)
    spent: dict[date, int] = defaultdict(int)
    for entry in entries:
        day = entry.at.astimezone().date()
        if entry.kind in ("hold", "release") or (entry.kind == "transfer" and entry.amount < 0):
            spent[day] -= entry.amount
        else:
            gained[day] += entry.amount
    span = [last - timedelta(days=n) for n in range(days - 1, -1, -1)]
    return [max(0, gained[day]) for day in span], [max(0, spent[day]) for day in span]


class AccountBook:
    """The newest entries, by id, newest first."""

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        self.complete = False
        """Whether these are all entries that there are."""

    async def read(self, page: Callable[[int | None], Awaitable[EntryPage]], today: date) -> None:
        """Read what is new; at first what is needed for the days, at most ``MAX_ENTRIES``.

        Args:
            page: reads the page before a cursor, ``PAGE`` entries of it.
            today: the last of the days.
        """
        fresh: dict[int, Entry] = {}
        complete, before = self.complete, None
        joined = False
        while not joined:
            found = await page(before)
            fresh |= {entry.id: entry for entry in found.entries}
            joined = bool(self.entries) and any(entry.id in self.entries for entry in found.entries)
            if found.next is None:
                complete, joined = True, False
                break
            old = found.entries[-1].at.astimezone().date() <= today - timedelta(days=DAYS)
            if not joined and (old or len(fresh) >= MAX_ENTRIES):
                complete = False
                break
            before = found.next
        merged = fresh | {id_: e for id_, e in self.entries.items() if id_ not in fresh} if joined else fresh
        self.complete = complete and len(merged) <= MAX_ENTRIES
        self.entries = dict(islice(merged.items(), MAX_ENTRIES))

    def days(self, today: date) -> int:
        """Of how many days up to today every entry is known; at most ``DAYS``."""
        if self.complete or not self.entries:
            return DAYS
        oldest = next(reversed(self.entries.values())).at.astimezone().date()
        return max(1, min(DAYS, (today - oldest).days))
