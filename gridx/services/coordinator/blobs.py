"""The bytes of files on the coordinator's disk, by their SHA-256. All of it blocks: it is for threads.

``ab/<sha256>`` is a whole file, ``partial/<name>`` one that is coming in. A file is synced, and so is its
folder, before its row is written; a row is gone before its file is removed. So what a killed coordinator
leaves are files without a row, and those are removed at the next start.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from gridx import privatefiles
from gridx.errors import Unavailable

PARTIAL: Final = "partial"
SPARE_BYTES: Final = 64 << 20
"""Kept free on the disk for the database."""
_READ_BYTES: Final = 1 << 20
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_FLAGS: Final = os.O_WRONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)


class Partial:
    """A file that is coming in: how much of it is there, and the hash of that."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.size = 0
        self._hash = hashlib.sha256()

    def load(self) -> None:
        """Take up what an earlier process left; nothing is begun anew."""
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            while data := file.read(_READ_BYTES):
                self._hash.update(data)
                self.size += len(data)

    def write(self, data: bytes) -> None:
        """Add bytes at the end; what did not fit whole is not there at all.

        Raises:
            OSError: the disk is full, or broken.
        """
        fd = self._open()
        try:
            os.lseek(fd, self.size, os.SEEK_SET)
            view = memoryview(data)
            try:
                while view:
                    view = view[os.write(fd, view) :]
            except OSError:
                with suppress(OSError):
                    os.ftruncate(fd, self.size)
                raise
        finally:
            os.close(fd)
        self._hash.update(data)
        self.size += len(data)

    def sync(self) -> str:
        """Have all of it on the disk; returns the SHA-256 of what came."""
        fd = self._open()
        try:
            os.ftruncate(fd, self.size)
            os.fsync(fd)
        finally:
            os.close(fd)
        return self._hash.hexdigest()

    def _open(self) -> int:
        """The file; of one that is not there any more nothing has come."""
        try:
            fd = os.open(self._path, _FLAGS if self.size else _FLAGS | os.O_CREAT, 0o600)
            if os.fstat(fd).st_size >= self.size:
                return fd
            os.close(fd)
        except FileNotFoundError:
            pass
        self.size = 0
        self._hash = hashlib.sha256()
        raise FileNotFoundError(errno.ENOENT, "what had come of the file is gone")

    def move(self, target: Path) -> None:
        """Give it its place and have that on the disk, too."""
        privatefiles.make_folder(target.parent)
        self._path.replace(target)
        privatefiles.sync_folder(target.parent)

    def remove(self) -> None:
        """Drop it."""
        self._path.unlink(missing_ok=True)


class BlobFolder:
    """The folder of one database, which lies beside it and has its name."""

    def __init__(self, database: Path) -> None:
        self.root = database.with_name(f"{database.name}-blobs")

    def prepare(self) -> None:
        """Make the folders, 0700.

        Raises:
            SetupError: they cannot be made.
        """
        for folder in (self.root, self.root / PARTIAL):
            privatefiles.make_folder(folder)
        privatefiles.sync_folder(self.root)

    def path(self, digest: str) -> Path:
        """Where the file of a digest lies, or would."""
        return self.root / digest[:2] / digest

    def has(self, digest: str, size: int) -> bool:
        """Whether the file is there, whole."""
        return self.size(digest) == size

    def size(self, digest: str) -> int | None:
        """Bytes of the file; None when there is none."""
        try:
            found = self.path(digest).lstat()
        except OSError:
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def open(self, digest: str) -> BinaryIO:
        """The file, for reading.

        Raises:
            OSError: it is not there.
        """
        return self.path(digest).open("rb")

    def remove(self, digests: Collection[str]) -> None:
        """Remove files; those that are not there, or held by a reader of Windows, are passed over."""
        for digest in digests:
            with suppress(OSError):
                self.path(digest).unlink()

    def partial(self, name: str) -> Partial:
        """A file that comes in under a name, with what has come of it."""
        found = self.new_partial(name)
        found.load()
        return found

    def new_partial(self, name: str) -> Partial:
        """A file of which nothing has come."""
        return Partial(self.root / PARTIAL / name)

    def partials(self) -> dict[str, tuple[int, float]]:
        """Files that are coming in: bytes so far, and the wall time of the last."""
        found = {}
        for entry in os.scandir(self.root / PARTIAL):
            with suppress(FileNotFoundError):
                about = entry.stat(follow_symlinks=False)
                found[entry.name] = (about.st_size, about.st_mtime)
        return found

    def remove_partial(self, name: str) -> None:
        """Drop a file that was coming in."""
        (self.root / PARTIAL / name).unlink(missing_ok=True)

    def digests(self) -> Iterator[str]:
        """Every file that lies here, by its name; what is no file of ours is not named."""
        for folder in sorted(self.root.iterdir()):
            if folder.name != PARTIAL and folder.is_dir() and not folder.is_symlink():
                for entry in os.scandir(folder):
                    if _DIGEST.fullmatch(entry.name) and entry.name[:2] == folder.name:
                        yield entry.name

    def check_space(self, more: int) -> None:
        """Refuse to take so many bytes where the disk would be too full for the database.

        Raises:
            Unavailable: it would.
        """
        free = shutil.disk_usage(self.root).free
        if free < more + SPARE_BYTES:
            raise disk_full()


def disk_full() -> Unavailable:
    """The refusal of a file for which the disk has no room."""
    return Unavailable(
        "The coordinator's disk is full; the file was not taken.",
        "Try again later. Its operator has to free space where the database lies.",
        reason="disk_full",
    )
