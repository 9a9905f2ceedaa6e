"""A job from submit to receipt, and what a worker may say about it."""

from __future__ import annotations

import pytest

from gridx.errors import Conflict, Forbidden, InsufficientCredits, InvalidField, NotFound, TooLarge, TooMany
from gridx.messages import (
    MICROCREDITS,
    Ack,
    Assign,
    AttemptState,
    Cancel,
    JobState,
    Offering,
    Refused,
    Released,
    Renewed,
    Sample,
)
from gridx.services.coordinator.store.records import Idempotency


async def test_a_job_runs_and_is_paid_for_the_time_that_was_measured(engine, ann, bob):
    worker = await engine.worker(bob)
    job = await engine.submit(ann, timeout_s=3600, memory_mb=1024)
    assert job.state is JobState.QUEUED
    assert job.hold == 1_100_000

    [attempt] = await engine.assigned(worker)
    assert (attempt.job_id, attempt.owner, attempt.code) == (job.id, "ann", "print(1)")
    worker.start(attempt.attempt_id)
    await engine.state(ann, job.id, JobState.RUNNING)
    worker.write(attempt.attempt_id, 0, b"1\n")
    engine.clock.seconds += 36
    worker.finish(attempt.attempt_id, exit_code=0, stdout_bytes=2, peak_memory_bytes=5)

    done = await engine.state(ann, job.id, JobState.SUCCEEDED)
    assert (done.exit_code, done.peak_memory_bytes, done.stdout_bytes) == (0, 5, 2)
    assert done.charge == 11_000
    receipt = await engine.jobs.receipt(ann, job.id)
    assert (receipt.hold, receipt.charge, receipt.released) == (1_100_000, 11_000, 1_089_000)
    [paid] = receipt.attempts
    assert (paid.charged_ms, paid.charge, paid.worker_owner) == (36_000, 11_000, "bob")
    assert sum(line.amount for line in paid.lines) == 11_000
    assert (await engine.store.balance(bob.id)).balance == 1000 * MICROCREDITS + 11_000
    await engine.until(lambda: worker.all(Ack), "the acknowledgement")
    assert worker.all(Ack)[0].attempt_ids == [attempt.attempt_id]
    assert engine.fleet.worker(worker.id).earned == 11_000
    assert engine.hub.states(job.id) == [
        JobState.QUEUED,
        JobState.ASSIGNED,
        JobState.RUNNING,
        JobState.SUCCEEDED,
    ]
    assert {ann.id, bob.id} <= set(engine.hub.credits)


async def test_the_charge_is_the_smallest_of_three(engine, ann, bob):
    worker = await engine.worker(bob)
    cases = [(5.0, 3_000, 3_000), (5.0, 9_000, 5_000), (50.0, 90_000, 10_000)]
    for passed_s, wall_ms, charged_ms in cases:
        job = await engine.submit(ann, timeout_s=10)
        attempt = (await engine.assigned(worker, len(worker.assignments) + 1))[-1]
        worker.start(attempt.attempt_id)
        await engine.state(ann, job.id, JobState.RUNNING)
        engine.clock.seconds += passed_s
        worker.finish(attempt.attempt_id, "failed", exit_code=1, wall_ms=wall_ms)
        await engine.state(ann, job.id, JobState.FAILED)
        assert (await engine.jobs.receipt(ann, job.id)).attempts[0].charged_ms == charged_ms


async def test_a_run_of_which_a_broken_line_told_only_at_its_end_is_paid(engine, ann, bob):
    worker = await engine.worker(bob)
    job = await engine.submit(ann, timeout_s=60)
    [attempt] = await engine.assigned(worker)
    engine.clock.seconds += 30
    worker.start(attempt.attempt_id)
    worker.finish(attempt.attempt_id, wall_ms=20_000)
    await engine.state(ann, job.id, JobState.SUCCEEDED)
    assert (await engine.jobs.receipt(ann, job.id)).attempts[0].charged_ms == 20_000


