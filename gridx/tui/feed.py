"""Keeps the dashboard's state true: opens the event stream, reads what it missed, folds what comes, for ever.

The stream is opened before anything is read, so that nothing can happen between the two unseen. When it
breaks, everything is read again after the next connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Collection
from typing import Final

from gridx.client import Client
from gridx.client_events import EventStream
from gridx.errors import GridError, Unauthenticated
from gridx.tui.state import GridState

PAGE: Final = 500
"""Jobs that are read at once."""
FIRST_DELAY_S: Final = 0.5
LAST_DELAY_S: Final = 5.0


class Feed:
    """The one place that reads the grid by itself.

    Args:
        on_change: called after each change of the state; it must be cheap and must not raise.
    """

    def __init__(self, client: Client, state: GridState, on_change: Callable[[], None]) -> None:
        self._client = client
        self._state = state
        self._on_change = on_change
        self._watched: frozenset[int] = frozenset()
        self._stream: EventStream | None = None
        self._try_now = asyncio.Event()

    async def run(self) -> None:
        """Connect, fold, connect again.

        Raises:
            Unauthenticated: the sign-in is not, or no longer, valid; signing in again is the way on.
        """
        delay_s = FIRST_DELAY_S
        while True:
            try:
                async with self._client.events(watch=lambda: self._watched) as stream:
                    self._stream = stream
                    await self._read_all()
                    delay_s = FIRST_DELAY_S
                    async for event in stream:
                        self._state.fold(event)
                        self._on_change()
            except Unauthenticated:
                raise
            except GridError as error:
                self._state.disconnected(error.message)
                self._on_change()
            finally:
                self._stream = None
            self._try_now.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    self._try_now.wait(),
                    delay_s * random.uniform(0.8, 1.2),  # noqa: S311
                )
            delay_s = min(LAST_DELAY_S, delay_s * 1.6)

    def try_now(self) -> None:
        """Do not wait for the next try."""
        self._try_now.set()

    async def watch(self, job_ids: Collection[int]) -> None:
        """Have the output of these jobs sent; also after the next connection."""
        self._watched = frozenset(job_ids)
        if self._stream is not None:
            with contextlib.suppress(GridError):  # the loop in run() meets the same error and says so
                await self._stream.watch(self._watched)

    async def _read_all(self) -> None:
        self._state.user = await self._client.me()
        page = await self._client.jobs(limit=PAGE)
        self._state.put_jobs(page.jobs)
        self._state.put_workers(await self._client.workers())
        self._state.put_balance(await self._client.balance())
        stale = [id_ for id_, job in self._state.jobs.items() if not job.state.ended and job.array_id is None]
        read = {job.id for job in page.jobs}
        for id_ in [id_ for id_ in stale if id_ not in read][:PAGE]:
            with contextlib.suppress(GridError):  # gone, or not one's own any more
                self._state.put_jobs([await self._client.job(id_)])
        self._state.connected()
        self._on_change()
