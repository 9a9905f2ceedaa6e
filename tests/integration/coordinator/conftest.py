"""The coordinator's engine over a real store, with workers that a test moves and a clock that it turns."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gridx.config import CoordinatorSettings, SchedulerSettings, Settings
from gridx.errors import GridError
from gridx.messages import (
    MICROCREDITS,
    PROTOCOL_VERSION,
    Accepted,
    Assign,
    Assignment,
    CoordinatorFrame,
    Finished,
    Gpu,
    Hello,
    Job,
    JobSpec,
    JobState,
    MachineSample,
    Offer,
    Output,
    Runtime,
    Sample,
    Started,
    Welcome,
    Worker,
    WorkerFrame,
)
from gridx.services.coordinator.fleet import Fleet
from gridx.services.coordinator.jobs import Jobs
from gridx.services.coordinator.store import Store
from gridx.services.coordinator.store.records import UserRecord, WorkerRecord

LEASE_S = 90.0


class FakeClock:
    """Stands still until it is turned."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)


@dataclass
class FakeHub:
    """Remembers what it was told."""

    jobs: list[Job] = field(default_factory=list)
    output: list[tuple[int, int, int, str, int, bytes]] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    credits: list[int] = field(default_factory=list)

    def job_changed(
        self, owner_id: int, job_id: int, view: Callable[[], Job], array_id: int | None = None
    ) -> None:
        self.jobs.append(view())

    def elements_changed(self, array_id: int, count: int) -> None:
        pass

    def output_arrived(self, owner_id, job_id, attempt_number, stream, offset, data) -> None:
        self.output.append((owner_id, job_id, attempt_number, stream, offset, data))

    def worker_changed(self, worker: Worker) -> None:
        self.workers.append(worker)

    def credits_changed(self, user_ids: Iterable[int]) -> None:
        self.credits.extend(user_ids)

    def states(self, job_id: int) -> list[JobState]:
        """The states that were told of a job, repeats left out."""
        return [state for state, _ in itertools.groupby(job.state for job in self.jobs if job.id == job_id)]


def offer(
    cpus: float = 4,
    memory_mb: int = 8192,
    *,
    gpus: Iterable[str] = (),
    python: str = "3.11",
    languages: Iterable[str] = ("python",),
    **fields: object,
) -> Offer:
    runtime = Runtime(name="default", python=python, languages=list(languages))
    return Offer(
        cpu_millis=int(cpus * 1000),
        memory_mb=memory_mb,
        gpus=[Gpu(uuid=uuid, name="card", memory_mb=1000) for uuid in gpus],
        runtimes=[runtime],
        **fields,
    )


class FakeWorker:
    """A worker without a socket: the engine's link to it, and the words that a worker would say."""

    def __init__(self, engine: Engine, record: WorkerRecord, offered: Offer) -> None:
        self.engine = engine
        self.record = record
        self.offered = offered
        self.sent: list[CoordinatorFrame] = []
        self.rejected: GridError | None = None
        self.hung_up = ""
        self._seq = itertools.count(1)

    @property
    def id(self) -> int:
        return self.record.id

    # The engine's side.

    def send(self, *frames: CoordinatorFrame) -> None:
        self.sent.extend(frames)

    def reject(self, error: GridError) -> None:
        self.rejected = error

    def hang_up(self, why: str) -> None:
        self.hung_up = why

    # The worker's side.

    def hello(
        self, *, running: Iterable[int] = (), spooled: Iterable[int] = (), released: Iterable[int] = ()
    ) -> Welcome:
        self.engine.jobs.attach(
            self.record,
            Hello(
                protocol=PROTOCOL_VERSION,
                version="test",
                identity=self.record.identity,
                name=self.record.name,
                offer=self.offered,
                running=list(running),
                spooled=list(spooled),
                released=list(released),
            ),
            self,
        )
        return self.all(Welcome)[-1]

    def again(self) -> FakeWorker:
        """The same worker over a new connection."""
        return FakeWorker(self.engine, self.record, self.offered)

    def say(self, *frames: WorkerFrame) -> None:
        self.engine.jobs.received(self.id, self, frames)

    def leave(self) -> None:
        self.engine.jobs.detach(self.id, self)

    def sample(self, *attempts: int, **fields: object) -> None:
        self.say(Sample(seq=next(self._seq), attempts=list(attempts), **fields))

    def start(self, attempt_id: int) -> None:
        self.say(Accepted(attempt_id=attempt_id), Started(attempt_id=attempt_id, runtime="default"))

    def write(self, attempt_id: int, offset: int, data: bytes, stream: str = "stdout") -> None:
        self.say(Output(attempt_id=attempt_id, stream=stream, offset=offset, data=data))

    def finish(self, attempt_id: int, outcome: str = "succeeded", **fields: object) -> None:
        self.say(Finished(attempt_id=attempt_id, outcome=outcome, **{"wall_ms": 10**9, **fields}))

    def all(self, kind: type) -> list:
        return [frame for frame in self.sent if isinstance(frame, kind)]

    @property
    def assignments(self) -> list[Assignment]:
        return [attempt for frame in self.all(Assign) for attempt in frame.attempts]


