"""Looks at the sandbox and the machine: what can be offered now, and why nothing can run when nothing can."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Final

from gridx import safetext
from gridx.config import WorkerSettings
from gridx.messages import Offer
from gridx.services.monitor import Monitor
from gridx.services.worker import offer
from gridx.services.worker.sandbox.base import Sandbox, SandboxStatus

log = logging.getLogger("gridx.worker")

LOOK_S: Final = 10.0
LOOK_UNREADY_S: Final = 2.0
"""How often one looks, and how often while the sandbox cannot run anything."""
WARNING_CHARS: Final = 1000
STATUS_S: Final = 15.0
SWEEP_S: Final = 60.0


class Lookout:
    """What this worker can offer, kept up to date by looking."""

    def __init__(self, settings: WorkerSettings, sandbox: Sandbox, monitor: Monitor) -> None:
        self._settings = settings
        self._sandbox = sandbox
        self._monitor = monitor
        self._status: SandboxStatus | None = None

    async def look(self) -> tuple[Offer, str]:
        """The offer as it is now, and why the sandbox cannot run anything; empty when it can."""
        last = self._status
        before = last.unready if last else ""
        status = await self._ask()
        if status.unready and last is not None:
            # What it will run again is still offered: the state says that nothing runs now.
            status = replace(status, runtimes=last.runtimes)
        self._status = status
        for warning in status.warnings:
            if last is None or warning not in last.warnings:
                log.warning("%s", safetext.line(warning, limit=WARNING_CHARS))
        if self._status.unready and not before:
            log.warning("cannot run anything now: %s", safetext.line(self._status.unready))
        elif before and not self._status.unready:
            log.info("can run jobs again")
        gpus = await self._monitor.gpus()
        built = await asyncio.to_thread(offer.build, self._settings, self._status, gpus)
        return built, self._status.unready

    async def pause(self) -> None:
        """Wait until it is time to look again."""
        await asyncio.sleep(LOOK_UNREADY_S if self._status and self._status.unready else LOOK_S)

    async def keep_sweeping(self) -> None:
        """Remove what was left behind, now and then, for ever."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                if removed := await self._sandbox.sweep():
                    log.warning("%d sandboxes that belonged to no attempt were removed", removed)
            except Exception as error:
                # An engine that is away is what the status tells; a later sweep finds the rest.
                log.debug("the sweep did not work: %s", safetext.line(str(error)))

    async def _ask(self) -> SandboxStatus:
        try:
            async with asyncio.timeout(STATUS_S):
                return await self._sandbox.status()
        except TimeoutError:
            why = "the sandbox does not answer"
        except Exception as error:
            # Whatever is wrong with an engine, the worker waits for it to come back.
            why = f"the sandbox cannot be asked: {error}"
        last = self._status or SandboxStatus("process", False, ())
        return replace(last, unready=safetext.line(why))
