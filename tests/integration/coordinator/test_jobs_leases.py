"""Leases: whose an attempt is, for how long without a sign of life, and what becomes of it then."""

from __future__ import annotations

from gridx.messages import Ack, AttemptState, Cancel, JobState, Sending

LEASE_S = 90.0


async def running(engine, user, worker, **fields):
    """A job of the user that runs on the worker, with its attempt's id."""
    before = len(worker.assignments)
    job = await engine.submit(user, **fields)
    attempt = (await engine.assigned(worker, before + 1))[-1]
    worker.start(attempt.attempt_id)
    await engine.state(user, job.id, JobState.RUNNING)
    return job, attempt.attempt_id


async def test_a_sample_renews_exactly_the_attempts_that_it_names(engine, ann):
    worker = await engine.worker(ann)
    kept, kept_attempt = await running(engine, ann, worker, max_attempts=1)
    silent, silent_attempt = await running(engine, ann, worker, max_attempts=1)
    for _ in range(12):
        await engine.pass_time(10)
        worker.sample(kept_attempt)
    lost = await engine.state(ann, silent.id, JobState.LOST)
    assert "no sign of life from box for 90 s" in lost.reason
    assert (await engine.jobs.job(ann, kept.id)).state is JobState.RUNNING
    assert [silent_attempt] in [frame.attempt_ids for frame in worker.all(Cancel)]


async def test_a_lost_workers_job_moves_and_its_late_result_changes_nothing(engine, ann, bob):
    one = await engine.worker(bob, "one", cpus=1)
    job, first = await running(engine, ann, one)
    two = await engine.worker(bob, "two")
    one.leave()
    assert engine.fleet.worker(one.id).state == "offline"
    await engine.pass_time(LEASE_S + 1)
    [second] = await engine.assigned(two)
    assert (second.job_id, second.number) == (job.id, 2)

    back = one.again()
    [resume] = back.hello(running=[first]).resume
    assert not resume.current
    back.write(first, 0, b"stale")
    engine.clock.seconds += 10
    back.finish(first)
    await engine.until(lambda: back.all(Ack), "the late end to be acknowledged")
    two.start(second.attempt_id)
    await engine.state(ann, job.id, JobState.RUNNING)
    engine.clock.seconds += 10
    two.finish(second.attempt_id)
    done = await engine.state(ann, job.id, JobState.SUCCEEDED)
    assert done.stdout_bytes == 0
    receipt = await engine.jobs.receipt(ann, job.id)
    assert [one.state for one in receipt.attempts] == [AttemptState.LOST, AttemptState.SUCCEEDED]
    assert [one.charge > 0 for one in receipt.attempts] == [False, True]


async def test_an_assignment_that_is_never_mentioned_is_lost_too(engine, ann):
    worker = await engine.worker(ann)
    job = await engine.submit(ann, max_attempts=1)
    await engine.assigned(worker)
    for _ in range(10):
        worker.sample()
        await engine.pass_time(10)
    await engine.state(ann, job.id, JobState.LOST)


async def test_a_worker_that_comes_back_without_an_attempt_frees_its_job_at_once(engine, ann):
    worker = await engine.worker(ann)
    job, attempt = await running(engine, ann, worker)
    worker.leave()
    back = worker.again()
    back.hello()
    shown = await engine.state(ann, job.id, JobState.QUEUED)
    assert shown.attempts[0].state is AttemptState.LOST
    # A machine that loses what it has is one that breaks.
    assert "came back without it" in engine.fleet.worker(worker.id).state_reason
    await engine.pass_time(2)
    again = (await engine.assigned(back))[-1]
    assert (again.job_id, again.number) == (job.id, 2)
    assert "came back without it" in shown.attempts[0].reason
    assert attempt != again.attempt_id


async def test_what_a_worker_never_received_is_no_fault(engine, ann):
    worker = await engine.worker(ann)
    job = await engine.submit(ann, max_attempts=1)
    await engine.assigned(worker)
    back = worker.again()
    back.hello()
    assert worker.rejected is not None
    [second] = await engine.assigned(back)
    assert (second.job_id, second.number) == (job.id, 2)
    assert (await engine.jobs.job(ann, job.id)).attempts[0].state is AttemptState.RELEASED


