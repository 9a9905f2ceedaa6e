"""What is written together is accepted, refused and fenced as if each had come alone."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from gridx.errors import InsufficientCredits
from gridx.messages import JobState
from gridx.services.coordinator.store.records import Begin, Idempotency


@pytest.fixture
async def held_up(grid):
    """What is asked of the store until this is called waits, and is then written in one commit."""
    go = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait(db):
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result()

    first = asyncio.create_task(grid.store._writer.run(wait))
    await asyncio.sleep(0)
    yield go.set
    go.set()
    await first


async def together(held_up, *requests):
    tasks = [asyncio.ensure_future(request) for request in requests]
    await asyncio.sleep(0)
    held_up()
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_submission_that_is_refused_spoils_none_beside_it(grid, held_up):
    one, refused, two = await together(
        held_up, grid.submit(hold=400), grid.submit(hold=2000), grid.submit(hold=500)
    )
    assert isinstance(refused, InsufficientCredits)
    assert [job.id for job in await grid.store.waiting_jobs()] == [one.id, two.id]
    await grid.sound()


async def test_submissions_written_together_cannot_spend_the_same_credits(grid, held_up):
    answers = await together(held_up, *(grid.submit(hold=300) for _ in range(5)))
    assert sum(isinstance(answer, InsufficientCredits) for answer in answers) == 2
    assert await grid.balance(grid.ann) == 100
    await grid.sound()


async def test_a_key_that_comes_twice_at_once_makes_one_job(grid, held_up):
    key = Idempotency("key", b"digest")
    first, second = await together(
        held_up,
        *(grid.store.submit(grid.ann, [grid.new_job()], idempotency=key, max_queued=9) for _ in range(2)),
    )
    assert (first.replayed, second.replayed) == (False, True)
    assert first.jobs == second.jobs == await grid.store.waiting_jobs()
    await grid.sound()


async def test_an_end_that_comes_twice_at_once_is_paid_once(grid):
    _, one = await grid.run()
    _, two = await grid.run()
    ends = await asyncio.gather(
        *(grid.store.finish_attempt(attempt_id, grid.end(charge=40)) for attempt_id in (one, two, one))
    )
    assert [end is None for end in ends] == [False, False, True]
    assert await grid.balance(grid.bob) == 80
    await grid.sound()


async def test_an_end_that_cannot_be_paid_spoils_none_beside_it(grid):
    _, one = await grid.run()
    _, two = await grid.run()
    good, bad = await asyncio.gather(
        grid.store.finish_attempt(one, grid.end(charge=40)),
        grid.store.finish_attempt(two, grid.end(charge=4000)),
        return_exceptions=True,
    )
    assert good.job.state is JobState.SUCCEEDED
    assert isinstance(bad, ValueError)
    assert (await grid.store.job(two)).state is JobState.RUNNING
    await grid.sound()


@pytest.mark.parametrize("told_before", [True, False])
async def test_that_it_began_may_be_told_with_the_end(grid, told_before):
    job = await grid.submit()
    attempt_id = await grid.assign(job.id)
    if told_before:
        await grid.store.start_attempt(attempt_id, runtime="first")
    begin = Begin("second")
    done = await grid.store.finish_attempt(attempt_id, grid.end(), begin=begin)
    assert done.job == await grid.store.job(job.id)
    attempt = await grid.store.attempt(attempt_id)
    assert attempt.runtime == ("first" if told_before else "second")
    assert attempt.started_at == done.job.started_at is not None
    await grid.sound()


async def test_a_start_that_was_told_late_is_put_back_by_the_time_that_is_paid(grid):
    job = await grid.submit()
    attempt_id = await grid.assign(job.id)
    await grid.store.start_attempt(attempt_id, runtime="first")
    late = (await grid.store.attempt(attempt_id)).started_at
    done = await grid.store.finish_attempt(attempt_id, replace(grid.end(), charged_ms=60_000))
    assert done.job == await grid.store.job(job.id)
    attempt = await grid.store.attempt(attempt_id)
    assert attempt.started_at == done.job.started_at < late
    assert (attempt.ended_at - attempt.started_at).total_seconds() == 60
    await grid.sound()
