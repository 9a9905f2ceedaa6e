"""Files while lines break and coordinators are killed: sent on from the break, whole or not there at all."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from pathlib import Path

import pytest
from kit.line import Line

from gridx.client import Client
from gridx.errors import Unavailable
from gridx.messages import JobState

MIB = 1 << 20


def stored(grid) -> dict[str, int]:
    """Whole files on the disk, and their sizes."""
    folder = grid.processes.folder / "coordinator" / "grid.db-blobs"
    return {path.name: path.stat().st_size for path in folder.glob("??/*")}


def rss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


async def test_an_upload_goes_on_where_it_broke_off_when_the_coordinator_is_killed(start, tmp_path):
    grid = await start()
    data = os.urandom(40 * MIB)
    (tmp_path / "large").write_bytes(data)
    seen: list[int] = []
    half = asyncio.Event()

    def progress(done: int, total: int) -> None:
        seen.append(done)
        if done >= 16 * MIB:
            half.set()

    sending = asyncio.create_task(grid.ann.upload(tmp_path / "large", progress=progress))
    await half.wait()
    await asyncio.to_thread(grid.coordinator.kill)
    await grid.start_again()
    uploaded = await sending
    assert uploaded == (hashlib.sha256(data).hexdigest(), len(data))
    assert stored(grid) == {uploaded.sha256: len(data)}
    # Nothing of what had come was sent again.
    assert seen == sorted(seen)
    assert (await grid.ann.usage()).input_bytes == len(data)
    await grid.sound()


@pytest.mark.parametrize("point", ["file in place", "add_upload before commit", "add_upload after commit"])
async def test_killed_around_the_row_of_a_file_it_is_there_or_not_and_sending_again_mends_it(
    start, failpoint, point
):
    grid = await start()
    data = os.urandom(MIB)
    failpoint(point)
    sending = asyncio.create_task(grid.ann.upload(data))
    await grid.until_killed(grid.coordinator)
    await grid.start_again()
    uploaded = await sending
    assert stored(grid) == {uploaded.sha256: MIB}
    assert (await grid.ann.usage()).input_bytes == MIB
    await grid.sound()


@pytest.mark.parametrize("when", ["before commit", "after commit"])
async def test_killed_while_files_are_deleted_none_is_lost_that_is_wanted_and_none_is_left(
    start, failpoint, when
):
    grid = await start()
    uploaded = await grid.ann.upload(b"not wanted any more")
    failpoint(f"forget_blobs {when}")
    pruning = asyncio.create_task(grid.answer(grid.ann.prune_uploads))
    await grid.until_killed(grid.coordinator)
    await grid.start_again()
    await pruning
    await grid.until(lambda: not stored(grid), "the file to be gone")
    await grid.ann.upload(b"not wanted any more")
    assert stored(grid) == {uploaded.sha256: uploaded.size}
    await grid.sound()


async def test_files_get_through_a_line_that_breaks_again_and_again(start, tmp_path):
    grid = await start()
    rng = random.Random(4)
    port = int(grid.processes.http_url.rpartition(":")[2])
    line = Line(port, cut_after=lambda: rng.randrange(2 * MIB, 12 * MIB))
    await line.start()
    try:
        data = os.urandom(30 * MIB)
        (tmp_path / "large").write_bytes(data)
        (tmp_path / "small").write_bytes(b"small")
        async with Client(line.url.replace("ws:", "http:"), grid.ann.token) as client:
            inputs = await client.upload_inputs(["large", "small"], root=tmp_path)
        assert [one.path for one in inputs] == ["large", "small"]
        assert line.connections > 3
        assert stored(grid)[hashlib.sha256(data).hexdigest()] == len(data)
    finally:
        await line.stop()
    await grid.sound()


async def test_the_coordinators_memory_stays_flat_while_a_large_file_passes(start, tmp_path):
    grid = await start()
    with (tmp_path / "large").open("wb") as file:
        for _ in range(200):
            file.write(os.urandom(MIB))
    await grid.ann.upload(os.urandom(20 * MIB))
    pid = grid.coordinator.process.pid
    before = rss_mib(pid)
    highest = before

    def progress(done: int, total: int) -> None:
        nonlocal highest
        highest = max(highest, rss_mib(pid))

    uploaded = await grid.ann.upload(tmp_path / "large", progress=progress)
    assert uploaded.size == 200 * MIB
    assert highest - before < 48, (before, highest)


async def test_a_disk_without_room_refuses_a_file_and_takes_it_when_there_is_some(start, small_disk):
    """Some of the disk is kept for the database, so that jobs go on."""
    folder = small_disk("coordinator", 112 * MIB)
    grid = await start(workers=("one",))
    data = os.urandom(40 * MIB)
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(20 * MIB))
    with pytest.raises(Unavailable, match="disk is full"):
        await grid.ann.upload(data)
    job = await grid.submit()
    await grid.ended(job.id)
    ballast.unlink()
    uploaded = await grid.ann.upload(data)
    assert stored(grid) == {uploaded.sha256: 40 * MIB}
    await grid.sound()


@pytest.mark.parametrize(
    "point",
    [
        "file in place",
        "add_sent before commit",
        "add_sent after commit",
        "finish before commit",
        "finish after commit",
    ],
)
async def test_what_a_job_leaves_comes_back_once_when_the_coordinator_is_killed_meanwhile(
    start, failpoint, tmp_path, point
):
    grid = await start(workers=("one",))
    inputs = await grid.ann.upload_inputs(["data=" + __file__])
    failpoint(point)
    code = "data = open('data', 'rb').read()\nfor name in 'ab': open('out/' + name, 'wb').write(data * 50)"
    job = await grid.submit(code, inputs=inputs)
    await grid.until_killed(grid.coordinator)
    await grid.start_again()
    assert await grid.ended(job.id) == {job.id: JobState.SUCCEEDED}
    data = Path(__file__).read_bytes() * 50
    for path in await grid.ann.fetch(job.id, tmp_path / "got"):
        assert path.read_bytes() == data
    job = await grid.ann.job(job.id)
    assert (job.files, job.file_bytes, job.attempt) == (2, 2 * len(data), 1)
    assert (await grid.ann.files(job.id)).left == []
    assert set(stored(grid).values()) == {len(data), len(data) // 50}
    await grid.sound()
