"""What a new user gets to start with, and how often: an address, a day and the operator's purse have an end.

An account is made in any case; past a cap it starts with nothing, and the answer says so. What was given is
read from the ledger at the first sign-up; to which address is not written down, and forgotten at a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from gridx.clock import Clock
from gridx.config import CreditSettings, microcredits
from gridx.messages import Microcredits
from gridx.services.coordinator.guessing import Window, network
from gridx.services.coordinator.store import Store

DAY_S: Final = 86400.0
NOTE: Final = "sign-up grant"


@dataclass(slots=True)
class Gift:
    """What this user gets; ``notice`` says why it is nothing. ``given`` is set once the ledger has it."""

    amount: Microcredits
    notice: str = ""
    given: bool = False


class SignUpGrants:
    """Gives the grants, one after the other."""

    def __init__(self, store: Store, settings: CreditSettings, clock: Clock) -> None:
        self.amount = microcredits(settings.signup_grant)
        self._store = store
        self._most = settings.signup_grants_total
        self._addresses = Window(settings.signup_grants_per_address, DAY_S)
        self._days = Window(settings.signup_grants_per_day, DAY_S)
        self._clock = clock
        self._lock = asyncio.Lock()
        self._total: int | None = None

    @asynccontextmanager
    async def gift(self, address: str) -> AsyncIterator[Gift]:
        """What the user who signs up from an address gets. Nobody else's is decided while the block runs."""
        async with self._lock:
            if self._total is None:
                self._total = await self._read()
            gift = self._next(network(address))
            yield gift
            if gift.given and gift.amount:
                self._total += 1
                for window, key in ((self._addresses, network(address)), (self._days, "")):
                    window.add(key, self._clock.monotonic())

    def _next(self, place: str) -> Gift:
        now = self._clock.monotonic()
        if not self.amount:
            return Gift(0)
        if self._most is not None and self._total is not None and self._total >= self._most:
            why = "this grid has given all the sign-up grants that its operator meant to give"
        elif self._addresses.wait_s(place, now) > 0:
            why = "too many accounts were made from your address today"
        elif self._days.wait_s("", now) > 0:
            why = "too many accounts were made here today"
        else:
            return Gift(self.amount)
        return Gift(0, f"Your account starts with 0 credits: {why}. An administrator can grant some.")

    async def _read(self) -> int:
        """Count what was given before this start; those of the last day count for the day."""
        now, wall = self._clock.monotonic(), self._clock.now()
        times = await self._store.grant_times(NOTE)
        for at in times:
            if wall - at < timedelta(seconds=DAY_S):
                self._days.add("", now - max(0.0, (wall - at).total_seconds()))
        return len(times)
