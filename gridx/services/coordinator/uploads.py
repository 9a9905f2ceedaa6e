"""Files coming in over HTTP: piece by piece, hashed as they come, taken up again where they broke off.

One at a time writes to a file. Whoever comes while another does so waits; a connection that has brought
nothing for a while makes room, since its client may have come back by another one. What a file will take is
reserved when it begins, so that many at once do not get past a quota that none of them passes alone.
"""

from __future__ import annotations

import asyncio
import errno
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

from gridx.clock import Clock
from gridx.errors import Conflict, InvalidField, TooLarge, TooMany, Unavailable
from gridx.messages import BlobState
from gridx.services.coordinator.blobs import BlobFolder, Partial, disk_full

T = TypeVar("T")

PIECE_BYTES: Final = 256 << 10
"""Gathered before a thread writes them; one upload holds two such pieces at most."""
THREADS: Final = 4
SPACE_MATTERS_BYTES: Final = 1 << 20
"""For less the disk's room is not looked up."""
STALLED_S: Final = 3.0
"""After so long without a byte a connection makes room for another one with the same file."""
MAX_BEGUN: Final = 64
"""Files that one sender may have begun and not finished."""


class Sender(NamedTuple):
    """Who sends, and on whose account: a user for himself, or a worker for an attempt of a user's job."""

    name: str
    """Of the sender; two of one name send the same thing."""
    user_id: int

    def partial(self, digest: str) -> str:
        """Name of the partial file."""
        return f"{self.name}-{digest}"


@dataclass(slots=True, eq=False)
class _Coming:
    """A file that is coming in."""

    sender: str
    user_id: int
    reserved: int
    moved_at: float
    partial: Partial | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    cut: Callable[[], None] | None = None
    """Ends the connection that writes now."""
    waiting: int = 0


