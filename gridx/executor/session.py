"""The thread in which an executor speaks to the grid, and what other threads may ask of it.

The thread starts with the first call and ends when nothing has been open for a while; the next call starts
another. It is a daemon that the interpreter's end waits for, as it does for the standard library's pools.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401  its end-of-program hook has to run after ours
import contextlib
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from gridx.client import Client
from gridx.executor.calls import Call, Parcels
from gridx.executor.desk import Desk, OpenGrid
from gridx.executor.future import GridFuture
from gridx.executor.results import Trust

T = TypeVar("T")

ASK_S: Final = 60.0
"""How long a question from another thread may take."""


class Session:
    """The calls of one executor and the thread that serves them. Safe in any thread."""

    def __init__(self, open_grid: OpenGrid, *, patience_s: float, trust: Trust) -> None:
        self.parcels = Parcels()
        self._open_grid = open_grid
        self._patience_s = patience_s
        self._trust = trust
        self._lock = threading.Lock()
        self._shut = False
        self._open: dict[GridFuture[Any], None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._desk: Desk | None = None
        self._thread: threading.Thread | None = None
        self._late: list[Call] = []
        _sessions.add(self)

    def take(self, call: Call) -> None:
        """Send a call. Raises RuntimeError after the shutdown."""
        with self._lock:
            self._check_open()
            self._open[call.future] = None
            self._late.append(call)
            loop, desk = self._running()
            loop.call_soon_threadsafe(self._hand_over, desk)

    def check_open(self) -> None:
        """Raises RuntimeError after the shutdown."""
        with self._lock:
            self._check_open()

    def cancel(self, future: GridFuture[Any]) -> None:
        """The future was cancelled, or its job is to be stopped."""
        with self._lock:
            if self._loop is not None and self._desk is not None:
                self._loop.call_soon_threadsafe(self._cancel, self._desk, future)

    def ask(self, question: Callable[[Client], Awaitable[T]]) -> T:
        """Put a question to the grid and wait for the answer.

        Raises:
            RuntimeError: asked from a callback of a future, which runs where the answer would come.
            GridError: what the coordinator said, or Unreachable.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError("A future's callback cannot wait for the grid; ask in another thread.")
        with self._lock:
            loop, desk = self._running()
            answer = asyncio.run_coroutine_threadsafe(desk.answer(question, desk.expect()), loop)
        return answer.result(ASK_S)

    def shut(self, *, cancel: bool) -> None:
        """Take no more calls; with ``cancel`` those that wait are cancelled. Returns at once."""
        with self._lock:
            self._shut = True
            waiting = list(self._open) if cancel else []
            if self._loop is not None and self._desk is not None:
                self._loop.call_soon_threadsafe(self._desk.stop)
        for future in waiting:
            future.cancel()

    def join(self) -> None:
        """Wait until every call is over."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def after_fork(self) -> None:
        """In a child of this process: the thread and its calls are the parent's."""
        self._lock = threading.Lock()
        self._open, self._late = {}, []
        self._loop = self._desk = self._thread = None

    # -- the thread --------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if _exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    def _running(self) -> tuple[asyncio.AbstractEventLoop, Desk]:
        """The loop and the desk on it; they are started where there are none. The lock is held."""
        if self._loop is None or self._desk is None:
            self._loop = asyncio.new_event_loop()
            self._desk = Desk(
                self._open_grid,
                self.parcels,
                patience_s=self._patience_s,
                trust=self._trust,
                closed=self._closed,
            )
            if self._shut:
                self._desk.stop()
            # The session, not the executor: that one may be collected while its calls still run.
            self._thread = threading.Thread(
                target=self._work, args=(self._loop, self._desk), name="gridx-executor", daemon=True
            )
            self._thread.start()
        return self._loop, self._desk

    def _work(self, loop: asyncio.AbstractEventLoop, desk: Desk) -> None:
        asyncio.set_event_loop(loop)
        try:
            while True:
                loop.run_until_complete(desk.run())
                with self._lock:
                    if not self._late and not desk.busy:
                        self._loop = self._desk = None
                        break
                self._hand_over(desk)
            loop.run_until_complete(_settle(loop))
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    def _hand_over(self, desk: Desk) -> None:
        with self._lock:
            late, self._late = self._late, []
        for call in late:
            desk.take(call)

    def _cancel(self, desk: Desk, future: GridFuture[Any]) -> None:
        self._hand_over(desk)
        desk.cancel(future)

    def _closed(self, call: Call) -> None:
        with self._lock:
            self._open.pop(call.future, None)


async def _settle(loop: asyncio.AbstractEventLoop) -> None:
    """Let what is left on a loop end before it is closed."""
    left = [task for task in asyncio.all_tasks(loop) if task is not asyncio.current_task()]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    await loop.shutdown_asyncgens()
    with contextlib.suppress(RuntimeError):
        await loop.shutdown_default_executor()


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()
_exiting = False


def _at_exit() -> None:
    """Wait for every call, as the standard library's pools do when the interpreter ends."""
    global _exiting
    _exiting = True
    sessions = list(_sessions)
    for session in sessions:
        session.shut(cancel=False)
    for session in sessions:
        session.join()


def _after_fork() -> None:
    for session in list(_sessions):
        session.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
# Before the pools of the standard library end theirs: the client looks names up in such a pool.
getattr(threading, "_register_atexit", atexit.register)(_at_exit)
