"""Any order of events on arrays: counts are right, budgets hold, who waits for another is let go or ended.

Events are drawn for jobs and attempts as they are at that moment, so that most of them change something; old
attempts are named now and then as well.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from kit.books import PRICES, StoppedClock, new_job

from gridx.errors import Conflict, InsufficientCredits, InvalidField
from gridx.messages import AttemptState, Dependency, JobState
from gridx.services.coordinator.ledger import settlement
from gridx.services.coordinator.states import LIVE_JOBS, RETRIED, UNPAID
from gridx.services.coordinator.store import Store
from gridx.services.coordinator.store.records import (
    Aftermath,
    ArrayRecord,
    Begin,
    End,
    NewArray,
    NewAttempt,
)

GRANT = 5000
PICK = st.integers(0, 1000)
OUTCOMES = st.sampled_from(
    [AttemptState.SUCCEEDED, AttemptState.FAILED, AttemptState.FAILED, *sorted(RETRIED)]
)


def counts(array: ArrayRecord) -> tuple[int, ...]:
    return array.queued, array.running, array.succeeded, array.failed, array.cancelled


class ArrayBooks(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp())
        self.arrays: dict[int, ArrayRecord] = {}
        self.singles: set[int] = set()
        self.attempts: list[int] = []
        self.after: dict[int, list[Dependency]] = {}
        self.heard: list[Aftermath] = []
        self.open()

    def open(self) -> None:
        self.store = self.do(Store.open(self.folder / "grid.db", clock=StoppedClock()))
        self.store.on_aftermath(self.hear)

    def hear(self, aftermath: Aftermath) -> None:
        self.heard.append(aftermath)
        for array in aftermath.arrays.values():
            assert array.changes > self.arrays[array.id].changes
            self.arrays[array.id] = array

    def do(self, work):
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        self.do(self.store.close())
        self.loop.close()
        shutil.rmtree(self.folder)

    def all_jobs(self):
        found = self.do(self.store.jobs_by_id(self.singles))
        for array in self.arrays.values():
            found += self.do(self.store.elements(array, limit=100))
        return found

    def pick(self, number: int, *states: JobState):
        found = [job for job in self.all_jobs() if job.state in states]
        return found[number % len(found)] if found else None

    # -- what users do -----------------------------------------------------------------------------------

    @initialize()
    def begin(self):
        self.ann = self.do(self.store.create_user("ann", "", grant=GRANT)).id
        self.bob = self.do(self.store.create_user("bob", "")).id
        self.workers = [
            self.do(self.store.join_worker(owner, f"{owner:032x}", name="w", version="")).id
            for owner in (self.ann, self.bob)
        ]

    @rule(
        count=st.integers(1, 5),
        unit=st.integers(1, 300),
        retries=st.integers(0, 2),
        max_fails=st.none() | st.integers(0, 2),
        budget=st.none() | st.integers(100, 700),
        after=st.lists(st.tuples(PICK, st.sampled_from(["success", "end"])), max_size=2),
        alone=st.booleans(),
    )
    def submit(self, count, unit, retries, max_fails, budget, after, alone):
        numbers = sorted([*self.singles, *self.arrays, *(id_ + 1 for id_ in self.arrays)])
        wanted = [
            Dependency(job_id=numbers[pick % len(numbers)], when=when) for pick, when in after if numbers
        ]
        array = None if alone else NewArray(range(count), count, max_fails=max_fails, max_credits=budget)
        new = new_job(unit, 2, retries, array=array, after=wanted)
        before = self.do(self.store.balance(self.ann)).balance
        try:
            (made,) = self.do(self.store.submit(self.ann, [new], max_queued=1000)).jobs
        except (InvalidField, Conflict, InsufficientCredits):
            assert self.do(self.store.balance(self.ann)).balance == before
            return
        self.after[made.id] = wanted
        if isinstance(made, ArrayRecord):
            self.arrays[made.id] = made
            assert made == self.do(self.store.array(made.id))
        else:
            self.singles.add(made.id)
        assert self.do(self.store.balance(self.ann)).balance == before - made.hold

    @rule(number=PICK)
    def cancel(self, number):
        job = self.pick(number, *JobState)
        if job is None or number % 3:
            return
        after = self.do(self.store.cancel(job.id, "enough"))
        assert (after == job) if job.state.ended else after.state in {JobState.CANCELLED, JobState.CANCELLING}

    @rule(number=PICK)
    def cancel_array(self, number):
        if not self.arrays or number % 5:
            return
        before = list(self.arrays.values())[number % len(self.arrays)]
        live = [job.id for job in self.do(self.store.elements(before, states=LIVE_JOBS, limit=100))]
        after = self.do(self.store.cancel_array(before.id, "enough"))
        assert after.array == self.arrays[before.id]
        assert after.array.queued == 0
        assert set(after.live) <= set(live)
        assert before.running == after.array.running == len(live)

    # -- what becomes of them ----------------------------------------------------------------------------

    @rule(numbers=st.lists(PICK, min_size=1, max_size=6), worker=st.integers(0, 1))
    def assign(self, numbers, worker):
        """Any of those that wait, some of them twice, whether they may start or not."""
        jobs = [job for job in (self.pick(number, JobState.QUEUED) for number in numbers) if job]
        self.heard.clear()
        placed = self.do(
            self.store.assign([NewAttempt(job.id, self.workers[worker], (), "default") for job in jobs])
        )
        begun = [job.id for job, attempt in zip(jobs, placed, strict=True) if attempt is not None]
        assert len(set(begun)) == len(begun)
        blocked = {child for child, _ in self.do(self.store.unmet_dependencies())}
        assert not blocked & {job.array_id or job.id for job in jobs if job.id in begun}
        uncovered = {id_ for aftermath in self.heard for id_ in aftermath.uncovered}
        refused = {job.id for job in jobs if (job.array_id or job.id) not in blocked} - set(begun)
        assert refused == uncovered - set(begun)
        self.attempts += [attempt.id for attempt in placed if attempt is not None]

    @precondition(lambda self: self.attempts)
    @rule(
        numbers=st.lists(
            st.tuples(PICK, OUTCOMES, st.integers(0, 400), st.booleans()), min_size=1, max_size=4
        )
    )
    def finish(self, numbers):
        """Several at once are one transaction; one of them may be named twice, or be over long since."""
        ends = []
        for number, outcome, charge, begun in numbers:
            attempt_id = self.attempts[-1 - number % min(len(self.attempts), 8)]
            attempt = self.do(self.store.attempt(attempt_id))
            job = self.do(self.store.job(attempt.job_id))
            parts = settlement(job.held, charge, PRICES.fee_ppm)
            end = End(JobState(outcome.value), outcome, charge=parts.charge, fee=parts.fee)
            ends.append((attempt_id, end, Begin("default") if begun else None))

        async def all_at_once():
            return await asyncio.gather(
                *(self.store.finish_attempt(id_, end, begin=begin) for id_, end, begin in ends)
            )

        done = [one for one in self.do(all_at_once()) if one is not None]
        assert len({one.job.id for one in done}) == len(done)
        for one in done:
            assert one.job.charge <= one.job.hold
            assert one.job == self.do(self.store.job(one.job.id))

    @precondition(lambda self: self.arrays or self.singles)
    @rule(runs=st.lists(st.tuples(PICK, OUTCOMES, st.integers(0, 400)), min_size=1, max_size=6))
    def run(self, runs):
        """From waiting to an end, one after the other."""
        for number, outcome, charge in runs:
            if (job := self.pick(number, JobState.QUEUED)) is None:
                return
            (attempt,) = self.do(
                self.store.assign([NewAttempt(job.id, self.workers[number % 2], (), "default")])
            )
            if attempt is not None:
                self.attempts.append(attempt.id)
                parts = settlement(job.held, charge, PRICES.fee_ppm)
                end = End(JobState(outcome.value), outcome, charge=parts.charge, fee=parts.fee)
                assert self.do(self.store.finish_attempt(attempt.id, end)) is not None

    @precondition(lambda self: self.attempts)
    @rule(number=PICK, state=st.sampled_from(sorted(UNPAID)), fault=st.booleans())
    def requeue(self, number, state, fault):
        attempt_id = self.attempts[-1 - number % min(len(self.attempts), 8)]
        job = self.do(self.store.requeue_attempt(attempt_id, AttemptState(state), "", fault=fault))
        assert job is None or job == self.do(self.store.job(job.id))

    @rule()
    def restart(self):
        self.do(self.store.close())
        self.open()

    # -- what is always so -------------------------------------------------------------------------------

    @invariant()
    def the_books_are_right(self):
        report = self.do(self.store.audit())
        assert report.findings == []
        if hasattr(self, "ann"):
            assert report.in_circulation == GRANT

    @invariant()
    def counts_are_right_and_no_budget_is_exceeded(self):
        for array in self.arrays.values():
            assert self.do(self.store.array(array.id)) == array
            elements = self.do(self.store.elements(array, limit=100))
            states = Counter(job.state for job in elements)
            assert array.queued == states[JobState.QUEUED]
            assert array.running == sum(states[state] for state in LIVE_JOBS)
            assert array.succeeded == states[JobState.SUCCEEDED]
            assert array.cancelled == states[JobState.CANCELLED]
            assert (
                array.queued + array.running + array.succeeded + array.failed + array.cancelled == array.count
            )
            assert array.charge == sum(job.charge for job in elements)
            assert array.charge + array.held <= array.hold
            assert array.max_credits is None or array.hold <= array.max_credits
            # Even if everything that runs now runs to its timeout.
            assert array.held >= sum(job.held for job in elements if job.state in LIVE_JOBS)
            if array.max_fails is not None and array.failed > array.max_fails:
                assert array.queued == 0

    @invariant()
    def nothing_waits_for_ever(self):
        blocked = {child for child, _ in self.do(self.store.unmet_dependencies())}
        states = {job.id: job.state for job in self.all_jobs()}
        states |= {array.id: array.state for array in self.arrays.values()}
        for child, after in self.after.items():
            waits = [one for one in after if not states[one.job_id].ended]
            spoilt = [
                one
                for one in after
                if one.when == "success"
                and states[one.job_id].ended
                and states[one.job_id] is not JobState.SUCCEEDED
            ]
            if spoilt:
                assert states[child].ended
            elif not states[child].ended:
                assert (child in blocked) == bool(waits)
        for array in self.arrays.values():
            if not array.state.ended and not array.running and array.id not in blocked:
                jobs = self.do(self.store.elements(array, states=[JobState.QUEUED], limit=100))
                assert any(array.affords(job.charge) for job in jobs)


TestArrayBooks = ArrayBooks.TestCase
TestArrayBooks.settings = settings(
    max_examples=15, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
