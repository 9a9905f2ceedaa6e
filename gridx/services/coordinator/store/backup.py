"""A copy of the database while it is in use."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from gridx.errors import StoreError

_PAGES_AT_ONCE: Final = 2048
"""8 MiB between looks at whether to stop."""


def back_up(source: sqlite3.Connection, target: Path, look: Callable[[], None]) -> None:
    """Copy what ``source`` sees to ``target`` (0600), which appears when it is whole.

    Args:
        source: inside a read transaction: otherwise each commit meanwhile would begin the copy anew.
        target: the new file; one that is there is replaced.
        look: called between parts; what it raises ends the backup.

    Raises:
        StoreError: the target cannot be written.
    """
    part = target.with_name(f"{target.name}.part-{os.getpid()}")
    try:
        os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        part.chmod(0o600)
        try:
            with closing(sqlite3.connect(part, isolation_level=None)) as copy:
                source.backup(copy, pages=_PAGES_AT_ONCE, progress=lambda *_: look(), sleep=0)
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
