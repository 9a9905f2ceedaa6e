"""Arrays: one submission, one hold, one line; elements that run, fail, are tried again; what they cost."""

from __future__ import annotations

import asyncio

import pytest

from gridx.errors import Conflict, InsufficientCredits, InvalidField, NotFound, TooMany
from gridx.messages import MICROCREDITS, ArraySpec, Cancel, JobState

HOUR = {"timeout_s": 3600, "memory_mb": 1024}
ONE_RUN = 1_100_000
"""What an hour of a core and a GiB costs."""


async def work(engine, worker, user, array_id: int, outcome=lambda given: "succeeded", wall_ms=1000) -> list:
    """Run whatever the worker is given, at once, until the array has ended."""
    done = 0
    while not (await engine.jobs.job(user, array_id)).state.ended:
        for given in worker.assignments[done:]:
            done += 1
            worker.start(given.attempt_id)
            how = outcome(given)
            worker.finish(given.attempt_id, how, exit_code=int(how != "succeeded"), wall_ms=wall_ms)
        await asyncio.sleep(0.005)
    return worker.assignments


async def elements(engine, user, array_id: int, **query) -> list:
    return (await engine.jobs.elements(user, array_id, limit=500, **query)).jobs


async def test_an_array_is_one_line_one_hold_and_as_many_jobs_as_it_says(engine, ann, bob):
    worker = await engine.worker(bob, cpus=3)
    array = await engine.submit(ann, name="many", args=["a"], array=ArraySpec(count=7), **HOUR)
    assert array.hold == 7 * ONE_RUN
    assert (array.array.count, array.array.queued) == (7, 7)
    assert [job.id for job in (await engine.jobs.page(ann)).jobs] == [array.id]
    assert (await engine.store.balance(ann.id)).held == 7 * ONE_RUN
    given = await work(engine, worker, ann, array.id)
    assert [(one.array_index, one.array_count) for one in given] == [(n, 7) for n in range(7)]
    assert {one.code for one in given} == {"print(1)"}
    assert all(one.args == ["a"] for one in given)
    done = await engine.jobs.job(ann, array.id)
    assert done.state is JobState.SUCCEEDED
    assert done.array.succeeded == 7
    assert done.spec.array.count == 7
    jobs = await elements(engine, ann, array.id)
    assert [job.array_index for job in jobs] == list(range(7))
    assert all(job.array_id == array.id and job.state is JobState.SUCCEEDED for job in jobs)
    receipt = await engine.jobs.receipt(ann, array.id)
    assert receipt.charge == sum(job.charge for job in jobs) == done.charge
    assert receipt.hold == receipt.charge + receipt.released
    assert (await engine.store.balance(ann.id)).held == 0


async def test_elements_have_arguments_of_their_own_behind_the_shared_ones(engine, ann, bob):
    worker = await engine.worker(bob)
    array = await engine.submit(
        ann, args=["-v"], array=ArraySpec(args=[["x", "1"], [], ["z"]], first=5), **HOUR
    )
    given = await work(engine, worker, ann, array.id)
    assert [(one.array_index, one.args) for one in given] == [
        (5, ["-v", "x", "1"]),
        (6, ["-v"]),
        (7, ["-v", "z"]),
    ]
    one = (await engine.jobs.elements(ann, array.id, index=7)).jobs[0]
    assert (await engine.jobs.job(ann, one.id)).spec.args == ["-v", "z"]
    with pytest.raises(NotFound, match="no element 8"):
        await engine.jobs.elements(ann, array.id, index=8)


async def test_what_each_array_gives_back_comes_back_with_each_element(engine, ann, bob):
    worker = await engine.worker(bob, cpus=1)
    await engine.submit(ann, array=ArraySpec(count=3), **HOUR)
    attempt = (await engine.assigned(worker))[0]
    worker.start(attempt.attempt_id)
    worker.finish(attempt.attempt_id, wall_ms=0)
    await engine.assigned(worker, 2)
    assert (await engine.store.balance(ann.id)).held == 2 * ONE_RUN