async def test_everything_about_an_attempt_may_come_in_one_message(engine, ann, make_spec):
    worker = await engine.worker(ann)
    job = await engine.submit(ann)
    [attempt] = await engine.assigned(worker)
    worker.start(attempt.attempt_id)
    worker.write(attempt.attempt_id, 0, b"ab")
    worker.write(attempt.attempt_id, 0, b"e", "stderr")
    worker.write(attempt.attempt_id, 2, b"c")
    worker.finish(attempt.attempt_id, stdout_bytes=3, stderr_bytes=1)
    done = await engine.state(ann, job.id, JobState.SUCCEEDED)
    assert (done.stdout_bytes, done.stderr_bytes) == (3, 1)
    part = await engine.jobs.output(ann, job.id, attempt=None, stream="stdout", offset=1, limit=100)
    assert (part.data, part.attempt, part.next_offset, part.attempt_over, part.job_ended) == (
        b"bc",
        1,
        3,
        True,
        True,
    )


async def test_output_is_stored_once_however_often_it_is_sent_and_never_past_the_cap(make_engine):
    engine = await make_engine(coordinator={"output_cap_bytes": 1024})
    ann = await engine.user("ann")
    worker = await engine.worker(ann)
    job = await engine.submit(ann)
    [attempt] = await engine.assigned(worker)
    id = attempt.attempt_id
    assert attempt.output_cap_bytes == 1024
    worker.start(id)
    worker.write(id, 0, b"abc")
    worker.write(id, 0, b"abcdef")
    worker.write(id, 2, b"cdefgh")
    worker.write(id, 100, b"a gap")
    worker.write(id, 8, b"x" * 200_000)

    async def whole() -> bytes | None:
        part = await engine.jobs.output(ann, job.id, attempt=1, stream="stdout", offset=0, limit=1 << 20)
        return part.data if len(part.data) > 1024 else None

    data = await engine.until(whole, "the output to be stored")
    assert data.startswith(b"abcdefghxxxx")
    assert len(data) == 1024 + 4096

    async def told() -> bool:
        return b"".join(data for *_, data in engine.hub.output) == data

    await engine.until(told, "all of it, and nothing twice, to be told")
    worker.finish(id, stdout_bytes=200_008)
    await engine.state(ann, job.id, JobState.SUCCEEDED)


async def test_an_end_whose_output_is_missing_is_not_taken_before_it_came(engine, ann):
    worker = await engine.worker(ann)
    job = await engine.submit(ann)
    [attempt] = await engine.assigned(worker)
    worker.start(attempt.attempt_id)
    worker.write(attempt.attempt_id, 0, b"abc")
    worker.finish(attempt.attempt_id, stdout_bytes=6)
    await engine.until(lambda: worker.hung_up, "the connection to be closed")
    worker.leave()

    back = worker.again()
    [resume] = back.hello(spooled=[attempt.attempt_id]).resume
    assert resume.current
    assert resume.offsets.stdout == 3
    back.write(attempt.attempt_id, 3, b"def")
    back.finish(attempt.attempt_id, stdout_bytes=6)
    done = await engine.state(ann, job.id, JobState.SUCCEEDED)
    assert done.stdout_bytes == 6


async def test_an_end_whose_output_never_comes_is_taken_in_the_end(engine, ann):
    worker = await engine.worker(ann)
    job = await engine.submit(ann)
    [attempt] = await engine.assigned(worker)
    worker.start(attempt.attempt_id)
    for _ in range(4):
        worker.finish(attempt.attempt_id, stdout_bytes=6)
    await engine.state(ann, job.id, JobState.SUCCEEDED)


