"""Sending files: hashed first, skipped when they are there, in pieces, over broken connections."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from gridx import safetext
from gridx.client_follow import Patience
from gridx.client_wire import Wire
from gridx.errors import Conflict, InvalidField, Unavailable, Unreachable
from gridx.inputs import Found, no_room
from gridx.messages import BlobState, BlobStates, Digests, InputFile, Limits

CHUNK_BYTES: Final = 8 << 20
"""What one request carries; so much is sent again at most when a connection breaks."""
PIECE_BYTES: Final = 256 << 10
AT_ONCE: Final = 8
"""Files that are sent at the same time."""
SPOOL_BYTES: Final = 8 << 20
"""A stream of unknown length is gathered in memory up to this, then in a temporary file."""

Progress = Callable[[int, int], None]
"""Called with the bytes that are there so far, and how many there are in all."""


class Uploaded(NamedTuple):
    """A file that the coordinator has."""

    sha256: str
    size: int

    def as_input(self, path: str, *, executable: bool = False) -> InputFile:
        """The file as an input of a job, which finds it at ``path`` in its folder."""
        return InputFile(path=path, sha256=self.sha256, size=self.size, executable=executable)


@dataclass(slots=True)
class _Tally:
    """What of all has come, for whoever watches."""

    total: int
    tell: Progress | None
    done: dict[int, int] = field(default_factory=dict)

    def put(self, number: int, size: int) -> None:
        self.done[number] = size
        if self.tell is not None:
            self.tell(sum(self.done.values()), self.total)


async def send(wire: Wire, source: Path | bytes | BinaryIO, progress: Progress | None) -> Uploaded:
    """Send one file, or what a stream holds from where it stands, unless it is there already.

    Raises:
        InvalidField: it cannot be read, or it changed while it was sent.
    """
    with ExitStack() as opened:
        file = await asyncio.to_thread(_opened, source, opened)
        name = str(source) if isinstance(source, Path) else "the stream"
        uploaded = await asyncio.to_thread(_hashed, file, name)
        tally = _Tally(uploaded.size, progress)
        there, offset = await _have(wire, uploaded.sha256)
        if not there:
            await _send(wire, file, uploaded, offset, name, tally, 0)
        tally.put(0, uploaded.size)
        return uploaded


async def send_inputs(
    wire: Wire, found: Sequence[Found], limits: Limits, progress: Progress | None
) -> list[InputFile]:
    """Send what is not there yet, once all is known to fit; the inputs in the order of ``found``.

    Raises:
        QuotaExceeded: what is missing does not fit any more; nothing was sent.
        InvalidField: a file cannot be read, or changed while it was sent.
    """
    hashed = [await asyncio.to_thread(_hashed_file, file) for file in found]
    tally = _Tally(sum(one.size for one in hashed), progress)
    places = asyncio.Semaphore(AT_ONCE)
    # What two paths share is sent once.
    first = {one.sha256: number for number, one in reversed(list(enumerate(hashed)))}

    states = await _have_all(wire, list(first)) if first else []
    missing = {first[one.sha256]: one.offset for one in states if not one.complete}
    wanted = [found[number] for number in missing]
    begun = sum(missing.values())
    if sum(hashed[number].size for number in missing) - begun > limits.quota_bytes - limits.used_bytes:
        raise no_room(wanted, limits.used_bytes, limits.quota_bytes)
    for number in range(len(hashed)):
        if number not in missing:
            tally.put(number, hashed[number].size)

    async def one(number: int, offset: int) -> None:
        async with places:
            path = found[number].source
            with await asyncio.to_thread(_open, path) as file:
                await _send(wire, file, hashed[number], offset, str(path), tally, number)

    await _all([asyncio.create_task(one(number, offset)) for number, offset in missing.items()])
    return [
        one.as_input(file.path, executable=file.executable) for one, file in zip(hashed, found, strict=True)
    ]


async def _all(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Wait for all; with the first that fails, the others end, too."""
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def _have(wire: Wire, sha256: str) -> tuple[bool, int]:
    """Whether a file is there, and how much of it has come."""
    patience = Patience()
    while True:
        try:
            there, headers = await wire.head(f"/blobs/{sha256}")
        except Unreachable as error:
            await patience.another_try(error)
            continue
        offset = headers.get("Gridx-Offset", "0")
        return there, int(offset) if offset.isdecimal() else 0


