"""What takes long and only reads, the audit and the backup: beside everything else, ended with the store."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Final, TypeVar

from gridx.errors import Unavailable
from gridx.services.coordinator.store.connection import connect_reader

T = TypeVar("T")

_STEPS_BETWEEN_LOOKS: Final = 200_000
"""Instructions of SQLite's machine between looks at whether to stop: some milliseconds."""


class Aside:
    """One thread, one task at a time, each with a connection that sees one moment of the database."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="gridx-store-aside")
        self._stopping = False

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` with a connection inside a read transaction.

        Raises:
            Unavailable: the store was closed meanwhile.
        """
        if self._stopping:
            raise self._refusal()
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._work, work)

    async def close(self) -> None:
        """Stop what runs, within some milliseconds."""
        self._stopping = True
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    def look(self) -> None:
        """Give up when the store is closing; for work that SQLite's own looks do not reach.

        Raises:
            Unavailable: it is.
        """
        if self._stopping:
            raise self._refusal()

    def _work(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with closing(connect_reader(self._path)) as db:
            db.set_progress_handler(lambda: self._stopping, _STEPS_BETWEEN_LOOKS)
            db.execute("BEGIN")
            # A transaction sees the moment of its first read.
            db.execute("SELECT 1 FROM sqlite_master").fetchone()
            try:
                return work(db)
            except sqlite3.Error as error:
                if self._stopping:
                    raise self._refusal() from None
                raise Unavailable(
                    f"The coordinator cannot read its database ({error}).",
                    "Its operator has to look at the disk.",
                    reason="store_failed",
                ) from None

    @staticmethod
    def _refusal() -> Unavailable:
        return Unavailable("The coordinator is stopping.", "Try again in a moment.", reason="stopping")
