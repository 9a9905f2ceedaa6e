"""The files that an attempt gives back, from the sandbox into the spool; written and hashed in threads."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from typing import BinaryIO, Final

from gridx.errors import SandboxBroken
from gridx.messages import OutputFile
from gridx.services.worker.spool import Entry, Spool

GATHER_BYTES: Final = 1 << 20
"""So much is gathered before it goes to the disk."""


class OutFiles:
    """Takes one attempt's files into its spool entry; see :class:`base.FileSink`."""

    def __init__(self, spool: Spool, entry: Entry) -> None:
        self._spool, self._entry = spool, entry
        self._path, self._size = "", 0
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0

    async def begin(self, path: str, size: int) -> None:
        self._path, self._size = path, size
        self._hash = hashlib.sha256()
        self._gathered, self._gathered_bytes = [], 0
        await self._do(self._create)

    async def write(self, data: bytes) -> None:
        self._gathered.append(data)
        self._gathered_bytes += len(data)
        if self._gathered_bytes >= GATHER_BYTES:
            await self._do(self._write)

    async def end(self) -> OutputFile:
        await self._do(self._finish)
        self._entry.out_files += 1
        return OutputFile(path=self._path, sha256=self._hash.hexdigest(), size=self._size)

    async def drop(self) -> None:
        await self._do(self._drop)

    def close(self) -> None:
        """Let go of a file that was under way when the attempt was killed; its entry removes it."""
        if self._file is not None:
            self._file.close()
            self._file = None

    async def _do(self, work: Callable[[], None]) -> None:
        try:
            await self._spool.call(work)
        except OSError as error:
            why = error.strerror or str(error)
            raise SandboxBroken(f"The worker could not keep what the job gives back: {why}.") from error

    def _create(self) -> None:
        budget = self._spool.budget
        if lacking := budget.lacking_bytes(self._size, self._reserve):
            raise OSError(errno.ENOSPC, budget.shortage(lacking, "a file that the job gives back"))
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
        descriptor = os.open(self._entry.out_path(self._entry.out_files), flags, 0o600)
        self._file = os.fdopen(descriptor, "wb", buffering=0)

    def _reserve(self) -> None:
        self._entry.out_bytes += self._size

    def _write(self) -> None:
        assert self._file is not None
        data = b"".join(self._gathered)
        self._gathered, self._gathered_bytes = [], 0
        self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def _finish(self) -> None:
        self._write()
        self.close()

    def _drop(self) -> None:
        self.close()
        self._entry.out_bytes -= self._size
        self._entry.out_path(self._entry.out_files).unlink(missing_ok=True)
