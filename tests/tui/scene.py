"""A grid out of thin air that stands still: fixed clock, fixed ids, a bit of everything there is to see.

Pictures of it are the same on every machine and on every day, so they can be kept and compared.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from gridx.client import Client
from gridx.config import DashboardSettings, Settings
from gridx.errors import NotFound
from gridx.messages import (
    ArrayProgress,
    Attempt,
    AttemptReceipt,
    AttemptState,
    AuditReport,
    Balance,
    Dependency,
    Entry,
    EntryPage,
    Gpu,
    GpuSample,
    InputFile,
    Job,
    JobFiles,
    JobPage,
    JobSpec,
    JobState,
    LeftFile,
    MachineSample,
    Offer,
    OutputFile,
    PriceLine,
    Quote,
    Receipt,
    Runtime,
    User,
    Worker,
)
from gridx.tui.app import GridApp
from gridx.tui.logbook import Logbook
from gridx.tui.state import remember

NOW = datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC)
CREDIT = 1_000_000
GIB = 1 << 30

TRAINING = '''\
"""Fit a line to a noisy one, epoch by epoch."""
import random

rate = 0.05
slope = offset = 0.0
points = [(x / 10, 2.5 * x / 10 + 1 + random.gauss(0, 0.1)) for x in range(50)]

for epoch in range(40):
    loss = 0.0
    for x, y in points:
        error = slope * x + offset - y
        slope -= rate * error * x
        offset -= rate * error
        loss += error**2
    print(f"epoch {epoch:2}  loss {loss / len(points):.4f}", flush=True)
'''
OUTPUT = "".join(f"epoch {n:2}  loss {4.8 / (n + 1) ** 1.3:.4f}\n" for n in range(23)).encode()
COMPLAINT = b"UserWarning: the learning rate is high for this data\n"


class Stopped:
    """A clock that stands still."""

    def monotonic(self) -> float:
        return 5000.0

    def now(self) -> datetime:
        return NOW


def job(number: int, name: str, state: JobState, ago_s: float, **more: Any) -> Job:
    """A job of ann that was submitted so long ago."""
    return Job(
        **{
            "id": number,
            "name": name,
            "owner": "ann",
            "state": state,
            "language": "python",
            "cpus": 1.0,
            "memory_mb": 512,
            "gpus": 0,
            "timeout_s": 300,
            "priority": 0,
            "max_attempts": 3,
            "created_at": NOW - timedelta(seconds=ago_s),
            "hold": 88_542,
            **more,
        }
    )


def ran(ago_s: float, took_s: float, charge: int, worker: str = "lab-east", **more: Any) -> dict[str, Any]:
    """What a job has that ran and ended."""
    return {
        "attempt": 1,
        "worker_id": 1,
        "worker_name": worker,
        "started_at": NOW - timedelta(seconds=ago_s),
        "ended_at": NOW - timedelta(seconds=ago_s - took_s),
        "charge": charge,
        "exit_code": 0,
        "stdout_bytes": 120,
        **more,
    }


JOBS = (
    job(
        413,
        "sweep of rates",
        JobState.RUNNING,
        130,
        started_at=NOW - timedelta(seconds=124),
        hold=3_541_680,
        charge=61_400,
        array=ArrayProgress(
            count=100, queued=40, running=6, succeeded=51, failed=3, cancelled=0, max_fails=10
        ),
    ),
    job(
        412,
        "training, third try",
        JobState.RUNNING,
        49,
        cpus=4.0,
        gpus=1,
        memory_mb=16384,
        timeout_s=7200,
        hold=12_416_667,
        attempt=2,
        retries=2,
        worker_id=2,
        worker_name="gpu-box",
        started_at=NOW - timedelta(seconds=23.4),
        stdout_bytes=len(OUTPUT),
        stderr_bytes=len(COMPLAINT),
    ),
    job(
        411,
        "sixteen cores",
        JobState.QUEUED,
        70,
        cpus=16.0,
        hold=4_812_500,
        reason="needs 16 cores; the largest worker has 12",
        queue_position=2,
    ),
    job(
        410,
        "render frame 0041",
        JobState.QUEUED,
        75,
        gpus=1,
        reason="both GPUs of gpu-box are in use",
        queue_position=1,
        owner="bob",
    ),
    job(409, "render frame 0040", JobState.ASSIGNED, 80, worker_id=2, worker_name="gpu-box", owner="bob"),
    job(
        408,
        "endless",
        JobState.CANCELLING,
        400,
        attempt=1,
        worker_id=1,
        worker_name="lab-east",
        started_at=NOW - timedelta(seconds=380),
    ),
    job(407, "wordcount", JobState.SUCCEEDED, 900, **ran(899, 3.2, 9_240)),
    job(
        406,
        "broken import",
        JobState.FAILED,
        1800,
        **ran(1799, 0.4, 1_180, exit_code=1, stderr_bytes=90),
        reason="exit code 1: ModuleNotFoundError: No module named 'no_such_module'",
    ),
    job(
        405,
        "too large",
        JobState.OUT_OF_MEMORY,
        3700,
        **ran(3699, 1.7, 4_912, exit_code=None, signal=9, peak_memory_bytes=512 << 20),
        reason="it used all of its 512 MiB of memory; ask for more",
    ),
    job(
        404,
        "simulation",
        JobState.TIMED_OUT,
        7300,
        **ran(7290, 300, 88_542, "lab-west", exit_code=None, signal=9),
        reason="it ran for its whole timeout of 5m 00s",
    ),
    job(
        403,
        "old laptop",
        JobState.LOST,
        9000,
        attempt=3,
        ended_at=NOW - timedelta(seconds=8000),
        reason="3 attempts were spoilt by machines; the last: lab-west went away",
    ),
    job(
        402,
        "not needed any more",
        JobState.CANCELLED,
        90000,
        ended_at=NOW - timedelta(seconds=89000),
        reason="cancelled by ann",
    ),
    *(
        job(n, f"nightly {n:03}", JobState.SUCCEEDED, 90000 + 60 * (401 - n), **ran(90000, 12.5, 3_700))
        for n in range(401, 380, -1)
    ),
)

STATES = [JobState.SUCCEEDED] * 51 + [JobState.FAILED] * 3 + [JobState.RUNNING] * 6 + [JobState.QUEUED] * 40
ELEMENTS = [
    job(
        414 + n,
        "sweep of rates",
        state,
        130,
        array_id=413,
        array_index=n,
        **(ran(120 - n, 9.5, 1_204, exit_code=int(state is JobState.FAILED)) if state.ended else {}),
    )
    for n, state in enumerate(STATES)
]

FULL = replace(
    JOBS[1],
    spec=JobSpec(
        code=TRAINING,
        name="training, third try",
        args=["--rate", "0.05"],
        env={"SEED": "7"},
        inputs=[InputFile("data/points.csv", "a" * 64, 120_400), InputFile("rates.json", "b" * 64, 310)],
        after=[Dependency(405, "end")],
        retries=2,
        cpus=4.0,
        gpus=1,
        memory_mb=16384,
        timeout_s=7200,
    ),
    attempts=[
        Attempt(
            id=900,
            number=1,
            state=AttemptState.LOST,
            worker_id=3,
            worker_name="lab-west",
            worker_owner="bob",
            assigned_at=NOW - timedelta(seconds=48.6),
            started_at=NOW - timedelta(seconds=48.1),
            ended_at=NOW - timedelta(seconds=25),
            reason="the worker went away",
            runtime="default",
        ),
        Attempt(
            id=901,
            number=2,
            state=AttemptState.RUNNING,
            worker_id=2,
            worker_name="gpu-box",
            worker_owner="bob",
            assigned_at=NOW - timedelta(seconds=24.1),
            started_at=NOW - timedelta(seconds=23.4),
            runtime="default",
            gpus=["GPU-7d5c1c9e-6c0b-11ef-a8b1-0242ac120002"],
        ),
    ],
)
RECEIPT = Receipt(
    job_id=407,
    owner="ann",
    state=JobState.SUCCEEDED,
    hold=88_542,
    charge=9_240,
    released=79_302,
    attempts=[
        AttemptReceipt(
            attempt_id=890,
            number=1,
            state=AttemptState.SUCCEEDED,
            worker_id=1,
            worker_name="lab-east",
            worker_owner="ann",
            charged_ms=3_214,
            lines=[
                PriceLine("cpu", 1.0, "cores", 1_000_000, 8_928),
                PriceLine("memory", 0.5, "GiB", 100_000, 312),
            ],
            charge=9_240,
            fee=462,
            gpus=[],
            runtime="default",
        )
    ],
)


def sample(cpu: list[float], used: int, total: int, *gpus: GpuSample) -> MachineSample:
    """A machine's readings."""
    return MachineSample(
        cpu_percent=cpu,
        load=sum(cpu) / 100,
        memory_used_bytes=used,
        memory_total_bytes=total,
        swap_used_bytes=0,
        disk_used_bytes=412 * GIB,
        disk_total_bytes=930 * GIB,
        disk_read_bps=1.2e6,
        disk_write_bps=36.4e6,
        net_rx_bps=8.1e6,
        net_tx_bps=190e3,
        gpus=list(gpus),
    )


