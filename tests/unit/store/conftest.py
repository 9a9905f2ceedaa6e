"""A real database file for each test, and what is put into it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gridx.messages import AttemptState, JobState
from gridx.services.coordinator.ledger import Prices
from gridx.services.coordinator.store import Store
from gridx.services.coordinator.store.records import End, JobRecord, NewAttempt, NewJob, WorkerRecord


class FakeClock:
    """Stands still until it is turned; each reading of the day is a millisecond later than the last."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.day = datetime(2030, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        self.day += timedelta(milliseconds=1)
        return self.day

    def turn(self, by: timedelta) -> None:
        self.seconds += by.total_seconds()
        self.day += by


class Grid:
    """A store with two users, ann who pays and bob who has a worker."""

    def __init__(self, store: Store, clock: FakeClock) -> None:
        self.store = store
        self.clock = clock

    async def begin(self) -> None:
        self.ann = (await self.store.create_user("ann", "hash", grant=1000)).id
        self.bob = (await self.store.create_user("bob", "hash", grant=0)).id
        self.worker: WorkerRecord = await self.store.join_worker(
            self.bob, "b" * 32, name="bob's box", version="1"
        )

    @staticmethod
    def new_job(**changes: object) -> NewJob:
        values: dict[str, object] = {
            "code": "print('hello')",
            "language": "python",
            "name": "hello",
            "args": [],
            "env": {},
            "cpu_millis": 1000,
            "memory_mb": 512,
            "gpus": 0,
            "timeout_s": 300,
            "priority": 0,
            "max_attempts": 3,
            "runtime": None,
            "python": None,
            "prices": Prices(1_000_000, 100_000, 10_000_000, 0),
            "hold": 100,
        }
        return NewJob(**{**values, **changes})  # type: ignore[arg-type]

    async def submit(self, user: int | None = None, **changes: object) -> JobRecord:
        made = await self.store.submit(
            self.ann if user is None else user, [self.new_job(**changes)], max_queued=1000
        )
        return made.jobs[0]

    async def assign(self, job_id: int, worker_id: int | None = None) -> int:
        placement = NewAttempt(job_id, worker_id or self.worker.id, (), "default")
        (attempt,) = await self.store.assign([placement])
        assert attempt is not None
        return attempt.id

    async def run(self, **changes: object) -> tuple[JobRecord, int]:
        """A job that runs, and its attempt's id."""
        job = await self.submit(**changes)
        attempt_id = await self.assign(job.id)
        running = await self.store.start_attempt(attempt_id, runtime="default")
        assert running is not None
        return running, attempt_id

    @staticmethod
    def end(
        state: AttemptState = AttemptState.SUCCEEDED, charge: int = 40, fee: int = 0, reason: str = ""
    ) -> End:
        return End(JobState(state.value), state, reason, charged_ms=charge, charge=charge, fee=fee)

    async def balance(self, user: int) -> int:
        return (await self.store.balance(user)).balance

    async def sound(self) -> None:
        """The audit has nothing to say."""
        report = await self.store.audit()
        assert report.findings == []
        assert report.ok


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "grid.db"


@pytest.fixture
async def store(path: Path, clock: FakeClock) -> AsyncIterator[Store]:
    opened = await Store.open(path, clock=clock)
    yield opened
    await opened.close()


@pytest.fixture
async def grid(store: Store, clock: FakeClock) -> Grid:
    made = Grid(store, clock)
    await made.begin()
    return made


@pytest.fixture
def tamper(path: Path) -> Callable[..., None]:
    """Run SQL on the database behind the store's back, without its constraints."""

    def run(*statements: str) -> None:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as db:
            db.execute("PRAGMA ignore_check_constraints = ON")
            for statement in statements:
                db.execute(statement)

    return run


@pytest.fixture
def reopen(path: Path, clock: FakeClock) -> Callable[[], Awaitable[Store]]:
    return lambda: Store.open(path, clock=clock)
