"""Writing the ledger: transactions with their postings, and the sums that accounts keep of them."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

from gridx.credits import format_credits
from gridx.errors import Conflict, InsufficientCredits, InvalidField, NotFound
from gridx.messages import Microcredits
from gridx.services.coordinator import ledger
from gridx.services.coordinator.store import idempotency
from gridx.services.coordinator.store.records import BalanceRecord, Idempotency
from gridx.services.coordinator.store.rows import SELECT_BALANCE, balance_record

MINT: Final = 1
ESCROW: Final = 2
TREASURY: Final = 3

Kind = Literal["grant", "transfer", "hold", "settle", "release"]


class Entry(NamedTuple):
    """One transaction to be written; without postings it is not."""

    kind: Kind
    postings: list[ledger.Posting[int]]
    job_id: int | None = None
    attempt_id: int | None = None
    note: str = ""
    array_id: int | None = None


class Counters(NamedTuple):
    """What changes beside the balance; sums that the audit recomputes."""

    held: int = 0
    earned: int = 0
    spent: int = 0
    waiting: int = 0


class Book:
    """What several steps enter, to be written at once."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._counters: dict[int, Counters] = {}

    def enter(self, *entries: Entry) -> None:
        """Add transactions."""
        self._entries += entries

    def count(
        self, account: int, *, held: int = 0, earned: int = 0, spent: int = 0, waiting: int = 0
    ) -> None:
        """Add to an account's sums."""
        old = self._counters.get(account, Counters())
        self._counters[account] = Counters(
            old.held + held, old.earned + earned, old.spent + spent, old.waiting + waiting
        )

    def write(self, db: sqlite3.Connection, at: int) -> None:
        """Write all of it; see ``post``."""
        if self._entries or self._counters:
            post(db, at, self._entries, self._counters)


class Overdrawn(Exception):
    """An account would fall below zero."""


def post(
    db: sqlite3.Connection,
    at: int,
    entries: Sequence[Entry],
    counters: Mapping[int, Counters] | None = None,
) -> int:
    """Write transactions and move the balances; returns the id of the last transaction there is.

    Raises:
        Overdrawn: an account has too little; the caller's savepoint is rolled back.
        ValueError: postings that do not sum to zero.
    """
    moved: dict[int, int] = defaultdict(int)
    transactions = []
    postings = []
    last_id = int(db.execute("SELECT coalesce(max(id), 0) FROM transactions").fetchone()[0]) if entries else 0
    written = [entry for entry in entries if entry.postings]
    for transaction_id, entry in enumerate(written, last_id + 1):
        if sum(amount for _, amount in entry.postings) != 0:
            raise ValueError(f"the postings of a {entry.kind} do not sum to zero: {entry.postings}")
        transactions.append(
            (transaction_id, entry.kind, entry.job_id, entry.attempt_id, entry.array_id, entry.note, at)
        )
        for account, amount in entry.postings:
            postings.append((transaction_id, account, amount))
            moved[account] += amount
    if transactions:
        db.executemany(
            "INSERT INTO transactions (id, kind, job_id, attempt_id, array_id, note, at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            transactions,
        )
        db.executemany("INSERT INTO postings (transaction_id, account_id, amount) VALUES (?, ?, ?)", postings)
    counters = counters or {}
    for account in {**moved, **counters}:
        amount, (held, earned, spent, waiting) = moved[account], counters.get(account, Counters())
        changed = db.execute(
            "UPDATE accounts SET balance = balance + ?1, held = held + ?2, earned = earned + ?3,"
            " spent = spent + ?4, waiting = waiting + ?5 WHERE id = ?6"
            " AND (balance + ?1 >= 0 OR (kind = 'mint' AND balance + ?1 >= ?7))",
            (amount, held, earned, spent, waiting, account, -ledger.MAX_AMOUNT),
        ).rowcount
        if changed != 1:
            raise Overdrawn(account)
    return last_id + len(written)


def shortfall(balance: Microcredits, price: Microcredits, what: str, hint: str) -> InsufficientCredits:
    """The refusal that names what is missing."""
    missing = price - balance
    return InsufficientCredits(
        f"{what} {format_credits(price)} credits and you have {format_credits(balance)}:"
        f" {format_credits(missing)} are missing.",
        hint,
        balance=balance,
        price=price,
        shortfall=missing,
    )


def read_balance(db: sqlite3.Connection, user_id: int) -> BalanceRecord:
    """A user's account inside the transaction.

    Raises:
        NotFound: no such user.
    """
    row = db.execute(f"{SELECT_BALANCE} accounts.user_id = ?", (user_id,)).fetchone()
    if row is None:
        raise no_such_user()
    return balance_record(row)


def account_of(db: sqlite3.Connection, user_id: int) -> int:
    """A user's account, by its id.

    Raises:
        NotFound: no such user.
    """
    row = db.execute("SELECT id FROM accounts WHERE user_id = ?", (user_id,)).fetchone()
    if row is None:
        raise no_such_user()
    return int(row[0])


def _check_amount(amount: Microcredits) -> None:
    if not 0 < amount <= ledger.MAX_AMOUNT:
        raise InvalidField(
            f"{amount} microcredits cannot be moved.", "The amount must be above 0.", field="amount"
        )


def transfer(
    db: sqlite3.Connection,
    now: int,
    from_user_id: int,
    to_user_id: int,
    amount: Microcredits,
    note: str,
    key: Idempotency | None,
) -> BalanceRecord:
    """Move credits between users; returns the payer's account."""
    _check_amount(amount)
    if from_user_id == to_user_id:
        raise InvalidField("You cannot transfer credits to yourself.", "Name another user.", field="to")
    if key and idempotency.earlier(db, from_user_id, "transfer", key) is not None:
        return read_balance(db, from_user_id)
    payee = account_of(db, to_user_id)
    before = read_balance(db, from_user_id)
    if before.balance < amount:
        raise shortfall(before.balance, amount, "This transfer needs", "Send less.")
    payer = account_of(db, from_user_id)
    postings = ledger.transfer_postings(payer, payee, amount)
    transaction_id = post(db, now, [Entry("transfer", postings, note=note)])
    if key:
        idempotency.remember(db, now, from_user_id, "transfer", key, str(transaction_id))
    return read_balance(db, from_user_id)


def grant(
    db: sqlite3.Connection,
    now: int,
    to_user_id: int,
    amount: Microcredits,
    note: str,
    key: Idempotency | None,
) -> BalanceRecord:
    """Give credits from the mint; returns the user's account."""
    _check_amount(amount)
    if key and idempotency.earlier(db, to_user_id, "grant", key) is not None:
        return read_balance(db, to_user_id)
    try:
        transaction_id = post(db, now, [grant_entry(account_of(db, to_user_id), amount, note)])
    except Overdrawn:
        raise mint_is_empty() from None
    if key:
        idempotency.remember(db, now, to_user_id, "grant", key, str(transaction_id))
    return read_balance(db, to_user_id)


def grant_entry(account: int, amount: Microcredits, note: str) -> Entry:
    """A grant's transaction."""
    return Entry("grant", ledger.transfer_postings(MINT, account, amount), note=note)


def no_such_user() -> NotFound:
    """The refusal for a user id that nobody has."""
    return NotFound("There is no such user.", "Check the name.")


def mint_is_empty() -> Conflict:
    """The refusal of a grant past what numbers can hold."""
    return Conflict("The mint has given all the credits that there can be.", "Transfer credits instead.")
