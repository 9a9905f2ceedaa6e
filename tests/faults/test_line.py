"""The line between a worker and the coordinator: cut, held in one direction or both, doubling, reordering."""

from __future__ import annotations

import asyncio
import random

import pytest
from kit.faults import ALL_DAY, FIRST_NEVER_ENDS
from kit.line import Line
from kit.mangled import Mangled

from gridx.messages import AttemptState, JobState

SHORT_LEASES = {"LEASE_S": "2", "HEARTBEAT_S": "0.2"}


def port(url: str) -> int:
    return int(url.removesuffix("/ws/worker").rpartition(":")[2])


@pytest.mark.parametrize("fault", ["reset", "both", "up", "down"])
async def test_over_a_partition_a_job_is_settled_once_and_all_is_well_when_it_heals(start, fault):
    grid = await start(**SHORT_LEASES)
    line = Line(port(grid.processes.ws_url))
    await line.start()
    try:
        one = await asyncio.to_thread(grid.processes.worker, "ann", "one", COORDINATOR_WS=line.url)
        # It ends while nobody can hear of it, or is killed when its lease is over: both must come out right.
        short = await grid.submit("import time\nprint('begun', flush=True)\ntime.sleep(1)")
        stubborn = await grid.submit(FIRST_NEVER_ENDS)
        for job in (short, stubborn):
            await grid.running(job.id)
        if fault == "reset":
            line.reset()
        else:
            line.hold(*(("up", "down") if fault == "both" else (fault,)))
        await asyncio.to_thread(grid.processes.worker, "ann", "two")
        states = await grid.ended(short.id, stubborn.id)
        assert set(states.values()) == {JobState.SUCCEEDED}
        line.heal()
        attempt = (await grid.ann.job(stubborn.id)).attempts[0]
        assert attempt.state is AttemptState.LOST
        await asyncio.to_thread(one.says, f"attempt {attempt.id} is killed")

        # The one behind the line is a worker like any other again.
        two = next(worker for worker in await grid.ann.workers() if worker.name == "two")
        await grid.ann.pause_worker(two.id)
        after = await grid.submit()
        assert await grid.ended(after.id) == {after.id: JobState.SUCCEEDED}
        receipts = await grid.sound()
        for job in (short, stubborn):
            ends = [one.state for one in receipts[job.id].attempts]
            assert ends.count(AttemptState.SUCCEEDED) == 1
            assert receipts[job.id].charge > 0
    finally:
        await line.stop()


@pytest.mark.parametrize("seed", range(2))
async def test_messages_that_come_twice_late_and_in_another_order_change_nothing_twice(start, seed):
    grid = await start(HEARTBEAT_S="0.2")
    line = Mangled(grid.processes.ws_url, random.Random(seed))
    await line.start()
    try:
        await asyncio.to_thread(grid.processes.worker, "ann", "one", COORDINATOR_WS=line.url)
        lines = 40
        jobs = [
            await grid.submit(f"for n in range({lines}): print({number}, n, flush=True)")
            for number in range(12)
        ]
        cancelled = await grid.submit(ALL_DAY)
        await grid.running(cancelled.id)
        await grid.ann.cancel(cancelled.id)
        states = await grid.ended(*grid.accepted)
        assert states.pop(cancelled.id) is JobState.CANCELLED
        assert set(states.values()) == {JobState.SUCCEEDED}
        receipts = await grid.sound()
        for number, job in enumerate(jobs):
            wanted = b"".join(b"%d %d\n" % (number, n) for n in range(lines))
            assert await grid.ann.output(job.id) == wanted
            ends = [attempt.state for attempt in receipts[job.id].attempts]
            assert ends.count(AttemptState.SUCCEEDED) == 1
        assert all(line.done.values()), line.done
    finally:
        await line.stop()
