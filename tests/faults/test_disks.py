"""Disks that are full, and one whose writes are never sure."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kit.faults import FIRST_NEVER_ENDS, spec

from gridx.errors import GridError, Unavailable
from gridx.messages import AttemptState, JobState

MIB = 1 << 20


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Leave no byte free on the disk of the folder."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        size = MIB
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2
    try:
        yield
    finally:
        ballast.unlink()


async def test_a_full_disk_at_the_coordinator_refuses_and_loses_nothing(start, small_disk):
    folder = small_disk("coordinator", 16 * MIB)
    grid = await start(workers=("one",))
    worker = grid.processes.nodes[-1]
    running = await grid.submit("import time\nprint('begun', flush=True)\ntime.sleep(1)\nprint('ended')")
    await grid.running(running.id)
    with filled(folder):

        async def refused() -> Unavailable | None:
            try:
                await grid.submit("#" * 100_000)
            except Unavailable as error:
                return error
            return None

        error = await grid.until(refused, "a submit to be refused")
        assert "disk is full" in error.message
        # Reading goes on, and the books are in order.
        assert (await grid.ann.job(running.id)).id == running.id
        assert (await grid.admin.audit()).ok
        await asyncio.to_thread(worker.says, rf"attempt \d+ of job {running.id} ended")
    job = await grid.answer(grid.submit)
    states = await grid.ended(running.id, job.id)
    assert set(states.values()) == {JobState.SUCCEEDED}
    assert await grid.ann.output(running.id) == b"begun\nended\n"
    await grid.ended(*grid.accepted)
    assert (await grid.sound())[running.id].charge > 0


async def test_a_worker_without_room_takes_nothing_says_why_and_recovers(start, small_disk):
    folder = small_disk("worker-one", 40 * MIB)
    grid = await start(workers=("one",))
    with filled(folder):
        waiting = await grid.submit()

        async def says_so() -> bool:
            (worker,) = await grid.ann.workers()
            return "disk is full" in worker.state_reason

        await grid.until(says_so, "the worker to say why")
        refused = await grid.ann.job(waiting.id)
        assert refused.state is JobState.QUEUED
        assert refused.attempts[0].state is AttemptState.REFUSED
        assert "disk is full" in refused.attempts[0].reason
        await grid.ann.cancel(waiting.id)
    job = await grid.submit()
    assert await grid.ended(job.id) == {job.id: JobState.SUCCEEDED}
    await grid.sound()


async def test_a_worker_whose_disk_fills_up_in_the_middle_of_a_run_is_not_paid_for_it(start, small_disk):
    folder = small_disk("worker-one", 48 * MIB)
    grid = await start(workers=("one",))
    job = await grid.submit(FIRST_NEVER_ENDS)
    await grid.running(job.id)
    with filled(folder):
        await asyncio.to_thread(grid.processes.worker, "ann", "two")
        assert await grid.ended(job.id) == {job.id: JobState.SUCCEEDED}
    receipt = (await grid.sound())[job.id]
    broken, *refused, done = receipt.attempts
    assert (broken.state, done.state) == (AttemptState.BROKEN, AttemptState.SUCCEEDED)
    # Where the second worker takes its time to come, the first is asked again and has no room.
    assert {one.state for one in refused} <= {AttemptState.REFUSED}
    assert [one.charge > 0 for one in (broken, *refused, done)] == [False] * (len(refused) + 1) + [True]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
async def test_when_what_is_written_is_never_sure_it_stops_and_acknowledges_nothing(start, tmp_path):
    grid = await start()
    first = await grid.submit()
    tracing = subprocess.Popen(
        [
            *("strace", "-f", "-p", str(grid.coordinator.process.pid), "-o", str(tmp_path / "strace.log")),
            *("-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said = await asyncio.to_thread(tracing.stderr.readline)
        if "attached" not in said:
            pytest.skip(f"a process cannot be traced here: {said.strip()}")
        answers = await asyncio.gather(
            *(grid.ann.submit(spec(f"print({n})")) for n in range(20)), return_exceptions=True
        )
        assert all(isinstance(answer, GridError) for answer in answers), answers
        assert await asyncio.to_thread(grid.coordinator.process.wait, 60) not in (0, None)
    finally:
        tracing.kill()
        await asyncio.to_thread(tracing.communicate)
    assert "cannot be written" in grid.coordinator.text
    assert "disk I/O error" in grid.coordinator.text
    await grid.start_again()
    await asyncio.to_thread(grid.processes.worker, "ann", "one")
    await grid.ended(first.id)
    await grid.ended(*(await grid.everything()))
    await grid.sound()
