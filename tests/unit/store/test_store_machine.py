"""Any order of submits, placements, ends, losses, cancels, transfers and repeats keeps the books sound.

Jobs come alone and in arrays, with retries, budgets, and others that they wait for.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule
from kit.books import PRICES, StoppedClock, new_job
from msgspec.structs import replace

from gridx.errors import Conflict, InsufficientCredits, InvalidField, NotFound, TooMany
from gridx.messages import AttemptState, Dependency, JobState
from gridx.services.coordinator.ledger import settlement
from gridx.services.coordinator.states import LIVE_JOBS, PAID, RETRIED, UNPAID
from gridx.services.coordinator.store import Store
from gridx.services.coordinator.store.records import (
    Aftermath,
    ArrayRecord,
    End,
    Idempotency,
    NewArray,
    NewAttempt,
    OutputChunk,
)
from gridx.services.coordinator.store.submit import hold_for

GRANT = 1000


class Books(RuleBasedStateMachine):
    users = Bundle("users")
    workers = Bundle("workers")
    jobs = Bundle("jobs")
    arrays = Bundle("arrays")
    attempts = Bundle("attempts")
    submissions = Bundle("submissions")
    transfers = Bundle("transfers")
    ends = Bundle("ends")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp())
        self.store = self.do(Store.open(self.folder / "grid.db", clock=StoppedClock()))
        self.granted = 0
        self.names = 0
        self.seen_ends: dict[int, JobState] = {}
        self.known: set[int] = set()
        self.told: dict[int, ArrayRecord] = {}
        self.listen()
        self.used_keys: set[str] = set()

    def listen(self) -> None:
        """Keep the arrays as the store tells of them."""

        def hear(aftermath: Aftermath) -> None:
            for array in aftermath.arrays.values():
                assert array.changes > self.told[array.id].changes
                self.told[array.id] = array

        self.store.on_aftermath(hear)

    def do(self, work):
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        self.do(self.store.close())
        self.loop.close()
        shutil.rmtree(self.folder)

    @initialize(target=users)
    def begin(self):
        self.granted += GRANT
        return self.do(self.store.create_user("first", "", grant=GRANT)).id

    @rule(target=users)
    def create_user(self):
        self.names += 1
        self.granted += GRANT
        return self.do(self.store.create_user(f"user{self.names}", "", grant=GRANT)).id

    @rule(target=workers, user=users)
    def join(self, user):
        return self.do(self.store.join_worker(user, f"{user:032x}", name="w", version="")).id

    @rule(
        target=submissions,
        user=users,
        holds=st.lists(st.integers(0, 700), min_size=1, max_size=3),
        tries=st.integers(1, 2),
        retries=st.integers(0, 2),
    )
    def prepare(self, user, holds, tries, retries):
        """A request that may be sent any number of times."""
        self.names += 1
        return user, [new_job(hold, tries, retries) for hold in holds], Idempotency(f"key{self.names}", b"")

    @rule(
        target=submissions,
        user=users,
        count=st.integers(1, 4),
        unit=st.integers(0, 300),
        retries=st.integers(0, 2),
        max_fails=st.none() | st.integers(0, 1),
        budget=st.none() | st.integers(0, 700),
    )
    def prepare_array(self, user, count, unit, retries, max_fails, budget):
        self.names += 1
        array = NewArray(range(count), count, max_fails=max_fails, max_credits=budget)
        return user, [new_job(unit, 2, retries, array=array)], Idempotency(f"key{self.names}", b"")

    @rule(
        target=submissions,
        submission=submissions,
        parents=st.lists(st.tuples(jobs | arrays, st.sampled_from(["success", "end"])), max_size=2),
    )
    def prepare_child(self, submission, parents):
        """The like of another submission, that waits for jobs or arrays which may be another user's."""
        self.names += 1
        user, new, _ = submission
        after = [Dependency(job_id=parent, when=when) for parent, when in parents]
        return user, [replace(job, after=after) for job in new], Idempotency(f"key{self.names}", b"")

    @rule(target=jobs, submission=submissions)
    def submit(self, submission):
        user, jobs, key = submission
        before = self.do(self.store.balance(user))
        parents = {one.job_id: one.when for job in jobs for one in job.after}
        owners = {self.do(self.owner(parent)) for parent in parents}
        try:
            price = sum(hold_for(job) for job in jobs)
            made = self.do(self.store.submit(user, jobs, idempotency=key, max_queued=8))
        except InvalidField:
            assert any(job.hold > job.array.max_credits for job in jobs if job.array is not None)
            return multiple()
        except NotFound:
            assert owners - {user}
            return multiple()
        except Conflict:
            states = [self.do(self.state(parent)) for parent in parents]
            assert any(state.ended and state is not JobState.SUCCEEDED for state in states)
            return multiple()
        except InsufficientCredits as refused:
            assert before.balance < price
            assert refused.details["shortfall"] == price - before.balance
            return multiple()
        except TooMany:
            return multiple()
        after = self.do(self.store.balance(user))
        assert before.balance - after.balance == (0 if made.replayed else price)
        found = []
        for job in made.jobs:
            if isinstance(job, ArrayRecord):
                self.told.setdefault(job.id, job)
                found += range(job.id + 1, job.id + 1 + job.count)
            else:
                found.append(job.id)
        self.known |= set(found)
        return multiple(*found)

    async def owner(self, number: int) -> int:
        found = await self.store.job(number) or await self.store.array(number)
        return found.user_id

    async def state(self, number: int) -> JobState:
        found = await self.store.job(number) or await self.store.array(number)
        return found.state

    @rule(target=arrays)
    def look(self):
        return multiple(*self.told)

    @rule(target=attempts, job=jobs, worker=workers)
    def assign(self, job, worker):
        record = self.do(self.store.job(job))
        blocked = {child for child, _ in self.do(self.store.unmet_dependencies())}
        may = record.state is JobState.QUEUED and (record.array_id or job) not in blocked
        if may and record.array_id is not None:
            array = self.do(self.store.array(record.array_id))
            assert not array.stop
            may = array.affords(record.charge)
        (attempt,) = self.do(self.store.assign([NewAttempt(job, worker, (), "default")]))
        assert (attempt is not None) == may
        return multiple(attempt.id) if attempt else multiple()

    @rule(array=arrays)
    def cancel_array(self, array):
        before = self.do(self.store.array(array))
        after = self.do(self.store.cancel_array(array, "enough"))
        assert after.array.queued == 0
        assert after.array.state.ended or after.array.state is JobState.CANCELLING
        if before.state.ended:
            assert after.array == before
        assert set(after.live) <= self.known

    def is_current(self, attempt: int) -> bool:
        record = self.do(self.store.attempt(attempt))
        job = self.do(self.store.job(record.job_id))
        return job.state in LIVE_JOBS and job.current_attempt_id == attempt

    @rule(attempt=attempts)
    def start(self, attempt):
        expected = self.is_current(attempt) and self.do(self.store.attempt(attempt)).started_at is None
        started = self.do(self.store.start_attempt(attempt, runtime="default"))
        assert (started is not None) == expected

    @rule(attempt=attempts, data=st.binary(max_size=20), offset=st.integers(0, 10))
    def output(self, attempt, data, offset):
        self.do(self.store.append_output([OutputChunk(attempt, "stdout", offset, data)]))

    @rule(target=ends, attempt=attempts, state=st.sampled_from(sorted(PAID)), charge=st.integers(0, 1000))
    def prepare_end(self, attempt, state, charge):
        """What a worker reports, now or after whatever happens in between, once or often."""
        job = self.do(self.store.job(self.do(self.store.attempt(attempt)).job_id))
        parts = settlement(job.held, charge, PRICES.fee_ppm)
        return attempt, End(JobState(state.value), state, "", charge=parts.charge, fee=parts.fee)

    @rule(end=ends)
    def finish(self, end):
        attempt, how = end
        expected = self.is_current(attempt)
        before = self.do(self.store.job(self.do(self.store.attempt(attempt)).job_id))
        stopped = before.array_id and self.do(self.store.array(before.array_id)).stop
        done = self.do(self.store.finish_attempt(attempt, how))
        assert (done is not None) == expected
        if done is not None:
            again = how.attempt_state in RETRIED and before.failures < before.retries
            again = again and before.state is not JobState.CANCELLING and not stopped
            # What follows may have cancelled it already: the budget is used up.
            expected = {JobState.QUEUED, JobState.CANCELLED} if again else {how.job_state}
            assert done.job.state in expected
            assert done.job == self.do(self.store.job(done.job.id))
            assert done.job.failures == before.failures + again
            assert done.job.charge == before.charge + how.charge

    @rule(attempt=attempts, state=st.sampled_from(sorted(UNPAID)), fault=st.booleans())
    def requeue(self, attempt, state, fault):
        expected = self.is_current(attempt)
        job = self.do(self.store.requeue_attempt(attempt, AttemptState(state), "", fault=fault))
        assert (job is not None) == expected
        if job is not None and job.state is not JobState.CANCELLED:
            assert job.state is (JobState.LOST if job.faults >= job.max_attempts else JobState.QUEUED)
            assert job == self.do(self.store.job(job.id))

    @rule(job=jobs)
    def cancel(self, job):
        before = self.do(self.store.job(job))
        after = self.do(self.store.cancel(job, "enough"))
        assert (
            after == before
            if before.state.ended
            else after.state in (JobState.CANCELLED, JobState.CANCELLING)
        )

    @rule(target=transfers, one=users, two=users, amount=st.integers(1, 1200))
    def prepare_transfer(self, one, two, amount):
        self.names += 1
        return multiple() if one == two else (one, two, amount, Idempotency(f"key{self.names}", b""))

    @rule(transfer=transfers)
    def transfer(self, transfer):
        one, two, amount, key = transfer
        before = self.do(self.store.balance(one)).balance
        try:
            after = self.do(self.store.transfer(one, two, amount, "", idempotency=key))
        except InsufficientCredits:
            assert before < amount
        else:
            assert before - after.balance in (0, amount)
            self.used_keys.add(key.key)

    @rule(transfer=transfers)
    def transfer_under_a_used_key(self, transfer):
        one, two, amount, key = transfer
        if key.key not in self.used_keys:
            return
        before = self.do(self.store.balances())
        with pytest.raises(Conflict):
            self.do(self.store.transfer(one, two, amount, "", idempotency=Idempotency(key.key, b"other")))
        assert self.do(self.store.balances()) == before

    @rule(user=users, amount=st.integers(1, 50))
    def grant(self, user, amount):
        self.granted += amount
        self.do(self.store.grant(user, amount, ""))

    @rule()
    def restart(self):
        self.do(self.store.close())
        self.store = self.do(Store.open(self.folder / "grid.db", clock=StoppedClock()))
        self.listen()

    @rule(submission=consumes(submissions))
    def forget(self, submission):
        """Submissions end, so that not all of them are repeats."""

    @invariant()
    def sound(self):
        report = self.do(self.store.audit())
        assert report.findings == []
        assert report.in_circulation == self.granted
        assert all(account.balance >= 0 for account in self.do(self.store.balances()))

    @invariant()
    def an_end_is_an_end(self):
        for job in self.do(self.store.jobs_by_id(self.known)):
            if job.id in self.seen_ends:
                assert job.state is self.seen_ends[job.id]
            elif job.state.ended:
                self.seen_ends[job.id] = job.state

    @invariant()
    def what_is_read_agrees(self):
        live = self.do(self.store.live_attempts())
        assert len({job.id for _, job in live}) == len(live)
        waiting = self.do(self.store.waiting_jobs())
        assert all(job.state is JobState.QUEUED and job.current_attempt_id is None for job in waiting)
        for array_id, array in self.told.items():
            assert self.do(self.store.array(array_id)) == array
            elements = self.do(self.store.elements(array, limit=10))
            assert [job.array_index for job in elements] == list(range(array.count))
            fresh = {id_ for id_, _ in self.do(self.store.fresh_elements(array_id))}
            queued = {job.id for job in elements if job.state is JobState.QUEUED}
            assert fresh | {job.id for job in waiting if job.array_id == array_id} == queued

    @invariant()
    def no_array_costs_more_than_its_budget_nor_stands_still(self):
        blocked = {child for child, _ in self.do(self.store.unmet_dependencies())}
        for array in self.told.values():
            assert array.charge + array.held <= array.hold
            assert array.max_credits is None or array.hold <= array.max_credits
            if not array.state.ended and not array.running and array.id not in blocked:
                jobs = self.do(self.store.elements(array, states=[JobState.QUEUED], limit=10))
                assert any(array.affords(job.charge) for job in jobs)


TestBooks = Books.TestCase
TestBooks.settings = settings(
    max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
