"""Retries of what the program did wrong: paid each time, after a pause, and never past what was held."""

from __future__ import annotations

import asyncio

import pytest

from gridx.messages import AttemptState, JobState


async def fail(engine, worker, count: int, outcome: str = "failed", **fields) -> None:
    """Let the newest attempt on the worker run for 36 s and fail."""
    attempt = (await engine.assigned(worker, count))[-1]
    worker.start(attempt.attempt_id)
    await engine.state(engine.ann, attempt.job_id, JobState.RUNNING)
    engine.clock.seconds += 36
    worker.sample(attempt.attempt_id)
    worker.finish(attempt.attempt_id, outcome, **{"exit_code": 3, **fields})


@pytest.fixture
async def ann(engine, ann):
    engine.ann = ann
    return ann


async def test_a_failure_is_paid_and_followed_by_another_attempt_after_a_pause(engine, ann, bob):
    worker = await engine.worker(bob)
    job = await engine.submit(ann, timeout_s=3600, memory_mb=1024, retries=2, retry_delay_s=10)
    one_run = 1_100_000
    assert job.hold == 3 * one_run
    await fail(engine, worker, 1)
    waiting = await engine.state(ann, job.id, JobState.QUEUED)
    assert (waiting.failures, waiting.charge) == (1, 11_000)
    assert waiting.reason == "failed; tries again in 10 s (retry 1 of 2)"
    assert waiting.queue_position is None
    assert (await engine.store.balance(ann.id)).held == 3 * one_run - 11_000
    assert (await engine.store.balance(bob.id)).earned > 0

    await engine.pass_time(9)
    assert len(worker.assignments) == 1
    await engine.pass_time(2)
    await fail(engine, worker, 2, "timed_out")
    assert "tries again in 20 s (retry 2 of 2)" in (await engine.state(ann, job.id, JobState.QUEUED)).reason
    await engine.pass_time(22)
    await fail(engine, worker, 3, "out_of_memory")
    done = await engine.state(ann, job.id, JobState.OUT_OF_MEMORY)
    assert (done.charge, done.failures, done.attempt) == (33_000, 2, 3)
    receipt = await engine.jobs.receipt(ann, job.id)
    assert [part.state for part in receipt.attempts] == [
        AttemptState.FAILED,
        AttemptState.TIMED_OUT,
        AttemptState.OUT_OF_MEMORY,
    ]
    assert [part.charge for part in receipt.attempts] == [11_000] * 3
    assert receipt.attempts[0].reason == "exit code 3"
    assert receipt.hold == receipt.charge + receipt.released
    assert (await engine.store.balance(ann.id)).held == 0


async def test_success_ends_the_trying_and_gives_the_rest_back(engine, ann, bob):
    worker = await engine.worker(bob)
    job = await engine.submit(ann, timeout_s=60, retries=5, retry_delay_s=0)
    await fail(engine, worker, 1)
    attempt = (await engine.assigned(worker, 2))[-1]
    worker.start(attempt.attempt_id)
    worker.finish(attempt.attempt_id, exit_code=0)
    done = await engine.state(ann, job.id, JobState.SUCCEEDED)
    assert done.exit_code == 0
    assert (await engine.store.balance(ann.id)).held == 0


async def test_machine_faults_are_counted_apart_from_the_programs_failures(engine, ann, bob):
    worker = await engine.worker(bob)
    job = await engine.submit(ann, timeout_s=60, max_attempts=2, retries=1, retry_delay_s=0)
    await fail(engine, worker, 1)
    attempt = (await engine.assigned(worker, 2))[-1]
    worker.start(attempt.attempt_id)
    worker.finish(attempt.attempt_id, "broken", reason="the disk broke")
    waiting = await engine.state(ann, job.id, JobState.QUEUED)
    assert waiting.failures == 1
    await engine.pass_time(120)
    await fail(engine, worker, 3)
    assert (await engine.state(ann, job.id, JobState.FAILED)).attempt == 3


async def test_a_job_that_waits_for_its_retry_can_be_cancelled_and_the_rest_comes_back(engine, ann, bob):
    worker = await engine.worker(bob)
    job = await engine.submit(ann, timeout_s=60, retries=1, retry_delay_s=600)
    await fail(engine, worker, 1)
    await engine.state(ann, job.id, JobState.QUEUED)
    assert (await engine.jobs.cancel(ann, job.id)).state is JobState.CANCELLED
    assert (await engine.store.balance(ann.id)).held == 0
    await engine.pass_time(700)
    assert len(worker.assignments) == 1


async def test_a_cancel_while_it_fails_ends_it_without_another_try(engine, ann, bob):
    worker = await engine.worker(bob)
    job = await engine.submit(ann, timeout_s=60, retries=3)
    attempt = (await engine.assigned(worker))[-1]
    worker.start(attempt.attempt_id)
    await engine.jobs.cancel(ann, job.id)
    worker.finish(attempt.attempt_id, "failed", exit_code=1)
    assert (await engine.state(ann, job.id, JobState.FAILED)).attempt == 1


async def test_the_pause_goes_on_over_a_restart_of_the_coordinator(engine, ann, bob):
    worker = await engine.worker(bob)
    job = await engine.submit(ann, timeout_s=60, retries=1, retry_delay_s=60)
    await fail(engine, worker, 1)
    await engine.state(ann, job.id, JobState.QUEUED)
    engine.clock.seconds += 20
    await engine.stop()
    await engine.start()
    worker = worker.again()
    worker.hello()
    assert "tries again in 40 s" in (await engine.jobs.job(ann, job.id)).reason
    await engine.pass_time(30)
    assert not worker.assignments
    await engine.pass_time(12)
    await fail(engine, worker, 1)
    assert (await engine.state(ann, job.id, JobState.FAILED)).failures == 1


async def test_a_clock_that_was_set_back_makes_no_pause_longer_than_it_should_be(engine, ann, bob):
    worker = await engine.worker(bob)
    job = await engine.submit(ann, timeout_s=60, retries=1, retry_delay_s=60)
    await fail(engine, worker, 1)
    await engine.state(ann, job.id, JobState.QUEUED)
    await engine.stop()
    engine.clock.seconds -= 600
    await engine.start()
    assert "tries again in 60 s" in (await engine.jobs.job(ann, job.id)).reason


async def test_what_many_failures_at_once_cost_is_settled_once_for_each(engine, ann, bob):
    workers = [await engine.worker(bob, cpus=8) for _ in range(2)]
    jobs = [await engine.submit(ann, timeout_s=60, retries=2, retry_delay_s=0) for _ in range(12)]

    async def work(worker) -> None:
        done = 0
        while any(not job.state.ended for job in [await engine.jobs.job(ann, job.id) for job in jobs]):
            for attempt in worker.assignments[done:]:
                done += 1
                worker.start(attempt.attempt_id)
                worker.finish(attempt.attempt_id, "failed", exit_code=1, wall_ms=1000)
            await asyncio.sleep(0.01)

    await asyncio.gather(*(work(worker) for worker in workers))
    for job in jobs:
        done = await engine.jobs.job(ann, job.id)
        assert (done.state, done.attempt, done.failures) == (JobState.FAILED, 3, 2)
