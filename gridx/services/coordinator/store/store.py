"""The store: everything the coordinator knows, in one database file."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Concatenate, Final, Literal, ParamSpec, TypeVar

from gridx.clock import Clock
from gridx.errors import Unavailable
from gridx.messages import AttemptState, AuditReport, Microcredits
from gridx.services.coordinator.store import (
    attempts,
    audit,
    ends,
    idempotency,
    output,
    postings,
    submit,
    users,
    workers,
)
from gridx.services.coordinator.store.aside import Aside
from gridx.services.coordinator.store.backup import back_up
from gridx.services.coordinator.store.connection import connect_writer, explained, prepare_files
from gridx.services.coordinator.store.filing import Filing
from gridx.services.coordinator.store.job_reads import JobReads
from gridx.services.coordinator.store.lock import FileLock
from gridx.services.coordinator.store.migrate import look_over, migrate
from gridx.services.coordinator.store.orm import Reader
from gridx.services.coordinator.store.reads import Reads
from gridx.services.coordinator.store.records import (
    Aftermath,
    AttemptRecord,
    BalanceRecord,
    Begin,
    End,
    Finished,
    Idempotency,
    JobRecord,
    NewAttempt,
    NewJob,
    OutputChunk,
    Submitted,
    TokenRecord,
    UserRecord,
    WorkerRecord,
)
from gridx.services.coordinator.store.rows import micros
from gridx.services.coordinator.store.writer import Noted, Together, Writer

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

PRUNE_EVERY_S: Final = 3600.0
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def _boot_id() -> str:
    """This boot of the machine, within which monotonic times compare; where it is not told, this process."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return str(uuid.uuid4())


def _connect(path: Path) -> sqlite3.Connection:
    with explained(path):
        db = connect_writer(path)
        try:
            look_over(db, path)
            migrate(db, path)
        except BaseException:
            db.close()
            raise
        return db