H100 = GpuSample(
    "GPU-7d5c1c9e-6c0b-11ef-a8b1-0242ac120002",
    "NVIDIA H100 80GB HBM3",
    93.0,
    61 * GIB,
    80 * GIB,
    64.0,
    612.0,
    700.0,
)
A100 = GpuSample(
    "GPU-1f0a6e7c-0b11-4d6e-9a51-0242ac120003",
    "NVIDIA A100-SXM4-40GB",
    17.0,
    4 * GIB,
    40 * GIB,
    38.0,
    88.0,
    400.0,
)
LAB = sample([12.0, 88.0, 45.0, 3.0, 71.0, 96.0, 20.0, 33.0], 11 * GIB, 32 * GIB)
BOX = sample(
    [64.0, 58.0, 71.0, 66.0, 90.0, 12.0, 40.0, 77.0, 51.0, 68.0, 83.0, 9.0], 96 * GIB, 128 * GIB, H100, A100
)
DOCKER = [Runtime("default", "3.11", ["python"])]

WORKERS = (
    Worker(
        id=1,
        name="lab-east",
        owner="ann",
        state="online",
        offer=Offer(cpu_millis=8000, memory_mb=24576, runtimes=DOCKER),
        free_cpu_millis=7000,
        free_memory_mb=24064,
        jobs=[408],
        last_seen_s=1.0,
        sample=LAB,
        earned=4_812_345,
    ),
    Worker(
        id=2,
        name="gpu-box",
        owner="bob",
        state="online",
        offer=Offer(
            cpu_millis=12000,
            memory_mb=98304,
            gpus=[Gpu(H100.uuid, H100.name, 81920), Gpu(A100.uuid, A100.name, 40960)],
            runtimes=DOCKER,
        ),
        free_cpu_millis=4000,
        free_memory_mb=65536,
        free_gpus=[],
        jobs=[412, 409],
        last_seen_s=0.0,
        sample=BOX,
        earned=318_004_200,
    ),
    Worker(
        id=3,
        name="lab-west",
        owner="bob",
        state="offline",
        last_seen_s=8000.0,
        offer=Offer(cpu_millis=4000, memory_mb=8192, runtimes=DOCKER),
        earned=51_200,
    ),
    Worker(
        id=4,
        name="laptop",
        owner="ann",
        state="paused",
        state_reason="paused by ann",
        offer=Offer(
            cpu_millis=4000,
            memory_mb=8192,
            sandbox="process",
            isolated=False,
            runtimes=[Runtime("host", "3.12", ["python"])],
            warnings=["No container engine answers: only its owner's jobs run here."],
        ),
        free_cpu_millis=4000,
        free_memory_mb=8192,
        last_seen_s=2.0,
        sample=sample([5.0, 2.0, 9.0, 1.0], 5 * GIB, 16 * GIB),
    ),
)