async def test_of_two_connections_with_one_identity_the_newer_wins(engine, ann):
    worker = await engine.worker(ann)
    _, attempt = await running(engine, ann, worker)
    newer = worker.again()
    newer.hello(running=[attempt])
    assert "has taken this one's place" in str(worker.rejected)
    assert worker.rejected.hint
    worker.leave()
    assert engine.fleet.worker(worker.id).state == "online"
    assert engine.fleet.link(worker.id) is newer


async def test_a_run_past_its_limit_is_called_off_and_then_lost(engine, ann):
    worker = await engine.worker(ann)
    job, attempt = await running(engine, ann, worker, timeout_s=10)
    for _ in range(8):
        await engine.pass_time(10)
        worker.sample(attempt)
    assert [frame.attempt_ids for frame in worker.all(Cancel)] == [[attempt]]
    worker.finish(attempt, "cancelled")
    done = await engine.state(ann, job.id, JobState.TIMED_OUT)
    assert done.charge == done.hold
    assert "10 s" in done.reason

    stuck, attempt = await running(engine, ann, worker, timeout_s=10, max_attempts=1)
    for _ in range(17):
        await engine.pass_time(10)
        worker.sample(attempt)
    assert (await engine.state(ann, stuck.id, JobState.LOST)).charge == 0


async def test_a_worker_has_time_to_send_what_the_program_left_and_is_not_paid_for_it(engine, ann):
    worker = await engine.worker(ann)
    job, attempt = await running(engine, ann, worker, timeout_s=10)
    worker.say(Sending(attempt_id=attempt))
    for _ in range(30):
        await engine.pass_time(20)
        worker.sample(attempt)
    assert worker.all(Cancel) == []
    worker.finish(attempt, "succeeded", wall_ms=5000)
    done = await engine.state(ann, job.id, JobState.SUCCEEDED)
    assert 0 < done.charge < done.hold

    endless, attempt = await running(engine, ann, worker, timeout_s=10, max_attempts=1)
    worker.say(Sending(attempt_id=attempt))
    for _ in range(200):
        await engine.pass_time(20)
        worker.sample(attempt)
    assert (await engine.state(ann, endless.id, JobState.LOST)).charge == 0


async def test_a_coordinator_that_stood_still_takes_no_attempt_away_for_it(engine, ann):
    worker = await engine.worker(ann)
    job, attempt = await running(engine, ann, worker)
    engine.clock.seconds += 3600
    await engine.jobs._sweeper.sweep()
    await engine.pass_time(10)
    assert (await engine.jobs.job(ann, job.id)).state is JobState.RUNNING
    worker.sample(attempt)
    await engine.pass_time(LEASE_S - 10)
    assert (await engine.jobs.job(ann, job.id)).state is JobState.RUNNING


async def test_a_sign_of_life_over_http_renews_the_owners_attempts_only(engine, ann, bob):
    worker = await engine.worker(ann)
    job, attempt = await running(engine, ann, worker)
    for _ in range(12):
        await engine.pass_time(10)
        shown = await engine.jobs.heartbeat(ann, worker.id, [attempt])
    assert shown.jobs == [job.id]
    assert shown.last_seen_s == 0
    assert (await engine.jobs.job(ann, job.id)).state is JobState.RUNNING


async def test_a_machine_that_broke_an_attempt_gets_nothing_for_a_while_and_says_so(engine, ann):
    worker = await engine.worker(ann)
    _, attempt = await running(engine, ann, worker)
    worker.finish(attempt, "broken", reason="the engine hung")
    await engine.until(lambda: engine.fleet.worker(worker.id).state_reason, "the machine to say so")
    assert "the engine hung" in engine.fleet.worker(worker.id).state_reason
    waiting = await engine.submit(ann)
    assert "pausing after failures" in waiting.reason
    await engine.pass_time(2)
    assert waiting.id in [one.job_id for one in await engine.assigned(worker, 2)]
    assert engine.fleet.worker(worker.id).state_reason == ""
