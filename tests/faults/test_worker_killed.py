"""Workers are killed: after a run and before its result is told, and by the job that they run."""

from __future__ import annotations

import asyncio

from gridx.messages import AttemptState, JobState

KILLER = "import time  # KILLS\ntime.sleep(600)"


async def test_a_worker_killed_between_an_end_and_its_telling_tells_it_once_when_it_is_back(start, failpoint):
    grid = await start()
    worker = await asyncio.to_thread(grid.processes.worker, "ann", "one")
    failpoint("result on disk")
    job = await grid.submit("print('ran once')")
    await grid.until_killed(worker)
    assert (await grid.ann.job(job.id)).state in (JobState.ASSIGNED, JobState.RUNNING)
    grid.processes.nodes.remove(worker)
    again = await asyncio.to_thread(grid.processes.worker, "ann", "one")
    assert await grid.ended(job.id) == {job.id: JobState.SUCCEEDED}
    assert await grid.ann.output(job.id) == b"ran once\n"
    receipt = (await grid.sound())[job.id]
    assert [attempt.state for attempt in receipt.attempts] == [AttemptState.SUCCEEDED]
    assert receipt.charge > 0
    assert "started" not in again.text
    spool = grid.processes.folder / "worker-one" / "spool"
    await grid.until(lambda: not any(spool.iterdir()), "the spool to be empty")


async def test_a_job_that_kills_its_workers_is_not_tried_for_ever(start, failpoint):
    grid = await start()
    job = await grid.submit(KILLER, max_attempts=2)
    for _ in range(2):
        failpoint("program KILLS")
        worker = await asyncio.to_thread(grid.processes.worker, "ann", "one")
        await grid.until_killed(worker)
        grid.processes.nodes.remove(worker)
    # What it takes with it is known when the worker is back.
    await asyncio.to_thread(grid.processes.worker, "ann", "one")
    assert await grid.ended(job.id) == {job.id: JobState.LOST}
    lost = await grid.ann.job(job.id)
    assert "Tried 2 times, and each time the machine failed" in lost.reason
    receipts = await grid.sound()
    assert (receipts[job.id].charge, receipts[job.id].released) == (0, receipts[job.id].hold)
    # The worker is as good as before, once it has been left in peace for a moment.
    other = await grid.submit()
    assert await grid.ended(other.id) == {other.id: JobState.SUCCEEDED}
