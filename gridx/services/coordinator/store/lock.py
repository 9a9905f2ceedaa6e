"""One coordinator to a database: a lock file beside it, held for the life of the process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gridx.errors import StoreError


class FileLock:
    """``<db>.lock``, locked by the operating system, so that a killed process leaves nothing to clean up.

    The file stays: removing it would let two processes lock two files of one name.

    Raises:
        StoreError: another process holds it; the message names the process.
    """

    def __init__(self, database: Path) -> None:
        self.path = database.with_name(database.name + ".lock")
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        except OSError as error:
            raise StoreError(
                f"The lock file {self.path} cannot be written: {error.strerror}.",
                "Check the folder's owner and mode.",
            ) from None
        try:
            _lock(self._fd)
        except OSError:
            holder = os.read(self._fd, 32).decode("ascii", "replace").strip()
            os.close(self._fd)
            by = f" (process {holder})" if holder.isdigit() else ""
            raise StoreError(
                f"{database.name} is in use by another coordinator{by}.",
                f"Stop it first, or name another database with --db. The file is {database}.",
            ) from None
        if hasattr(os, "fchmod"):
            os.fchmod(self._fd, 0o600)
        os.ftruncate(self._fd, 0)
        os.write(self._fd, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let the next coordinator in."""
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1


if sys.platform == "win32":
    import msvcrt

    def _lock(fd: int) -> None:
        # Far past the text, so that others can still read who holds it.
        os.lseek(fd, 1 << 30, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        os.lseek(fd, 0, os.SEEK_SET)
else:
    import fcntl

    def _lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
