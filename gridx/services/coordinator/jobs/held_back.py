"""What waits and may not be placed yet, each with why: for the time after a failure."""

from __future__ import annotations

from heapq import heappop, heappush

from gridx.services.coordinator.states import retry_delay_s
from gridx.services.coordinator.store.records import JobRecord


class HeldBack:
    """Waiting jobs that the scheduler does not see. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._later: dict[int, tuple[float, JobRecord]] = {}
        self._times: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._later)

    def __contains__(self, job_id: int) -> bool:
        return job_id in self._later

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

    def remove(self, job_id: int) -> None:
        """The job does not wait any more."""
        self._later.pop(job_id, None)

    def why(self, record: JobRecord, now: float) -> str:
        """Why a job is held back; empty when it is not."""
        kept = self._later.get(record.id)
        if kept is None:
            return ""
        left_s = max(1, round(kept[0] - now))
        return f"failed; tries again in {left_s} s (retry {record.failures} of {record.retries})"


def pause_s(record: JobRecord, wall_s: float) -> float:
    """How long a job that failed waits before it is tried again; 0 when it need not.

    Args:
        wall_s: seconds left by the stored time, which counts downward only: clocks are set.
    """
    if record.not_before is None:
        return 0.0
    return max(0.0, min(wall_s, retry_delay_s(record.retry_delay_s, record.failures)))
