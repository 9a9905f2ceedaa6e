"""What owners and admins ask of workers, and what the coordinator makes of what an owner allows."""

from __future__ import annotations

import pytest

from gridx.errors import Conflict, Forbidden, NotFound
from gridx.messages import Ack, AttemptState, Drain, JobState, Offering, Pause, Released, Resumed


async def test_owners_steer_their_machines_and_others_do_not(engine, ann, bob):
    worker = await engine.worker(ann)
    root = await engine.user("root", role="admin")
    for steer in (engine.jobs.pause_worker, engine.jobs.resume_worker, engine.jobs.drain_worker):
        with pytest.raises(Forbidden):
            await steer(bob, worker.id)
        with pytest.raises(NotFound):
            await steer(ann, 4711)
    with pytest.raises(Forbidden):
        await engine.jobs.heartbeat(root, worker.id, [])

    assert (await engine.jobs.pause_worker(ann, worker.id)).state == "paused"
    job = await engine.submit(ann)
    assert "(paused: by its owner)" in job.reason
    await engine.stop()
    await engine.start()
    back = worker.again()
    back.record = await engine.store.worker(worker.id)
    back.hello()
    assert back.all(Pause)[-1].paused
    assert engine.fleet.worker(worker.id).state == "paused"
    assert (await engine.jobs.resume_worker(root, worker.id)).state == "online"
    assert not back.all(Pause)[-1].paused
    assert (await engine.assigned(back))[-1].job_id == job.id

    assert (await engine.jobs.drain_worker(ann, worker.id)).state == "draining"
    assert back.all(Drain)
    assert "draining" in (await engine.submit(ann)).reason
    back.leave()
    with pytest.raises(Conflict):
        await engine.jobs.drain_worker(ann, worker.id)


async def test_a_worker_is_told_whose_wish_a_pause_is_and_whether_to_give_back(engine, ann):
    worker = await engine.worker(ann)
    root = await engine.user("root", role="admin")
    await engine.jobs.pause_worker(ann, worker.id, give_back=True)
    await engine.jobs.resume_worker(root, worker.id)
    await engine.jobs.resume_worker(ann, worker.id)
    assert worker.all(Pause) == [
        Pause(paused=True, give_back=True, by_owner=True),
        Pause(paused=False, by_owner=False),
        Pause(paused=False, by_owner=True),
    ]
    worker.leave()
    with pytest.raises(Conflict, match="not connected") as refused:
        await engine.jobs.pause_worker(ann, worker.id, give_back=True)
    assert "gridx worker pause --give-back" in refused.value.hint
    # Without that it can be paused while it is away.
    await engine.jobs.pause_worker(ann, worker.id)
    assert engine.fleet.record(worker.id).paused


async def test_an_owner_at_the_machine_ends_a_pause_of_the_coordinators_too(engine, ann):
    worker = await engine.worker(ann)
    await engine.jobs.pause_worker(ann, worker.id)
    job = await engine.submit(ann)
    worker.say(Resumed())
    [attempt] = await engine.assigned(worker)
    assert attempt.job_id == job.id
    assert not (await engine.store.worker(worker.id)).paused
    told = len(worker.all(Pause))
    # Said without a pause it does nothing.
    worker.say(Resumed(), Resumed())
    assert len(worker.all(Pause)) == told


async def test_a_job_that_is_given_back_goes_elsewhere_at_once_unpaid_and_is_no_failure(engine, ann, bob):
    one = await engine.worker(bob, "one", cpus=1)
    job = await engine.submit(ann, max_attempts=1)
    [first] = await engine.assigned(one)
    one.start(first.attempt_id)
    two = await engine.worker(bob, "two", cpus=1)
    engine.clock.seconds += 100
    one.sample(first.attempt_id, state="closed", state_reason="somebody is at the machine")
    one.say(Released(attempt_id=first.attempt_id, reason="somebody is at the machine"))
    [second] = await engine.assigned(two)
    assert second.job_id == job.id
    # The machine is closed, and has done nothing wrong.
    shown = engine.fleet.worker(one.id)
    assert (shown.state, shown.state_reason) == ("closed", "somebody is at the machine")
    one.sample()
    assert engine.fleet.worker(one.id).state_reason == ""
    two.start(second.attempt_id)
    two.finish(second.attempt_id)
    done = await engine.state(ann, job.id, JobState.SUCCEEDED)
    assert done.attempts[0].reason == "somebody is at the machine"
    receipt = await engine.jobs.receipt(ann, job.id)
    assert (receipt.attempts[0].charge, receipt.attempts[0].charged_ms) == (0, 0)