class Store(Reads, JobReads, Filing):
    """One database file, open. Every write returns after its commit and is safe to cancel.

    A write may raise ``Unavailable``: the disk is full (nothing was changed, it recovers by itself), or the
    store is closing or has failed for good, which ``on_failure`` tells.
    """

    def __init__(self, path: Path, clock: Clock, lock: FileLock, writer: Writer, reader: Reader) -> None:
        self.path = path
        self.boot_id = _boot_id()
        self._clock = clock
        self._lock = lock
        self._writer = writer
        self._reader = reader
        self._aside = Aside(path)
        self._submit: Together[submit.Submission, Submitted] = self._timed(submit.submit)
        self._finish: Together[ends.Ending, Finished | None] = self._timed(ends.finish)
        self._pruned = clock.monotonic()
        self._pruning: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, path: Path, *, clock: Clock) -> Store:
        """Open the database, made if it is not there, brought up to date if it is older.

        Raises:
            StoreError: in use by another coordinator, newer, not writable, damaged, or no database.
        """
        path = await asyncio.to_thread(prepare_files, path)
        lock = FileLock(path)
        writer = Writer(lambda: _connect(path))
        try:
            await writer.start()
            reader = await Reader.open(path)
        except BaseException:
            await writer.close()
            lock.release()
            raise
        store = cls(path, clock, lock, writer, reader)
        store._start_pruning()
        return store

    async def close(self) -> None:
        """Finish the writes that were accepted, copy the log into the file, let the file go."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="store-close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._pruning is not None:
            await asyncio.wait([self._pruning])
        await self._aside.close()
        # The reader first: while it is open the log cannot be copied to its end.
        await self._reader.close()
        await self._writer.close()
        self._lock.release()

    def on_failure(self, callback: Callable[[BaseException], None]) -> None:
        """Be told when nothing can be written any more: an I/O error, after which nothing is acknowledged."""
        self._writer.on_failure(callback)

    async def _write(
        self,
        operation: Callable[Concatenate[sqlite3.Connection, int, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        now = micros(self._clock.now())
        return await self._writer.run(lambda db: operation(db, now, *args, **kwargs))

    async def _noted(
        self,
        operation: Callable[Concatenate[sqlite3.Connection, int, P], Noted[T, Aftermath]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """As ``_write``, for an operation that notes what else it changed."""
        answer: Any = await self._write(operation, *args, **kwargs)
        found: T = answer
        return found

    def on_aftermath(self, callback: Callable[[Aftermath], None]) -> None:
        """Be told what steps changed beside their own job, in the order of their commits.

        It comes before the answer to whoever took the step, and also when he is gone.
        """
        self._writer.on_note(callback)

    def _timed(
        self, operation: Callable[[sqlite3.Connection, int, Sequence[R]], Sequence[Any]]
    ) -> Together[R, Any]:
        """An operation of the writer, given the time at which it runs."""
        return lambda db, requests: operation(db, micros(self._clock.now()), requests)

    # -- users and tokens ----------------------------------------------------------------------------------

    async def create_user(
        self,
        username: str,
        password_hash: str,
        *,
        role: Literal["user", "admin"] = "user",
        grant: Microcredits = 0,
        note: str = "",
    ) -> UserRecord:
        """A new user with an account; ``grant`` comes from the mint.

        Raises:
            Conflict: the name is taken; large and small letters are the same.
        """
        return await self._write(users.create_user, username, password_hash, role, grant, note)

    async def update_user(
        self,
        user_id: int,
        *,
        role: Literal["user", "admin"] | None = None,
        disabled: bool | None = None,
        password_hash: str | None = None,
    ) -> UserRecord:
        """Change what is given; a new password or disabling revokes all of the user's tokens.

        Raises:
            NotFound: no such user.
        """
        return await self._write(users.update_user, user_id, role, disabled, password_hash)

    async def create_token(
        self, user_id: int, digest: bytes, *, label: str, expires_at: datetime
    ) -> TokenRecord:
        """Keep a sign-in by its SHA-256.

        Raises:
            NotFound: no such user, or one that is disabled.
        """
        return await self._write(users.create_token, user_id, digest, label, micros(expires_at))

    async def revoke_token(self, user_id: int, token_id: int) -> bool:
        """End a sign-in; False when the user has none of this id."""
        return await self._write(users.revoke_token, user_id, token_id)

    async def touch_tokens(self, used: Mapping[int, datetime]) -> None:
        """Note when tokens were last used, by their ids."""
        await self._write(
            users.touch_tokens, [(micros(moment), token_id) for token_id, moment in used.items()]
        )

    # -- jobs ----------------------------------------------------------------------------------------------

    async def submit(
        self,
        user_id: int,
        jobs: Sequence[NewJob],
        *,
        idempotency: Idempotency | None = None,
        max_queued: int,
    ) -> Submitted:
        """Queue jobs and hold their price: all of them, or none.

        Raises:
            InsufficientCredits: with ``balance``, ``price`` and ``shortfall``.
            TooMany: more than ``max_queued`` would be waiting.
            Conflict: the key came before with another body.
        """
        submission = submit.Submission(user_id, jobs, idempotency, max_queued)
        submitted = await self._writer.run_together(self._submit, submission)
        if self._clock.monotonic() - self._pruned >= PRUNE_EVERY_S and self._pruning is None:
            self._start_pruning()
        return submitted

    async def assign(self, placements: Sequence[NewAttempt]) -> list[AttemptRecord | None]:
        """Begin attempts; None for a job that was no longer queued."""
        mono_ms = int(self._clock.monotonic() * 1000)
        return await self._noted(attempts.assign, placements, mono_ms, self.boot_id)

    async def start_attempt(self, attempt_id: int, *, runtime: str) -> JobRecord | None:
        """The program runs. None: stale, a repeat."""
        return await self._write(attempts.start, attempt_id, Begin(runtime))

    async def append_output(self, chunks: Sequence[OutputChunk]) -> list[int]:
        """Store output; returns for each chunk the stream's stored length after it.

        What is there already is skipped; what begins past the end, or comes after the attempt's end, is not
        stored.
        """
        return await self._write(output.append, chunks)

    async def finish_attempt(
        self, attempt_id: int, end: End, *, begin: Begin | None = None
    ) -> Finished | None:
        """End an attempt and its job, settle and release, in one transaction. None: fenced.

        ``begin`` is for an attempt of which it is told with its end that it ran.
        """
        ending = ends.Ending(attempt_id, end, begin)
        return await self._writer.run_together(self._finish, ending)

    async def requeue_attempt(
        self, attempt_id: int, state: AttemptState, reason: str, *, fault: bool
    ) -> JobRecord | None:
        """End an attempt unpaid (broken, refused, released, lost). None: fenced; nothing changed.

        The job is queued again; or lost, when ``fault`` was its ``max_attempts``-th; or cancelled, when that
        was asked for.
        """
        return await self._noted(ends.requeue, attempt_id, state, reason, fault)

    async def cancel(self, job_id: int, reason: str) -> JobRecord | None:
        """Cancel a waiting job at once, a live one when its worker has killed it. None: no such job."""
        return await self._noted(ends.cancel, job_id, reason)

    async def cancel_array(self, array_id: int, reason: str) -> ends.CancelledArray | None:
        """Cancel an array: what waits at once, what runs when its workers have killed it.

        None: no such array.
        """
        return await self._noted(ends.cancel_array, array_id, reason)

    # -- workers -------------------------------------------------------------------------------------------

    async def join_worker(self, user_id: int, identity: str, *, name: str, version: str) -> WorkerRecord:
        """The worker of this owner and identity: new, or with its name and version of today."""
        return await self._write(workers.join_worker, user_id, identity, name, version)

    async def set_worker_paused(self, worker_id: int, paused: bool) -> WorkerRecord | None:
        """Whether the worker takes jobs; None when there is no such worker."""
        return await self._write(workers.set_paused, worker_id, paused)

    # -- ledger --------------------------------------------------------------------------------------------

    async def transfer(
        self,
        from_user_id: int,
        to_user_id: int,
        amount: Microcredits,
        note: str,
        *,
        idempotency: Idempotency | None = None,
    ) -> BalanceRecord:
        """Move credits between users; returns the payer's account.

        Raises:
            InsufficientCredits: the balance is too small.
            InvalidField: to oneself, or not above zero.
        """
        return await self._write(postings.transfer, from_user_id, to_user_id, amount, note, idempotency)

    async def grant(
        self,
        to_user_id: int,
        amount: Microcredits,
        note: str,
        *,
        idempotency: Idempotency | None = None,
    ) -> BalanceRecord:
        """Give credits from the mint; returns the user's account."""
        return await self._write(postings.grant, to_user_id, amount, note, idempotency)

    # -- the whole -----------------------------------------------------------------------------------------

    async def audit(self) -> AuditReport:
        """Recompute everything from postings, jobs and attempts, as of one moment; writes go on meanwhile."""
        return await self._aside.run(audit.audit)

    async def backup(self, target: Path) -> None:
        """Copy the database as of one moment to a new file (0600); writes go on meanwhile.

        Raises:
            StoreError: the target cannot be written.
        """
        await self._aside.run(lambda source: back_up(source, target, self._aside.look))

    def _start_pruning(self) -> None:
        self._pruned = self._clock.monotonic()
        self._pruning = asyncio.create_task(self._prune(), name="store-prune")

    async def _prune(self) -> None:
        try:
            # A full disk is no reason not to start, and the next hour tries again.
            with contextlib.suppress(Unavailable):
                await self._write(idempotency.prune)
        finally:
            self._pruning = None