class Engine:
    """Store, fleet and jobs of one coordinator; can be stopped and started again on the same database."""

    def __init__(self, path: Path, settings: Settings, until) -> None:
        self.path = path
        self.settings = settings
        self.until = until
        self.clock = FakeClock()
        self.hub = FakeHub()
        self.failures: list[BaseException] = []
        self._identities = itertools.count(1)

    async def start(self) -> None:
        self.store = await Store.open(self.path, clock=self.clock)
        self.fleet = Fleet(self.store, self.hub, self.settings, self.clock)
        self.jobs = Jobs(self.store, self.fleet, self.hub, self.settings, self.clock)
        self.jobs.on_failure(self.failures.append)
        await self.jobs.start()

    async def stop(self) -> None:
        await self.jobs.stop()
        await self.store.close()

    async def user(self, name: str, *, credits: int = 1000, role: str = "user") -> UserRecord:
        return await self.store.create_user(name, "x", role=role, grant=credits * MICROCREDITS)

    async def worker(
        self, owner: UserRecord, name: str = "box", *, join: bool = True, **offered
    ) -> FakeWorker:
        record = await self.store.join_worker(
            owner.id, f"{next(self._identities):032x}", name=name, version="test"
        )
        worker = FakeWorker(self, record, offer(**offered))
        if join:
            worker.hello()
        return worker

    async def submit(self, user: UserRecord, **fields: object) -> Job:
        jobs, _ = await self.jobs.submit(user, [spec(**fields)], None)
        return jobs[0]

    async def assigned(self, worker: FakeWorker, count: int = 1) -> list[Assignment]:
        """Wait until the worker was sent so many attempts."""
        await self.until(lambda: len(worker.assignments) >= count, f"{count} attempts to be assigned")
        return worker.assignments

    async def state(self, user: UserRecord, job_id: int, *states: JobState) -> Job:
        """Wait until a job is in one of these states."""

        async def look() -> Job | None:
            job = await self.jobs.job(user, job_id)
            return job if job.state in states else None

        return await self.until(look, f"job {job_id} to be {' or '.join(states)}")

    async def pass_time(self, seconds: float) -> None:
        """Turn the clock, as the sweeper would see it pass."""
        while seconds > 0:
            step = min(2.0, seconds)
            self.clock.seconds += step
            seconds -= step
            await self.jobs._sweeper.sweep()

    async def sound(self) -> None:
        """What must hold after every test: the books are right and no part has died."""
        report = await self.store.audit()
        assert report.ok, report.findings
        assert not self.failures


def spec(**fields: object) -> JobSpec:
    return JobSpec(**{"code": "print(1)", **fields})


@pytest.fixture
def make_spec():
    return spec


@pytest.fixture
def make_offer():
    return offer


@pytest.fixture
def make_readings():
    """What a machine says of its load."""
    return lambda **fields: MachineSample(
        **{
            "cpu_percent": [1.0],
            "load": None,
            "memory_used_bytes": 1,
            "memory_total_bytes": 2,
            "swap_used_bytes": 0,
            "disk_used_bytes": 0,
            "disk_total_bytes": 0,
            "disk_read_bps": 0,
            "disk_write_bps": 0,
            "net_rx_bps": 0,
            "net_tx_bps": 0,
            "gpus": [],
            **fields,
        }
    )


@pytest.fixture
async def make_engine(tmp_path, until):
    """Start a coordinator's engine; settings by section."""
    made: list[Engine] = []

    async def make(*, coordinator=None, scheduler=None) -> Engine:
        settings = Settings(
            coordinator=CoordinatorSettings(**{"lease_s": LEASE_S, **(coordinator or {})}),
            scheduler=SchedulerSettings(**(scheduler or {})),
        )
        engine = Engine(tmp_path / f"grid-{len(made)}" / "grid.db", settings, until)
        await engine.start()
        made.append(engine)
        return engine

    yield make
    for engine in made:
        await engine.sound()
        await engine.stop()


@pytest.fixture
async def engine(make_engine) -> Engine:
    return await make_engine()


@pytest.fixture
async def ann(engine) -> UserRecord:
    return await engine.user("ann")


@pytest.fixture
async def bob(engine) -> UserRecord:
    return await engine.user("bob")
