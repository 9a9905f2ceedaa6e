"""Cancel: at once, in the middle, unanswered, and at the same instant as the end."""

from __future__ import annotations

import asyncio

from gridx.messages import Ack, AttemptState, Cancel, JobState

LEASE_S = 90.0


async def test_a_waiting_job_is_cancelled_at_once_and_its_hold_is_free(engine, ann):
    job = await engine.submit(ann)
    cancelled = await engine.jobs.cancel(ann, job.id)
    assert cancelled.state is JobState.CANCELLED
    assert "ann" in cancelled.reason
    assert (await engine.store.balance(ann.id)).held == 0
    worker = await engine.worker(ann)
    other = await engine.submit(ann)
    assert [one.job_id for one in await engine.assigned(worker)] == [other.id]
    assert (await engine.jobs.cancel(ann, job.id)).state is JobState.CANCELLED


async def test_a_running_job_is_killed_first_and_pays_for_the_time_it_had(engine, ann, bob):
    worker = await engine.worker(bob, cpus=1)
    job = await engine.submit(ann, timeout_s=3600, memory_mb=1024)
    waiting = await engine.submit(ann)
    [attempt] = await engine.assigned(worker)
    worker.start(attempt.attempt_id)
    await engine.state(ann, job.id, JobState.RUNNING)
    engine.clock.seconds += 36
    worker.sample(attempt.attempt_id)
    assert (await engine.jobs.cancel(ann, job.id)).state is JobState.CANCELLING
    assert [frame.attempt_ids for frame in worker.all(Cancel)] == [[attempt.attempt_id]]
    assert engine.fleet.worker(worker.id).free_cpu_millis == 0
    assert (await engine.jobs.job(ann, waiting.id)).state is JobState.QUEUED

    worker.finish(attempt.attempt_id, "cancelled")
    done = await engine.state(ann, job.id, JobState.CANCELLED)
    assert done.charge == 11_000
    assert (await engine.assigned(worker, 2))[-1].job_id == waiting.id


async def test_a_cancel_before_the_program_began_costs_nothing(engine, ann, bob):
    worker = await engine.worker(bob)
    job = await engine.submit(ann)
    [attempt] = await engine.assigned(worker)
    await engine.jobs.cancel(ann, job.id)
    engine.clock.seconds += 5
    worker.finish(attempt.attempt_id, "cancelled")
    assert (await engine.state(ann, job.id, JobState.CANCELLED)).charge == 0


async def test_cancel_beats_another_try(engine, ann):
    worker = await engine.worker(ann)
    job = await engine.submit(ann)
    [attempt] = await engine.assigned(worker)
    worker.start(attempt.attempt_id)
    await engine.jobs.cancel(ann, job.id)
    worker.finish(attempt.attempt_id, "broken", reason="killed too hard")
    done = await engine.state(ann, job.id, JobState.CANCELLED)
    assert [one.state for one in done.attempts] == [AttemptState.BROKEN]
    assert done.charge == 0


async def test_a_run_that_ended_by_itself_before_the_cancel_came_ended_as_it_did(engine, ann):
    worker = await engine.worker(ann)
    job = await engine.submit(ann)
    [attempt] = await engine.assigned(worker)
    worker.start(attempt.attempt_id)
    await engine.jobs.cancel(ann, job.id)
    worker.finish(attempt.attempt_id, exit_code=0)
    await engine.state(ann, job.id, JobState.SUCCEEDED)


async def test_cancel_and_end_at_the_same_instant_are_settled_once(engine, ann, bob):
    worker = await engine.worker(bob)
    for _ in range(10):
        job = await engine.submit(ann, timeout_s=3600)
        attempt = (await engine.assigned(worker, len(worker.assignments) + 1))[-1]
        worker.start(attempt.attempt_id)
        await engine.state(ann, job.id, JobState.RUNNING)
        engine.clock.seconds += 10
        worker.finish(attempt.attempt_id)
        await engine.jobs.cancel(ann, job.id)
        done = await engine.state(ann, job.id, JobState.SUCCEEDED, JobState.CANCELLED)
        receipt = await engine.jobs.receipt(ann, job.id)
        assert receipt.charge + receipt.released == receipt.hold == done.hold


async def test_a_cancel_that_comes_while_the_job_is_being_placed_wins(engine, ann):
    worker = await engine.worker(ann, cpus=64, memory_mb=1 << 20)
    for _ in range(20):
        job = await engine.submit(ann)
        await asyncio.sleep(0)
        await engine.jobs.cancel(ann, job.id)
        for attempt in worker.assignments:
            if attempt.job_id == job.id:
                await engine.until(lambda: worker.all(Cancel), "the worker to be told")
                worker.finish(attempt.attempt_id, "cancelled")
        await engine.state(ann, job.id, JobState.CANCELLED)
    assert engine.fleet.worker(worker.id).free_cpu_millis == 64_000


async def test_a_worker_that_never_answers_a_cancel_loses_the_attempt(engine, ann):
    worker = await engine.worker(ann)
    job = await engine.submit(ann)
    [attempt] = await engine.assigned(worker)
    worker.start(attempt.attempt_id)
    await engine.state(ann, job.id, JobState.RUNNING)
    await engine.jobs.cancel(ann, job.id)
    for _ in range(10):
        worker.sample(attempt.attempt_id)
        await engine.pass_time(LEASE_S / 9)
    done = await engine.state(ann, job.id, JobState.CANCELLED)
    assert "did not" in done.attempts[0].reason
    assert done.charge == 0
    worker.finish(attempt.attempt_id, "cancelled")
    assert worker.all(Ack)[-1].attempt_ids == [attempt.attempt_id]


async def test_a_worker_that_comes_back_is_told_of_the_cancel_that_it_missed(engine, ann):
    worker = await engine.worker(ann)
    job = await engine.submit(ann)
    [attempt] = await engine.assigned(worker)
    worker.start(attempt.attempt_id)
    await engine.state(ann, job.id, JobState.RUNNING)
    worker.leave()
    await engine.jobs.cancel(ann, job.id)
    back = worker.again()
    back.hello(running=[attempt.attempt_id])
    assert [frame.attempt_ids for frame in back.all(Cancel)] == [[attempt.attempt_id]]
    back.finish(attempt.attempt_id, "cancelled")
    await engine.state(ann, job.id, JobState.CANCELLED)
