"""Jobs that wait for others: let go when these have ended as they had to, ended with the reason when not."""

from __future__ import annotations

import pytest

from gridx.errors import Conflict, NotFound
from gridx.messages import ArraySpec, Dependency, JobState


def after(*ids: int, when: str = "success") -> list[Dependency]:
    return [Dependency(job_id=id_, when=when) for id_ in ids]


async def end(engine, worker, count: int, outcome: str = "succeeded") -> None:
    attempt = (await engine.assigned(worker, count))[-1]
    worker.start(attempt.attempt_id)
    worker.finish(attempt.attempt_id, outcome, exit_code=int(outcome != "succeeded"))


async def test_a_child_starts_when_all_its_parents_have_succeeded(engine, ann, bob):
    one, two = await engine.submit(ann), await engine.submit(ann)
    child = await engine.submit(ann, after=after(one.id, two.id))
    assert child.reason == f"waits for jobs {one.id} and {two.id}"
    assert child.queue_position is None
    worker = await engine.worker(bob, cpus=1)
    await end(engine, worker, 1)
    await end(engine, worker, 2)
    await end(engine, worker, 3)
    assert [given.job_id for given in worker.assignments] == [one.id, two.id, child.id]
    done = await engine.state(ann, child.id, JobState.SUCCEEDED)
    assert done.spec.after == after(one.id, two.id)


async def test_a_failed_parent_ends_its_children_and_theirs_with_the_reason_and_frees_what_was_held(
    engine, ann, bob
):
    parent = await engine.submit(ann)
    child = await engine.submit(ann, after=after(parent.id))
    array = await engine.submit(ann, after=after(child.id), array=ArraySpec(count=5))
    last = await engine.submit(ann, after=after(array.id))
    anyway = await engine.submit(ann, after=after(last.id, when="end"))
    worker = await engine.worker(bob, cpus=1)
    await end(engine, worker, 1, "failed")
    found = await engine.state(ann, child.id, JobState.CANCELLED)
    assert found.reason == f"job {parent.id}, which had to succeed first, failed"
    found = await engine.state(ann, array.id, JobState.CANCELLED)
    assert found.reason == f"job {child.id}, which had to succeed first, was cancelled"
    assert found.array.cancelled == 5
    assert (await engine.state(ann, last.id, JobState.CANCELLED)).reason.startswith(f"job {array.id}, ")
    await end(engine, worker, 2)
    await engine.state(ann, anyway.id, JobState.SUCCEEDED)
    assert [given.job_id for given in worker.assignments] == [parent.id, anyway.id]
    assert (await engine.store.balance(ann.id)).held == 0
    assert len(engine.jobs._backlog) == 0


@pytest.mark.parametrize("outcome", ["failed", "succeeded"])
async def test_one_that_waits_for_any_end_starts_after_a_failure_too(engine, ann, bob, outcome):
    parent = await engine.submit(ann)
    child = await engine.submit(ann, after=after(parent.id, when="end"))
    worker = await engine.worker(bob, cpus=1)
    await end(engine, worker, 1, outcome)
    await end(engine, worker, 2)
    await engine.state(ann, child.id, JobState.SUCCEEDED)


async def test_a_parent_that_is_cancelled_ends_its_children(engine, ann):
    parent = await engine.submit(ann)
    child = await engine.submit(ann, after=after(parent.id))
    await engine.jobs.cancel(ann, parent.id)
    found = await engine.jobs.job(ann, child.id)
    assert (found.state, found.reason) == (
        JobState.CANCELLED,
        f"job {parent.id}, which had to succeed first, was cancelled",
    )
    assert engine.hub.states(child.id)[-1] is JobState.CANCELLED


async def test_a_child_of_an_array_waits_for_its_last_element(engine, ann, bob):
    array = await engine.submit(ann, array=ArraySpec(count=3))
    child = await engine.submit(ann, after=after(array.id))
    worker = await engine.worker(bob, cpus=1)
    for number in range(1, 5):
        await end(engine, worker, number)
    assert worker.assignments[-1].job_id == child.id
    await engine.state(ann, child.id, JobState.SUCCEEDED)


async def test_an_array_can_wait_and_is_let_go_as_a_whole(engine, ann, bob):
    parent = await engine.submit(ann)
    array = await engine.submit(ann, after=after(parent.id), array=ArraySpec(count=3))
    assert array.reason == f"waits for job {parent.id}"
    element = (await engine.jobs.elements(ann, array.id)).jobs[0]
    assert element.reason == f"waits for job {parent.id}"
    worker = await engine.worker(bob, cpus=1)
    for number in range(1, 5):
        await end(engine, worker, number)
    await engine.state(ann, array.id, JobState.SUCCEEDED)


async def test_a_child_of_one_element_is_ended_when_its_array_is_cancelled(engine, ann):
    array = await engine.submit(ann, array=ArraySpec(count=3))
    child = await engine.submit(ann, after=after(array.id + 2))
    await engine.jobs.cancel(ann, array.id)
    assert (await engine.jobs.job(ann, child.id)).state is JobState.CANCELLED


async def test_parents_that_have_ended_count_at_once(engine, ann, bob):
    worker = await engine.worker(bob, cpus=1)
    good, bad = await engine.submit(ann), await engine.submit(ann)
    await end(engine, worker, 1)
    await end(engine, worker, 2, "failed")
    await engine.state(ann, bad.id, JobState.FAILED)
    with pytest.raises(Conflict, match=f"Job {bad.id}, which has to succeed first, failed"):
        await engine.submit(ann, after=after(good.id, bad.id))
    child = await engine.submit(ann, after=[*after(good.id), *after(bad.id, when="end")])
    await end(engine, worker, 3)
    await engine.state(ann, child.id, JobState.SUCCEEDED)


async def test_jobs_of_others_and_jobs_that_are_not_there_cannot_be_waited_for(engine, ann, bob):
    theirs = await engine.submit(bob)
    for number in (theirs.id, 999):
        with pytest.raises(NotFound, match=f"there is no job {number} of yours"):
            await engine.submit(ann, after=after(number))
    assert (await engine.store.balance(ann.id)).held == 0


async def test_who_waits_for_whom_survives_a_restart(engine, ann, bob):
    one, two = await engine.submit(ann), await engine.submit(ann)
    child = await engine.submit(ann, after=after(one.id, two.id))
    array = await engine.submit(ann, after=after(two.id), array=ArraySpec(count=2))
    await engine.stop()
    await engine.start()
    assert (await engine.jobs.job(ann, child.id)).reason == f"waits for jobs {one.id} and {two.id}"
    worker = await engine.worker(bob, cpus=1)
    await end(engine, worker, 1)
    await engine.assigned(worker, 2)
    await engine.stop()
    await engine.start()
    again = worker.again()
    again.hello(running=[worker.assignments[1].attempt_id])
    assert (await engine.jobs.job(ann, child.id)).reason == f"waits for job {two.id}"
    again.start(worker.assignments[1].attempt_id)
    again.finish(worker.assignments[1].attempt_id, "failed", exit_code=1)
    await engine.state(ann, child.id, JobState.CANCELLED)
    await engine.state(ann, array.id, JobState.CANCELLED)


async def test_a_long_chain_ends_in_one_go(engine, ann):
    first = last = await engine.submit(ann, timeout_s=1)
    for _ in range(300):
        last = await engine.submit(ann, timeout_s=1, after=after(last.id))
    await engine.jobs.cancel(ann, first.id)
    assert (await engine.jobs.job(ann, last.id)).state is JobState.CANCELLED
    assert (await engine.store.balance(ann.id)).held == 0
