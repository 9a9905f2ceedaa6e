"""The input files of attempts: held in the cache while an attempt lives, fetched where they are missing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gridx.messages import InputFile
from gridx.services.worker.cache import Cache
from gridx.services.worker.transfer import Transfers

AT_ONCE: Final = 4
"""Files that are fetched at the same time."""


class Inputs:
    """What the attempts of one worker need."""

    def __init__(self, cache: Cache, transfers: Transfers) -> None:
        self._cache, self._transfers = cache, transfers
        self._room = asyncio.Semaphore(AT_ONCE)
        self._fetching: dict[str, asyncio.Lock] = {}

    async def hold(self, files: Sequence[InputFile]) -> str:
        """Keep room, and what is here already, for an attempt; why there is none, in words."""
        return await self._cache.call(self._cache.hold, files) if files else ""

    async def release(self, files: Sequence[InputFile]) -> None:
        """The attempt that held these is over."""
        if files:
            await self._cache.call(self._cache.release, files)

    async def fetch(self, attempt_id: int, files: Sequence[InputFile]) -> tuple[tuple[InputFile, Path], ...]:
        """Have all of them here, and where.

        Raises:
            SandboxBroken: one cannot be had.
        """
        distinct = {file.sha256: file for file in files if not self._cache.whole(file)}
        tasks = [
            asyncio.create_task(self._fetch(attempt_id, file), name=f"input {file.sha256[:8]}")
            for file in distinct.values()
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return tuple((file, self._cache.path(file.sha256)) for file in files)

    async def _fetch(self, attempt_id: int, file: InputFile) -> None:
        lock = self._fetching.setdefault(file.sha256, asyncio.Lock())
        try:
            # Several attempts that need the same file wait for the one that fetches it.
            async with lock, self._room:
                await self._cache.call(self._cache.read, file)
                if not self._cache.whole(file):
                    await self._transfers.download(attempt_id, file, self._cache)
        finally:
            if not lock.locked():
                self._fetching.pop(file.sha256, None)
