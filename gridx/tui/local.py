"""The machine in front of the user, sampled for the monitor while the dashboard is open."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

from gridx.clock import Clock
from gridx.messages import Worker
from gridx.tui.state import History, Machine, remember

PERIOD_S: Final = 2.0


class LocalMachine:
    """Samples this machine until it is cancelled; a hung driver makes the sample stale and nothing else.

    Args:
        disk: a path on the disk that is shown.
        clock: for the age of the sample.
        nvml: stands for the module ``pynvml``.
    """

    def __init__(self, disk: Path, clock: Clock, nvml: Any = None) -> None:
        self._disk = disk
        self._nvml = nvml
        self._clock = clock
        self.problem = ""
        self.machine = Machine(
            Worker(id=1, name="this machine", owner="", state="online"), clock.monotonic(), None, History()
        )

    async def run(self) -> None:
        """Sample for ever."""
        from msgspec.structs import replace

        from gridx.services.monitor import Monitor

        monitor = Monitor(self._disk, nvml=self._nvml)
        try:
            while True:
                sample = await monitor.sample()
                if sample is not None:
                    machine = self.machine
                    machine.worker = replace(machine.worker, sample=sample)
                    machine.at = machine.sampled_at = self._clock.monotonic()
                    remember(machine.history, machine.worker)
                elif self.machine.sampled_at is None:
                    self.problem = "this machine cannot be read; the log says why"
                await asyncio.sleep(PERIOD_S)
        finally:
            monitor.close()