ENTRIES = (
    (1, 49, "hold", -12_416_667, 412, ""),
    (2, 895, "release", 79_302, 407, ""),
    (3, 895, "hold", -88_542, 407, ""),
    (4, 1300, "settle", 8_778, 407, ""),
    (5, 86_500, "transfer", -2_500_000, None, "for the GPUs, thank you"),
    (6, 172_900, "settle", 1_204_000, 398, ""),
    (7, 259_300, "hold", -420_000, 371, ""),
    (8, 864_000, "transfer", 5_000_000, None, "back from bob"),
    (9, 1_900_000, "grant", 100_000_000, None, "sign-up grant"),
)
BALANCE = Balance(user="ann", balance=87_583_333, held=12_505_209, earned=1_212_778, spent=702_344)
BALANCES = {
    "ann": BALANCE,
    "bob": Balance(user="bob", balance=412_004_220, held=177_084, earned=318_055_400, spent=6_051_180),
    "admin": Balance(user="admin", balance=0, held=0, earned=0, spent=0),
}


class Scene(Client):
    """A client whose coordinator is this module."""

    def __init__(self, *, admin: bool = False, token: str | None = "t") -> None:
        super().__init__("http://127.0.0.1:8081", token)
        self.user = User(id=1, username="ann", role="admin" if admin else "user", created_at=NOW)
        self.known = {job.id: job for job in JOBS}
        self.broken = asyncio.Event()

    async def me(self) -> User:
        return self.user

    async def users(self) -> list[User]:
        return [
            User(
                id=n,
                username=name,
                role="admin" if name == "admin" else "user",
                created_at=NOW - timedelta(days=20 - n, hours=n),
                disabled=False,
            )
            for n, name in enumerate(sorted(BALANCES), 1)
        ]

    async def jobs(self, *, limit: int = 50, before: int | None = None, **_: Any) -> JobPage:
        found = [job for job in self.known.values() if before is None or job.id < before][:limit]
        return JobPage(jobs=found, next=found[-1].id if len(found) == limit else None)

    async def job(self, job_id: int) -> Job:
        found = FULL if job_id == FULL.id else self.known.get(job_id) or self._element(job_id)
        if found is None:
            raise NotFound("There is no such job.", "")
        if found.spec:
            return found
        return replace(found, spec=JobSpec(code=TRAINING, name=found.name), attempts=[])

    async def receipt(self, job_id: int) -> Receipt:
        return replace(RECEIPT, job_id=job_id)

    async def files(self, job_id: int, *, attempt: int | None = None) -> JobFiles:
        if job_id != RECEIPT.job_id:
            return JobFiles(job_id, 1, [], [])
        return JobFiles(
            job_id,
            1,
            [
                OutputFile("counts.csv", "c" * 64, 18_204),
                OutputFile("figures/histogram.png", "d" * 64, 411_339),
                OutputFile("model.bin", "e" * 64, 96 << 20),
            ],
            [LeftFile("cache", "a link is no regular file")],
            NOW + timedelta(days=14),
        )

    async def elements(self, array_id: int, *, after: int | None = None, **_: Any) -> JobPage:
        return JobPage(jobs=list(ELEMENTS))

    def _element(self, job_id: int) -> Job | None:
        return next((element for element in ELEMENTS if element.id == job_id), None)

    async def workers(self) -> list[Worker]:
        return list(WORKERS)

    async def balance(self, user: str | None = None) -> Balance:
        return BALANCES[user or "ann"]

    async def quote(self, spec: Any) -> Quote:
        return Quote(per_hour=1_025_000, hold=85_417, lines=[], balance=BALANCE.balance, shortfall=0)

    async def entries(self, user: str | None = None, **_: Any) -> EntryPage:
        return EntryPage(
            entries=[
                Entry(
                    id=1000 - n,
                    transaction_id=500 - n,
                    at=NOW - timedelta(seconds=ago_s),
                    kind=kind,
                    amount=amount,
                    job_id=job_id,
                    note=note,
                )
                for n, ago_s, kind, amount, job_id, note in ENTRIES
            ]
        )

    async def audit(self) -> AuditReport:
        return AuditReport(True, [], 7, 1342, 3211, 412, 500 * CREDIT, 12 * CREDIT)

    async def output(self, job_id: int, stream: Any = "stdout", *, offset: int = 0, **_: Any) -> bytes:
        if job_id != FULL.id:
            return b""
        return (OUTPUT if stream == "stdout" else COMPLAINT)[offset:]

    @asynccontextmanager
    async def events(self, *, watch: Callable[[], Collection[int]] | None = None) -> AsyncIterator[Any]:
        class Silence:
            async def watch(self, ids: Collection[int]) -> None:
                return

            def __aiter__(self) -> Silence:
                return self

            async def __anext__(self) -> Any:
                await asyncio.Event().wait()

        yield Silence()


