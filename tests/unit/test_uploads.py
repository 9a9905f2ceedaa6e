"""Uploads taken one at a time: whatever comes at the same moment, a file has the bytes that its name says."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gridx.clock import SystemClock
from gridx.errors import Conflict, InvalidField, Unavailable
from gridx.services.coordinator.blobs import BlobFolder
from gridx.services.coordinator.uploads import Sender, Uploads

ANN = Sender("1", 1)
DATA = bytes(range(256)) * 4000
NAME = hashlib.sha256(DATA).hexdigest()


class SlowFolder(BlobFolder):
    """Removing takes until it is let."""

    def __init__(self, database: Path) -> None:
        super().__init__(database)
        self.removing = threading.Event()
        self.go_on = threading.Event()

    def remove_partial(self, name: str) -> None:
        self.removing.set()
        assert self.go_on.wait(30)
        super().remove_partial(name)


async def pieces(data: bytes, go_on: asyncio.Event | None = None) -> AsyncIterator[bytes]:
    """The bytes piece by piece; the second half when it is let."""
    for at in range(0, len(data), 100_000):
        if go_on is not None and at > len(data) // 2:
            await go_on.wait()
        yield data[at : at + 100_000]


async def nothing(*_: object) -> None:
    """Everything is admitted and kept."""


async def send(uploads: Uploads, data: bytes, *, offset: int = 0, go_on: asyncio.Event | None = None):
    return await uploads.take(
        ANN, NAME, len(DATA), offset, pieces(data, go_on), cut=lambda: None, admit=nothing, keep=nothing
    )


@pytest.fixture
def folder(tmp_path: Path) -> SlowFolder:
    made = SlowFolder(tmp_path / "grid.db")
    made.prepare()
    return made


@pytest.fixture
async def uploads(folder: SlowFolder) -> AsyncIterator[Uploads]:
    made = Uploads(folder, SystemClock())
    yield made
    folder.go_on.set()
    made.close()


async def test_what_comes_while_a_wrong_file_is_dropped_is_not_dropped_with_it(uploads, folder, until):
    wrong = asyncio.create_task(send(uploads, bytes(len(DATA))))
    await until(folder.removing.is_set, "the wrong file to be dropped")
    go_on = asyncio.Event()
    right = asyncio.create_task(send(uploads, DATA, go_on=go_on))
    # It must not begin before the other is gone, so there is nothing to wait for.
    await asyncio.sleep(0.05)
    folder.go_on.set()
    with pytest.raises(InvalidField):
        await wrong
    go_on.set()
    assert (await right).complete
    assert folder.path(NAME).read_bytes() == DATA


async def test_what_comes_while_a_piece_is_dropped_begins_anew(uploads, folder, until):
    await send(uploads, DATA[:500_000])
    dropping = asyncio.create_task(uploads.drop(ANN, NAME))
    await until(folder.removing.is_set, "the piece to be dropped")
    go_on = asyncio.Event()
    right = asyncio.create_task(send(uploads, DATA, go_on=go_on))
    await asyncio.sleep(0.05)
    folder.go_on.set()
    await dropping
    go_on.set()
    assert (await right).complete
    assert folder.path(NAME).read_bytes() == DATA


async def test_a_caller_that_is_cancelled_leaves_nothing_half_done(uploads, folder, until):
    wrong = asyncio.create_task(send(uploads, bytes(len(DATA))))
    await until(folder.removing.is_set, "the wrong file to be dropped")
    wrong.cancel()
    go_on = asyncio.Event()
    right = asyncio.create_task(send(uploads, DATA, go_on=go_on))
    await asyncio.sleep(0.05)
    folder.go_on.set()
    await asyncio.gather(wrong, return_exceptions=True)
    # Whoever was cancelled is gone; the folder may take a moment longer.
    await asyncio.sleep(0.05)
    go_on.set()
    assert (await right).complete
    assert folder.path(NAME).read_bytes() == DATA


async def test_a_piece_that_somebody_removed_from_the_disk_is_noticed(uploads, folder):
    await send(uploads, DATA[:500_000])
    (folder.root / "partial" / ANN.partial(NAME)).unlink()
    with pytest.raises(Unavailable):
        await send(uploads, DATA[500_000:], offset=500_000)
    assert await uploads.offset(ANN, NAME) == 0
    assert (await send(uploads, DATA)).complete
    assert folder.path(NAME).read_bytes() == DATA


async def test_a_later_process_goes_on_from_what_lies_on_the_disk(uploads, folder):
    await send(uploads, DATA[:500_000])
    later = Uploads(folder, SystemClock())
    try:
        later.load(ANN.partial(NAME), ANN.user_id, 500_000)
        assert await later.offset(ANN, NAME) == 500_000
        with pytest.raises(Conflict) as caught:
            await send(later, DATA)
        assert caught.value.details["offset"] == 500_000
        assert (await send(later, DATA[500_000:], offset=500_000)).complete
    finally:
        later.close()
    assert folder.path(NAME).read_bytes() == DATA
