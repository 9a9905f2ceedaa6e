"""Processes are killed while files of jobs are on their way: each arrives whole, and once."""

from __future__ import annotations

import asyncio
import hashlib
import os

import pytest

from gridx.messages import AttemptState, JobState

MIB = 1 << 20
GIVES = """
import hashlib, random
data = random.Random(7).randbytes({size})
open("out/model.bin", "wb").write(data)
print(hashlib.sha256(data).hexdigest())
"""


async def came_whole(grid, job_id: int) -> None:
    """What the job says that it left is what can be fetched, and every row of the books is right."""
    assert await grid.ended(job_id) == {job_id: JobState.SUCCEEDED}
    said = (await grid.ann.output(job_id)).decode().strip()
    [file] = (await grid.ann.files(job_id)).files
    assert file.sha256 == said
    assert hashlib.sha256(await grid.ann.read_file(job_id, "model.bin")).hexdigest() == said
    receipt = (await grid.sound())[job_id]
    assert [attempt.state for attempt in receipt.attempts] == [AttemptState.SUCCEEDED]
    spool = grid.processes.folder / "worker-one" / "spool"
    await grid.until(lambda: not any(spool.iterdir()), "the spool to be empty")


async def test_a_worker_killed_with_files_in_its_spool_sends_them_when_it_is_back(start, failpoint):
    grid = await start()
    worker = await asyncio.to_thread(grid.processes.worker, "ann", "one")
    failpoint("result on disk")
    job = await grid.submit(GIVES.format(size=3 * MIB), memory_mb=256)
    await grid.until_killed(worker)
    grid.processes.nodes.remove(worker)
    assert list((grid.processes.folder / "worker-one" / "spool").glob("*.f0"))
    again = await asyncio.to_thread(grid.processes.worker, "ann", "one")
    await came_whole(grid, job.id)
    assert "started" not in again.text


@pytest.mark.parametrize("victim", ["coordinator", "worker"])
async def test_files_under_way_are_taken_up_where_they_were_when_either_side_is_killed(start, victim):
    grid = await start(workers=("one",))
    worker = grid.processes.nodes[-1]
    job = await grid.submit(GIVES.format(size=40 * MIB), memory_mb=256)
    database = next((grid.processes.folder / "coordinator").glob("*.db"))
    partial = database.with_name(f"{database.name}-blobs") / "partial"

    async def on_its_way() -> bool:
        ended = (await grid.ann.job(job.id)).state.ended
        return ended or any(path.stat().st_size for path in partial.glob("*"))

    await grid.until(on_its_way, "the file to be on its way")
    if victim == "coordinator":
        await asyncio.to_thread(grid.coordinator.kill)
        await grid.start_again()
    else:
        await asyncio.to_thread(worker.kill)
        grid.processes.nodes.remove(worker)
        await asyncio.to_thread(grid.processes.worker, "ann", "one")
    await came_whole(grid, job.id)


async def test_a_coordinator_killed_between_a_file_s_place_and_its_row_has_it_sent_again(start, failpoint):
    grid = await start(workers=("one",))
    failpoint("file in place")
    job = await grid.submit(GIVES.format(size=2 * MIB), memory_mb=256)
    await grid.until_killed(grid.coordinator)
    await grid.start_again()
    await came_whole(grid, job.id)


async def test_inputs_come_whole_though_the_coordinator_is_killed_while_they_do(start, tmp_path):
    grid = await start(workers=("one",))
    content = os.urandom(30 * MIB)
    upload = await grid.ann.upload(content)
    code = "import hashlib; print(hashlib.sha256(open('data.bin', 'rb').read()).hexdigest())"
    inputs = [{"path": "data.bin", "sha256": upload.sha256, "size": upload.size}]
    cache = grid.processes.folder / "worker-one" / "cache"
    job = await grid.submit(code, memory_mb=256, inputs=inputs)
    await grid.until(lambda: any(cache.iterdir()), "the input to be on its way")
    await asyncio.to_thread(grid.coordinator.kill)
    await grid.start_again()
    assert await grid.ended(job.id) == {job.id: JobState.SUCCEEDED}
    assert (await grid.ann.output(job.id)).decode().strip() == hashlib.sha256(content).hexdigest()
    assert [path.name for path in cache.iterdir()] == [upload.sha256]
    await grid.sound()