class Uploads:
    """What is coming in, and the only way by which a file gets its place."""

    def __init__(self, folder: BlobFolder, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._coming: dict[str, _Coming] = {}
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="gridx-files")
        self._closed = False
        # A file gets its place and its row, or loses them, under the lock of its digest's first digits.
        self._places = [asyncio.Lock() for _ in range(256)]

    def close(self) -> None:
        """End the threads; what has come stays."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def thread(self, work: Callable[[], T]) -> T:
        """Run something that blocks on the disk.

        Raises:
            Unavailable: the disk is full, broken, or the coordinator stops.
        """
        if self._closed:
            raise Unavailable("The coordinator is stopping.", "Try again in a moment.", reason="stopping")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise disk_full() from None
            raise Unavailable(
                f"The coordinator cannot use its folder of files: {error.strerror}.",
                "Its operator has to look at the disk.",
                reason="files_failed",
            ) from error

    @asynccontextmanager
    async def places(self, digests: Iterable[str]) -> AsyncIterator[None]:
        """Entered while files of these digests get their places and their rows, or lose them."""
        async with AsyncExitStack() as held:
            # In one order for all, so that no two wait for each other.
            for number in sorted({int(digest[:2], 16) for digest in digests}):
                await held.enter_async_context(self._places[number])
            yield

    def load(self, name: str, user_id: int, size: int) -> None:
        """Know of a partial file that an earlier process left."""
        self._coming[name] = _Coming(name.partition("-")[0], user_id, size, self._clock.monotonic())

    def reserved(self, user_id: int, *, but: str = "") -> int:
        """Bytes that are kept for what a user, or workers on his account, have begun to send."""
        return sum(
            one.reserved for name, one in self._coming.items() if one.user_id == user_id and name != but
        )

    async def offset(self, sender: Sender, digest: str) -> int:
        """Bytes that have come of a file."""
        coming = self._coming.get(sender.partial(digest))
        if coming is None:
            return 0
        if coming.partial is None and not coming.lock.locked():
            async with coming.lock:
                await self._open(sender.partial(digest), coming)
        return coming.partial.size if coming.partial is not None else 0

    async def take(
        self,
        sender: Sender,
        digest: str,
        size: int,
        offset: int,
        pieces: AsyncIterator[bytes],
        *,
        cut: Callable[[], None],
        admit: Callable[[int], Awaitable[None]],
        keep: Callable[[], Awaitable[None]],
    ) -> BlobState:
        """Take the bytes of a file from ``offset`` on.

        Args:
            size: of the whole file.
            pieces: the bytes; they may end before the file does, and the rest comes with a later call.
            cut: ends the connection by which they come.
            admit: refuses a file that there is no room for; gets the bytes reserved for others of the user.
            keep: writes the row of a file that is whole and has its place.

        Raises:
            Conflict: ``offset`` is not how much has come, which ``details["offset"]`` says.
            InvalidField: there are more bytes than ``size``, or their hash is another; all of it is dropped.
            TooMany: the sender has begun too many files.
            Unavailable: the disk is full. What has come stays.
        """
        name = sender.partial(digest)
        coming = await self._turn(sender, name, cut)
        try:
            partial = await self._open(name, coming)
            if offset != partial.size:
                raise Conflict(
                    f"{partial.size:,} bytes of this file have come, so the next is number {partial.size},"
                    f" not {offset}.",
                    "Go on from there.",
                    offset=partial.size,
                )
            reserved, coming.reserved = coming.reserved, size
            try:
                await admit(self.reserved(sender.user_id, but=name))
                if size - offset >= SPACE_MATTERS_BYTES:
                    await self.thread(lambda: self._folder.check_space(size - offset))
            except BaseException:
                coming.reserved = reserved
                raise
            await self._receive(coming, partial, size, pieces)
            if partial.size < size:
                return BlobState(sha256=digest, size=size, offset=partial.size, complete=False)
            if partial.size > size:
                raise _Wrong(_longer(size))
            await _to_the_end(self._finish(name, partial, digest, keep))
        except _Wrong as wrong:
            await self._drop(name, coming)
            raise wrong.error from None
        finally:
            self._done(name, coming)
        return BlobState(sha256=digest, size=size, offset=size, complete=True)

    async def drop(self, sender: Sender, digest: str) -> None:
        """Forget what has come of a file, unless it is coming now."""
        await self.drop_named(sender.partial(digest))

    async def drop_named(self, name: str) -> None:
        """The same, by the partial file's name."""
        coming = self._coming.get(name)
        if coming is None or coming.lock.locked() or coming.waiting:
            return
        async with coming.lock:
            await self._drop(name, coming)

    def begun(self) -> dict[str, float]:
        """Every file that has begun to come, and when it last got on, on the monotonic clock."""
        return {name: one.moved_at for name, one in self._coming.items() if not one.lock.locked()}

    # -- one at a time -------------------------------------------------------------------------------------

    async def _turn(self, sender: Sender, name: str, cut: Callable[[], None]) -> _Coming:
        """Wait until nobody else writes to this file."""
        coming = self._coming.get(name)
        if coming is None:
            begun = sum(one.sender == sender.name for one in self._coming.values())
            if begun >= MAX_BEGUN:
                raise TooMany(
                    f"{begun} files have begun to come and are not whole.",
                    "Finish some, or drop them: gridx files prune.",
                )
            coming = _Coming(sender.name, sender.user_id, 0, self._clock.monotonic())
            self._coming[name] = coming
            # Of one that was not known at the start nothing lies on the disk.
            coming.partial = self._folder.new_partial(name)
        coming.waiting += 1
        try:
            while True:
                try:
                    async with asyncio.timeout(STALLED_S):
                        await coming.lock.acquire()
                    break
                except TimeoutError:
                    if self._clock.monotonic() - coming.moved_at >= STALLED_S and coming.cut is not None:
                        coming.cut()
        except BaseException:
            self._forget_if_nothing(name, coming)
            raise
        finally:
            coming.waiting -= 1
        if self._coming.get(name) is not coming:
            # Meanwhile it was finished, or dropped.
            coming.lock.release()
            return await self._turn(sender, name, cut)
        coming.cut = cut
        coming.moved_at = self._clock.monotonic()
        return coming

    def _done(self, name: str, coming: _Coming) -> None:
        coming.cut = None
        coming.lock.release()
        self._forget_if_nothing(name, coming)

    def _forget_if_nothing(self, name: str, coming: _Coming) -> None:
        unwanted = coming.partial is None or coming.partial.size == 0
        idle = not coming.waiting and not coming.lock.locked()
        if unwanted and idle and self._coming.get(name) is coming:
            del self._coming[name]

    async def _open(self, name: str, coming: _Coming) -> Partial:
        if coming.partial is None:
            coming.partial = await self.thread(lambda: self._folder.partial(name))
        return coming.partial

    async def _drop(self, name: str, coming: _Coming) -> None:
        """Remove a file that came, its lock held. It is known until it is gone, so that none begins anew."""

        async def remove() -> None:
            await self.thread(lambda: self._folder.remove_partial(name))
            if self._coming.get(name) is coming:
                del self._coming[name]

        await _to_the_end(remove())

    # -- the bytes -----------------------------------------------------------------------------------------

    async def _receive(
        self, coming: _Coming, partial: Partial, size: int, pieces: AsyncIterator[bytes]
    ) -> None:
        """Write what comes; also what came before the connection broke."""
        held: list[bytes] = []
        length = 0
        try:
            async for piece in pieces:
                coming.moved_at = self._clock.monotonic()
                if partial.size + length + len(piece) > size:
                    raise _Wrong(_longer(size))
                held.append(piece)
                length += len(piece)
                if length >= PIECE_BYTES:
                    data, held, length = b"".join(held), [], 0
                    await _to_the_end(self.thread(functools.partial(partial.write, data)))
        finally:
            if held:
                await _to_the_end(self.thread(functools.partial(partial.write, b"".join(held))))

    async def _finish(
        self, name: str, partial: Partial, digest: str, keep: Callable[[], Awaitable[None]]
    ) -> None:
        found = await self.thread(partial.sync)
        if found != digest:
            raise _Wrong(
                InvalidField(
                    f"sha256: the bytes that came have the hash {found[:12]}…, not {digest[:12]}….",
                    "The file changed while it was sent, or was damaged on the way. Send it anew.",
                    field="sha256",
                )
            )
        async with self.places([digest]):
            await self.thread(lambda: partial.move(self._folder.path(digest)))
            del self._coming[name]
            await keep()


async def _to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Do what must not be left half done; who is cancelled meanwhile waits for its end."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


class _Wrong(Exception):
    """What came is not the file; nothing of it is kept."""

    def __init__(self, error: InvalidField | TooLarge) -> None:
        super().__init__(error)
        self.error = error


def _longer(size: int) -> InvalidField:
    return InvalidField(
        f"size: more than the {size:,} bytes came that the file was said to have.",
        "Say the size of the whole file.",
        field="size",
    )
