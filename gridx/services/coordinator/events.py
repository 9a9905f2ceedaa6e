"""What changed, told to whoever is signed in and may know: fan-out to the dashboards, and waiting for a job.

Each event is encoded once, and only when somebody wants it. Each reader has a bounded memory of what it has
not been sent yet, in which the newest state of a job, a worker or a balance replaces an older one; a reader
that does not keep up even so is dropped, and reads the state anew over HTTP when it comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

from aiohttp import WSCloseCode

from gridx.errors import GridError
from gridx.messages import (
    Balance,
    CreditsChanged,
    Event,
    Job,
    JobChanged,
    OutputArrived,
    Stream,
    Worker,
    WorkerChanged,
    encode,
)
from gridx.services.coordinator.sockets import Closer
from gridx.services.coordinator.store import Store
from gridx.services.coordinator.store.records import BalanceRecord

log = logging.getLogger("gridx.coordinator")

MAX_PENDING_BYTES: Final = 8 << 20
"""What may wait for one reader. It holds the newest state of some ten thousand jobs."""
CREDITS_EVERY_S: Final = 0.1
"""Balances that move often are read and sent at most this often."""

Key = tuple[str, int]
T = TypeVar("T")


def balance_of(record: BalanceRecord) -> Balance:
    """A balance as its owner sees it."""
    return Balance(
        user=record.username,
        balance=record.balance,
        held=record.held,
        earned=record.earned,
        spent=record.spent,
    )


class Subscriber:
    """One reader of events: what waits for it, and how it is closed.

    Args:
        user_id: whose things it is told.
        everything: an admin's reader is told everybody's.
        close: closes the connection, with a code; cheap, never raises.
    """

    def __init__(self, user_id: int, everything: bool, close: Closer) -> None:
        self.user_id = user_id
        self.everything = everything
        self.watched: frozenset[int] = frozenset()
        self.close = close
        self._pending: dict[Key, bytes] = {}
        self._bytes = 0
        self._some = asyncio.Event()
        self._numbers = itertools.count()

    def offer(self, key: Key | None, event: bytes) -> None:
        """Let an event wait; it replaces an older one of the same key. None: it replaces nothing."""
        if key is None:
            key = ("", next(self._numbers))
        old = self._pending.pop(key, b"")
        self._pending[key] = event
        self._bytes += len(event) - len(old)
        if self._bytes > MAX_PENDING_BYTES:
            self._pending.clear()
            self._bytes = 0
            self.close(WSCloseCode.TRY_AGAIN_LATER)
        self._some.set()

    async def take(self) -> list[bytes]:
        """Wait until something is there, and take all of it, in order."""
        await self._some.wait()
        self._some.clear()
        events = list(self._pending.values())
        self._pending.clear()
        self._bytes = 0
        return events


_NOBODY: Final[frozenset[Subscriber]] = frozenset()


class Change:
    """Wakes one waiter when something about a job changed since it last looked."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def wake(self) -> None:
        """Something changed."""
        self._event.set()

    def looked(self) -> None:
        """The waiter is about to look: only what comes from now on wakes it."""
        self._event.clear()

    async def wait(self, timeout_s: float) -> None:
        """Wait for a change, or the timeout."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._event.wait()


class Hub:
    """Takes what changed from the engine and passes it on."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._readers: dict[int, set[Subscriber]] = {}
        self._all_readers: set[Subscriber] = set()
        self._admins: set[Subscriber] = set()
        self._watchers: dict[int, set[Subscriber]] = {}
        self._state_waiters: dict[int, set[Change]] = {}
        self._output_waiters: dict[int, set[Change]] = {}
        self._moved: set[int] = set()
        self._some_moved = asyncio.Event()
        self.closing = False

    # -- from the engine ----------------------------------------------------------------------------------

    def job_changed(
        self, owner_id: int, job_id: int, view: Callable[[], Job], array_id: int | None = None
    ) -> None:
        """A job is new or its state changed; ``view`` is called only if somebody wants to see it.

        An element of an array is told only to readers that watch it or its array: of ten thousand elements
        nobody wants to hear unasked, and their array says how many are where.
        """
        for waiter in self._state_waiters.get(job_id, ()):
            waiter.wake()
        for waiter in self._output_waiters.get(job_id, ()):
            waiter.wake()
        readers = self._interested(owner_id)
        if array_id is not None:
            readers = readers & (self._watchers.get(job_id, _NOBODY) | self._watchers.get(array_id, _NOBODY))
        self._tell(readers, ("job", job_id), lambda: JobChanged(job=view()))

    def elements_changed(self, array_id: int, count: int) -> None:
        """Wake whoever waits for one of an array's elements."""
        for waiters in (self._state_waiters, self._output_waiters):
            for job_id in [id_ for id_ in waiters if array_id < id_ <= array_id + count]:
                for waiter in waiters[job_id]:
                    waiter.wake()

    def output_arrived(
        self, owner_id: int, job_id: int, attempt_number: int, stream: Stream, offset: int, data: bytes
    ) -> None:
        """Bytes of a stream were stored."""
        for waiter in self._output_waiters.get(job_id, ()):
            waiter.wake()
        readers = {
            reader
            for reader in self._watchers.get(job_id, ())
            if reader.everything or reader.user_id == owner_id
        }
        self._tell(
            readers,
            None,
            lambda: OutputArrived(
                job_id=job_id, attempt=attempt_number, stream=stream, offset=offset, data=data
            ),
        )

    def worker_changed(self, worker: Worker) -> None:
        """A worker came, went or sent a sample."""
        self._tell(self._all_readers, ("worker", worker.id), lambda: WorkerChanged(worker=worker))

    def credits_changed(self, user_ids: Iterable[int]) -> None:
        """Balances moved; they are read and sent in a moment, each once."""
        if self._all_readers:
            self._moved.update(user_ids)
            self._some_moved.set()

    async def run(self) -> None:
        """Send balances that moved, for ever."""
        while True:
            await self._some_moved.wait()
            self._some_moved.clear()
            moved, self._moved = self._moved, set()
            for user_id in moved:
                readers = self._interested(user_id)
                if not readers:
                    continue
                try:
                    balance = balance_of(await self._store.balance(user_id))
                except GridError as error:
                    log.warning("the balance of user %d could not be read: %s", user_id, error)
                    continue
                self._tell(readers, ("credits", user_id), functools.partial(CreditsChanged, balance=balance))
            await asyncio.sleep(CREDITS_EVERY_S)

    def _interested(self, owner_id: int) -> set[Subscriber]:
        mine = self._readers.get(owner_id)
        return mine | self._admins if mine else self._admins

    def _tell(self, readers: Iterable[Subscriber], key: Key | None, event: Callable[[], Event]) -> None:
        encoded = b""
        for reader in readers:
            encoded = encoded or encode(event())
            reader.offer(key, encoded)

    # -- readers ------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def subscribed(self, user_id: int, everything: bool, close: Closer) -> Iterator[Subscriber]:
        """A reader that is told what changes while the block runs."""
        reader = Subscriber(user_id, everything, close)
        self._readers.setdefault(user_id, set()).add(reader)
        self._all_readers.add(reader)
        if everything:
            self._admins.add(reader)
        try:
            yield reader
        finally:
            self.watch(reader, ())
            self._all_readers.discard(reader)
            self._admins.discard(reader)
            _discard(self._readers, user_id, reader)

    def watch(self, reader: Subscriber, job_ids: Iterable[int]) -> None:
        """Send a reader the output of these jobs and of no others. Jobs of others stay silent."""
        for job_id in reader.watched:
            _discard(self._watchers, job_id, reader)
        reader.watched = frozenset(job_ids)
        for job_id in reader.watched:
            self._watchers.setdefault(job_id, set()).add(reader)

    # -- waiting ------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def watching(self, job_id: int, *, output: bool) -> Iterator[Change]:
        """Be woken by changes of a job's state, and of its output if wanted, while the block runs.

        Nothing is missed between a look and the wait that follows it: call ``looked`` before each look.
        """
        waiters = self._output_waiters if output else self._state_waiters
        change = Change()
        waiters.setdefault(job_id, set()).add(change)
        try:
            yield change
        finally:
            _discard(waiters, job_id, change)

    def close(self) -> None:
        """Send the readers away and wake everybody who waits: the coordinator stops."""
        self.closing = True
        for reader in list(self._all_readers):
            reader.close(WSCloseCode.GOING_AWAY)
        for waiters in (*self._state_waiters.values(), *self._output_waiters.values()):
            for waiter in waiters:
                waiter.wake()


def _discard(groups: dict[int, set[T]], key: int, member: T) -> None:
    """Take a member out of its group, and the group away when it was the last."""
    group = groups.get(key)
    if group is not None:
        group.discard(member)
        if not group:
            del groups[key]
