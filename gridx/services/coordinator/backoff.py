"""How a machine that breaks often gets less for a while. Pure: the caller brings the time."""

from __future__ import annotations

import math
from typing import Final

FIRST_S: Final = 1.0
LONGEST_S: Final = 300.0
HALF_LIFE_S: Final = 600.0
"""Old failures count half after so long."""


class Backoff:
    """Failures of one machine: each one in a row doubles the time in which it is given nothing.

    A success, and time, make it shorter again, so that no machine is shut out for good.
    """

    def __init__(self) -> None:
        self.why = ""
        self._level = 0.0
        self._at = 0.0
        self._until = float("-inf")

    def failed(self, now: float, why: str) -> None:
        """Count a failure. What fails during the pause was begun before it, and says nothing new."""
        if now < self._until:
            return
        self._level = self._decayed(now) + 1
        self.why = why
        # A pause does not make up for itself: failures are forgotten from its end on.
        self._at = self._until = now + min(LONGEST_S, FIRST_S * 2 ** (min(self._level, 20.0) - 1))

    def succeeded(self, now: float) -> None:
        """Count a success."""
        self._level = self._decayed(now) / 2
        self._at = max(now, self._at)

    def left_s(self, now: float) -> float:
        """For how many seconds it is still given nothing."""
        return max(0.0, self._until - now)

    def _decayed(self, now: float) -> float:
        return self._level * math.pow(0.5, max(0.0, now - self._at) / HALF_LIFE_S)
