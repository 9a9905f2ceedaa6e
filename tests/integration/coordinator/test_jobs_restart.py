"""A coordinator that went away and came back, a full disk, a caller who has gone, a part that dies."""

from __future__ import annotations

import asyncio

from gridx.errors import Unavailable
from gridx.messages import AttemptState, Cancel, JobState
from gridx.services.coordinator.store import store


async def running(engine, user, worker, **fields):
    job = await engine.submit(user, **fields)
    attempt = (await engine.assigned(worker))[-1]
    worker.start(attempt.attempt_id)
    await engine.state(user, job.id, JobState.RUNNING)
    return job, attempt.attempt_id


async def restart(engine) -> None:
    await engine.stop()
    await engine.start()


async def test_what_waited_still_waits_and_what_ran_is_taken_up_again(engine, ann, bob):
    worker = await engine.worker(bob, cpus=1)
    job, attempt = await running(engine, ann, worker, timeout_s=3600, memory_mb=1024)
    worker.write(attempt, 0, b"before ")
    waiting = await engine.submit(ann)
    await engine.until(lambda: engine.hub.output, "the output to be stored")
    await restart(engine)

    assert engine.fleet.worker(worker.id).state == "offline"
    assert engine.fleet.worker(worker.id).jobs == [job.id]
    assert (await engine.jobs.job(ann, waiting.id)).reason == "no worker is connected"
    engine.clock.seconds += 36
    back = worker.again()
    [resume] = back.hello(running=[attempt]).resume
    assert resume.current
    assert resume.offsets.stdout == len(b"before ")
    back.write(attempt, 0, b"before after")
    back.finish(attempt, stdout_bytes=12)
    done = await engine.state(ann, job.id, JobState.SUCCEEDED)
    assert done.stdout_bytes == 12
    # The same boot of the same machine: its monotonic clock goes on.
    assert done.charge == 11_000
    assert (await engine.assigned(back))[-1].job_id == waiting.id


async def test_after_a_boot_the_workers_figure_stands_in(engine, ann, monkeypatch):
    worker = await engine.worker(ann)
    job, attempt = await running(engine, ann, worker)
    monkeypatch.setattr(store, "_boot_id", lambda: "another boot")
    engine.clock.seconds = 5.0
    await restart(engine)
    engine.clock.seconds += 2
    back = worker.again()
    back.hello(running=[attempt])
    back.finish(attempt, wall_ms=7_000)
    await engine.state(ann, job.id, JobState.SUCCEEDED)
    assert (await engine.jobs.receipt(ann, job.id)).attempts[0].charged_ms == 7_000


async def test_a_worker_has_a_whole_lease_to_come_back(engine, ann):
    worker = await engine.worker(ann)
    job, _ = await running(engine, ann, worker, max_attempts=1)
    await engine.pass_time(80)
    await restart(engine)
    await engine.pass_time(80)
    assert (await engine.jobs.job(ann, job.id)).state is JobState.RUNNING
    await engine.pass_time(11)
    assert (await engine.state(ann, job.id, JobState.LOST)).attempts[0].state is AttemptState.LOST


async def test_a_cancel_outlives_the_coordinator(engine, ann):
    worker = await engine.worker(ann)
    job, attempt = await running(engine, ann, worker)
    await engine.jobs.cancel(ann, job.id)
    await restart(engine)
    back = worker.again()
    back.hello(running=[attempt])
    assert [frame.attempt_ids for frame in back.all(Cancel)] == [[attempt]]
    back.finish(attempt, "cancelled")
    await engine.state(ann, job.id, JobState.CANCELLED)


async def test_a_result_that_was_spooled_arrives_once(engine, ann, bob):
    worker = await engine.worker(bob)
    job, attempt = await running(engine, ann, worker)
    worker.leave()
    await restart(engine)
    engine.clock.seconds += 20
    for _ in range(2):
        back = worker.again()
        back.hello(spooled=[attempt])
        back.finish(attempt, wall_ms=5_000)
        await engine.state(ann, job.id, JobState.SUCCEEDED)
    earned = (await engine.store.balance(bob.id)).earned
    assert earned == (await engine.jobs.receipt(ann, job.id)).charge > 0
    assert not back.all(object)[0].resume[0].current


async def test_a_machine_that_broke_a_job_is_still_known_after_a_restart(engine, ann):
    one = await engine.worker(ann, "one", cpus=1)
    job, attempt = await running(engine, ann, one)
    one.finish(attempt, "broken", reason="x")
    await engine.state(ann, job.id, JobState.QUEUED)
    one.leave()
    await restart(engine)
    two = await engine.worker(ann, "two", cpus=8)
    one.again().hello()
    assert (await engine.assigned(two))[-1].job_id == job.id


async def test_a_full_disk_delays_and_loses_nothing(engine, ann, monkeypatch):
    worker = await engine.worker(ann)
    full = Unavailable("The coordinator's disk is full.", "Free some.", reason="disk_full")
    originals = {name: getattr(engine.store, name) for name in ("assign", "append_output", "finish_attempt")}
    failed = []
    for name, original in originals.items():

        async def once(*args, name=name, original=original, **kwargs):
            if name not in failed:
                failed.append(name)
                raise full
            return await original(*args, **kwargs)

        monkeypatch.setattr(engine.store, name, once)
    job = await engine.submit(ann)
    [attempt] = await engine.assigned(worker)
    worker.start(attempt.attempt_id)
    worker.write(attempt.attempt_id, 0, b"x")
    worker.finish(attempt.attempt_id, stdout_bytes=1)
    done = await engine.state(ann, job.id, JobState.SUCCEEDED)
    assert done.stdout_bytes == 1
    assert failed == ["assign", "append_output", "finish_attempt"]


async def test_a_caller_who_has_gone_leaves_a_whole_job(engine, ann, make_spec):
    worker = await engine.worker(ann)
    for pause in range(4):
        before = len((await engine.jobs.page(ann)).jobs)
        call = asyncio.create_task(engine.jobs.submit(ann, [make_spec(cpus=0.1)], None))
        for _ in range(pause):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        accepted = pause > 0

        async def there(before=before):
            return len((await engine.jobs.page(ann)).jobs) > before

        if accepted:
            await engine.until(there, "the job to be accepted")
            await engine.assigned(worker, before + 1)


async def test_a_part_that_dies_is_told(make_engine):
    engine = await make_engine()
    told = []
    engine.jobs._on_failure = [told.append]
    engine.jobs._dispatcher._backlog.plan = lambda: 1 / 0
    ann = await engine.user("ann")
    await engine.submit(ann)
    await engine.until(lambda: told, "the failure to be told")
    assert isinstance(told[0], ZeroDivisionError)
