"""Time, injected: decisions run on a monotonic clock, and the wall clock is for people to read."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What logic that depends on time is given, so that a test can turn it by hand."""

    def monotonic(self) -> float:
        """Seconds that only grow, whatever is done to the wall clock."""

    def now(self) -> datetime:
        """The time of day in UTC, for people; nothing is computed from it."""


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment of this boot."""
        return time.monotonic()

    def now(self) -> datetime:
        """Now, in UTC."""
        return datetime.now(UTC)
