"""Ctrl-C while a job is followed: the first one cancels the job, the next one leaves at once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Iterator


class Interrupts:
    """Counts SIGINT and SIGTERM of this process. Made inside the task that is to be left.

    Args:
        cancel: what the first one does, once there is something to be cancelled.
    """

    def __init__(self, cancel: Callable[[], Awaitable[None]]) -> None:
        self.count = 0
        self._cancel = cancel
        self._leave = asyncio.current_task()
        self._may_cancel = False
        self._held_off = False
        self._cancelling: asyncio.Future[None] | None = None
        loop = asyncio.get_running_loop()
        with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C leaves at once
            loop.add_signal_handler(signal.SIGINT, self._signalled)
            loop.add_signal_handler(signal.SIGTERM, self._signalled)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Around a submit: before it one leaves; within it a cancel waits until there is a job to cancel."""
        self._held_off = True
        yield
        self._held_off = False
        self._may_cancel = True
        if self.count:
            self._begin()

    def _signalled(self) -> None:
        self.count += 1
        if self._leave is not None and (self.count > 1 or not (self._may_cancel or self._held_off)):
            self._leave.cancel()
        elif self._may_cancel:
            self._begin()

    def _begin(self) -> None:
        self._cancelling = asyncio.ensure_future(self._cancel())
