"""Migrations: numbered SQL files, each applied whole or not at all.

``PRAGMA user_version`` is the number of the last one applied; it changes in the same transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Final, NamedTuple

from gridx.errors import StoreError

APPLICATION_ID: Final = 0x47726458
"""Marks a database file as this program's (``GrdX``)."""
QUICK_CHECK_BYTES: Final = 64 << 20
"""Up to this size a file is looked over at each start; ``gridx admin audit`` checks one of any size."""


class Migration(NamedTuple):
    """One step: its number, its name and its SQL."""

    version: int
    name: str
    sql: str


def migrations() -> list[Migration]:
    """All steps in order.

    Raises:
        RuntimeError: the numbers are not 1, 2, 3 ...
    """
    folder = resources.files(__package__) / "migrations"
    found = sorted(
        Migration(int(file.name.split("_")[0]), file.name, file.read_text(encoding="utf-8"))
        for file in folder.iterdir()
        if file.name.endswith(".sql")
    )
    if [step.version for step in found] != list(range(1, len(found) + 1)):
        raise RuntimeError(f"migrations are not numbered without gap: {[step.name for step in found]}")
    return found


def statements(sql: str) -> Iterator[str]:
    """The statements of a script one by one: ``executescript`` would commit in between."""
    statement = ""
    for line in sql.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement


def migrate(db: sqlite3.Connection, path: Path, steps: list[Migration] | None = None) -> int:
    """Bring a database up to date; returns how many steps were applied.

    Raises:
        StoreError: a newer version, or another program's file.
        sqlite3.Error: damaged; nothing was changed.
    """
    steps = migrations() if steps is None else steps
    version = db.execute("PRAGMA user_version").fetchone()[0]
    tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables and db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise StoreError(
            f"{path} is a database of another program.", "Name another file with --db, or move this one away."
        )
    if version > len(steps):
        raise StoreError(
            f"{path} was written by a newer Grid-X: it has version {version}, and this program knows up to"
            f" {len(steps)}.",
            "Install the newer version again, or restore a backup from before.",
        )
    applied = 0
    # A table that is made anew is dropped in between, which references to it would forbid. So those
    # are checked at the end of each step instead.
    enforced = db.execute("PRAGMA foreign_keys").fetchone()[0]
    db.execute("PRAGMA foreign_keys = OFF")
    try:
        for step in steps[version:]:
            _apply(db, step)
            applied += 1
    finally:
        db.execute(f"PRAGMA foreign_keys = {enforced}")
    return applied


def _apply(db: sqlite3.Connection, step: Migration) -> None:
    """One step, whole or not at all."""
    db.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements(step.sql):
            db.execute(statement)
        broken = db.execute("PRAGMA foreign_key_check").fetchone()
        if broken is not None:
            raise sqlite3.IntegrityError(f"{step.name}: row {broken[1]} of {broken[0]} refers to nothing")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {step.version}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def look_over(db: sqlite3.Connection, path: Path) -> None:
    """Refuse a file whose pages do not fit together, before anything is built on it.

    Raises:
        StoreError: damaged.
    """
    if path.stat().st_size > QUICK_CHECK_BYTES:
        return
    found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise StoreError(
            f"The database {path} is damaged: {found}.",
            "Restore a backup. sqlite3's .recover command may save what is readable.",
        )