async def test_a_broken_attempt_is_unpaid_and_tried_on_another_machine(engine, ann, bob):
    one = await engine.worker(bob, "one", cpus=1)
    job = await engine.submit(ann)
    [first] = await engine.assigned(one)
    two = await engine.worker(bob, "two", cpus=8)
    one.start(first.attempt_id)
    one.finish(first.attempt_id, "broken", reason="the engine hung")

    [second] = await engine.assigned(two)
    assert second.number == 2
    assert "the engine hung" in engine.fleet.worker(one.id).state_reason
    two.start(second.attempt_id)
    two.finish(second.attempt_id)
    done = await engine.state(ann, job.id, JobState.SUCCEEDED)
    assert [attempt.state for attempt in done.attempts] == [AttemptState.BROKEN, AttemptState.SUCCEEDED]
    receipt = await engine.jobs.receipt(ann, job.id)
    assert receipt.attempts[0].charge == receipt.attempts[0].charged_ms == 0


async def test_a_job_that_breaks_every_machine_is_lost_with_the_reason(engine, ann):
    worker = await engine.worker(ann)
    job = await engine.submit(ann, max_attempts=2)
    for number in (1, 2):
        attempt = (await engine.assigned(worker, number))[-1]
        worker.start(attempt.attempt_id)
        worker.finish(attempt.attempt_id, "broken", reason="it\x1b[2J hangs")
        await engine.until(lambda number=number: len(worker.all(Ack)) == number, "the acknowledgement")
        await engine.pass_time(10)
        worker.sample()
    done = await engine.state(ann, job.id, JobState.LOST)
    assert "it hangs" in done.reason
    assert done.charge == 0
    assert (await engine.store.balance(ann.id)).held == 0


async def test_refused_and_given_back_are_no_faults_and_the_worker_is_not_asked_again_at_once(engine, ann):
    worker = await engine.worker(ann)
    job = await engine.submit(ann, max_attempts=1)
    [first] = await engine.assigned(worker)
    worker.say(Refused(attempt_id=first.attempt_id, reason="the disk is full"))
    waiting = await engine.state(ann, job.id, JobState.QUEUED)
    assert waiting.reason == "the only worker that could run it refused it just now; it will be offered again"
    await engine.pass_time(31)
    worker.sample()
    second = (await engine.assigned(worker, 2))[-1]
    worker.start(second.attempt_id)
    worker.say(Released(attempt_id=second.attempt_id, reason="drains"))
    waiting = await engine.state(ann, job.id, JobState.QUEUED)
    assert [attempt.state for attempt in waiting.attempts] == [AttemptState.REFUSED, AttemptState.RELEASED]
    await engine.pass_time(11)
    third = (await engine.assigned(worker, 3))[-1]
    worker.start(third.attempt_id)
    worker.finish(third.attempt_id)
    await engine.state(ann, job.id, JobState.SUCCEEDED)


async def test_finished_twice_is_paid_once_and_acknowledged_each_time(engine, ann, bob):
    worker = await engine.worker(bob)
    job = await engine.submit(ann)
    [attempt] = await engine.assigned(worker)
    worker.start(attempt.attempt_id)
    engine.clock.seconds += 10
    worker.finish(attempt.attempt_id)
    worker.finish(attempt.attempt_id)
    await engine.state(ann, job.id, JobState.SUCCEEDED)
    await engine.until(lambda: len(worker.all(Ack)) == 2, "both acknowledgements")
    earned = (await engine.store.balance(bob.id)).earned
    engine.clock.seconds += 86400
    worker.finish(attempt.attempt_id, "failed")
    await engine.until(lambda: len(worker.all(Ack)) == 3, "the third acknowledgement")
    assert (await engine.store.balance(bob.id)).earned == earned
    assert (await engine.jobs.job(ann, job.id)).state is JobState.SUCCEEDED