async def _have_all(wire: Wire, digests: list[str]) -> list[BlobState]:
    """The same of many files."""
    patience = Patience()
    while True:
        try:
            body = Digests(sha256=digests)
            return (await wire.send("POST", "/blobs/have", BlobStates, body)).blobs
        except Unreachable as error:
            await patience.another_try(error)


async def _send(
    wire: Wire, file: BinaryIO, wanted: Uploaded, offset: int, name: str, tally: _Tally, number: int
) -> None:
    """Send a file from an offset on, chunk by chunk, until it is there."""
    patience = Patience()
    resumed = offset > 0
    while True:
        length = min(CHUNK_BYTES, wanted.size - offset)
        query = {"size": wanted.size, "offset": offset}
        try:
            state = await wire.put(
                f"/blobs/{wanted.sha256}", BlobState, query, _pieces(file, offset, length), length
            )
        except Conflict as error:
            # Another request with the same file was there first.
            offset = int(error.details.get("offset", 0))
            continue
        except (Unreachable, Unavailable) as error:
            if error.details.get("reason") == "disk_full":
                raise
            await patience.another_try(error)
            there, offset = await _have(wire, wanted.sha256)
            if there:
                return
            continue
        except InvalidField as error:
            if error.details.get("field") != "sha256":
                raise
            if not resumed:
                raise _changed(name) from None
            # What had come before may have been of another time, or damaged; it was dropped.
            resumed, offset = False, 0
            continue
        if state.complete:
            tally.put(number, wanted.size)
            return
        if state.offset > offset:
            patience = Patience()
        offset = state.offset
        tally.put(number, offset)


async def _pieces(file: BinaryIO, offset: int, length: int) -> AsyncIterator[bytes]:
    def read(at: int, most: int) -> bytes:
        file.seek(at)
        return file.read(most)

    end = offset + length
    while offset < end:
        piece = await asyncio.to_thread(read, offset, min(PIECE_BYTES, end - offset))
        if not piece:
            # Shorter than it was. Something has to come; the hash will not be right.
            piece = bytes(min(PIECE_BYTES, end - offset))
        offset += len(piece)
        yield piece


def _opened(source: Path | bytes | BinaryIO, opened: ExitStack) -> BinaryIO:
    """A file that can be read again from its beginning."""
    if isinstance(source, Path):
        return opened.enter_context(_open(source))
    spool = tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115 - closed with the stack
    opened.enter_context(spool)
    if isinstance(source, bytes):
        spool.write(source)
    else:
        shutil.copyfileobj(source, spool, PIECE_BYTES)
    spool.seek(0)
    return spool  # type: ignore[return-value]


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise _unreadable(str(path), error) from None


def _hashed_file(file: Found) -> Uploaded:
    with _open(file.source) as opened:
        return _hashed(opened, str(file.source))


def _hashed(file: BinaryIO, name: str) -> Uploaded:
    digest = hashlib.sha256()
    size = 0
    try:
        while data := file.read(1 << 20):
            digest.update(data)
            size += len(data)
        file.seek(0)
    except OSError as error:
        raise _unreadable(name, error) from None
    return Uploaded(digest.hexdigest(), size)


def _unreadable(name: str, error: OSError) -> InvalidField:
    return InvalidField(
        f"{safetext.name(name)} cannot be read: {error.strerror}.",
        "Check its owner and mode.",
        field="inputs",
    )


def _changed(name: str) -> InvalidField:
    return InvalidField(
        f"{safetext.name(name)} changed while it was sent.",
        "Send it when nothing writes to it.",
        field="inputs",
    )
