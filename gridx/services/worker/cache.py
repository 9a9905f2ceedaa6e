"""Input files of jobs, kept by their SHA-256 for the next job that needs them; within the disk budget.

``<sha256>`` is a whole file that was verified while it came, ``<sha256>.part`` one that is coming. The ones
used longest ago are given up when something else needs the room, never one that a live attempt uses. The time
of last use is the file's own, so that it outlives the process. Nothing is synced: what an earlier process
left is read once before it is used, since a power cut may have left a file of nothing.

All methods but ``call`` block and are safe in several threads.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from gridx import privatefiles
from gridx.errors import SetupError
from gridx.messages import InputFile
from gridx.services.worker.disk import DiskBudget

log = logging.getLogger("gridx.worker")

P = ParamSpec("P")
T = TypeVar("T")

THREADS: Final = 4
_READ_BYTES: Final = 1 << 20
_NAME: Final = re.compile(r"([0-9a-f]{64})(\.part)?\Z")


class Partial:
    """A file that is coming: how much of it is there, and the hash of that."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.size = 0
        self._hash = hashlib.sha256()

    def load(self) -> None:
        """Take up what came earlier."""
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            while data := file.read(_READ_BYTES):
                self._hash.update(data)
                self.size += len(data)

    def write(self, data: bytes) -> None:
        """Add bytes at the end.

        Raises:
            OSError: the disk is full, or broken.
        """
        flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0)
        descriptor = os.open(self._path, flags, 0o600)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            file.seek(self.size)
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
        self._hash.update(data)
        self.size += len(data)

    def restart(self) -> None:
        """Begin anew: what came was not what was announced."""
        self._path.unlink(missing_ok=True)
        self.size, self._hash = 0, hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of what came so far."""
        return self._hash.hexdigest()


class Cache:
    """The folder of input files."""

    def __init__(self, folder: Path, budget: DiskBudget) -> None:
        self._folder, self._budget = folder, budget
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}
        """Whole files, the one used longest ago first."""
        self._coming: dict[str, int] = {}
        """What is set aside for files that are coming, or taken by parts of such."""
        self._pins: Counter[str] = Counter()
        self._unread: set[str] = set()
        """Whole files of an earlier process, which may have been damaged since."""
        self._threads = ThreadPoolExecutor(THREADS, "cache")
        budget.count(self._used, self._give_up)

    @classmethod
    def open(cls, folder: Path, budget: DiskBudget) -> Cache:
        """Make or read the folder.

        Raises:
            SetupError: it cannot be made or read.
        """
        privatefiles.make_folder(folder)
        cache = cls(folder, budget)
        try:
            cache._look()
        except OSError as error:
            cache.close()
            raise SetupError(
                f"The cache {folder} cannot be used: {error.strerror}.",
                "Check the owner and mode of the data folder, or remove the cache's folder.",
            ) from None
        # Within a budget that is smaller now than it was.
        budget.lacking_bytes(0)
        return cache

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function of the cache in one of its threads."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, functools.partial(function, *args, **kwargs))

    def path(self, sha256: str) -> Path:
        """Where a whole file lies."""
        return self._folder / sha256

    def partial(self, sha256: str) -> Partial:
        """A file that is coming, with what came earlier."""
        found = Partial(self._part(sha256))
        found.load()
        return found

    def whole(self, file: InputFile) -> bool:
        """Whether a file is here, and known to be what it was."""
        with self._lock:
            return self._sizes.get(file.sha256) == file.size and file.sha256 not in self._unread

    def read(self, file: InputFile) -> None:
        """Read a file that an earlier process left; one that is damaged is removed."""
        sha256 = file.sha256
        with self._lock:
            if sha256 not in self._unread:
                return
        found = Partial(self.path(sha256))
        found.load()
        with self._lock:
            self._unread.discard(sha256)
            if found.sha256 == sha256:
                return
            log.warning("the input file %s in the cache is damaged and is fetched again", sha256)
            self._sizes.pop(sha256, None)
            self.path(sha256).unlink(missing_ok=True)

    def hold(self, files: Iterable[InputFile]) -> str:
        """Keep these for a live attempt until they are released, with room for those that are to come.

        Returns:
            Why there is no room for them, in words; nothing is held then.
        """
        wanted = {file.sha256: file.size for file in files}
        with self._lock:
            self._pins.update(wanted.keys())
            missing = {sha256: size for sha256, size in wanted.items() if self._sizes.get(sha256) != size}
            more = sum(max(0, size - self._coming.get(sha256, 0)) for sha256, size in missing.items())

        def reserve() -> None:
            with self._lock:
                for sha256, size in missing.items():
                    self._coming[sha256] = max(size, self._coming.get(sha256, 0))

        if lacking := self._budget.lacking_bytes(more, reserve):
            self._unpin(wanted)
            return self._budget.shortage(lacking, "the inputs")
        return ""

    def release(self, files: Iterable[InputFile]) -> None:
        """The attempt that held these is over."""
        wanted = {file.sha256 for file in files}
        self._unpin(wanted)
        with self._lock:
            for sha256 in wanted:
                if not self._pins[sha256] and sha256 in self._coming:
                    self._coming[sha256] = _size(self._part(sha256))
                    if not self._coming[sha256]:
                        del self._coming[sha256]

    def complete(self, sha256: str) -> None:
        """A file has come whole, and is what was announced."""
        self._part(sha256).replace(self.path(sha256))
        with self._lock:
            self._coming.pop(sha256, None)
            self._sizes[sha256] = _size(self.path(sha256))

    def close(self) -> None:
        """End the threads; the files stay for the next start."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- room ----------------------------------------------------------------------------------------------

    def _used(self) -> int:
        with self._lock:
            return sum(self._sizes.values()) + sum(self._coming.values())

    def _give_up(self, wanted: int) -> None:
        """Remove what nobody uses until so many bytes are free: parts, then what was used longest ago."""
        with self._lock:
            parts = [sha256 for sha256 in self._coming if not self._pins[sha256]]
            whole = [sha256 for sha256 in self._sizes if not self._pins[sha256]]
            for sha256 in parts:
                if wanted <= 0:
                    return
                wanted -= self._coming.pop(sha256)
                self._part(sha256).unlink(missing_ok=True)
            for sha256 in whole:
                if wanted <= 0:
                    return
                wanted -= self._sizes.pop(sha256)
                self._unread.discard(sha256)
                self.path(sha256).unlink(missing_ok=True)

    def _unpin(self, sha256s: Iterable[str]) -> None:
        with self._lock:
            for sha256 in sha256s:
                self._pins[sha256] -= 1
                if self._pins[sha256] <= 0:
                    del self._pins[sha256]
                if sha256 in self._sizes:
                    # Used last of all now.
                    self._sizes[sha256] = self._sizes.pop(sha256)
                    with suppress(OSError):
                        os.utime(self.path(sha256))

    def _part(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.part"

    def _look(self) -> None:
        found: list[tuple[float, str, int]] = []
        for path in self._folder.iterdir():
            name = _NAME.match(path.name)
            if name is None or path.is_symlink() or not path.is_file():
                log.warning("%s is none of the cache's files and is left alone", path)
            elif name[2]:
                self._coming[name[1]] = _size(path)
            else:
                status = path.stat()
                found.append((status.st_mtime, name[1], status.st_size))
        self._sizes = {sha256: size for _, sha256, size in sorted(found)}
        self._unread = set(self._sizes)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
