"""Programs of waiting jobs kept at hand, so that most need not be read again to be sent."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from gridx.services.coordinator.store.records import Payload

CACHE_BYTES: Final = 32 << 20


class Payloads:
    """By the number of a job, or of an array for what its elements share."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, Payload] = OrderedDict()
        self._bytes = 0

    def get(self, number: int) -> Payload | None:
        """The payload, if it is at hand."""
        return self._kept.get(number)

    def keep(self, number: int, payload: Payload) -> None:
        """Keep it while there is room."""
        self.drop(number)
        self._kept[number] = payload
        self._bytes += _size(payload)
        while self._bytes > CACHE_BYTES:
            # The last to have come is the last to run; it is read again when its turn comes.
            _, dropped = self._kept.popitem(last=True)
            self._bytes -= _size(dropped)

    def drop(self, number: int) -> None:
        """It need not be kept at hand any more."""
        payload = self._kept.pop(number, None)
        if payload is not None:
            self._bytes -= _size(payload)


def _size(payload: Payload) -> int:
    """About how many bytes a payload takes in memory."""
    texts = [payload.code, *payload.args, *payload.env.keys(), *payload.env.values()]
    return sum(len(text) for text in texts) + 64 * len(texts) + 256 * len(payload.inputs)
