"""Processors, memory, disk and network by psutil, and the rates of what it only counts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from gridx.messages import MachineSample


@dataclass(frozen=True, slots=True)
class _Counters:
    """Bytes since the machine started, and when they were read."""

    at: float
    disk_read: int
    disk_write: int
    net_rx: int
    net_tx: int


class Machine:
    """Readings of this machine, GPUs apart. Blocks; a dead network disk may block it for ever: see ``Lane``.

    Args:
        disk: a path on the disk whose filling matters.
        monotonic: seconds, for the rates.
    """

    def __init__(self, disk: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._disk = disk
        self._monotonic = monotonic
        self._before: _Counters | None = None

    def read(self) -> MachineSample:
        """The machine now. Rates are since the reading before, and 0 in the first one."""
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        disk = psutil.disk_usage(str(_existing(self._disk)))
        now, before = self._counters(), self._before
        self._before = now
        elapsed_s = now.at - before.at if before else 0.0

        def rate(name: str) -> float:
            """Bytes a second. A counter that fell was reset, or its card is gone."""
            if before is None or elapsed_s <= 0:
                return 0.0
            gained: int = getattr(now, name) - getattr(before, name)
            return max(0.0, gained / elapsed_s)

        return MachineSample(
            cpu_percent=[_percent(value) for value in psutil.cpu_percent(percpu=True)][:4096],
            load=_load(),
            memory_used_bytes=max(0, memory.total - memory.available),
            memory_total_bytes=memory.total,
            swap_used_bytes=swap.used,
            disk_used_bytes=disk.used,
            disk_total_bytes=disk.total,
            disk_read_bps=rate("disk_read"),
            disk_write_bps=rate("disk_write"),
            net_rx_bps=rate("net_rx"),
            net_tx_bps=rate("net_tx"),
            gpus=[],
        )

    def _counters(self) -> _Counters:
        disk = psutil.disk_io_counters()
        cards = psutil.net_io_counters(pernic=True)
        # What a machine tells itself is no traffic.
        real = [count for name, count in cards.items() if not name.lower().startswith(("lo", "loopback"))]
        return _Counters(
            at=self._monotonic(),
            disk_read=disk.read_bytes if disk else 0,
            disk_write=disk.write_bytes if disk else 0,
            net_rx=sum(count.bytes_recv for count in real),
            net_tx=sum(count.bytes_sent for count in real),
        )


def _load() -> float | None:
    try:
        return max(0.0, psutil.getloadavg()[0])
    except (OSError, AttributeError):
        return None


def _percent(value: float) -> float:
    return min(max(value, 0.0), 100.0) if math.isfinite(value) else 0.0


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
