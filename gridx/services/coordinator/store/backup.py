"""A copy of the database while it is in use."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from gridx.errors import StoreError
from gridx.services.coordinator.store.connection import connect_reader


def back_up(path: Path, target: Path) -> None:
    """Copy the database as of one moment to ``target`` (0600), which appears when it is whole.

    All pages are copied in one step: in steps, each commit in between would begin it anew.

    Raises:
        StoreError: the target cannot be written.
    """
    part = target.with_name(f"{target.name}.part-{os.getpid()}")
    try:
        os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        part.chmod(0o600)
        try:
            with closing(connect_reader(path)) as source, closing(sqlite3.connect(part)) as copy:
                source.backup(copy, pages=-1)
                # A file by itself, without a log beside it.
                copy.execute("PRAGMA journal_mode = DELETE")
            descriptor = os.open(part, os.O_RDWR)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(
            f"The backup {target} could not be written: {error}.", "Check the folder and the free space."
        ) from None
