"""Users, sign-ins and credits. All amounts are integers in microcredits."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from gridx.messages.bounds import Amount, Id, Line, Microcredits, Password, UserName, Wire


class Register(Wire, frozen=True):
    """A new user. ``invite`` is needed where the coordinator says so."""

    username: UserName
    password: Password
    invite: Annotated[str, Meta(max_length=200)] = ""
    label: Line = ""


class Login(Wire, frozen=True):
    """Exchange a password for a token; ``label`` names it in the list of tokens."""

    username: Annotated[str, Meta(max_length=200)]
    password: Annotated[str, Meta(max_length=1024)]
    label: Line = ""


class User(Wire, frozen=True):
    """Who one is."""

    id: Id
    username: str
    role: Literal["user", "admin"]
    created_at: datetime
    disabled: bool = False


class Session(Wire, frozen=True):
    """A fresh token; it is shown this once. ``notice`` is for the person, where there is something to say."""

    token: str
    expires_at: datetime
    user: User
    notice: str = ""


class TokenInfo(Wire, frozen=True):
    """A token without its secret."""

    id: Id
    label: str
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    current: bool


class Balance(Wire, frozen=True):
    """What a user has, in microcredits. ``held`` is set aside for jobs that have not ended."""

    user: str
    balance: Microcredits
    held: Microcredits
    earned: Microcredits
    spent: Microcredits
    unit: Literal["microcredit"] = "microcredit"


class Entry(Wire, frozen=True):
    """One posting to a user's account, with the transaction's reason."""

    id: Id
    transaction_id: Id
    at: datetime
    kind: Literal["grant", "hold", "settle", "release", "transfer"]
    amount: int
    """Signed: what the account gained."""
    job_id: int | None = None
    attempt_id: int | None = None
    note: str = ""


class EntryPage(Wire, frozen=True):
    """``next`` is the cursor to pass as ``before``."""

    entries: list[Entry]
    next: int | None = None


class Transfer(Wire, frozen=True):
    """Credits from the caller to another user."""

    to: UserName
    amount: Amount
    note: Line = ""


class Grant(Wire, frozen=True):
    """Credits from the mint to a user; admins only."""

    to: UserName
    amount: Amount
    note: Line = ""


class AuditFinding(Wire, frozen=True):
    """One difference between what the ledger says and what it must say."""

    check: str
    message: str


class AuditReport(Wire, frozen=True):
    """The verdict of a full recomputation; ``ok`` when ``findings`` is empty."""

    ok: bool
    findings: list[AuditFinding]
    accounts: int
    transactions: int
    postings: int
    jobs: int
    in_circulation: Microcredits
    """What users, escrow and treasury have together: what the mint has given."""
    held: Microcredits


class UserUpdate(Wire, frozen=True):
    """What an admin may change of a user."""

    role: Literal["user", "admin"] | None = None
    disabled: bool | None = None
    password: Password | None = None


class UserPage(Wire, frozen=True):
    """All users, for admins."""

    users: list[User]
