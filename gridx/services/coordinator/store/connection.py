"""Files and connections of the database: who may read them, and how SQLite is told to keep its promises."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gridx.errors import StoreError

BUSY_TIMEOUT_MS: Final = 5000
"""How long another program may hold the file before an operation gives up."""
WAL_LIMIT_BYTES: Final = 64 << 20
"""A log that a long reader let grow is cut back to this once it could be copied."""
READ_PRAGMAS: Final = {
    "busy_timeout": BUSY_TIMEOUT_MS,
    "foreign_keys": "ON",
    "journal_size_limit": WAL_LIMIT_BYTES,
    # Only the writer copies the log into the file: SQLite before 3.51.3 can damage a log that two reset.
    "wal_autocheckpoint": 0,
    "query_only": "ON",
}


def prepare_files(path: Path) -> Path:
    """Make the folders (0700) and the database file (0600), whatever the umask; returns the absolute path.

    Raises:
        StoreError: the place cannot be written.
    """
    path = path.absolute()
    try:
        for folder in [p for p in reversed(path.parents) if not p.exists()]:
            folder.mkdir(mode=0o700, exist_ok=True)
            folder.chmod(0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600))
        # SQLite gives its -wal and -shm files the mode of the database file.
        for file in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
            if file.exists():
                file.chmod(0o600)
    except OSError as error:
        raise StoreError(
            f"The database {path} cannot be written: {error.strerror}.",
            "Check the folder's owner and mode, or name another place with --db or --data-dir.",
        ) from None
    return path


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say in words what SQLite found wrong with a file at start.

    Raises:
        StoreError: in place of any ``sqlite3.Error``.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_NOTADB:
            raise StoreError(
                f"{path} is not a database.", "Name another file with --db, or move this one away."
            ) from None
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StoreError(
                f"{path} is in use by another program.",
                "Close it; only one process may have the database open.",
            ) from None
        if code == sqlite3.SQLITE_FULL:
            raise StoreError(f"The disk of {path} is full.", "Free some space and start again.") from None
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            raise StoreError(
                f"The database {path} cannot be written: {error}.",
                "Check its owner and mode and its folder's, or name another file with --db.",
            ) from None
        raise StoreError(
            f"The database {path} is damaged: {error}.",
            "Restore a backup. sqlite3's .recover command may save what is readable.",
        ) from None


def connect_writer(path: Path) -> sqlite3.Connection:
    """The one connection that writes. It commits nothing by itself."""
    db = sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_MS / 1000, cached_statements=512)
    try:
        mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise StoreError(
                f"The database {path} cannot keep a write-ahead log here (it stays in mode {mode}).",
                "Put it on a local disk; network folders will not do.",
            )
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
        # The writer does it itself, after it has answered: an error of the automatic one would go unseen.
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("PRAGMA cache_size = -32768")
        db.execute("PRAGMA temp_store = MEMORY")
    except BaseException:
        db.close()
        raise
    return db


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that only reads, for what takes long: the audit, the backup."""
    db = sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_MS / 1000, check_same_thread=False)
    try:
        for name, value in READ_PRAGMAS.items():
            db.execute(f"PRAGMA {name} = {value}")
    except BaseException:
        db.close()
        raise
    return db