async def test_a_worker_speaks_only_about_its_own_attempts(engine, ann, bob):
    honest = await engine.worker(ann, "honest")
    job = await engine.submit(ann)
    [attempt] = await engine.assigned(honest)
    thief = await engine.worker(bob, "thief")
    thief.start(attempt.attempt_id)
    thief.write(attempt.attempt_id, 0, b"forged")
    thief.finish(attempt.attempt_id)
    thief.say(Released(attempt_id=attempt.attempt_id, reason="mine now"))
    thief.sample(attempt.attempt_id, 4711)
    thief.finish(4711)
    assert thief.all(Cancel)[-1].attempt_ids == [attempt.attempt_id, 4711]
    assert len(thief.all(Ack)) == 3
    assert (await engine.jobs.job(ann, job.id)).state is JobState.ASSIGNED

    honest.start(attempt.attempt_id)
    honest.finish(attempt.attempt_id)
    done = await engine.state(ann, job.id, JobState.SUCCEEDED)
    assert done.stdout_bytes == 0


async def test_a_sample_is_answered_with_its_number(engine, ann):
    worker = await engine.worker(ann)
    worker.sample()
    worker.sample(state="unready", state_reason="the engine is away")
    assert [frame.seq for frame in worker.all(Renewed)] == [1, 2]
    assert engine.fleet.worker(worker.id).state == "unready"
    assert engine.fleet.worker(worker.id).state_reason == "the engine is away"
    job = await engine.submit(ann)
    assert job.reason == "the only worker that could run it takes nothing now (unready: the engine is away)"


async def test_of_what_a_message_says_of_the_worker_itself_the_last_word_counts(
    engine, ann, make_offer, make_readings
):
    worker = await engine.worker(ann)
    engine.hub.workers.clear()
    readings = make_readings()
    states = ("paused", "online") * 100
    worker.say(
        Sample(seq=1, attempts=[], sample=readings),
        *(Sample(seq=n, attempts=[], state=state) for n, state in enumerate(states, 2)),
        *(Offering(offer=make_offer(cpus=n)) for n in range(1, 50)),
        Sample(seq=300, attempts=[], state="paused"),
    )
    assert len(engine.hub.workers) <= 2
    shown = engine.fleet.worker(worker.id)
    assert (shown.state, shown.sample, shown.offer.cpu_millis) == ("paused", readings, 49_000)
    assert [frame.seq for frame in worker.all(Renewed)] == [*range(1, 202), 300]


async def test_a_hundred_jobs_go_out_in_few_frames_and_never_over_capacity(engine, ann, make_spec):
    workers = [await engine.worker(ann, f"box{n}", cpus=4) for n in range(3)]
    jobs, _ = await engine.jobs.submit(ann, [make_spec(cpus=0.5)] * 100, None)
    done: set[int] = set()
    while len(done) < 100:
        await engine.until(
            lambda: sum(len(worker.assignments) for worker in workers) > len(done), "more to be assigned"
        )
        for worker in workers:
            fresh = [one.attempt_id for one in worker.assignments if one.attempt_id not in done]
            assert len(fresh) <= 8
            for id in fresh:
                worker.start(id)
                worker.finish(id)
                done.add(id)
    for job in jobs:
        await engine.state(ann, job.id, JobState.SUCCEEDED)
    assert max(len(frame.attempts) for worker in workers for frame in worker.all(Assign)) == 8


# -- submitting ------------------------------------------------------------------------------------------


async def test_what_is_refused_says_what_and_changes_nothing(make_engine, make_spec):
    engine = await make_engine(coordinator={"max_queued_per_user": 2})
    ann = await engine.user("ann", credits=1)
    with pytest.raises(InvalidField, match=r"language.*python"):
        await engine.submit(ann, language="cobol")
    with pytest.raises(Forbidden, match="user_id"):
        await engine.submit(ann, user_id="bob")
    with pytest.raises(TooLarge, match="code"):
        await engine.submit(ann, code="é" * (1 << 20))
    with pytest.raises(InsufficientCredits) as refusal:
        await engine.submit(ann, cpus=100, timeout_s=36000)
    assert refusal.value.details["shortfall"] > 0
    with pytest.raises(TooMany):
        await engine.jobs.submit(ann, [make_spec()] * 3, None)
    assert (await engine.jobs.page(ann)).jobs == []
    assert engine.hub.jobs == []

    await engine.submit(ann, user_id="ann")
    await engine.submit(ann, user_id=ann.id)
    with pytest.raises(TooMany):
        await engine.submit(ann)


