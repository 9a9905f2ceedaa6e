"""What the tests of the ledger's state machines have in common."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from gridx.services.coordinator.ledger import Prices
from gridx.services.coordinator.store.records import NewJob

PRICES: Final = Prices(1_000_000, 0, 0, fee_ppm=100_000)


class StoppedClock:
    """Always the same moment."""

    def monotonic(self) -> float:
        return 0.0

    def now(self) -> datetime:
        return datetime(2030, 1, 1, tzinfo=UTC)


def new_job(hold: int, max_attempts: int, retries: int, **more: Any) -> NewJob:
    """A job of this price."""
    fields = ("", "python", "", [], {}, 1000, 64, 0, 60, 0, max_attempts, None, None, PRICES, hold)
    return NewJob(*fields, retries=retries, **more)
