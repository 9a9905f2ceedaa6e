"""Files on the coordinator's disk and their rows, kept in step: what comes in, what is read, what is removed.

A file gets its place before its row, and its row goes before it does, both under one lock. What is left over
by a killed coordinator is a file without a row, which the next start removes.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from gridx.clock import Clock
from gridx.errors import Unavailable
from gridx.messages import AuditFinding, BlobState
from gridx.services.coordinator.blobs import BlobFolder
from gridx.services.coordinator.store import Store
from gridx.services.coordinator.uploads import Sender, Uploads

log = logging.getLogger("gridx.coordinator")

MAX_FINDINGS: Final = 50
Payer = Callable[[str], int | None]
"""On whose account a partial file of this name comes in; None: nobody wants it any more."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A piece of a file on its way in: which file, how large it is as a whole, and where the piece begins."""

    digest: str
    size: int
    offset: int
    pieces: AsyncIterator[bytes]
    cut: Callable[[], None]
    """Ends the connection by which it comes."""


class FileStore:
    """The files of one database."""

    def __init__(self, store: Store, database: Path, payer: Payer, clock: Clock) -> None:
        self._store = store
        self._payer = payer
        self._folder = BlobFolder(database)
        self.uploads = Uploads(self._folder, clock)

    async def start(self) -> None:
        """Make the folder, and remove what a killed coordinator left.

        Raises:
            SetupError: the folder cannot be made.
        """
        await self.uploads.thread(self._folder.prepare)
        known = (await self._store.blobs()).keys()

        def strays() -> tuple[list[str], int]:
            there = set(self._folder.digests())
            left = sorted(there - known)
            self._folder.remove(left)
            return left, len(known - there)

        removed, lost = await self.uploads.thread(strays)
        if removed:
            log.info("removed %d files that nothing referred to", len(removed))
        if lost:
            log.error("%d files are not on the disk any more; gridx admin audit names them", lost)
        for name, (size, _) in (await self.uploads.thread(self._folder.partials)).items():
            payer = self._payer(name)
            if payer is None:
                await self.uploads.thread(partial(self._folder.remove_partial, name))
            else:
                self.uploads.load(name, payer, size)

    @asynccontextmanager
    async def opened(self, digest: str, size: int) -> AsyncIterator[BinaryIO]:
        """The bytes of a file, open for as long as the block runs.

        Raises:
            Unavailable: it is not on the disk, or not whole.
        """
        if not await self.uploads.thread(lambda: self._folder.has(digest, size)):
            raise Unavailable(
                "The coordinator has lost this file.",
                "Its operator has to look at the disk: gridx admin audit.",
                reason="file_lost",
            )
        file = await self.uploads.thread(lambda: self._folder.open(digest))
        try:
            yield file
        finally:
            file.close()

    async def read(self, file: BinaryIO, length: int) -> bytes:
        """The next bytes of an open file."""
        return await self.uploads.thread(lambda: file.read(length))

    async def collect(self) -> None:
        """Remove all files to which nothing refers any more."""
        while found := await self._store.unreferenced_blobs():
            if not await self.remove(found):
                return

    async def drop_stale(self, before: float) -> None:
        """Drop what has begun to come and did not get on since then, or is wanted by nobody any more."""
        for name, moved_at in self.uploads.begun().items():
            if moved_at < before or self._payer(name) is None:
                await self.uploads.drop_named(name)

    async def audit(self) -> list[AuditFinding]:
        """Whether every file that there is to be lies on the disk, with its size."""

        def wrong(known: dict[str, int]) -> list[tuple[str, int | None]]:
            found = ((digest, self._folder.size(digest)) for digest in known)
            return [(digest, size) for digest, size in found if size != known[digest]][:MAX_FINDINGS]

        known = await self._store.blobs()
        suspects = await self.uploads.thread(lambda: wrong(known))
        # Some may have been deleted while this looked.
        still = await self._store.blobs() if suspects else {}
        return [
            AuditFinding(
                check="files",
                message=f"File {digest} is not on the disk."
                if size is None
                else f"File {digest} has {size:,} bytes on the disk and should have {known[digest]:,}.",
            )
            for digest, size in suspects
            if digest in still
        ]

    async def remove(self, digests: Collection[bytes]) -> int:
        """Remove those of these files to which nothing refers; how many."""
        async with self.uploads.places(digest.hex() for digest in digests):
            return await self._forget(list(digests))

    async def _forget(self, digests: list[bytes]) -> int:
        gone = await self._store.forget_blobs(digests)
        await self.uploads.thread(lambda: self._folder.remove([digest.hex() for digest in gone]))
        return len(gone)

    async def state(self, sender: Sender, digest: str, size: int | None) -> BlobState:
        """How much of a file has come; ``size`` is that of its row, where the sender has one."""
        return (await self.states(sender, [(digest, size)]))[0]

    async def states(self, sender: Sender, wanted: Sequence[tuple[str, int | None]]) -> list[BlobState]:
        """The same for many files."""

        def look() -> list[bool]:
            return [size is not None and self._folder.has(digest, size) for digest, size in wanted]

        # A file that got lost is sent anew: its row is there, and the bytes get their place again.
        there = await self.uploads.thread(look) if any(size is not None for _, size in wanted) else None
        states = []
        for number, (digest, size) in enumerate(wanted):
            if size is not None and there is not None and there[number]:
                states.append(whole(digest, size))
            else:
                offset = await self.uploads.offset(sender, digest)
                states.append(BlobState(sha256=digest, size=offset, offset=offset, complete=False))
        return states

    async def take(
        self,
        sender: Sender,
        coming: Incoming,
        admit: Callable[[int], Awaitable[None]],
        write: Callable[[], Awaitable[None]],
    ) -> BlobState:
        """Take a piece of a file; see :meth:`Uploads.take`. ``write`` writes the row of one that is whole."""

        async def keep() -> None:
            try:
                await write()
            except BaseException:
                await self._forget([bytes.fromhex(coming.digest)])
                raise

        return await self.uploads.take(
            sender,
            coming.digest,
            coming.size,
            coming.offset,
            coming.pieces,
            cut=coming.cut,
            admit=admit,
            keep=keep,
        )


def whole(digest: str, size: int) -> BlobState:
    """A file of which all has come."""
    return BlobState(sha256=digest, size=size, offset=size, complete=True)
