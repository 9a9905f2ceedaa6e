"""The life of a job in the store: each step once, in order, whatever is repeated or late."""

from __future__ import annotations

import pytest
from msgspec import structs

from gridx.errors import NotFound
from gridx.messages import AttemptState, JobState
from gridx.services.coordinator.store.records import NewAttempt


async def test_a_job_runs_and_is_paid(grid):
    job, attempt_id = await grid.run()
    assert (job.state, job.current_attempt_id, job.worker_name) == (JobState.RUNNING, attempt_id, "bob's box")
    done = await grid.store.finish_attempt(attempt_id, grid.end(charge=40, fee=4))
    assert (done.job.state, done.job.charge, done.job.current_attempt_id) == (JobState.SUCCEEDED, 40, None)
    assert (done.payer_id, done.payee_id) == (grid.ann, grid.bob)
    assert await grid.balance(grid.ann) == 960
    assert await grid.balance(grid.bob) == 36
    assert await grid.store.worker_earnings() == {grid.worker.id: 36}
    kinds = [entry.kind for entry in await grid.store.entries(grid.ann, before=None, limit=10)]
    assert kinds == ["release", "hold", "grant"]
    await grid.sound()


async def test_what_a_step_returns_is_what_a_read_returns(grid):
    store = grid.store
    job = await grid.submit(name="näme", runtime="default", python="3.11", args=["a"], env={"A": "b"})
    assert await store.job(job.id) == job
    (attempt,) = await store.assign([NewAttempt(job.id, grid.worker.id, ("GPU-1", "GPU-2"), "default")])
    assert await store.attempt(attempt.id) == attempt
    assert await store.start_attempt(attempt.id, runtime="other") == await store.job(job.id)
    started = await store.attempt(attempt.id)
    assert (started.boot_id, started.runtime) == (store.boot_id, "other")
    assert await store.live_attempts() == [(started, await store.job(job.id))]
    assert await store.requeue_attempt(
        attempt.id, AttemptState.BROKEN, "out of disk", fault=True
    ) == await store.job(job.id)
    second = await grid.assign(job.id)
    done = await store.finish_attempt(second, grid.end())
    assert done.job == await store.job(job.id)
    assert [a.number for a in await store.attempts_of(job.id)] == [1, 2]
    assert (await store.attempts_of(job.id))[0].reason == "out of disk"


async def test_a_second_word_of_the_same_thing_changes_nothing(grid):
    _, attempt_id = await grid.run()
    assert await grid.store.start_attempt(attempt_id, runtime="default") is None
    assert await grid.store.finish_attempt(attempt_id, grid.end()) is not None
    before = await grid.store.balances()
    for late in (grid.end(), grid.end(AttemptState.FAILED, charge=100)):
        assert await grid.store.finish_attempt(attempt_id, late) is None
    assert await grid.store.requeue_attempt(attempt_id, AttemptState.LOST, "", fault=True) is None
    assert await grid.store.start_attempt(attempt_id, runtime="default") is None
    assert await grid.store.balances() == before
    await grid.sound()


async def test_a_stale_attempt_is_fenced_and_the_newer_one_is_paid(grid):
    job, old = await grid.run()
    queued = await grid.store.requeue_attempt(old, AttemptState.LOST, "silent", fault=True)
    assert (queued.state, queued.faults, queued.started_at) == (JobState.QUEUED, 1, None)
    new = await grid.assign(job.id)
    assert new > old
    assert await grid.store.start_attempt(old, runtime="default") is None
    assert await grid.store.finish_attempt(old, grid.end(charge=100)) is None
    done = await grid.store.finish_attempt(new, grid.end(charge=30))
    assert done.job.charge == 30
    assert await grid.balance(grid.bob) == 30
    assert await grid.store.machine_faults([job.id, 99]) == {job.id: {grid.worker.id}}
    await grid.sound()


async def test_a_job_is_assigned_once(grid):
    job = await grid.submit()
    one = NewAttempt(job.id, grid.worker.id, (), "default")
    placed = await grid.store.assign([one, one, NewAttempt(12345, grid.worker.id, (), "default")])
    assert [attempt is not None for attempt in placed] == [True, False, False]
    assert await grid.store.assign([one]) == [None]
    await grid.sound()


async def test_a_placement_on_a_worker_that_does_not_exist_is_refused_whole(grid):
    job = await grid.submit()
    with pytest.raises(NotFound):
        await grid.store.assign(
            [NewAttempt(job.id, grid.worker.id, (), "x"), NewAttempt(job.id, 999, (), "x")]
        )
    assert (await grid.store.job(job.id)).state is JobState.QUEUED
    await grid.sound()


@pytest.mark.parametrize(
    "state", [AttemptState.SUCCEEDED, AttemptState.FAILED, AttemptState.TIMED_OUT, AttemptState.OUT_OF_MEMORY]
)
async def test_an_end_that_is_the_users_is_charged(grid, state):
    _, attempt_id = await grid.run()
    done = await grid.store.finish_attempt(attempt_id, grid.end(state, charge=25))
    assert done.job.state == state
    assert await grid.balance(grid.ann) == 975
    await grid.sound()