async def test_a_budget_holds_even_if_every_element_runs_to_its_timeout(engine, ann, bob):
    worker = await engine.worker(bob, cpus=10)
    budget = int(2.5 * ONE_RUN)
    array = await engine.submit(ann, array=ArraySpec(count=10, max_credits=budget), **HOUR)
    assert array.hold == budget
    assert len(await engine.assigned(worker, 2)) == 2
    waiting = (await elements(engine, ann, array.id, states=[JobState.QUEUED]))[0]
    assert "its budget covers no more at a time" in waiting.reason
    assert (await engine.jobs.job(ann, array.id)).reason == waiting.reason
    for number in range(2):
        attempt = worker.assignments[number]
        worker.start(attempt.attempt_id)
        await engine.state(ann, attempt.job_id, JobState.RUNNING)
    engine.clock.seconds += 3600
    worker.sample(*(one.attempt_id for one in worker.assignments))
    worker.finish(worker.assignments[0].attempt_id, "timed_out")
    worker.finish(worker.assignments[1].attempt_id, "timed_out")
    done = await engine.state(ann, array.id, JobState.CANCELLED)
    assert done.charge == 2 * ONE_RUN
    assert done.reason == "the budget of 2.75 credits is used up"
    assert (done.array.failed, done.array.cancelled) == (2, 8)
    assert (await engine.store.balance(ann.id)).held == 0
    assert len(worker.assignments) == 2


async def test_a_budget_lets_elements_start_as_long_as_it_lasts(engine, ann, bob):
    worker = await engine.worker(bob, cpus=10)
    array = await engine.submit(ann, array=ArraySpec(count=50, max_credits=3 * ONE_RUN), **HOUR)
    most = 0

    def look(given) -> str:
        nonlocal most
        most = max(most, len(engine.fleet.all_live()))
        return "succeeded"

    await work(engine, worker, ann, array.id, look, wall_ms=36_000)
    done = await engine.jobs.job(ann, array.id)
    assert done.array.succeeded == 50
    assert done.charge <= 3 * ONE_RUN
    assert most <= 3


async def test_a_budget_that_covers_no_element_is_refused_with_both_amounts(engine, ann):
    with pytest.raises(InvalidField, match=r"one element may cost 1\.1 credits.*budget of 1"):
        await engine.submit(ann, array=ArraySpec(count=2, max_credits=MICROCREDITS), **HOUR)
    assert (await engine.jobs.page(ann)).jobs == []


async def test_too_many_failures_cancel_what_waits_and_let_go_on_what_runs(engine, ann, bob):
    worker = await engine.worker(bob, cpus=4)
    array = await engine.submit(ann, array=ArraySpec(count=20, max_fails=1), **HOUR)
    given = await engine.assigned(worker, 4)
    for one in given[:4]:
        worker.start(one.attempt_id)
        await engine.state(ann, one.job_id, JobState.RUNNING)
    worker.finish(given[0].attempt_id, "failed", exit_code=1)
    given = await engine.assigned(worker, 5)
    worker.finish(given[1].attempt_id, "failed", exit_code=1)

    async def stopped():
        job = await engine.jobs.job(ann, array.id)
        return job if job.array.cancelled else None

    job = await engine.until(stopped, "the rest to be cancelled")
    assert (job.state, job.array.running, job.array.cancelled) == (JobState.RUNNING, 3, 15)
    for one in given[2:]:
        worker.start(one.attempt_id)
        worker.finish(one.attempt_id, exit_code=0)
    done = await engine.state(ann, array.id, JobState.FAILED)
    assert (done.array.succeeded, done.array.failed, done.array.cancelled) == (3, 2, 15)
    assert done.reason == "more than 1 of its elements failed"
    assert not worker.all(Cancel)


