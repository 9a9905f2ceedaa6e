"""The coordinator is killed: at random under load, before a commit, and between a commit and its answer."""

from __future__ import annotations

import asyncio
import os
import random
import secrets

import pytest
from kit.faults import ALL_DAY

from gridx.messages import AttemptState, JobState

KILLS = int(os.environ.get("GRIDX_TEST_KILLS", "8"))
A_WHILE = "import time\nprint('begun', flush=True)\ntime.sleep(0.3)"
"""A program whose start and end are told one after the other."""
SEED = int(os.environ.get("GRIDX_TEST_SEED", secrets.randbits(32)))


@pytest.mark.timeout(240 + 6 * KILLS)
async def test_killed_at_random_under_load_it_loses_nothing_and_pays_nothing_twice(start):
    print(f"GRIDX_TEST_SEED={SEED} GRIDX_TEST_KILLS={KILLS}")
    rng = random.Random(SEED)
    grid = await start(workers=("one", "two"))
    stop = asyncio.Event()
    loads = [asyncio.create_task(grid.load(stop)) for _ in range(3)]
    for _ in range(KILLS):
        had = len(grid.accepted)
        await grid.until(lambda had=had: len(grid.accepted) > had, "the load to be accepted")
        # At a random moment; nothing is expected to have happened by then.
        await asyncio.sleep(rng.uniform(0, 0.5))
        await asyncio.to_thread(grid.coordinator.kill)
        await grid.start_again()
    stop.set()
    await asyncio.gather(*loads)
    states = await grid.ended(*grid.accepted)
    assert set(states.values()) == {JobState.SUCCEEDED}
    receipts = await grid.sound()
    # Each resend had found its first.
    assert receipts.keys() == grid.accepted
    for receipt in receipts.values():
        ends = [attempt.state for attempt in receipt.attempts]
        assert ends.count(AttemptState.SUCCEEDED) == 1
        assert receipt.charge > 0


@pytest.mark.parametrize("when", ["before commit", "after commit"])
async def test_killed_at_a_commit_all_or_nothing_is_there_and_the_resend_changes_nothing(
    start, failpoint, when
):
    grid = await start(workers=("one",))

    async def back() -> None:
        await grid.until_killed(grid.coordinator)
        await grid.start_again()

    # The key makes the resend find what the first had done, or do it.
    failpoint(f"submit {when}")
    first = asyncio.create_task(grid.answer(lambda: grid.submit("print('one')", key="the same")))
    await back()
    assert (await first).id == (await grid.submit("print('one')", key="the same")).id
    await grid.ended((await first).id)

    for operation in ("assign", "start", "finish"):
        failpoint(f"{operation} {when}")
        submitted = asyncio.create_task(grid.answer(lambda key=operation: grid.submit(A_WHILE, key=key)))
        await back()
        job = await submitted
        assert await grid.ended(job.id) == {job.id: JobState.SUCCEEDED}
        receipt = await grid.ann.receipt(job.id)
        states = [attempt.state for attempt in receipt.attempts]
        assert states[-1] is AttemptState.SUCCEEDED
        # An assignment that was never sent is nobody's fault; what ran is taken up again.
        assert states[:-1] in ([], [AttemptState.RELEASED]) if operation == "assign" else len(states) == 1
        assert receipt.charge > 0

    job = await grid.submit(ALL_DAY)
    await grid.running(job.id)
    failpoint(f"cancel {when}")
    cancelled = asyncio.create_task(grid.answer(lambda: grid.ann.cancel(job.id)))
    await back()
    await cancelled
    assert await grid.ended(job.id) == {job.id: JobState.CANCELLED}

    receipts = await grid.sound()
    assert receipts.keys() == grid.accepted
