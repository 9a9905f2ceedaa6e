"""How long each attempt is still this worker's: leases as the worker must see them.

A lease runs from the moment at which the last *renewed* sample that named the attempt was sent. The
coordinator counts from that sample's arrival, so this side always ends first, whatever the line does.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

from gridx.clock import Clock


class Leases:
    """The leases of one worker, on its own monotonic clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.lease_s = 0.0
        """How long a lease lasts; 0 before the first connection."""
        self._confirmed_at = clock.monotonic()
        self._renewed_at: dict[int, float] = {}
        self._sent: OrderedDict[int, tuple[float, frozenset[int]]] = OrderedDict()

    def joined(self, lease_s: float, hello_sent_at: float) -> None:
        """A connection stands: samples of the one before will not be answered any more."""
        self.lease_s = lease_s
        self._confirmed_at = hello_sent_at
        self._sent.clear()

    def begin(self, attempt_id: int) -> None:
        """The coordinator gave us an attempt.

        It did so after all that it has answered had arrived, so the last answered moment is early enough.
        """
        self._renewed_at[attempt_id] = self._confirmed_at

    def sample_sent(self, seq: int, attempt_ids: Collection[int]) -> None:
        """A sample is about to be sent."""
        self._sent[seq] = (self._clock.monotonic(), frozenset(attempt_ids))

    def renewed(self, seq: int) -> None:
        """The coordinator answered a sample; older ones cannot be answered after it."""
        while self._sent and next(iter(self._sent)) <= seq:
            number, (sent_at, attempt_ids) = self._sent.popitem(last=False)
            if number != seq:
                continue
            self._confirmed_at = max(self._confirmed_at, sent_at)
            for attempt_id in attempt_ids & self._renewed_at.keys():
                self._renewed_at[attempt_id] = max(self._renewed_at[attempt_id], sent_at)

    def end(self, attempt_id: int) -> None:
        """The attempt ended here; its result has no lease."""
        self._renewed_at.pop(attempt_id, None)

    def lapsed(self) -> list[int]:
        """Attempts that are no longer ours."""
        now = self._clock.monotonic()
        # Added as the coordinator adds, so that no rounding makes this side the later one.
        return [
            attempt_id
            for attempt_id, renewed_at in self._renewed_at.items()
            if renewed_at + self.lease_s <= now
        ]
