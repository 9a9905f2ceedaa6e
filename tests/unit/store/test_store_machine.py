"""Any order of submits, placements, ends, losses, cancels, transfers and repeats keeps the books sound."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from gridx.errors import Conflict, InsufficientCredits, TooMany
from gridx.messages import AttemptState, JobState
from gridx.services.coordinator.ledger import Prices, settlement
from gridx.services.coordinator.states import LIVE_JOBS, PAID, RETRIED, UNPAID
from gridx.services.coordinator.store import Store
from gridx.services.coordinator.store.records import End, Idempotency, NewAttempt, NewJob, OutputChunk

PRICES = Prices(1_000_000, 0, 0, fee_ppm=100_000)
GRANT = 1000


class Clock:
    def monotonic(self) -> float:
        return 0.0

    def now(self) -> datetime:
        return datetime(2030, 1, 1, tzinfo=UTC)


def new_job(hold: int, max_attempts: int, retries: int) -> NewJob:
    return NewJob(
        "", "python", "", [], {}, 1000, 64, 0, 60, 0, max_attempts, None, None, PRICES, hold, retries=retries
    )


class Books(RuleBasedStateMachine):
    users = Bundle("users")
    workers = Bundle("workers")
    jobs = Bundle("jobs")
    attempts = Bundle("attempts")
    submissions = Bundle("submissions")
    transfers = Bundle("transfers")
    ends = Bundle("ends")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp())
        self.store = self.do(Store.open(self.folder / "grid.db", clock=Clock()))
        self.granted = 0
        self.names = 0
        self.seen_ends: dict[int, JobState] = {}
        self.used_keys: set[str] = set()

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

    @rule(target=jobs, submission=submissions)
    def submit(self, submission):
        user, jobs, key = submission
        before = self.do(self.store.balance(user))
        price = sum(job.hold for job in jobs)
        try:
            made = self.do(self.store.submit(user, jobs, idempotency=key, max_queued=6))
        except InsufficientCredits as refused:
            assert before.balance < price
            assert refused.details["shortfall"] == price - before.balance
            return multiple()
        except TooMany:
            return multiple()
        after = self.do(self.store.balance(user))
        assert before.balance - after.balance == (0 if made.replayed else price)
        return multiple(*(job.id for job in made.jobs))

    @rule(target=attempts, job=jobs, worker=workers)
    def assign(self, job, worker):
        queued = self.do(self.store.job(job)).state is JobState.QUEUED
        (attempt,) = self.do(self.store.assign([NewAttempt(job, worker, (), "default")]))
        assert (attempt is not None) == queued
        return multiple(attempt.id) if attempt else multiple()

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
        done = self.do(self.store.finish_attempt(attempt, how))
        assert (done is not None) == expected
        if done is not None:
            again = how.attempt_state in RETRIED and before.failures < before.retries
            again = again and before.state is not JobState.CANCELLING
            assert done.job.state is (JobState.QUEUED if again else how.job_state)
            assert done.job.failures == before.failures + again
            assert done.job.charge == before.charge + how.charge

    @rule(attempt=attempts, state=st.sampled_from(sorted(UNPAID)), fault=st.booleans())
    def requeue(self, attempt, state, fault):
        expected = self.is_current(attempt)
        job = self.do(self.store.requeue_attempt(attempt, AttemptState(state), "", fault=fault))
        assert (job is not None) == expected
        if job is not None and job.state is not JobState.CANCELLED:
            assert job.state is (JobState.LOST if job.faults >= job.max_attempts else JobState.QUEUED)

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
        self.store = self.do(Store.open(self.folder / "grid.db", clock=Clock()))

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
        for job in self.do(self.store.job_page(user_id=None, limit=1000)):
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


TestBooks = Books.TestCase
TestBooks.settings = settings(
    max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
