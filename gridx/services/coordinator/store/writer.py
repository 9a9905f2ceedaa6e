"""The only way to write: one connection in one thread, many operations to a commit.

What arrives while a commit runs is gathered, run in one transaction with a savepoint each, and committed at
once with ``synchronous=FULL``. Nobody is answered before the commit. An operation that is refused rolls back
alone. Requests of a kind that comes by the hundred are run together, as one operation with few statements;
when that is refused, each is run by itself. A caller that is cancelled changes nothing: its operation runs to
its end, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

from gridx.errors import GridError, Unavailable

log = logging.getLogger("gridx.store")

T = TypeVar("T")
Request = TypeVar("Request")
Operation = Callable[[sqlite3.Connection], T]
Together = Callable[[sqlite3.Connection, Sequence[Request]], Sequence[T]]
"""An operation for any number of requests: an answer for each, or nothing done and an exception."""

Note = TypeVar("Note")


class Noted(NamedTuple, Generic[T, Note]):
    """An operation's answer with a note of what else it changed, for whoever keeps track of that."""

    value: T
    note: Note | None


CAPACITY: Final = 8192
"""Operations that may wait; past it callers wait to get in."""
MAX_BATCH: Final = 512
"""Operations in one commit."""
CHECKPOINT_COMMITS: Final = 400
CHECKPOINT_ROWS: Final = 10_000
"""After so many commits or changed rows the log is copied into the database file; when idle, sooner. It keeps
the log at some tens of megabytes, and the pause for a copy at some milliseconds."""
IDLE_S: Final = 1.0

# Errors after which it is unknown what is on the disk, or known to be wrong.
_FATAL: Final = frozenset(
    {
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_INTERNAL,
    }
)


class _Pending(NamedTuple):
    operation: Together[Any, Any]
    request: Any
    answer: asyncio.Future[Any]


class _Outcome(NamedTuple):
    answer: asyncio.Future[Any]
    value: Any
    error: BaseException | None
    note: Any = None


class _Fatal(Exception):
    """Carries the error that ends the writer."""


def _code(error: BaseException) -> int:
    """SQLite's primary result code; 0 where the error is not SQLite's own."""
    code: int = getattr(error, "sqlite_errorcode", None) or 0
    # The log's index could not grow: nothing was written, and the reason is a full disk as well.
    return sqlite3.SQLITE_FULL if code == sqlite3.SQLITE_IOERR_SHMSIZE else code & 0xFF


def _full() -> Unavailable:
    return Unavailable(
        "The coordinator's disk is full; nothing was changed.",
        "Try again later. Its operator has to free space where the database lies.",
        reason="disk_full",
    )


def _busy() -> Unavailable:
    return Unavailable(
        "Another program holds the coordinator's database; nothing was changed.",
        "Try again. Its operator should close what has the file open.",
        reason="database_busy",
    )


def _alike(batch: Iterable[_Pending]) -> Iterable[list[_Pending]]:
    """What is run together."""
    found: dict[Together[Any, Any], list[_Pending]] = {}
    for pending in batch:
        found.setdefault(pending.operation, []).append(pending)
    return found.values()


def _ignore(note: object) -> None:
    """Nobody asked for notes."""


def _outcome(pending: _Pending, value: Any) -> _Outcome:
    if isinstance(value, Noted):
        return _Outcome(pending.answer, value.value, None, value.note)
    return _Outcome(pending.answer, value, None)


