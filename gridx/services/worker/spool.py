"""Output and results that the coordinator does not have yet, on disk.

Three files an attempt, by its id: ``7.stdout`` and ``7.stderr`` grow while it runs, ``7.end`` is written when
it ended; ``7.f0``, ``7.f1`` and so on are the files that it gave back. An end is synced to disk before it is
sent, and removed when the coordinator said that it has it.
What lies here without an end at a start belongs to attempts that died with the worker, and is removed.

All methods block and are safe in several threads; :meth:`Spool.call` runs them away from the event loop.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, ParamSpec, TypeVar
from weakref import WeakSet

import msgspec
from msgspec import Struct

from gridx import privatefiles
from gridx.errors import SetupError
from gridx.messages import STREAMS, Finished, Stream
from gridx.services.worker.disk import DiskBudget

log = logging.getLogger("gridx.worker")

P = ParamSpec("P")
T = TypeVar("T")

FORMAT: Final = 1
THREADS: Final = 4


class End(Struct, frozen=True, kw_only=True):
    """What is kept of an attempt that ended."""

    format: int = FORMAT
    attempt_id: int
    started: bool
    """Whether its own code ran."""
    runtime: str
    finished: Finished


def marker(cap_bytes: int) -> bytes:
    """The line that ends a stream of which more came than is kept."""
    return f"\n[output cut at {cap_bytes:,} bytes]\n".encode()


class Entry:
    """The files of one attempt.

    Args:
        cap_bytes: what is kept of each stream; one marker line may follow it.
    """

    def __init__(self, folder: Path, attempt_id: int, cap_bytes: int) -> None:
        self.attempt_id = attempt_id
        self.cap_bytes = cap_bytes
        self.lengths: dict[Stream, int] = dict.fromkeys(STREAMS, 0)
        """Bytes of each stream that can be read, marker included."""
        self.cut: set[Stream] = set()
        """Streams of which nothing more is kept."""
        self._folder = folder
        self._files: dict[Stream, BinaryIO] = {}
        self._lock = threading.Lock()
        self._dropped = False
        self._reserved = 0
        self.out_files = 0
        """How many files it gave back so far."""
        self.out_bytes = 0
        """What these take, and what is set aside for the one under way."""

    @property
    def most_bytes(self) -> int:
        """What output can come to."""
        return len(STREAMS) * (self.cap_bytes + len(marker(self.cap_bytes)))

    @property
    def used_bytes(self) -> int:
        """What it keeps, or while it may still grow, what was set aside."""
        if self._dropped:
            return 0
        return max(self._reserved, sum(self.lengths.values())) + self.out_bytes

    def out_path(self, number: int) -> Path:
        """Where the file of this number is, which the attempt gave back."""
        return self._folder / f"{self.attempt_id}.f{number}"

    def reserve(self) -> None:
        """Set aside what output can come to."""
        self._reserved = self.most_bytes

    def write(self, stream: Stream, data: bytes) -> None:
        """Append output, up to the cap.

        Raises:
            OSError: the disk is full.
        """
        with self._lock:
            if self._dropped or stream in self.cut:
                return
            room = self.cap_bytes - self.lengths[stream]
            cut = len(data) > room
            if cut:
                data = data[:room] + marker(self.cap_bytes)
            file = self._files.get(stream)
            if file is None:
                file = self._files[stream] = _create(self._path(stream))
            file.seek(self.lengths[stream])
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
            self.lengths[stream] += len(data)
            if cut:
                self.cut.add(stream)

    def read(self, stream: Stream, offset: int, limit: int) -> bytes:
        """Bytes from an offset; fewer than ``limit`` at the end, and none of what was dropped."""
        limit = min(limit, self.lengths[stream] - offset)
        if limit <= 0:
            return b""
        with self._lock:
            if self._dropped:
                return b""
            file = self._files.get(stream)
            if file is not None:
                file.seek(offset)
                return file.read(limit)
            try:
                with self._path(stream).open("rb", buffering=0) as file:
                    file.seek(offset)
                    return file.read(limit)
            except FileNotFoundError:
                return b""

    def end(self, end: End) -> None:
        """Put the result on disk, output first: an end never stands for bytes that are not there.

        Raises:
            OSError: the disk is full; the result then lives in memory alone.
        """
        with self._lock:
            if self._dropped:
                return
            for stream in tuple(self._files):
                os.fsync(self._files[stream].fileno())
                self._files.pop(stream).close()
            self._reserved = 0
            privatefiles.write(self._folder / f"{self.attempt_id}.end", msgspec.json.encode(end))

    def drop(self) -> None:
        """Remove everything; the end first, so that no end is left without its output."""
        with self._lock:
            self._dropped = True
            for file in self._files.values():
                file.close()
            self._files.clear()
            for suffix in ("end", *STREAMS):
                with suppress(FileNotFoundError):
                    (self._folder / f"{self.attempt_id}.{suffix}").unlink()
            # The last may be one that was under way.
            for number in range(self.out_files + 1):
                with suppress(FileNotFoundError):
                    self.out_path(number).unlink()

    def _path(self, stream: Stream) -> Path:
        return self._folder / f"{self.attempt_id}.{stream}"


class Spool:
    """The folder of all entries, and the threads that touch it."""

    def __init__(self, folder: Path, budget: DiskBudget | None = None) -> None:
        self.folder = folder
        self.budget = budget or DiskBudget(None, folder)
        self._entries: WeakSet[Entry] = WeakSet()
        self._entries_lock = threading.Lock()
        self.budget.count(self._used_bytes)
        self.recovered: list[tuple[Entry, End]] = []
        """Ends that an earlier process of this worker left behind."""
        self._threads = ThreadPoolExecutor(THREADS, "spool")

    @classmethod
    def open(cls, folder: Path, budget: DiskBudget | None = None) -> Spool:
        """Make or read the folder.

        Args:
            budget: what jobs may use of the disk; None: what it has.

        Raises:
            SetupError: it cannot be made, read or cleaned.
        """
        privatefiles.make_folder(folder)
        spool = cls(folder, budget)
        try:
            spool._recover()
        except OSError as error:
            spool.close()
            raise SetupError(
                f"The spool {folder} cannot be used: {error.strerror}.",
                "Check the owner and mode of the data folder, and whether its disk is full.",
            ) from None
        return spool

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function of the spool in one of its threads."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, functools.partial(function, *args, **kwargs))

    def entry(self, attempt_id: int, cap_bytes: int) -> Entry:
        """A place for the output and the end of a new attempt; nothing is written yet."""
        entry = Entry(self.folder, attempt_id, cap_bytes)
        with self._entries_lock:
            self._entries.add(entry)
        return entry

    def no_room(self, entry: Entry) -> str:
        """Set aside what the entry's output can come to, or say why there is no room for it."""
        lacking = self.budget.lacking_bytes(entry.most_bytes, entry.reserve)
        return self.budget.shortage(lacking, "the output") if lacking else ""

    def _used_bytes(self) -> int:
        with self._entries_lock:
            return sum(entry.used_bytes for entry in self._entries)

    def close(self) -> None:
        """End the threads; the files stay for the next start."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _recover(self) -> None:
        kept = set()
        for path in sorted(self.folder.glob("*.end")):
            end = _read_end(path)
            if end is None:
                continue
            entry = self.entry(end.attempt_id, 0)
            lengths: dict[Stream, int] = {
                "stdout": end.finished.stdout_bytes,
                "stderr": end.finished.stderr_bytes,
            }
            files = end.finished.files
            entry.out_files, entry.out_bytes = len(files), sum(file.size for file in files)
            # What is in the files is not synced: their digests tell whether they are whole.
            if all(_size(entry._path(stream)) >= length for stream, length in lengths.items()) and all(
                _size(entry.out_path(number)) == file.size for number, file in enumerate(files)
            ):
                entry.lengths.update(lengths)
                entry.cut.update(STREAMS)
                kept.add(path.name)
                kept.update(entry._path(stream).name for stream in STREAMS)
                kept.update(entry.out_path(number).name for number in range(entry.out_files))
                self.recovered.append((entry, end))
            else:
                entry.out_bytes = 0
                log.warning("the result of attempt %d lost its output and is dropped", end.attempt_id)
        for path in self.folder.iterdir():
            if path.name not in kept and path.is_file():
                path.unlink()


def _read_end(path: Path) -> End | None:
    try:
        end = msgspec.json.decode(path.read_bytes(), type=End)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        log.warning("the result %s is damaged and is dropped", path.name)
        return None
    if end.format != FORMAT or path.name != f"{end.attempt_id}.end":
        log.warning("the result %s is not one of this version and is dropped", path.name)
        return None
    return end


def _create(path: Path) -> BinaryIO:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    return os.fdopen(fd, "r+b", buffering=0)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