class FixedMachine:
    """This machine, as it always was."""

    problem = ""

    def __init__(self, real: Any) -> None:
        self.machine = real.machine
        self.machine.worker = replace(self.machine.worker, sample=LAB)
        self.machine.sampled_at = 5000.0
        past(self.machine)

    async def run(self) -> None:
        await asyncio.Event().wait()


def past(machine: Any) -> None:
    """Give a machine a history: waves around what it does now."""
    now = machine.worker.sample
    if now is None:
        return
    for n in range(60):
        wave = 0.55 + 0.45 * ((n * 7) % 13) / 13
        gpus = [
            replace(
                gpu,
                utilisation_percent=(gpu.utilisation_percent or 0) * wave,
                power_w=(gpu.power_w or 0) * wave,
                temperature_c=(gpu.temperature_c or 0) * (0.8 + 0.2 * wave),
            )
            for gpu in now.gpus
        ]
        remember(
            machine.history,
            replace(
                machine.worker,
                sample=replace(
                    now,
                    cpu_percent=[percent * wave for percent in now.cpu_percent],
                    net_rx_bps=now.net_rx_bps * wave,
                    net_tx_bps=now.net_tx_bps * (1.3 - wave),
                    disk_read_bps=now.disk_read_bps * (1.3 - wave),
                    disk_write_bps=now.disk_write_bps * wave,
                    gpus=gpus,
                ),
            ),
        )
    remember(machine.history, machine.worker)


