"""Requests that were answered, by the key they came with, so that a repeat changes nothing."""

from __future__ import annotations

import sqlite3
from typing import Final, Literal

from gridx.errors import Conflict
from gridx.services.coordinator.store.records import Idempotency

KEPT_US: Final = 7 * 86_400 * 1_000_000
"""How long a key is remembered: a week, in microseconds."""

Kind = Literal["submit", "transfer", "grant"]


def earlier(db: sqlite3.Connection, user_id: int, kind: Kind, key: Idempotency) -> str | None:
    """What the first request with this key was answered; None when this is the first.

    Raises:
        Conflict: the key came with another body.
    """
    row = db.execute(
        "SELECT digest, result FROM idempotency_keys WHERE user_id = ? AND kind = ? AND key = ?",
        (user_id, kind, key.key),
    ).fetchone()
    if row is None:
        return None
    if row[0] != key.digest:
        raise Conflict(
            "This Idempotency-Key was used for another request.", "Use a new key for each new request."
        )
    return str(row[1])


def remember(
    db: sqlite3.Connection, now: int, user_id: int, kind: Kind, key: Idempotency, result: str
) -> None:
    """Keep the answer, in the transaction that made it true."""
    db.execute(
        "INSERT INTO idempotency_keys (user_id, kind, key, digest, result, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (user_id, kind, key.key, key.digest, result, now),
    )


def prune(db: sqlite3.Connection, now: int) -> None:
    """Forget old keys, and tokens that have expired as long ago."""
    db.execute("DELETE FROM idempotency_keys WHERE created_at < ?", (now - KEPT_US,))
    db.execute("DELETE FROM tokens WHERE expires_at < ?", (now - KEPT_US,))
