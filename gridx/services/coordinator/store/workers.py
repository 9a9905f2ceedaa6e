"""Writing workers."""

from __future__ import annotations

import sqlite3

from gridx.services.coordinator.store.records import WorkerRecord
from gridx.services.coordinator.store.rows import SELECT_WORKER, worker_record


def _worker(db: sqlite3.Connection, worker_id: int) -> WorkerRecord | None:
    row = db.execute(f"{SELECT_WORKER} workers.id = ?", (worker_id,)).fetchone()
    return None if row is None else worker_record(row)


def join_worker(
    db: sqlite3.Connection, now: int, user_id: int, identity: str, name: str, version: str
) -> WorkerRecord:
    """The worker of this owner and identity: new, or with its name and version of today."""
    row = db.execute(
        "SELECT id FROM workers WHERE user_id = ? AND identity = ?", (user_id, identity)
    ).fetchone()
    if row is None:
        worker_id = db.execute(
            "INSERT INTO workers (user_id, identity, name, version, joined_at) VALUES (?, ?, ?, ?, ?)",
            (user_id, identity, name, version, now),
        ).lastrowid
        assert worker_id is not None
    else:
        worker_id = row[0]
        db.execute("UPDATE workers SET name = ?, version = ? WHERE id = ?", (name, version, worker_id))
    found = _worker(db, worker_id)
    assert found is not None
    return found


def set_paused(db: sqlite3.Connection, now: int, worker_id: int, paused: bool) -> WorkerRecord | None:
    """Whether the worker's owner lets it take jobs; None when there is no such worker."""
    db.execute("UPDATE workers SET paused = ? WHERE id = ?", (paused, worker_id))
    return _worker(db, worker_id)