async def test_a_cancel_ends_what_waits_at_once_and_what_runs_when_it_is_dead(engine, ann, bob):
    worker = await engine.worker(bob, cpus=2)
    array = await engine.submit(ann, array=ArraySpec(count=10), **HOUR)
    given = await engine.assigned(worker, 2)
    for one in given:
        worker.start(one.attempt_id)
        await engine.state(ann, one.job_id, JobState.RUNNING)
    cancelling = await engine.jobs.cancel(ann, array.id)
    assert (cancelling.state, cancelling.array.cancelled) == (JobState.CANCELLING, 8)
    assert sorted(id_ for frame in worker.all(Cancel) for id_ in frame.attempt_ids) == sorted(
        one.attempt_id for one in given
    )
    for one in given:
        worker.finish(one.attempt_id, "cancelled")
    done = await engine.state(ann, array.id, JobState.CANCELLED)
    assert done.array.cancelled == 10
    assert done.reason == "cancelled by ann"
    assert len(engine.jobs._backlog) == 0
    assert (await engine.jobs.cancel(ann, array.id)).state is JobState.CANCELLED


async def test_one_element_can_be_cancelled_and_the_others_go_on(engine, ann, bob):
    array = await engine.submit(ann, array=ArraySpec(count=3), **HOUR)
    jobs = await elements(engine, ann, array.id)
    assert (await engine.jobs.cancel(ann, jobs[1].id)).state is JobState.CANCELLED
    worker = await engine.worker(bob)
    given = await work(engine, worker, ann, array.id)
    assert [one.array_index for one in given] == [0, 2]
    done = await engine.jobs.job(ann, array.id)
    assert (done.state, done.array.cancelled) == (JobState.CANCELLED, 1)


async def test_only_what_failed_is_tried_again_with_the_index_and_the_arguments_it_had(engine, ann, bob):
    worker = await engine.worker(bob)
    array = await engine.submit(ann, args=["-v"], array=ArraySpec(args=[[f"{n}"] for n in range(6)]), **HOUR)
    await work(
        engine, worker, ann, array.id, lambda given: "failed" if given.array_index in (1, 4) else "succeeded"
    )
    assert (await engine.jobs.job(ann, array.id)).state is JobState.FAILED
    again, _ = await engine.jobs.retry(ann, array.id, None)
    assert (again.retry_of, again.array.count) == (array.id, 2)
    given = (await work(engine, worker, ann, again.id))[6:]
    assert [(one.array_index, one.array_count, one.args) for one in given] == [
        (1, 6, ["-v", "1"]),
        (4, 6, ["-v", "4"]),
    ]
    assert (await engine.jobs.elements(ann, again.id, index=4)).jobs[0].retry_of == array.id + 5
    with pytest.raises(Conflict, match="All elements of array"):
        await engine.jobs.retry(ann, again.id, None)


async def test_elements_are_tried_again_by_themselves_and_counted_once(engine, ann, bob):
    worker = await engine.worker(bob)
    seen: dict[int, int] = {}

    def twice(given) -> str:
        seen[given.array_index] = seen.get(given.array_index, 0) + 1
        return "failed" if seen[given.array_index] < 3 and given.array_index % 2 else "succeeded"

    array = await engine.submit(ann, array=ArraySpec(count=6), retries=2, retry_delay_s=0, **HOUR)
    assert array.hold == 18 * ONE_RUN
    await work(engine, worker, ann, array.id, twice)
    done = await engine.jobs.job(ann, array.id)
    assert (done.state, done.array.succeeded) == (JobState.SUCCEEDED, 6)
    assert seen == {0: 1, 1: 3, 2: 1, 3: 3, 4: 1, 5: 3}


