"""NVML as cards of several kinds answer it: what ``pynvml`` gives, number by number, without a card.

The values are in NVML's own units: bytes, percent, degrees Celsius, milliwatts. What a card does not tell is
the error that the driver raises for it.
"""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pynvml


def error(code: int) -> Exception:
    """What ``pynvml`` raises for a code."""
    return pynvml.NVMLError(code)


NOT_SUPPORTED = error(pynvml.NVML_ERROR_NOT_SUPPORTED)
Card = dict[str, object]

H100: Card = {
    "uuid": "GPU-7d5c1c9e-6c0b-11ef-a8b1-0242ac120002",
    "name": "NVIDIA H100 80GB HBM3",
    "memory": (85_520_809_984, 1_234_567_168),
    "utilisation": 37,
    "temperature": 41,
    "power": 123_456,
    "power_limit": 700_000,
}
A100: Card = {
    "uuid": "GPU-1f0a6e7c-0b11-4d6e-9a51-0242ac120003",
    "name": "NVIDIA A100-SXM4-40GB",
    "memory": (42_949_672_960, 40_802_189_312),
    "utilisation": 98,
    "temperature": 63,
    "power": 391_730,
    "power_limit": 400_000,
}
GEFORCE: Card = {
    "uuid": "GPU-3c1b0f52-8f0a-4a6b-9d3e-0242ac120004",
    "name": "NVIDIA GeForce GT 1030",
    "memory": (2_097_152_000, 311_427_072),
    "utilisation": NOT_SUPPORTED,
    "temperature": 52,
    "power": NOT_SUPPORTED,
    "power_limit": NOT_SUPPORTED,
}
MIG: Card = {
    # Partitioned: the whole card has memory, heat and power, and no utilisation of its own.
    "uuid": "GPU-9a2d7c11-52ab-4c43-8f6d-0242ac120005",
    "name": "NVIDIA A100-PCIE-40GB",
    "memory": (42_505_273_344, 21_823_488),
    "utilisation": NOT_SUPPORTED,
    "temperature": 33,
    "power": 36_702,
    "power_limit": 250_000,
}


class RecordedNvml:
    """What ``pynvml`` answers for the given cards. A value that is an exception is raised."""

    def __init__(self, *cards: dict[str, object]) -> None:
        self.cards = list(cards)
        self.inits = self.shutdowns = 0
        self.init_error: Exception | None = None
        self.dead: Exception | None = None
        self.hang: threading.Event | None = None

    def __getattr__(self, name: str):
        if name.startswith(("NVMLError", "NVML_")):
            return getattr(pynvml, name)
        raise AttributeError(name)

    def _tell(self, value):
        if self.hang is not None:
            self.hang.wait()
        if self.dead is not None:
            raise self.dead
        if isinstance(value, Exception):
            raise value
        return value

    def nvmlInit(self):
        self.inits += 1
        if self.init_error is not None:
            raise self.init_error

    def nvmlShutdown(self):
        self.shutdowns += 1

    def nvmlDeviceGetCount(self):
        return self._tell(len(self.cards))

    def nvmlDeviceGetHandleByIndex(self, index):
        card = self.cards[index]
        self._tell(card.get("handle"))
        return card

    def nvmlDeviceGetUUID(self, card):
        return self._tell(card["uuid"])

    def nvmlDeviceGetName(self, card):
        return self._tell(card["name"])

    def nvmlDeviceGetMemoryInfo(self, card):
        memory = self._tell(card["memory"])
        return SimpleNamespace(total=memory[0], used=memory[1])

    def nvmlDeviceGetUtilizationRates(self, card):
        return SimpleNamespace(gpu=self._tell(card["utilisation"]), memory=0)

    def nvmlDeviceGetTemperature(self, card, sensor):
        assert sensor == pynvml.NVML_TEMPERATURE_GPU
        return self._tell(card["temperature"])

    def nvmlDeviceGetPowerUsage(self, card):
        return self._tell(card["power"])

    def nvmlDeviceGetEnforcedPowerLimit(self, card):
        return self._tell(card["power_limit"])
