"""Writing users and tokens."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Literal

from gridx.errors import Conflict
from gridx.messages import Microcredits
from gridx.services.coordinator.store import postings
from gridx.services.coordinator.store.records import TokenRecord, UserRecord
from gridx.services.coordinator.store.rows import TOKEN, USER, token_record, user_record

Role = Literal["user", "admin"]


def _user(db: sqlite3.Connection, user_id: int) -> UserRecord:
    row = db.execute(f"SELECT {', '.join(USER)} FROM users WHERE id = ?", (user_id,)).fetchone()
    if row is None:
        raise postings.no_such_user()
    return user_record(row)


def create_user(
    db: sqlite3.Connection,
    now: int,
    username: str,
    password_hash: str,
    role: Role,
    grant: Microcredits,
    note: str,
) -> UserRecord:
    """A user with an account, and the credits that it starts with."""
    if db.execute("SELECT 1 FROM users WHERE username = ?", (username,)).fetchone():
        raise Conflict(f"The name {username} is taken.", "Choose another, or log in if it is yours.")
    user_id = db.execute(
        "INSERT INTO users (username, role, password_hash, created_at) VALUES (?, ?, ?, ?)",
        (username, role, password_hash, now),
    ).lastrowid
    assert user_id is not None
    account = db.execute("INSERT INTO accounts (kind, user_id) VALUES ('user', ?)", (user_id,)).lastrowid
    assert account is not None
    if grant:
        try:
            postings.post(db, now, [postings.grant_entry(account, grant, note)])
        except postings.Overdrawn:
            raise postings.mint_is_empty() from None
    return _user(db, user_id)


def update_user(
    db: sqlite3.Connection,
    now: int,
    user_id: int,
    role: Role | None,
    disabled: bool | None,
    password_hash: str | None,
) -> UserRecord:
    """Change what is given. A new password or disabling ends every sign-in."""
    before = _user(db, user_id)
    db.execute(
        "UPDATE users SET role = ?, disabled = ?, password_hash = ? WHERE id = ?",
        (
            before.role if role is None else role,
            before.disabled if disabled is None else disabled,
            before.password_hash if password_hash is None else password_hash,
            user_id,
        ),
    )
    if disabled or password_hash is not None:
        db.execute("DELETE FROM tokens WHERE user_id = ?", (user_id,))
    return _user(db, user_id)


def create_token(
    db: sqlite3.Connection, now: int, user_id: int, digest: bytes, label: str, expires_at: int
) -> TokenRecord:
    """A sign-in.

    Raises:
        NotFound: no such user, or one that was disabled meanwhile.
    """
    if not db.execute("SELECT 1 FROM users WHERE id = ? AND NOT disabled", (user_id,)).fetchone():
        raise postings.no_such_user()
    token_id = db.execute(
        "INSERT INTO tokens (user_id, digest, label, created_at, expires_at) VALUES (?, ?, ?, ?, ?)",
        (user_id, digest, label, now, expires_at),
    ).lastrowid
    row = db.execute(f"SELECT {', '.join(TOKEN)} FROM tokens WHERE id = ?", (token_id,)).fetchone()
    return token_record(row)


def revoke_token(db: sqlite3.Connection, now: int, user_id: int, token_id: int) -> bool:
    """End a sign-in; False when the user has none with this id."""
    return db.execute("DELETE FROM tokens WHERE id = ? AND user_id = ?", (token_id, user_id)).rowcount == 1


def touch_tokens(db: sqlite3.Connection, now: int, used: Sequence[tuple[int, int]]) -> None:
    """Note when tokens were last used: pairs of a time and a token's id."""
    db.executemany("UPDATE tokens SET last_used_at = max(coalesce(last_used_at, 0), ?) WHERE id = ?", used)
