"""The coordinator is away, stops in the middle of its work, or comes back as it was some time ago."""

from __future__ import annotations

import asyncio
import shutil

from kit.faults import ALL_DAY

from gridx.messages import AttemptState, JobState

A_WHILE = "import time\nprint('begun', flush=True)\ntime.sleep({})\nprint('ended')"


async def test_while_it_is_away_jobs_go_on_and_are_taken_up_again_by_their_numbers(start):
    grid = await start(workers=("one",))
    worker = grid.processes.nodes[-1]
    short = await grid.submit(A_WHILE.format(0.5))
    long = await grid.submit(ALL_DAY)
    for job in (short, long):
        await grid.running(job.id)
    await asyncio.to_thread(grid.coordinator.kill)
    await asyncio.to_thread(worker.says, rf"attempt \d+ of job {short.id} ended")
    # The worker has knocked in vain.
    await asyncio.to_thread(worker.says, "(?i)cannot be reached|nobody answers|refused")
    await grid.start_again()
    assert await grid.ended(short.id) == {short.id: JobState.SUCCEEDED}
    assert await grid.ann.output(short.id) == b"begun\nended\n"
    assert (await grid.ann.job(long.id)).state is JobState.RUNNING
    await grid.ann.cancel(long.id)
    assert await grid.ended(long.id) == {long.id: JobState.CANCELLED}
    receipts = await grid.sound()
    assert [len(receipts[job.id].attempts) for job in (short, long)] == [1, 1]
    assert all(receipts[job.id].charge > 0 for job in (short, long))
    assert worker.text.count(f"of job {short.id} started") == 1


async def test_told_to_stop_under_load_it_leaves_a_whole_file_and_everything_it_accepted(start):
    grid = await start(workers=("one",))
    worker = grid.processes.nodes[-1]
    stop = asyncio.Event()
    loads = [asyncio.create_task(grid.load(stop)) for _ in range(4)]
    await grid.until(lambda: len(grid.accepted) > 4, "the load to be accepted")
    stop.set()
    assert await asyncio.to_thread(grid.coordinator.stop) == 0
    await asyncio.to_thread(worker.says, r"closed the connection \(1001\)")
    # The log has been copied into the file, which is all there is.
    files = {path.name for path in (grid.processes.folder / "coordinator").iterdir()}
    assert not [name for name in files if name.endswith(("-wal", "-shm", "-journal"))], files
    await grid.start_again()
    await asyncio.gather(*loads)
    await grid.sound()


async def test_a_copy_made_under_load_is_a_grid_that_goes_on_from_there(start, tmp_path):
    """What was done after the copy is gone, and so are its numbers: they are given anew."""
    grid = await start(workers=("one",))
    stop = asyncio.Event()
    loads = [asyncio.create_task(grid.load(stop)) for _ in range(3)]
    await grid.until(lambda: len(grid.accepted) > 3, "the load to be accepted")
    copy = tmp_path / "copy.db"
    await grid.admin.backup(copy)
    then = set(grid.accepted)
    await grid.until(lambda: len(grid.accepted) > len(then) + 5, "more to be accepted")
    stop.set()
    await asyncio.gather(*loads)
    running = await grid.submit(ALL_DAY)
    await grid.running(running.id)
    await asyncio.to_thread(grid.coordinator.kill)
    (database,) = (grid.processes.folder / "coordinator").glob("*.db")
    for name in (database.name, f"{database.name}-wal", f"{database.name}-shm"):
        database.with_name(name).unlink(missing_ok=True)
    shutil.copyfile(copy, database)
    await grid.start_again()
    grid.accepted = {id for id in grid.accepted if id <= min(then)}
    # The worker, which knew later numbers, runs everything that there is now.
    jobs = [await grid.submit(f"print({number})") for number in range(8)]
    assert set((await grid.ended(*(await grid.everything()))).values()) == {JobState.SUCCEEDED}
    receipts = await grid.sound()
    for number, job in enumerate(jobs):
        assert await grid.ann.output(job.id) == b"%d\n" % number
        assert [attempt.state for attempt in receipts[job.id].attempts][-1] is AttemptState.SUCCEEDED