@pytest.mark.parametrize(
    "state", [AttemptState.BROKEN, AttemptState.REFUSED, AttemptState.RELEASED, AttemptState.LOST]
)
async def test_an_end_that_is_the_machines_is_not_charged(grid, state):
    job, attempt_id = await grid.run()
    fault = state in (AttemptState.BROKEN, AttemptState.LOST)
    queued = await grid.store.requeue_attempt(attempt_id, state, "why", fault=fault)
    assert (queued.state, queued.faults, queued.attempts) == (JobState.QUEUED, int(fault), 1)
    assert (await grid.store.balance(grid.ann)).held == job.hold
    await grid.sound()
    with pytest.raises(ValueError, match="does not end"):
        await grid.store.finish_attempt(attempt_id, structs.replace(grid.end(), attempt_state=state))


async def test_a_job_that_breaks_its_machines_is_lost_and_its_hold_given_back(grid):
    job = await grid.submit(max_attempts=2)
    for fault, state in ((True, AttemptState.BROKEN), (False, AttemptState.REFUSED)):
        await grid.store.requeue_attempt(await grid.assign(job.id), state, "", fault=fault)
    lost = await grid.store.requeue_attempt(
        await grid.assign(job.id), AttemptState.BROKEN, "the engine died", fault=True
    )
    assert (lost.state, lost.attempts, lost.faults) == (JobState.LOST, 3, 2)
    assert lost.reason == "Tried 2 times, and each time the machine failed. The last: the engine died"
    assert await grid.balance(grid.ann) == 1000
    await grid.sound()


async def test_a_waiting_job_is_cancelled_at_once_and_again_without_effect(grid):
    job = await grid.submit()
    cancelled = await grid.store.cancel(job.id, "Cancelled by ann.")
    assert (cancelled.state, cancelled.reason) == (JobState.CANCELLED, "Cancelled by ann.")
    assert await grid.store.cancel(job.id, "Again.") == cancelled
    assert await grid.balance(grid.ann) == 1000
    assert await grid.store.cancel(999, "") is None
    await grid.sound()


async def test_a_running_job_is_cancelled_when_its_worker_has_killed_it_and_pays_for_its_time(grid):
    job, attempt_id = await grid.run()
    cancelling = await grid.store.cancel(job.id, "Cancelled by ann.")
    assert (cancelling.state, cancelling.current_attempt_id) == (JobState.CANCELLING, attempt_id)
    assert await grid.store.cancel(job.id, "Again.") == cancelling
    done = await grid.store.finish_attempt(attempt_id, grid.end(AttemptState.CANCELLED, charge=10))
    assert (done.job.state, done.job.reason, done.job.charge) == (
        JobState.CANCELLED,
        "Cancelled by ann.",
        10,
    )
    await grid.sound()


async def test_a_job_that_ends_before_its_cancel_arrives_has_ended_as_it_did(grid):
    job, attempt_id = await grid.run()
    await grid.store.cancel(job.id, "Cancelled by ann.")
    done = await grid.store.finish_attempt(attempt_id, grid.end(charge=10))
    assert done.job.state is JobState.SUCCEEDED
    await grid.sound()


async def test_a_cancelled_job_whose_worker_is_lost_is_free(grid):
    job, attempt_id = await grid.run()
    await grid.store.cancel(job.id, "Cancelled by ann.")
    done = await grid.store.requeue_attempt(attempt_id, AttemptState.LOST, "silent", fault=True)
    assert (done.state, done.reason) == (JobState.CANCELLED, "Cancelled by ann.")
    assert done == await grid.store.job(job.id)
    assert await grid.balance(grid.ann) == 1000
    await grid.sound()


async def test_a_job_that_starts_while_it_is_being_cancelled_stays_so_and_is_charged(grid):
    job = await grid.submit()
    attempt_id = await grid.assign(job.id)
    await grid.store.cancel(job.id, "Cancelled by ann.")
    started = await grid.store.start_attempt(attempt_id, runtime="default")
    assert started.state is JobState.CANCELLING
    assert (await grid.store.attempt(attempt_id)).state is AttemptState.RUNNING
    await grid.store.finish_attempt(attempt_id, grid.end(AttemptState.CANCELLED, charge=5))
    await grid.sound()


async def test_ones_own_job_on_ones_own_worker_costs_nothing(grid):
    mine = await grid.store.join_worker(grid.ann, "a" * 32, name="mine", version="1")
    job = await grid.submit()
    done = await grid.store.finish_attempt(await grid.assign(job.id, mine.id), grid.end(charge=40))
    assert done.payer_id == done.payee_id == grid.ann
    account = await grid.store.balance(grid.ann)
    assert (account.balance, account.held, account.earned, account.spent) == (1000, 0, 40, 40)
    await grid.sound()


async def test_a_charge_over_the_hold_is_refused_and_changes_nothing(grid):
    job, attempt_id = await grid.run(hold=50)
    for wrong in (grid.end(charge=51), grid.end(charge=10, fee=11)):
        with pytest.raises(ValueError, match="does not fit the"):
            await grid.store.finish_attempt(attempt_id, wrong)
    assert (await grid.store.job(job.id)).state is JobState.RUNNING
    await grid.sound()


async def test_free_jobs_move_nothing(grid):
    _, attempt_id = await grid.run(hold=0)
    await grid.store.finish_attempt(attempt_id, grid.end(charge=0))
    assert [entry.kind for entry in await grid.store.entries(grid.ann, before=None, limit=9)] == ["grant"]
    await grid.sound()