async def test_what_was_given_back_while_nobody_could_be_told_is_no_failure_either(engine, ann):
    worker = await engine.worker(ann)
    job = await engine.submit(ann, max_attempts=1)
    [first] = await engine.assigned(worker)
    worker.start(first.attempt_id)
    worker.leave()
    back = worker.again()
    back.hello(released=[first.attempt_id, 4711])
    assert back.all(Ack)[0].attempt_ids == [4711]
    await engine.until(lambda: len(back.all(Ack)) == 2, "the acknowledgement")
    assert back.all(Ack)[1].attempt_ids == [first.attempt_id]
    shown = await engine.jobs.job(ann, job.id)
    assert (shown.state, shown.attempts[0].state) == (JobState.QUEUED, AttemptState.RELEASED)
    assert engine.fleet.worker(worker.id).state_reason == ""
    await engine.pass_time(6)
    assert (await engine.assigned(back))[-1].number == 2


async def test_a_machine_for_some_users_is_not_offered_jobs_of_others(engine, ann, bob, make_offer):
    cid = await engine.user("cid")
    worker = await engine.worker(ann, only_users=["Bob"])
    others = await engine.submit(cid)
    mine, bobs = await engine.submit(ann), await engine.submit(bob)
    ran = [one.job_id for one in await engine.assigned(worker, 2)]
    assert sorted(ran) == [mine.id, bobs.id]
    why = f"worker {worker.id}, the only one that could run it, takes jobs of ann and bob only"
    assert (await engine.jobs.job(cid, others.id)).reason == why
    assert (await engine.jobs.quote(cid, (await engine.jobs.job(cid, others.id)).spec)).waits_because == why
    worker.say(Offering(offer=make_offer(only_users=[])))
    assert (await engine.assigned(worker, 3))[-1].job_id == others.id


async def test_a_user_has_no_more_running_than_is_allowed(make_engine):
    engine = await make_engine(scheduler={"max_running_per_user": 2})
    ann, bob = await engine.user("ann"), await engine.user("bob")
    worker = await engine.worker(ann, cpus=8)
    anns = [await engine.submit(ann) for _ in range(4)]
    bobs = await engine.submit(bob)
    given = await engine.assigned(worker, 3)
    assert {one.job_id for one in given} == {anns[0].id, anns[1].id, bobs.id}
    waiting = await engine.jobs.job(ann, anns[3].id)
    assert waiting.reason == "its owner has 2 running, and a user may have 2 at once"
    worker.start(given[0].attempt_id)
    worker.finish(given[0].attempt_id)
    assert (await engine.assigned(worker, 4))[-1].job_id == anns[2].id


async def test_a_machine_that_breaks_often_gets_less_and_recovers(engine, ann):
    """The bad machine is the better fit each time; every job still comes to its end."""
    bad = await engine.worker(ann, "bad", cpus=1)
    sound = await engine.worker(ann, "sound", cpus=64)
    broken = 0
    for _ in range(40):
        job = await engine.submit(ann)
        await engine.state(ann, job.id, JobState.ASSIGNED)
        if (one := bad.assignments) and one[-1].job_id == job.id:
            broken += 1
            bad.finish(one[-1].attempt_id, "broken", reason="the disk fails")
        await engine.until(lambda id=job.id: id in [a.job_id for a in sound.assignments], "the sound one")
        attempt = sound.assignments[-1].attempt_id
        sound.start(attempt)
        sound.finish(attempt)
        await engine.state(ann, job.id, JobState.SUCCEEDED)
        await engine.pass_time(2)
    # 80 seconds: after 1, 2, 4, 8, 16 and 32 seconds it was tried again.
    assert 3 <= broken <= 8
    # Time heals: it is asked again, and a job that it runs well counts for it.
    await engine.pass_time(300)
    before = len(bad.assignments)
    await engine.submit(ann)
    attempt = (await engine.assigned(bad, before + 1))[-1].attempt_id
    bad.start(attempt)
    bad.finish(attempt)
    await engine.until(lambda: not engine.fleet.live(attempt), "its end")
    assert engine.fleet.worker(bad.id).state_reason == ""
