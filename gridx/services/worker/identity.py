"""Who this worker is: a stable identity for a machine and a data folder, held by one process at a time.

The identity is made of a random number in the data folder and of the machine's own id. So it survives
restarts and renames, and a data folder that was copied to another machine is not taken for the same worker.
"""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import sys
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from gridx import privatefiles
from gridx.errors import SetupError

IDENTITY_FILE: Final = "worker.id"
LOCK_FILE: Final = "worker.lock"
MACHINE_ID_FILES: Final = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


def machine_id(files: Sequence[Path] = MACHINE_ID_FILES) -> str:
    """What tells this machine from others; empty where the system has no such thing."""
    for path in files:
        try:
            text = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text:
            return text
    if platform.system() == "Linux":
        # An address of a network card is no id here: a container gets another at each start.
        return ""
    node = uuid.getnode()
    # The multicast bit marks a number that uuid drew by lot because it found no card.
    return "" if node >> 40 & 1 else f"{node:012x}"


def load(data_path: Path, machine: str | None = None) -> str:
    """The identity of this machine and data folder, 32 hexadecimal digits; made at the first call.

    Raises:
        SetupError: the folder cannot be written, or its identity file is damaged.
    """
    path = data_path / IDENTITY_FILE
    privatefiles.make_folder(data_path)
    try:
        try:
            seed = path.read_bytes()
        except FileNotFoundError:
            seed = _make_seed(path)
    except OSError as error:
        raise SetupError(
            f"The worker's identity {path} cannot be read or made: {error.strerror}.",
            "Check the owner and mode of the data folder, or name another with --data-dir.",
        ) from None
    seed = seed.strip()
    if len(seed) != 32 or not all(byte in b"0123456789abcdef" for byte in seed):
        raise SetupError(
            f"The worker's identity {path} is damaged.",
            "Remove the file; the worker then joins as a new one.",
        )
    text = f"gridx worker\n{seed.decode()}\n{machine_id() if machine is None else machine}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _make_seed(path: Path) -> bytes:
    # Where another process was first, its number is the one.
    with suppress(FileExistsError):
        privatefiles.write(path, secrets.token_hex(16).encode() + b"\n", new=True)
    return path.read_bytes()


class DataLock:
    """Keeps a second worker off a data folder; the system frees it when the process ends, however it ends."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def take(cls, data_path: Path) -> DataLock:
        """Hold the folder.

        Raises:
            SetupError: another worker holds it, or the folder cannot be written.
        """
        privatefiles.make_folder(data_path)
        path = data_path / LOCK_FILE
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise SetupError(
                f"The data folder {data_path} cannot be used: {error.strerror}.",
                "Check its owner and mode, or name another with --data-dir.",
            ) from None
        try:
            _lock(fd)
        except OSError:
            os.close(fd)
            raise SetupError(
                f"Another worker uses the data folder {data_path}.",
                "Stop it, or give this one a folder of its own with --data-dir.",
                in_use=True,
            ) from None
        return cls(fd)

    def release(self) -> None:
        """Let the next worker have it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _lock(fd: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