async def test_a_repeated_submit_makes_one_job(engine, ann, make_spec):
    key = Idempotency("key", b"digest")
    first, replayed = await engine.jobs.submit(ann, [make_spec(), make_spec()], key)
    assert not replayed
    again, replayed = await engine.jobs.submit(ann, [make_spec(), make_spec()], key)
    assert replayed
    assert [job.id for job in again] == [job.id for job in first]
    with pytest.raises(Conflict):
        await engine.jobs.submit(ann, [make_spec()], Idempotency("key", b"other"))
    assert len((await engine.jobs.page(ann)).jobs) == 2


async def test_a_language_is_known_once_a_worker_offers_it(engine, ann):
    worker = await engine.worker(ann, languages=["python", "ruby"])
    job = await engine.submit(ann, language="ruby", code="puts 1")
    [attempt] = await engine.assigned(worker)
    assert (attempt.job_id, attempt.language) == (job.id, "ruby")


async def test_a_quote_says_price_balance_and_why_it_would_wait(engine, ann, make_spec):
    spec = make_spec(cpus=8, timeout_s=3600, memory_mb=1024)
    quote = await engine.jobs.quote(ann, spec)
    assert (quote.per_hour, quote.hold, quote.shortfall) == (8_100_000, 8_100_000, 0)
    assert quote.balance == 1000 * MICROCREDITS
    assert quote.waits_because == "no worker is connected"
    worker = await engine.worker(ann, cpus=4)
    assert (await engine.jobs.quote(ann, spec)).waits_because == "needs 8 cores; the largest worker has 4"
    assert (await engine.jobs.quote(ann, make_spec())).waits_because == ""
    worker.sample(state="draining", state_reason="stops")
    assert "draining" in (await engine.jobs.quote(ann, make_spec())).waits_because


async def test_a_waiting_job_has_a_reason_and_a_place(engine, ann, bob):
    first = await engine.submit(ann)
    second = await engine.submit(ann)
    urgent = await engine.submit(ann, priority=5)
    assert (await engine.jobs.job(ann, first.id)).reason == "no worker is connected"
    assert (await engine.jobs.job(ann, urgent.id)).queue_position == 1
    assert (await engine.jobs.job(ann, second.id)).queue_position == 3

    worker = await engine.worker(bob, cpus=1)
    [attempt] = await engine.assigned(worker)
    assert attempt.job_id == urgent.id
    large = await engine.submit(ann, cpus=8)
    gpu = await engine.submit(ann, gpus=1)
    snake = await engine.submit(ann, python="3.13")
    page = {job.id: job.reason for job in (await engine.jobs.page(ann)).jobs}
    assert page[first.id] == "the only worker that could run it is busy"
    assert page[second.id] == "waits its turn: 1 job is ahead"
    assert page[large.id] == "needs 8 cores; the largest worker has 1"
    assert page[gpu.id] == "needs a GPU; no worker has one"
    assert page[snake.id] == "needs Python 3.13; the fleet offers 3.11"
    assert page[urgent.id] == ""


# -- seeing ----------------------------------------------------------------------------------------------


async def test_another_users_job_is_as_if_it_were_not_there(engine, ann, bob):
    job = await engine.submit(ann)
    admin = await engine.user("root", role="admin")
    asks = [
        lambda user: engine.jobs.job(user, job.id),
        lambda user: engine.jobs.cancel(user, job.id),
        lambda user: engine.jobs.receipt(user, job.id),
        lambda user: engine.jobs.output(user, job.id, attempt=None, stream="stdout", offset=0, limit=1),
    ]
    for ask in asks:
        with pytest.raises(NotFound):
            await ask(bob)
    with pytest.raises(NotFound):
        await engine.jobs.retry(bob, job.id, None)
    with pytest.raises(Forbidden):
        await engine.jobs.page(bob, owner="ann")
    assert (await engine.jobs.page(bob)).jobs == []
    assert (await engine.jobs.job(admin, job.id)).owner == "ann"
    assert [one.id for one in (await engine.jobs.page(admin)).jobs] == [job.id]
    assert (await engine.jobs.page(admin, owner="bob")).jobs == []
    with pytest.raises(NotFound):
        await engine.jobs.page(admin, owner="nobody")


