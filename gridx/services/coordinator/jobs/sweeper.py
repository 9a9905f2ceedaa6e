"""Looks after time: leases that ran out, runs past their limit, cancels that were never answered.

Everything runs on the coordinator's monotonic clock. When the coordinator itself stood still, no worker could
be heard, so no lease runs on for that time.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from gridx import safetext
from gridx.clock import Clock
from gridx.config import Settings
from gridx.services.coordinator.fleet import Fleet
from gridx.services.coordinator.jobs.backlog import Backlog
from gridx.services.coordinator.jobs.lifecycle import Lifecycle
from gridx.services.coordinator.live import Ask, Live

log = logging.getLogger("gridx.coordinator")

EVERY_S: Final = 0.5
STOOD_STILL_S: Final = 5.0
"""A pause between two looks that is longer than this was none of the workers' doing."""
GRACE_S: Final = 60.0
"""How far past its limit a run may get before it is called off from here; its worker should have done it."""
SEND_S: Final = 3600.0
"""How long a worker may take to send what the program left, after its end."""
PREPARE_S: Final = 1800.0
"""How long a worker may take from an assignment to the program's start."""
TIDY_EVERY_S: Final = 600.0


class Sweeper:
    """Ends what has run out of time."""

    def __init__(
        self, fleet: Fleet, backlog: Backlog, lifecycle: Lifecycle, settings: Settings, clock: Clock
    ) -> None:
        self._fleet = fleet
        self._backlog = backlog
        self._lifecycle = lifecycle
        self._clock = clock
        self._lease_s = settings.coordinator.lease_s
        self._every_s = min(EVERY_S, self._lease_s / 4)
        self._looked_at = clock.monotonic()
        self._tidied_at = self._looked_at

    async def run(self) -> None:
        """Look again and again, for ever."""
        self._looked_at = self._clock.monotonic()
        while True:
            await asyncio.sleep(self._every_s)
            await self.sweep()

    async def sweep(self) -> None:
        """Look once."""
        now = self._clock.monotonic()
        pause_s = now - self._looked_at
        self._looked_at = now
        if pause_s > self._every_s + STOOD_STILL_S:
            log.warning("the coordinator stood still for %.0f s; leases are longer by that", pause_s)
            for live in self._fleet.all_live():
                live.lease_until += pause_s
                live.give_up_at += pause_s
            return
        losses = []
        for live in list(self._fleet.all_live()):
            why = self._lost(live, now)
            if why and not live.ending:
                losses.append(self._lifecycle.spawn(self._lifecycle.lose(live, why)))
            elif live.started and live.asked is None and now > self._latest_end(live):
                self._lifecycle.ask(live, Ask.OVERRUN)
        self._backlog.ask_again()
        # Time alone may let a job run: a machine's pause ends, a job has waited long enough.
        if len(self._backlog):
            self._backlog.changed.set()
        self._fleet.tell()
        if now - self._tidied_at > TIDY_EVERY_S:
            self._tidied_at = now
            self._backlog.tidy()
        if losses:
            await asyncio.wait(losses)

    def _lost(self, live: Live, now: float) -> str:
        """Why the attempt is not its worker's any more; empty when it is."""
        worker = safetext.line(live.attempt.worker_name) or f"worker {live.worker_id}"
        if live.lease_until <= now:
            return f"no sign of life from {worker} for {self._lease_s:.0f} s"
        if live.give_up_at <= now:
            return f"{worker} was asked to end it and did not"
        if not live.started and now - live.assigned_at > PREPARE_S:
            return f"{worker} did not start it in {PREPARE_S / 60:.0f} minutes"
        return ""

    def _latest_end(self, live: Live) -> float:
        if live.sending_since is not None:
            return live.sending_since + SEND_S
        return live.running_since + live.job.timeout_s + GRACE_S
