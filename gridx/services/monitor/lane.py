"""One thread for calls into drivers and the system that may hang.

The standard library's pools wait for their threads when the process ends; a hung driver would keep it from
ending for ever. This thread is a daemon, there is one for each kind of call, and nobody waits for it for
longer than he wants to.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Stalled(Exception):
    """The call, or the one before it, did not come back in time."""


class Lane(Generic[T]):
    """Runs one function, one call at a time, in a thread of its own.

    Args:
        name: of the thread.
        function: what is called; it may hang.
    """

    def __init__(self, name: str, function: Callable[[], T]) -> None:
        self._name = name
        self._function = function
        self._calls: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Future[T]] | None] = (
            queue.SimpleQueue()
        )
        self._thread: threading.Thread | None = None
        self._pending: asyncio.Future[T] | None = None
        self._asked_at = 0.0

    async def call(self, timeout_s: float) -> T:
        """The function's result; who asks while a call is on its way gets the result of that.

        Raises:
            Stalled: it did not come in time.
            Exception: whatever the function raised.
        """
        loop = asyncio.get_running_loop()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        if self._pending is None or self._pending.done():
            self._pending, self._asked_at = loop.create_future(), loop.time()
            self._calls.put((loop, self._pending))
        # Of its own: while one waits to go on, another may have asked anew.
        pending = self._pending
        left_s = self._asked_at + timeout_s - loop.time()
        done, _ = await asyncio.wait((pending,), timeout=max(0.0, left_s))
        if not done:
            raise Stalled
        return pending.result()

    def close(self) -> None:
        """Let the thread end when its call comes back; nobody waits for that."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            loop, future = call
            try:
                result, error = self._function(), None
            except Exception as raised:
                result, error = None, raised
            # A loop that was closed in the meantime has nobody left to tell.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, future, result, error)


def _settle(future: asyncio.Future[T], result: T | None, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)  # type: ignore[arg-type]
