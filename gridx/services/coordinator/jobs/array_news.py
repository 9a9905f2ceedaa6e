"""Telling how arrays get on: at most a few times a second for each, and at once when one has ended."""

from __future__ import annotations

import asyncio
from typing import Final

from gridx.messages import Job
from gridx.services.coordinator.jobs.backlog import Backlog
from gridx.services.coordinator.jobs.lifecycle import Hub
from gridx.services.coordinator.jobs.views import array_view
from gridx.services.coordinator.store.records import ArrayRecord

EVERY_S: Final = 0.25


class ArrayNews:
    """Gathers what changes of arrays. The state of the last change is always told."""

    def __init__(self, hub: Hub, backlog: Backlog) -> None:
        self._hub = hub
        self._backlog = backlog
        self._untold: dict[int, ArrayRecord] = {}
        self._some = asyncio.Event()

    def changed(self, record: ArrayRecord) -> None:
        """An array is new or has changed."""
        if record.state.ended:
            self._untold.pop(record.id, None)
            self._tell(record)
        else:
            self._untold[record.id] = record
            self._some.set()

    async def run(self) -> None:
        """Tell of what has changed, for ever."""
        while True:
            await self._some.wait()
            self._some.clear()
            untold, self._untold = self._untold, {}
            for record in untold.values():
                self._tell(record)
            await asyncio.sleep(EVERY_S)

    def _tell(self, record: ArrayRecord) -> None:
        def view() -> Job:
            if not record.queued:
                return array_view(record)
            return array_view(record, self._backlog.waits(record))

        self._hub.job_changed(record.user_id, record.id, view)
