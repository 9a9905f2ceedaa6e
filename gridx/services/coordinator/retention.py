"""How long files and printed output are kept, and that what nobody needs any more goes.

Uploads that were not used for a while and that no open job needs, what jobs gave back and printed a while
ago, pieces of files that nobody went on sending; then every blob to which nothing refers.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Final

from gridx.clock import Clock
from gridx.errors import GridError
from gridx.services.coordinator.filestore import FileStore
from gridx.services.coordinator.store import Store

log = logging.getLogger("gridx.coordinator")

EVERY_S: Final = 600.0
FIRST_S: Final = 60.0
"""After the start, when others have more urgent things to write."""
PARTIAL_S: Final = 24 * 3600.0
"""A file that was begun and not gone on with for so long is dropped."""


class Retention:
    """Deletes what is older than it is kept."""

    def __init__(self, store: Store, files: FileStore, keep_days: int, clock: Clock) -> None:
        self._store = store
        self._files = files
        self._keep = timedelta(days=keep_days)
        self._clock = clock

    async def run(self) -> None:
        """Look again and again, for ever."""
        pause_s = FIRST_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = EVERY_S
            try:
                await self.sweep()
            except GridError as error:
                # A full disk, or the store closing: the next round tries again.
                log.warning("old files could not be deleted: %s", error.message)

    async def sweep(self) -> None:
        """Look once."""
        before = self._clock.now() - self._keep
        while await self._store.expire_files(before):
            pass  # each step is a transaction of its own, and others get to write between two
        await self._files.drop_stale(self._clock.monotonic() - PARTIAL_S)
        await self._files.collect()
