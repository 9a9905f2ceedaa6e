"""Reading users, workers and the ledger."""

from __future__ import annotations

from datetime import datetime

from gridx.messages import Microcredits
from gridx.services.coordinator.store import rows
from gridx.services.coordinator.store.models import Account, Posting, Token, Transaction, User, Worker
from gridx.services.coordinator.store.orm import MAX_ID, Reader, Statement, bounded, storable
from gridx.services.coordinator.store.postings import no_such_user
from gridx.services.coordinator.store.records import (
    BalanceRecord,
    EntryRecord,
    TokenRecord,
    UserRecord,
    WorkerRecord,
)

_USER = Statement(lambda: User.filter(id=0).values_list(*rows.USER))
_USER_BY_NAME = Statement(lambda: User.filter(username="").values_list(*rows.USER))
_USERS = Statement(lambda: User.all().order_by("id").values_list(*rows.USER))
_TOKEN = Statement(
    lambda: Token.filter(digest=b"").values_list(*rows.TOKEN, *(f"user__{name}" for name in rows.USER))
)
_TOKENS = Statement(lambda: Token.filter(user_id=0).order_by("id").values_list(*rows.TOKEN))
_WORKER = Statement(lambda: Worker.filter(id=0).values_list(*rows.WORKER))
_WORKERS = Statement(lambda: Worker.all().order_by("id").values_list(*rows.WORKER))
_EARNED = Statement(lambda: Worker.all().values_list("id", "earned"))
_BALANCE = Statement(lambda: Account.filter(user_id=0).values_list(*rows.BALANCE))
_BALANCES = Statement(
    lambda: Account.filter(user_id__not_isnull=True).order_by("user_id").values_list(*rows.BALANCE)
)
_ENTRIES = Statement(
    lambda: Posting.filter(account__user_id=0, id__lt=0).order_by("-id").limit(1).values_list(*rows.ENTRY)
)

_GRANT_TIMES = Statement(
    lambda: Transaction.filter(job_id__isnull=True, kind="grant", note="").values_list("at")
)


class Reads:
    """What is asked of users, tokens, workers and accounts; part of ``Store``."""

    _reader: Reader

    async def user(self, user_id: int) -> UserRecord | None:
        """A user by id."""
        found = await self._reader.rows(_USER, bounded(user_id))
        return rows.user_record(found[0]) if found else None

    async def user_by_name(self, username: str) -> UserRecord | None:
        """A user by name; large and small letters are the same."""
        if not storable(username):
            return None
        found = await self._reader.rows(_USER_BY_NAME, username)
        return rows.user_record(found[0]) if found else None

    async def users(self) -> list[UserRecord]:
        """All users, oldest first."""
        return [rows.user_record(row) for row in await self._reader.rows(_USERS)]

    async def grant_times(self, note: str) -> list[datetime]:
        """When each grant with a note was given; its user may have got another one."""
        return [rows.moment(at) for (at,) in await self._reader.rows(_GRANT_TIMES, "grant", note)]

    async def token_by_digest(self, digest: bytes) -> tuple[TokenRecord, UserRecord] | None:
        """The token with this SHA-256 and its user; None also when it was revoked. Expiry is not checked."""
        found = await self._reader.rows(_TOKEN, digest)
        if not found:
            return None
        row = tuple(found[0])
        return rows.token_record(row), rows.user_record(row[len(rows.TOKEN) :])

    async def tokens_of(self, user_id: int) -> list[TokenRecord]:
        """A user's sign-ins, oldest first."""
        return [rows.token_record(row) for row in await self._reader.rows(_TOKENS, bounded(user_id))]

    async def worker(self, worker_id: int) -> WorkerRecord | None:
        """A worker by id."""
        found = await self._reader.rows(_WORKER, bounded(worker_id))
        return rows.worker_record(found[0]) if found else None

    async def workers(self) -> list[WorkerRecord]:
        """All workers that ever joined."""
        return [rows.worker_record(row) for row in await self._reader.rows(_WORKERS)]

    async def worker_earnings(self) -> dict[int, Microcredits]:
        """What each worker has earned, by its id."""
        return {row[0]: row[1] for row in await self._reader.rows(_EARNED)}

    async def balance(self, user_id: int) -> BalanceRecord:
        """A user's account.

        Raises:
            NotFound: no such user.
        """
        found = await self._reader.rows(_BALANCE, bounded(user_id))
        if not found:
            raise no_such_user()
        return rows.balance_record(found[0])

    async def balances(self) -> list[BalanceRecord]:
        """All users' accounts, by user id."""
        return [rows.balance_record(row) for row in await self._reader.rows(_BALANCES)]

    async def entries(self, user_id: int, *, before: int | None, limit: int) -> list[EntryRecord]:
        """Postings to a user's account, newest first; ``before`` is the id of the last one seen."""
        found = await self._reader.rows(
            _ENTRIES, bounded(user_id), MAX_ID if before is None else bounded(before), max(0, limit)
        )
        return [rows.entry_record(row) for row in found]
