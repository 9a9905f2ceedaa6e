"""How long to wait before the next try, and how often to say so."""

from __future__ import annotations

import logging
import random
from typing import Final

FIRST_S: Final = 0.25
CAP_S: Final = 15.0


class Backoff:
    """Exponential waiting with jitter, so that many workers do not come back at the same instant."""

    def __init__(self, rng: random.Random, *, first_s: float = FIRST_S, cap_s: float = CAP_S) -> None:
        self._rng = rng
        self._first_s = first_s
        self._cap_s = cap_s
        self._failures = 0

    def next(self, *, at_least_s: float = 0.0) -> float:
        """Seconds to wait now: between half and the whole of a time that doubles up to the cap."""
        whole = min(self._cap_s, self._first_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return max(at_least_s, whole * self._rng.uniform(0.5, 1.0))

    def reset(self) -> None:
        """It worked."""
        self._failures = 0


class Complaint:
    """Says each reason once while it lasts, and then again every so many tries."""

    EVERY: Final = 20

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said = ""
        self._silent = 0

    def say(self, text: str, wait_s: float) -> None:
        """Log why it did not work, unless that is known."""
        if text == self._said and self._silent < self.EVERY:
            self._silent += 1
            return
        self._log.warning("%s Trying again, next in %.1f s.", text, wait_s)
        self._said, self._silent = text, 0

    def over(self) -> None:
        """It works; the same reason is news again."""
        self._said, self._silent = "", 0
