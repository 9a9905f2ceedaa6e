"""What waits and may not be placed yet, each with why: for the time after a failure, or for other jobs."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush
from typing import Final

from gridx.services.coordinator.states import retry_delay_s
from gridx.services.coordinator.store.records import ArrayRecord, JobRecord

SHOWN_PARENTS: Final = 3
"""More are counted."""


class HeldBack:
    """Waiting jobs and arrays that the scheduler does not see. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._later: dict[int, tuple[float, JobRecord]] = {}
        self._times: list[tuple[float, int]] = []
        self._behind: dict[int, tuple[JobRecord | ArrayRecord, set[int]]] = {}

    def __len__(self) -> int:
        """How many jobs, the elements of arrays counted."""
        behind = (one.count if isinstance(one, ArrayRecord) else 1 for one, _ in self._behind.values())
        return len(self._later) + sum(behind)

    # -- for a time --------------------------------------------------------------------------------------

    def later(self, record: JobRecord, at: float) -> None:
        """Hold a job back until a time."""
        self._later[record.id] = (at, record)
        heappush(self._times, (at, record.id))

    def due(self, now: float) -> list[JobRecord]:
        """Let go of those whose time has come."""
        found: list[JobRecord] = []
        while self._times and self._times[0][0] <= now:
            at, job_id = heappop(self._times)
            kept = self._later.get(job_id)
            if kept is not None and kept[0] == at:
                del self._later[job_id]
                found.append(kept[1])
        return found

    # -- for others --------------------------------------------------------------------------------------

    def behind(self, record: JobRecord | ArrayRecord, parents: Iterable[int]) -> None:
        """Hold a job or an array back until all of these have ended."""
        self._behind[record.id] = (record, set(parents))

    def met(self, number: int, parent: int) -> JobRecord | ArrayRecord | None:
        """One of those that it waited for has ended; the job or array when that was the last."""
        kept = self._behind.get(number)
        if kept is None:
            return None
        record, parents = kept
        parents.discard(parent)
        if parents:
            return None
        del self._behind[number]
        return record

    # -- both --------------------------------------------------------------------------------------------

    def remove(self, number: int) -> None:
        """The job or array does not wait any more."""
        self._later.pop(number, None)
        self._behind.pop(number, None)

    def why(self, record: JobRecord | ArrayRecord, now: float) -> str:
        """Why a job, or an element, or an array is held back; empty when it is not."""
        number = record.id
        if isinstance(record, JobRecord):
            later = self._later.get(number)
            if later is not None:
                left_s = max(1, round(later[0] - now))
                return f"failed; tries again in {left_s} s (retry {record.failures} of {record.retries})"
            number = record.array_id or number
        behind = self._behind.get(number)
        return "" if behind is None else f"waits for {_listed(sorted(behind[1]))}"


def _listed(parents: list[int]) -> str:
    """``job 17``, ``jobs 17 and 18``, ``jobs 17, 18, 19 and 4 more``."""
    words = [str(parent) for parent in parents[:SHOWN_PARENTS]]
    if more := len(parents) - len(words):
        words.append(f"{more} more")
    if len(words) == 1:
        return f"job {words[0]}"
    return f"jobs {', '.join(words[:-1])} and {words[-1]}"


def pause_s(record: JobRecord, wall_s: float) -> float:
    """How long a job that failed waits before it is tried again; 0 when it need not.

    Args:
        wall_s: seconds left by the stored time, which counts downward only: clocks are set.
    """
    if record.not_before is None:
        return 0.0
    return max(0.0, min(wall_s, retry_delay_s(record.retry_delay_s, record.failures)))


def by_child(pairs: Iterable[tuple[int, int]]) -> dict[int, list[int]]:
    """Pairs of a child and a parent, by child."""
    found: dict[int, list[int]] = {}
    for child, parent in pairs:
        found.setdefault(child, []).append(parent)
    return found
