"""What owners and admins ask of workers."""

from __future__ import annotations

import pytest

from gridx.errors import Conflict, Forbidden, NotFound
from gridx.messages import Drain, Pause


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
    assert "(1 paused)" in job.reason
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
