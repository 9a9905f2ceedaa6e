"""Samples of the whole machine, whatever hangs.

psutil and NVML have a thread each, so that a hung driver costs the GPUs of a sample and nothing else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from gridx import safetext
from gridx.messages import Gpu, MachineSample
from gridx.services.monitor.gpus import GpuReading, Gpus
from gridx.services.monitor.lane import Lane, Stalled
from gridx.services.monitor.machine import Machine

log = logging.getLogger("gridx.monitor")

T = TypeVar("T")

TIMEOUT_S: Final = 1.0
FIRST_GPU_S: Final = 15.0
"""The first call loads the driver, which takes seconds where nothing keeps it loaded."""


class Monitor:
    """What this machine is doing.

    Args:
        disk: a path on the disk whose filling matters, such as the data folder.
        nvml: stands for the module ``pynvml``.
        monotonic: seconds, for rates and tries.
    """

    def __init__(
        self, disk: Path, *, nvml: Any = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._gpus = Gpus(nvml, monotonic)
        self._machine_lane: Lane[MachineSample] = Lane("monitor", Machine(disk, monotonic).read)
        self._gpu_lane: Lane[GpuReading] = Lane("monitor gpu", self._gpus.read)
        self._gpus_known = False
        self._complained: set[str] = set()

    async def sample(self, timeout_s: float = TIMEOUT_S) -> MachineSample | None:
        """The machine now; without GPUs when the driver hangs, None when the system itself does."""
        machine = await self._ask(self._machine_lane, "the machine's state", timeout_s)
        if machine is None:
            return None
        reading = await self._ask(self._gpu_lane, "the GPUs' state", timeout_s)
        return msgspec.structs.replace(machine, gpus=list(reading.samples)) if reading else machine

    async def gpus(self) -> list[Gpu]:
        """The GPUs of this machine; none when there is no driver, or when it hangs."""
        timeout_s = TIMEOUT_S if self._gpus_known else FIRST_GPU_S
        reading = await self._ask(self._gpu_lane, "the GPUs' state", timeout_s)
        self._gpus_known = True
        return list(reading.gpus) if reading else []

    def close(self) -> None:
        """End the threads, as far as they come back."""
        self._machine_lane.close()
        self._gpu_lane.close()

    async def _ask(self, lane: Lane[T], what: str, timeout_s: float) -> T | None:
        try:
            answer = await lane.call(timeout_s)
        except Stalled:
            self._complain(what, "it does not come back")
            return None
        except Exception as error:
            # A system that psutil does not understand must not stop a worker that could still run jobs.
            self._complain(what, f"{type(error).__name__}: {error}")
            return None
        self._complained.discard(what)
        return answer

    def _complain(self, what: str, why: str) -> None:
        if what not in self._complained:
            self._complained.add(what)
            log.warning("%s cannot be read: %s", what, safetext.line(why))
