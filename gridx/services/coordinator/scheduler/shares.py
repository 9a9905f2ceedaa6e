"""Fair share: what each owner consumed lately, where a half-life makes the past count less and less."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

_FORGOTTEN: Final = 1.0
"""Usage, in microcredits, below which an owner is as one that never ran anything."""


class Shares:
    """Decayed usage by owner. The unit of usage is the microcredit; times are monotonic seconds."""

    def __init__(self, half_life_s: float) -> None:
        self._half_life_s = half_life_s
        self._usage: dict[int, tuple[float, float]] = {}

    def add(self, owner_id: int, usage: float, now: float, *, ended_at: float | None = None) -> None:
        """Count what an owner consumed; ``ended_at`` in the past counts for less."""
        if ended_at is not None:
            usage *= self._kept(now - ended_at)
        self._usage[owner_id] = (self.usage(owner_id, now) + usage, now)

    def usage(self, owner_id: int, now: float) -> float:
        """What an owner's past counts now."""
        value, at = self._usage.get(owner_id, (0.0, now))
        return value * self._kept(now - at)

    def _kept(self, age_s: float) -> float:
        return math.pow(0.5, max(0.0, age_s) / self._half_life_s)

    def scores(self, owner_ids: Iterable[int], running: Mapping[int, float], now: float) -> dict[int, float]:
        """By owner, how much they have had; who has the least is next.

        Args:
            running: by owner, what their running jobs cost in an hour. It counts as if it had gone on for a
                half-life, so that machines are shared from the first moment, before any usage is known.
        """
        hours = self._half_life_s / 3600
        return {id: self.usage(id, now) + running.get(id, 0.0) * hours for id in owner_ids}

    def forget(self, now: float) -> None:
        """Drop owners whose usage has decayed to nothing, so that the table stays as small as the present."""
        self._usage = {id: entry for id, entry in self._usage.items() if self.usage(id, now) > _FORGOTTEN}