def logbook() -> Logbook:
    """A log with a line of each kind."""
    book = Logbook()
    at = NOW.timestamp() - 60
    lines = (
        (logging.INFO, "gridx.coordinator", "listening on http://127.0.0.1:8081"),
        (logging.INFO, "gridx.worker", "container engine Docker 27.1 at unix:///var/run/docker.sock"),
        (
            logging.WARNING,
            "gridx.worker",
            "The engine has no AppArmor and no SELinux: seccomp is left.",
        ),
        (logging.INFO, "gridx.coordinator", "worker 2 authenticated (owner: bob)"),
        (logging.ERROR, "gridx.coordinator", "worker 3 went away; its attempt 900 is lost"),
        (logging.INFO, "gridx.worker", "attempt 2 of job 412 started"),
    )
    for n, (level, source, text) in enumerate(lines):
        record = logging.LogRecord(source, level, "", 0, text, None, None)
        record.created = at + n
        book.emit(record)
    return book


def scene(look: str, role: Any = "standalone", *, client: Scene | None = None, **more: Any) -> GridApp:
    """The dashboard over this grid; ``look`` is dark, light, plain (no colour) or ascii."""
    settings = Settings(dashboard=DashboardSettings(theme="light" if look == "light" else "dark"))
    app = GridApp(
        client or Scene(admin=role == "coordinator"),
        settings,
        role=role,
        logbook=logbook(),
        clock=Stopped(),
        ascii_only=look == "ascii",
        **more,
    )
    app.local = FixedMachine(app.local)  # type: ignore[assignment]
    return app
