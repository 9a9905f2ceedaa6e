"""Looks at what an owner's rules are about: the time, other programs' load, people, mains power.

Only what the rules need is looked at, in a thread of its own: a system that hangs closes the machine and
holds up nothing.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import psutil

from gridx.services.monitor.lane import Lane, Stalled
from gridx.services.worker import presence
from gridx.services.worker.owner import Allowed, Seen
from gridx.services.worker.presence import Presence

log = logging.getLogger("gridx.worker")

LOOK_WITHIN_S: Final = 10.0
LOAD_OVER_S: Final = 60.0
"""The load is an average over about so long: what is older counts less and less."""


def local_time() -> datetime:
    """The time on the wall, where the machine stands."""
    return datetime.now().astimezone()


def busy_s() -> float:
    """Seconds that the machine's processors have worked since its start, this process left out."""
    times = psutil.cpu_times()
    kinds = ("user", "nice", "system", "irq", "softirq", "interrupt", "dpc")
    own = os.times()
    return sum(getattr(times, kind, 0.0) for kind in kinds) - own.user - own.system


def on_mains() -> bool | None:
    """Whether the machine has mains power; one without a battery has. None: it cannot be told."""
    sensors = getattr(psutil, "sensors_battery", None)
    battery = sensors() if sensors is not None else None
    return True if battery is None else battery.power_plugged


@dataclass(frozen=True, slots=True)
class Sensors:
    """How each thing is looked at; a test brings its own."""

    local_time: Callable[[], datetime] = local_time
    busy_s: Callable[[], float] = busy_s
    presence: Callable[[], Presence] = presence.look
    on_mains: Callable[[], bool | None] = on_mains
    monotonic: Callable[[], float] = time.monotonic


class Load:
    """Processors that programs other than jobs use, as a decaying average."""

    def __init__(self) -> None:
        self.value: float | None = None
        self._before: tuple[float, float, float] | None = None

    def read(self, at: float, busy_s: float, jobs_s: float) -> None:
        """Take a reading.

        Args:
            at: monotonic seconds.
            busy_s: seconds that all processors have worked so far.
            jobs_s: of these, the jobs' part.
        """
        before, self._before = self._before, (at, busy_s, jobs_s)
        if before is None or at <= before[0]:
            return
        elapsed_s = at - before[0]
        now = max(0.0, (busy_s - before[1]) - max(0.0, jobs_s - before[2])) / elapsed_s
        new = 1.0 if self.value is None else 1 - math.exp(-elapsed_s / LOAD_OVER_S)
        self.value = now * new + (self.value or 0.0) * (1 - new)


class Sightings:
    """What is seen of the machine, as far as the rules ask for it.

    Args:
        jobs_s: processor seconds that jobs have used so far.
    """

    def __init__(self, allowed: Allowed, jobs_s: Callable[[], float], sensors: Sensors | None = None) -> None:
        self._allowed = allowed
        self._jobs_s = jobs_s
        self._sensors = sensors or Sensors()
        self._load = Load()
        self._used_s = 0.0
        self._lane: Lane[Seen] = Lane("owner's rules", self._look)
        self._complained = False

    async def look(self) -> Seen:
        """The machine now; what the system does not tell in time is unknown."""
        self._used_s = self._jobs_s()
        try:
            seen = await self._lane.call(LOOK_WITHIN_S)
        except Stalled:
            why = "the system does not answer"
        except Exception as error:
            # Whatever a strange system answers, the worker goes on; its owner's rules then do not hold.
            why = f"the system cannot be asked: {type(error).__name__}"
            if not self._complained:
                log.warning("what the owner's rules are about cannot be looked at", exc_info=error)
        else:
            self._complained = False
            return seen
        self._complained = True
        return Seen(self._sensors.local_time(), idle_unknown=why)

    def close(self) -> None:
        """End the thread, as far as it comes back."""
        self._lane.close()

    def _look(self) -> Seen:
        allowed, sensors = self._allowed, self._sensors
        if allowed.max_load is not None:
            self._load.read(sensors.monotonic(), sensors.busy_s(), self._used_s)
        people = sensors.presence() if allowed.only_when_idle_s is not None else Presence(None)
        return Seen(
            local=sensors.local_time(),
            load=self._load.value,
            idle_s=people.idle_s,
            idle_unknown=people.why,
            on_mains=None if allowed.on_battery else sensors.on_mains(),
        )
