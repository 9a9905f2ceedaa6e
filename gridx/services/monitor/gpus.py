"""GPUs by NVML: what there is, and how each is doing.

No driver is no GPU. What a card does not tell is ``None``. A driver that dies while we look is no GPU until
it comes back, for which it is asked now and then. NVML is handed in: tests speak for cards they lack.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from gridx import safetext
from gridx.messages import Gpu, GpuSample

log = logging.getLogger("gridx.monitor")

T = TypeVar("T")

RETRY_S: Final = 30.0
"""How long after a failure the driver is asked again."""
MAX_GPUS: Final = 64
_UUID: Final = re.compile(r"[A-Za-z0-9-]{1,96}\Z")


@dataclass(frozen=True, slots=True)
class GpuReading:
    """All GPUs at one moment."""

    gpus: tuple[Gpu, ...] = ()
    samples: tuple[GpuSample, ...] = ()


class Gpus:
    """The machine's GPUs. Every method blocks, and a bad driver may block it for ever: see ``Lane``.

    Args:
        nvml: the module ``pynvml`` or what behaves like it; None: that module, if it can be loaded.
        monotonic: seconds, for the time of the next try.
    """

    def __init__(self, nvml: Any = None, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._nvml = nvml
        self._monotonic = monotonic
        self._ready = False
        self._retry_at = float("-inf")
        self._told = ""

    def read(self) -> GpuReading:
        """All GPUs now; none where there is no driver, or where it does not work at the moment."""
        if not self._start():
            return GpuReading()
        try:
            found = [self._one(index) for index in range(min(self._nvml.nvmlDeviceGetCount(), MAX_GPUS))]
        except self._nvml.NVMLError as error:
            self._fail(error)
            return GpuReading()
        seen = [pair for pair in found if pair is not None]
        return GpuReading(tuple(gpu for gpu, _ in seen), tuple(sample for _, sample in seen))

    def close(self) -> None:
        """Leave the driver alone."""
        if self._ready:
            self._shut()

    def _start(self) -> bool:
        if self._ready:
            return True
        now = self._monotonic()
        if now < self._retry_at:
            return False
        self._retry_at = now + RETRY_S
        if self._nvml is None:
            import pynvml  # here: a worker without a GPU needs it no earlier

            self._nvml = pynvml
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            # No driver, or one that does not work, is how most machines are.
            if str(error) != self._told:
                log.debug("no GPUs: %s", safetext.line(str(error)))
                self._told = str(error)
            return False
        self._ready = True
        return True

    def _fail(self, error: Exception) -> None:
        log.warning("the GPUs cannot be read any more: %s", safetext.line(str(error)))
        self._shut()
        self._retry_at = self._monotonic() + RETRY_S

    def _shut(self) -> None:
        self._ready = False
        try:
            self._nvml.nvmlShutdown()
        except self._nvml.NVMLError as error:
            log.debug("NVML did not shut down: %s", safetext.line(str(error)))

    def _one(self, index: int) -> tuple[Gpu, GpuSample] | None:
        """One card; None when it has no usable name of its own, as a card that fell off the bus."""
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            uuid = _text(nvml.nvmlDeviceGetUUID(handle))
        except (
            nvml.NVMLError_GpuIsLost,
            nvml.NVMLError_NotSupported,
            nvml.NVMLError_NotFound,
            nvml.NVMLError_NoPermission,
        ) as error:
            log.debug("GPU %d does not answer: %s", index, safetext.line(str(error)))
            return None
        if not _UUID.match(uuid):
            return None
        name = safetext.line(self._ask(lambda: _text(nvml.nvmlDeviceGetName(handle))) or "GPU", limit=190)
        memory = self._ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        used, total = (int(memory.used), int(memory.total)) if memory is not None else (None, None)
        percent = self._ask(lambda: float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu))
        celsius = self._ask(lambda: float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)))
        watts = self._ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000)
        limit = self._ask(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000)
        return Gpu(uuid=uuid, name=name, memory_mb=(total or 0) >> 20), GpuSample(
            uuid=uuid,
            name=name,
            utilisation_percent=_within(percent, 0, 100),
            memory_used_bytes=used,
            memory_total_bytes=total,
            temperature_c=_within(celsius, -100, 1000),
            power_w=_within(watts, 0, 100_000),
            power_limit_w=_within(limit, 0, 100_000),
        )

    def _ask(self, question: Callable[[], T]) -> T | None:
        """One metric; None when this card does not tell it."""
        nvml = self._nvml
        try:
            return question()
        except (nvml.NVMLError_Uninitialized, nvml.NVMLError_DriverNotLoaded):
            raise
        except nvml.NVMLError:
            return None


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _within(value: float | None, low: float, high: float) -> float | None:
    """A number that is one, in bounds; a broken sensor says NaN or millions."""
    return value if value is not None and low <= value <= high else None
