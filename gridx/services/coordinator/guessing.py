"""Limits on guessing passwords, per account and address, and looser per address.

A failed sign-in counts against the pair of account and address, so that whoever guesses shuts out nobody but
themselves. An attempt counts from its beginning, since hundreds can be under way before the first has failed.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final

from gridx.clock import Clock
from gridx.errors import TooMany

ADDRESS_FACTOR: Final = 10
"""An address may fail this many times as often as one account from it."""
MAX_REMEMBERED: Final = 20_000
"""Pairs and addresses that are kept; the longest untouched are forgotten first."""


class Window:
    """Moments by key, such as failures of an address, within a time."""

    def __init__(self, most: int, window_s: float) -> None:
        self._most = most
        self._window_s = window_s
        self._by_key: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, key: str, now: float) -> float:
        """Seconds until one more attempt is allowed; 0: at once."""
        times = self._by_key.get(key, deque())
        while times and times[0] <= now - self._window_s:
            times.popleft()
        if len(times) < self._most:
            return 0.0
        return times[0] + self._window_s - now if times else self._window_s

    def add(self, key: str, now: float) -> None:
        self._by_key.setdefault(key, deque()).append(now)
        self._by_key.move_to_end(key)
        while len(self._by_key) > MAX_REMEMBERED:
            self._by_key.popitem(last=False)

    def take_back(self, key: str, moment: float) -> None:
        times = self._by_key.get(key)
        if times is not None and moment in times:
            times.remove(moment)
            if not times:
                del self._by_key[key]

    def forget(self, key: str) -> None:
        self._by_key.pop(key, None)


@dataclass(frozen=True, slots=True)
class Guess:
    """One attempt under way; it counts as failed until it is said to be right or void."""

    limits: GuessLimits
    pair: str
    address: str
    moment: float

    def right(self) -> None:
        """The password was right: what failed before, from here, is forgiven."""
        self.limits.forgive(self)

    def void(self) -> None:
        """Nothing was found out: the attempt does not count."""
        self.limits.take_back(self)


class GuessLimits:
    """Who has to wait before trying again.

    Args:
        failures: failed attempts of one account from one address within the window.
        window_s: seconds that a failure counts.
    """

    def __init__(self, *, failures: int, window_s: float, clock: Clock) -> None:
        self._pairs = Window(failures, window_s)
        self._addresses = Window(failures * ADDRESS_FACTOR, window_s)
        self._welcome: OrderedDict[str, None] = OrderedDict()
        self._clock = clock

    def begin(self, account: str, address: str) -> Guess:
        """Begin an attempt.

        Raises:
            TooMany: too many failed already; ``retry_after_s`` says when the next is allowed.
        """
        now = self._clock.monotonic()
        place = network(address)
        pair = f"{place} {account.casefold()}"
        wait_s = self._pairs.wait_s(pair, now)
        # Whoever has signed in from this address before is not held up by others behind the same one.
        if pair not in self._welcome:
            wait_s = max(wait_s, self._addresses.wait_s(place, now))
        if wait_s > 0:
            seconds = math.ceil(wait_s)
            raise TooMany(
                "Too many sign-ins failed from here.",
                f"Try again in {seconds} s. An administrator can set a new password.",
                retry_after_s=seconds,
            )
        self._pairs.add(pair, now)
        self._addresses.add(place, now)
        return Guess(self, pair, place, now)

    def forgive(self, guess: Guess) -> None:
        """Forget the failures of the pair of a guess that was right."""
        self._pairs.forget(guess.pair)
        self._addresses.take_back(guess.address, guess.moment)
        self._welcome[guess.pair] = None
        self._welcome.move_to_end(guess.pair)
        while len(self._welcome) > MAX_REMEMBERED:
            self._welcome.popitem(last=False)

    def take_back(self, guess: Guess) -> None:
        """Count a guess as never made."""
        self._pairs.take_back(guess.pair, guess.moment)
        self._addresses.take_back(guess.address, guess.moment)


def network(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 that one machine has in IPv6."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