async def test_a_job_comes_back_with_what_was_submitted(engine, ann):
    job = await engine.submit(ann, code="import sys", args=["a b"], env={"X": "1"}, cpus=0.25, name="n")
    shown = await engine.jobs.job(ann, job.id)
    assert (shown.spec.code, shown.spec.args, shown.spec.env) == ("import sys", ["a b"], {"X": "1"})
    assert (shown.cpus, shown.spec.cpus, shown.name, shown.attempts) == (0.25, 0.25, "n", [])


async def test_pages_follow_each_other(engine, ann, make_spec):
    jobs, _ = await engine.jobs.submit(ann, [make_spec()] * 5, None)
    first = await engine.jobs.page(ann, limit=3)
    second = await engine.jobs.page(ann, limit=3, before=first.next)
    assert [job.id for job in (*first.jobs, *second.jobs)] == [job.id for job in reversed(jobs)]
    assert second.next is None
    whole = await engine.jobs.page(ann, limit=5)
    assert (len(whole.jobs), whole.next) == (5, None)


async def test_an_ended_job_can_be_submitted_once_more(engine, ann):
    worker = await engine.worker(ann)
    job = await engine.submit(ann, code="print(2)", args=["x"])
    with pytest.raises(Conflict, match="cancel"):
        await engine.jobs.retry(ann, job.id, None)
    [attempt] = await engine.assigned(worker)
    worker.start(attempt.attempt_id)
    worker.finish(attempt.attempt_id, "failed", exit_code=3)
    await engine.state(ann, job.id, JobState.FAILED)

    again, replayed = await engine.jobs.retry(ann, job.id, Idempotency("k", b"d"))
    assert (again.retry_of, replayed) == (job.id, False)
    same, replayed = await engine.jobs.retry(ann, job.id, Idempotency("k", b"d"))
    assert (same.id, replayed) == (again.id, True)
    attempt = (await engine.assigned(worker, 2))[-1]
    assert (attempt.job_id, attempt.code, attempt.args) == (again.id, "print(2)", ["x"])


async def test_who_cancelled_a_job_is_told_and_not_left_to_the_worker(engine, ann):
    root = await engine.user("root", role="admin")
    worker = await engine.worker(ann)
    job = await engine.submit(ann)
    [attempt] = await engine.assigned(worker)
    worker.start(attempt.attempt_id)
    await engine.state(ann, job.id, JobState.RUNNING)
    waiting = await engine.submit(ann, cpus=64)
    assert (await engine.jobs.cancel(root, waiting.id)).reason == "cancelled by root"
    assert (await engine.jobs.cancel(root, job.id)).reason == "cancelled by root"
    worker.finish(attempt.attempt_id, "cancelled", reason="cancelled by its owner")
    done = await engine.state(ann, job.id, JobState.CANCELLED)
    assert done.reason == "cancelled by root"


async def test_output_of_an_attempt_that_has_not_begun_is_empty_and_goes_on(engine, ann):
    job = await engine.submit(ann)
    part = await engine.jobs.output(ann, job.id, attempt=None, stream="stdout", offset=0, limit=10)
    assert (part.data, part.attempt, part.attempt_over, part.job_ended) == (b"", 0, False, False)
    await engine.jobs.cancel(ann, job.id)
    part = await engine.jobs.output(ann, job.id, attempt=None, stream="stdout", offset=0, limit=10)
    assert part.job_ended
    with pytest.raises(NotFound):
        await engine.jobs.output(ann, job.id, attempt=1, stream="stdout", offset=0, limit=10)
