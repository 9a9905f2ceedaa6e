"""Submitting: all or none, paid for before it waits, and a repeat is the same submission."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from gridx.errors import Conflict, InsufficientCredits, NotFound, TooMany
from gridx.messages import JobState
from gridx.services.coordinator.store.records import Idempotency, Payload


async def test_fifty_submits_at_once_with_balance_for_one_make_one(grid):
    tries = [grid.submit(hold=1000) for _ in range(50)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    made = [result for result in results if not isinstance(result, BaseException)]
    refused = [result for result in results if isinstance(result, InsufficientCredits)]
    assert (len(made), len(refused)) == (1, 49)
    account = await grid.store.balance(grid.ann)
    assert (account.balance, account.held) == (0, 1000)
    await grid.sound()


async def test_a_refusal_names_what_is_missing(grid):
    with pytest.raises(InsufficientCredits) as refused:
        await grid.submit(hold=2_500_000)
    assert refused.value.details == {"balance": 1000, "price": 2_500_000, "shortfall": 2_499_000}
    assert "2.499 are missing" in refused.value.message
    assert refused.value.hint


async def test_a_microcredit_too_little_is_too_little(grid):
    with pytest.raises(InsufficientCredits) as refused:
        await grid.submit(hold=1001)
    assert refused.value.details["shortfall"] == 1
    await grid.submit(hold=1000)


async def test_a_batch_is_accepted_whole_or_not_at_all(grid):
    with pytest.raises(InsufficientCredits):
        await grid.store.submit(grid.ann, [grid.new_job(hold=400)] * 3, max_queued=100)
    assert await grid.store.waiting_jobs() == []
    made = await grid.store.submit(grid.ann, [grid.new_job(hold=300)] * 3, max_queued=100)
    assert [job.id for job in made.jobs] == [1, 2, 3]
    assert await grid.store.waiting_jobs() == made.jobs
    await grid.sound()


async def test_a_price_larger_than_any_number_that_is_stored_is_refused(grid):
    with pytest.raises(InsufficientCredits):
        await grid.submit(hold=10**30)


async def test_nobody_can_queue_without_end(grid):
    for _ in range(3):
        await grid.store.submit(grid.ann, [grid.new_job(hold=1)], max_queued=3)
    with pytest.raises(TooMany) as refused:
        await grid.store.submit(grid.ann, [grid.new_job(hold=1)], max_queued=3)
    assert refused.value.details == {"waiting": 3, "limit": 3}
    await grid.assign(1)
    await grid.store.submit(grid.ann, [grid.new_job(hold=1)], max_queued=3)
    await grid.store.cancel(2, "")
    await grid.store.submit(grid.ann, [grid.new_job(hold=1)], max_queued=3)
    await grid.sound()


async def test_one_key_ten_times_is_one_submission(grid):
    key = Idempotency("key", b"digest")
    jobs = [grid.new_job(), grid.new_job()]
    answers = await asyncio.gather(
        *(grid.store.submit(grid.ann, jobs, idempotency=key, max_queued=100) for _ in range(10))
    )
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * 9
    assert {tuple(job.id for job in answer.jobs) for answer in answers} == {(1, 2)}
    assert await grid.balance(grid.ann) == 800
    await grid.sound()


async def test_a_replay_answers_with_the_jobs_as_they_are_now(grid):
    key = Idempotency("key", b"digest")
    await grid.store.submit(grid.ann, [grid.new_job()], idempotency=key, max_queued=1)
    await grid.store.cancel(1, "")
    again = await grid.store.submit(grid.ann, [grid.new_job()], idempotency=key, max_queued=0)
    assert again.replayed
    assert again.jobs[0].state is JobState.CANCELLED


async def test_a_key_with_another_body_is_refused_and_another_users_key_is_another(grid):
    await grid.store.submit(
        grid.ann, [grid.new_job()], idempotency=Idempotency("key", b"one"), max_queued=100
    )
    with pytest.raises(Conflict):
        await grid.store.submit(
            grid.ann, [grid.new_job()], idempotency=Idempotency("key", b"two"), max_queued=100
        )
    made = await grid.store.submit(
        grid.bob, [grid.new_job(hold=0)], idempotency=Idempotency("key", b"two"), max_queued=100
    )
    assert not made.replayed


async def test_a_refused_submission_leaves_its_key_free(grid):
    key = Idempotency("key", b"digest")
    with pytest.raises(InsufficientCredits):
        await grid.store.submit(grid.ann, [grid.new_job(hold=5000)], idempotency=key, max_queued=100)
    await grid.store.grant(grid.ann, 5000, "")
    made = await grid.store.submit(grid.ann, [grid.new_job(hold=5000)], idempotency=key, max_queued=100)
    assert not made.replayed


async def test_keys_are_forgotten_after_a_week(grid, clock, until):
    key = Idempotency("key", b"digest")
    await grid.store.submit(grid.ann, [grid.new_job()], idempotency=key, max_queued=100)
    clock.turn(timedelta(days=6))
    await grid.submit()
    assert (await grid.store.submit(grid.ann, [grid.new_job()], idempotency=key, max_queued=100)).replayed
    clock.turn(timedelta(days=2))
    await grid.submit()

    async def forgotten() -> bool:
        other = Idempotency("key", b"another body")
        try:
            await grid.store.submit(grid.ann, [grid.new_job()], idempotency=other, max_queued=100)
        except Conflict:
            return False
        return True

    await until(forgotten, "the key to be forgotten")


async def test_programs_come_back_as_they_were_sent(grid):
    odd = "print('\0 é \u202e 😀')\r\n"
    job = await grid.submit(code=odd, args=["-", "ü"], env={"A": "'\"\\"})
    assert await grid.store.payload(job.id) == Payload(odd, ["-", "ü"], {"A": "'\"\\"})
    empty = await grid.submit(code="")
    assert await grid.store.payloads([job.id, empty.id, 77]) == {
        job.id: Payload(odd, ["-", "ü"], {"A": "'\"\\"}),
        empty.id: Payload("", [], {}),
    }
    assert await grid.store.payload(77) is None


async def test_nobody_submits_for_a_user_that_does_not_exist(grid):
    with pytest.raises(NotFound):
        await grid.submit(user=99)
