"""Small private files, written whole or not at all: half of one is never seen, whatever is killed.

Tokens, the machine's identity and finished results are such files. They are made 0600 in folders of 0700.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from gridx.errors import SetupError


def guard() -> None:
    """Let this process make files for its user alone, and leave no image of its memory when it crashes."""
    os.umask(0o077)
    try:
        import resource
    except ImportError:  # Windows
        return
    # One byte is less than any; at 0 the kernel still hands one to the machine's program for crashes.
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (min(hard, 1) if hard >= 0 else 1, hard))


def make_folder(path: Path) -> None:
    """Make a folder that only its owner may enter; one that exists is left as it is.

    Raises:
        SetupError: it cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"The folder {path} cannot be made: {error.strerror}.",
            "Check its owner and mode, or name another.",
        ) from None


def write(path: Path, data: bytes, *, new: bool = False) -> None:
    """Put ``data`` on disk under ``path``, synced; readers see the old content or the new one, never a part.

    Args:
        new: the file must not exist yet; if another process made it first, that is kept.

    Raises:
        FileExistsError: with ``new``, there is one already.
        OSError: the disk is full, or the folder is not writable.
    """
    passing = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        fd = os.open(passing, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if new:
            os.link(passing, path)
        else:
            passing.replace(path)
    finally:
        with suppress(FileNotFoundError):
            passing.unlink()
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut, where the system has a way to say so."""
    if os.name == "nt":
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