class Writer:
    """Runs operations in its thread, in order of arrival but for those that are run together.

    Args:
        connect: opens the connection; called in the thread. What it raises, ``start`` raises.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._queue: deque[_Pending] = deque()
        self._ready = threading.Condition()
        self._closing = False
        self._failure: BaseException | None = None
        self._on_failure: list[Callable[[BaseException], None]] = []
        self._on_note: Callable[[Any], None] = _ignore
        self._places = asyncio.Semaphore(CAPACITY)
        self._thread = threading.Thread(target=self._work, name="gridx-writer", daemon=True)
        # Commits and changed rows since the log was last copied.
        self._commits = 0
        self._rows = 0

    async def start(self) -> None:
        """Open the connection in the thread."""
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread.start()
        await asyncio.shield(self._opened)

    async def close(self) -> None:
        """Finish what was accepted, copy the log, close the connection."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        await asyncio.shield(self._ended)

    def on_note(self, callback: Callable[[Any], None]) -> None:
        """Be given the notes of operations, on the loop, in the order of their commits, before the answers.

        That is so also when nobody waits for the answer any more.
        """
        self._on_note = callback

    def on_failure(self, callback: Callable[[BaseException], None]) -> None:
        """Be told, on the loop, when nothing can be written any more; at once if that is so."""
        self._on_failure.append(callback)
        if self._failure is not None:
            self._loop.call_soon(callback, self._failure)

    async def run(self, operation: Operation[T]) -> T:
        """Run an operation and return its result after the commit.

        The operation may be run twice (the first time rolled back), so it must not change anything but the
        database.

        Raises:
            GridError: the operation's own refusal.
            Unavailable: the disk is full, the store is closing or has failed.
        """
        return await self.run_together(lambda db, _: (operation(db),), None)

    async def run_together(self, operation: Together[Request, T], request: Request) -> T:
        """As ``run``; requests that wait with the same operation are run at once, where the first stands."""
        await self._places.acquire()
        answer: asyncio.Future[T] = self._loop.create_future()
        with self._ready:
            if self._failure is not None or self._closing:
                self._places.release()
                raise self._refusal()
            self._queue.append(_Pending(operation, request, answer))
            self._ready.notify()
        return await answer

    def _refusal(self) -> Unavailable:
        if self._failure is None:
            return Unavailable("The coordinator is stopping.", "Try again in a moment.", reason="stopping")
        return Unavailable(
            f"The coordinator cannot write its database ({self._failure}).",
            "Its operator has to look at the disk and start it again.",
            reason="store_failed",
        )

    # -- the thread --------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self._db = self._connect()
        except BaseException as error:
            self._post(self._settle, self._opened, error)
            self._post(self._settle, self._ended, None)
            return
        self._post(self._settle, self._opened, None)
        try:
            while (batch := self._next()) is not None:
                if batch:
                    self._answer_all(self._commit(batch))
                if not batch or self._commits >= CHECKPOINT_COMMITS or self._rows >= CHECKPOINT_ROWS:
                    self._checkpoint("PASSIVE")
            self._checkpoint("TRUNCATE")
        except _Fatal as error:
            self._fail(error.__cause__ or error)
        except BaseException as error:
            self._fail(error)
        finally:
            try:
                self._db.close()
            except sqlite3.Error as error:
                log.warning("the database did not close cleanly: %s", error)
            self._post(self._settle, self._ended, None)

    def _next(self) -> list[_Pending] | None:
        """What to commit next; an empty list when there is time to copy the log; None at the end."""
        with self._ready:
            while not self._queue:
                if self._closing:
                    return None
                if not self._ready.wait(IDLE_S if self._commits else None) and not self._queue:
                    return []
            return [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH))]

    def _commit(self, batch: list[_Pending]) -> list[_Outcome]:
        try:
            return self._transaction(batch)
        except sqlite3.Error as error:
            self._roll_back()
            if _code(error) == sqlite3.SQLITE_FULL:
                refusal = _full()
            elif _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                refusal = _busy()
            else:
                # The batch is lost to its callers: they were not told that it was done.
                self._answer_all([_Outcome(p.answer, None, self._refusal_of(error)) for p in batch])
                raise _Fatal from error
            if len(batch) == 1:
                return [_Outcome(batch[0].answer, None, refusal)]
            # One by one: what is small, or frees space, may still fit.
            return [outcome for pending in batch for outcome in self._commit([pending])]

    def _transaction(self, batch: list[_Pending]) -> list[_Outcome]:
        """Run and commit; an ``sqlite3.Error`` that comes out of here concerns the whole batch."""
        db = self._db
        outcomes: list[_Outcome] = []
        changed = db.total_changes
        db.execute("BEGIN IMMEDIATE")
        for alike in _alike(batch):
            outcomes += self._step(alike)
        db.execute("COMMIT")
        if db.total_changes != changed:
            self._commits += 1
            self._rows += db.total_changes - changed
        return outcomes

    def _step(self, alike: list[_Pending]) -> list[_Outcome]:
        """Run requests of one operation in one savepoint; if that is refused, each in its own."""
        db = self._db
        db.execute("SAVEPOINT operation")
        try:
            values = alike[0].operation(db, [pending.request for pending in alike])
        except Exception as error:
            if isinstance(error, sqlite3.Error) and (
                _code(error) in _FATAL or _code(error) == sqlite3.SQLITE_FULL or not db.in_transaction
            ):
                raise
            db.execute("ROLLBACK TO operation")
            db.execute("RELEASE operation")
            if len(alike) > 1:
                return [outcome for pending in alike for outcome in self._step([pending])]
            if not isinstance(error, GridError):
                log.error("a write failed", exc_info=error)
            return [_Outcome(alike[0].answer, None, error)]
        db.execute("RELEASE operation")
        return [_outcome(pending, value) for pending, value in zip(alike, values, strict=True)]

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            try:
                self._db.execute("ROLLBACK")
            except sqlite3.Error as error:
                raise _Fatal from error

    def _checkpoint(self, mode: str) -> None:
        """Copy the log into the database file; what cannot be copied now is copied later."""
        self._commits = self._rows = 0
        try:
            self._db.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
        except sqlite3.Error as error:
            if _code(error) in _FATAL:
                raise _Fatal from error
            log.warning("the write-ahead log could not be copied now: %s", error)

    def _refusal_of(self, error: BaseException) -> Unavailable:
        self._failure = error
        return self._refusal()

    def _fail(self, error: BaseException) -> None:
        """Acknowledge nothing any more, and say so."""
        log.critical("the database cannot be written: %s", error)
        with self._ready:
            self._failure = error
            waiting = list(self._queue)
            self._queue.clear()
        self._answer_all([_Outcome(p.answer, None, self._refusal()) for p in waiting])
        self._post(self._report, error)

    # -- back on the loop --------------------------------------------------------------------------------

    def _post(self, callback: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            log.warning("the loop closed before the store did")

    def _answer_all(self, outcomes: list[_Outcome]) -> None:
        if outcomes:
            self._post(self._deliver, outcomes)

    def _deliver(self, outcomes: list[_Outcome]) -> None:
        for answer, value, error, note in outcomes:
            self._places.release()
            if note is not None:
                try:
                    self._on_note(note)
                except Exception as lost:
                    log.critical("nobody knows what else a write changed", exc_info=lost)
            if answer.done():
                continue
            if error is None:
                answer.set_result(value)
            else:
                answer.set_exception(error)

    def _report(self, error: BaseException) -> None:
        for callback in self._on_failure:
            callback(error)

    @staticmethod
    def _settle(future: asyncio.Future[None], error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