async def test_an_array_goes_on_after_a_restart_of_the_coordinator(engine, ann, bob):
    worker = await engine.worker(bob, cpus=2)
    array = await engine.submit(ann, array=ArraySpec(args=[[f"{n}"] for n in range(8)]), retries=1, **HOUR)
    given = await engine.assigned(worker, 2)
    worker.start(given[0].attempt_id)
    worker.finish(given[0].attempt_id, "failed", exit_code=1)
    await engine.state(ann, given[0].job_id, JobState.QUEUED)
    await engine.assigned(worker, 3)
    ran = {one.array_index for one in worker.assignments}
    await engine.stop()
    await engine.start()
    assert (await engine.jobs.job(ann, array.id)).array.queued == 6
    again = worker.again()
    again.hello(running=[one.attempt_id for one in worker.assignments[1:]])
    for one in worker.assignments[1:]:
        again.start(one.attempt_id)
        again.finish(one.attempt_id, exit_code=0)
    engine.clock.seconds += 10
    await engine.pass_time(2)
    await work(engine, again, ann, array.id)
    done = await engine.jobs.job(ann, array.id)
    assert (done.state, done.array.succeeded) == (JobState.SUCCEEDED, 8)
    assert {one.array_index for one in again.assignments} | ran == set(range(8))
    assert all(one.args == [str(one.array_index)] for one in again.assignments)


async def test_places_count_all_elements_and_other_users_have_their_turn(engine, ann, bob):
    array = await engine.submit(ann, array=ArraySpec(count=5000), memory_mb=64, timeout_s=60)
    mine = await engine.submit(ann)
    theirs = await engine.submit(bob)
    assert array.queue_position == 1
    assert mine.queue_position > 5000
    assert theirs.queue_position < 5
    last = (await engine.jobs.elements(ann, array.id, index=4999)).jobs[0]
    assert last.queue_position >= 5000
    assert len(engine.jobs._backlog) == 5002
    assert engine.jobs.stats()["jobs_queued"] == 5002


async def test_the_array_is_told_of_a_few_times_and_its_end_for_certain(engine, ann, bob):
    worker = await engine.worker(bob, cpus=64, memory_mb=1 << 20)
    array = await engine.submit(ann, array=ArraySpec(count=300), memory_mb=64, timeout_s=60)
    await work(engine, worker, ann, array.id)
    told = [job for job in engine.hub.jobs if job.id == array.id]
    assert told[-1].state is JobState.SUCCEEDED
    assert len(told) < 300


async def test_what_cannot_be_is_refused_before_anything_is_held(make_engine):
    engine = await make_engine(coordinator={"max_array": 10, "max_queued_per_user": 12})
    ann = await engine.user("ann", credits=5)
    with pytest.raises(InvalidField, match="exactly one of"):
        await engine.submit(ann, array=ArraySpec())
    with pytest.raises(InvalidField, match="exactly one of"):
        await engine.submit(ann, array=ArraySpec(count=2, args=[[], []]))
    with pytest.raises(TooMany, match="11 elements"):
        await engine.submit(ann, array=ArraySpec(count=11))
    with pytest.raises(InsufficientCredits):
        await engine.submit(ann, array=ArraySpec(count=10), **HOUR)
    await engine.submit(ann, array=ArraySpec(count=10), timeout_s=1)
    with pytest.raises(TooMany, match="10 jobs waiting"):
        await engine.submit(ann, array=ArraySpec(count=3), timeout_s=1)
    assert len((await engine.jobs.page(ann)).jobs) == 1


async def test_an_array_has_no_output_of_its_own(engine, ann):
    array = await engine.submit(ann, array=ArraySpec(count=2))
    with pytest.raises(InvalidField, match="is an array") as refused:
        await engine.jobs.output(ann, array.id, attempt=None, stream="stdout", offset=0, limit=10)
    assert f"gridx output {array.id} --all" in refused.value.hint


async def test_arrays_of_others_are_not_there(engine, ann, bob):
    array = await engine.submit(ann, array=ArraySpec(count=2))
    for number in (array.id, array.id + 1):
        with pytest.raises(NotFound):
            await engine.jobs.job(bob, number)
        with pytest.raises(NotFound):
            await engine.jobs.cancel(bob, number)
    with pytest.raises(NotFound):
        await engine.jobs.elements(bob, array.id)
