"""What the dashboard costs: 5,000 jobs, 100 workers, 50 changes of jobs a second, and nothing at all.

First a whole grid is started on a terminal of its own: how long from the start of the process to the first
frame, and until its worker is there, with the processor time that it took. The rest is the real application
without a terminal; a stand-in for the client gives it jobs, workers and events, so that nothing else is
measured: lag of the event loop, time from a key to the screen, processor time, and memory over an hour of
events.

    python benchmarks/bench_dashboard.py [--seconds 15] [--jobs 5000] [--workers 100] [--changes 50]
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import pty
import random
import resource
import select
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
from msgspec.structs import replace
from textual import events as keys

from gridx.client import Client
from gridx.config import Settings
from gridx.errors import NotFound
from gridx.messages import (
    Balance,
    EntryPage,
    Event,
    Job,
    JobChanged,
    JobPage,
    JobState,
    MachineSample,
    Offer,
    Quote,
    User,
    Worker,
    WorkerChanged,
)
from gridx.tui.app import GridApp, keep_what_stays
from gridx.tui.logbook import Logbook

START = datetime.now(UTC)
STATES = (JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED, JobState.FAILED)


def job(number: int, state: JobState) -> Job:
    return Job(
        id=number,
        name=f"job {number}",
        owner=f"user{number % 20}",
        state=state,
        language="python",
        cpus=1.0,
        memory_mb=512,
        gpus=0,
        timeout_s=300,
        priority=0,
        max_attempts=3,
        created_at=START - timedelta(seconds=number % 5000),
        started_at=None if state is JobState.QUEUED else START,
        ended_at=START if state.ended else None,
        worker_name="" if state is JobState.QUEUED else f"worker-{number % 100}",
        reason="needs 8 cores; the largest free worker has 4" if state is JobState.QUEUED else "",
        hold=84_375,
    )


def worker(number: int, rng: random.Random) -> Worker:
    sample = MachineSample(
        cpu_percent=[rng.uniform(0, 100) for _ in range(8)],
        load=rng.uniform(0, 8),
        memory_used_bytes=rng.randrange(1 << 34),
        memory_total_bytes=1 << 34,
        swap_used_bytes=0,
        disk_used_bytes=1 << 35,
        disk_total_bytes=1 << 38,
        disk_read_bps=0.0,
        disk_write_bps=0.0,
        net_rx_bps=rng.uniform(0, 1e7),
        net_tx_bps=0.0,
        gpus=[],
    )
    return Worker(
        id=number,
        name=f"worker-{number}",
        owner="ann",
        state="online",
        offer=Offer(cpu_millis=8000, memory_mb=16384),
        free_cpu_millis=rng.randrange(8000),
        free_memory_mb=8192,
        last_seen_s=0.0,
        sample=sample,
    )


class Stage(Client):
    """A grid out of thin air."""

    def __init__(self, jobs: int, workers: int) -> None:
        super().__init__("127.0.0.1")
        self.rng = random.Random(1)
        self.all = {n: job(n, self.rng.choice(STATES)) for n in range(1, jobs + 1)}
        self.newest = self.size = jobs
        self.fleet = {n: worker(n, self.rng) for n in range(1, workers + 1)}
        self.queue: asyncio.Queue[Event] = asyncio.Queue()
        self.token = "t"

    async def me(self) -> User:
        return User(id=1, username="ann", role="admin", created_at=START)

    async def jobs(self, *, limit: int = 50, before: int | None = None, **_: Any) -> JobPage:
        found = [self.all[n] for n in sorted(self.all, reverse=True) if before is None or n < before][:limit]
        return JobPage(jobs=found, next=found[-1].id if len(found) == limit else None)

    async def job(self, job_id: int) -> Job:
        if job_id not in self.all:
            raise NotFound(f"There is no job {job_id}, or it is not yours.", "gridx jobs lists yours.")
        return self.all[job_id]

    async def workers(self) -> list[Worker]:
        return list(self.fleet.values())

    async def balance(self, user: str | None = None) -> Balance:
        return Balance(user="ann", balance=10**8, held=0, earned=0, spent=0)

    async def quote(self, spec: Any) -> Quote:
        return Quote(per_hour=1, hold=1, lines=[], balance=10**8, shortfall=0)

    async def entries(self, user: str | None = None, **_: Any) -> EntryPage:
        return EntryPage(entries=[])

    async def output(self, job_id: int, stream: Any = "stdout", **_: Any) -> bytes:
        return b"output\n"

    @asynccontextmanager
    async def events(self, *, watch: Callable[[], Collection[int]] | None = None) -> AsyncIterator[Any]:
        stage = self

        class Stream:
            async def watch(self, ids: Collection[int]) -> None:
                return

            def __aiter__(self) -> Stream:
                return self

            async def __anext__(self) -> Event:
                return await stage.queue.get()

        yield Stream()

    def change(self) -> Event:
        """One of the newest 500 jobs goes on; now and then a new one comes."""
        if self.rng.random() < 0.1:
            number = self.newest = self.newest + 1
            self.all[number] = job(number, JobState.QUEUED)
            del self.all[number - self.size]
        else:
            number = self.newest - self.rng.randrange(500)
            if self.all[number].state.ended:
                number = self.newest
            state = self.all[number].state
            following = {JobState.QUEUED: JobState.RUNNING, JobState.RUNNING: JobState.SUCCEEDED}
            self.all[number] = replace(
                job(number, following.get(state, state)), charge=self.rng.randrange(9999)
            )
        return JobChanged(job=self.all[number])

    def sample(self) -> Event:
        number = self.rng.randrange(1, len(self.fleet) + 1)
        return WorkerChanged(worker=worker(number, self.rng))


def spread(values: list[float]) -> str:
    p99 = sorted(values)[int(len(values) * 0.99)]
    return f"{statistics.median(values):6.1f} ms median, {p99:.1f} ms p99, {max(values):.1f} ms at most"


async def measure(app: GridApp, seconds: float, changes: int, samples: int) -> tuple[float, list[float]]:
    """Processor time as a part of one core, and the loop's lags in milliseconds, under a rate of changes."""
    stage = app.client
    assert isinstance(stage, Stage)
    lags: list[float] = []
    cpu, start = time.process_time(), time.perf_counter()
    sent = told = 0
    while (now := time.perf_counter() - start) < seconds:
        while sent < now * changes:
            stage.queue.put_nowait(stage.change())
            sent += 1
        while told < now * samples:
            stage.queue.put_nowait(stage.sample())
            told += 1
        before = time.perf_counter()
        await asyncio.sleep(0.01)
        lags.append((time.perf_counter() - before - 0.01) * 1000)
    return (time.process_time() - cpu) / (time.perf_counter() - start), lags


async def key_to_screen(app: GridApp, times: int) -> list[float]:
    """Milliseconds from a key to the repaint that shows it."""
    took = []
    table = app.desk.jobs.table
    table.focus()
    await asyncio.sleep(0.2)
    for n in range(times):
        before, cursor = time.perf_counter(), table.cursor
        app.post_message(keys.Key("down" if n % 40 < 20 else "up", None))
        while table.cursor == cursor:
            await asyncio.sleep(0)
        painted = asyncio.Event()
        table.call_after_refresh(painted.set)
        await painted.wait()
        took.append((time.perf_counter() - before) * 1000)
        await asyncio.sleep(0.05)
    return took


def start_once(folder: str) -> dict[str, tuple[float, float]]:
    """Start a grid on a terminal: seconds, and seconds of processor time, until it shows each text."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    environ = {key: value for key, value in os.environ.items() if not key.startswith("GRIDX_")}
    environ |= {
        "GRIDX_CONFIG": os.devnull,
        "GRIDX_HOME": f"{folder}/home",
        "GRIDX_DATA_DIR": f"{folder}/data",
        "GRIDX_HTTP_PORT": "0",
        "GRIDX_WS_PORT": "0",
        "GRIDX_WORKER_SANDBOX": "process",
        "TERM": "xterm-256color",
    }
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "gridx.cli"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environ,
        start_new_session=True,
    )
    os.close(slave)
    seen, shown = b"", {}
    wanted = {"first frame": b"A sample job", "its worker is there": b"1 worker"}
    while len(shown) < len(wanted) and time.perf_counter() - begun < 60:
        if not select.select([master], [], [], 1)[0]:
            continue
        seen += os.read(master, 1 << 16)
        for name, text in wanted.items():
            if name not in shown and text in seen:
                times = psutil.Process(process.pid).cpu_times()
                shown[name] = (time.perf_counter() - begun, times.user + times.system)
    process.send_signal(signal.SIGTERM)
    while process.poll() is None:
        if select.select([master], [], [], 0.1)[0]:
            try:
                os.read(master, 1 << 16)
            except OSError:
                break
    process.wait(30)
    os.close(master)
    return shown


def starts(times: int) -> None:
    """The median of some starts; the first of them, which compiles and reads from the disk, is left out."""
    taken = []
    for _ in range(times + 1):
        with tempfile.TemporaryDirectory() as folder:
            taken.append(start_once(folder))
    for name in taken[0]:
        wall = statistics.median(shown[name][0] for shown in taken[1:])
        cpu = statistics.median(shown[name][1] for shown in taken[1:])
        print(f"{name:<23} {wall:6.2f} s after the process began, {cpu:.2f} s of processor time")


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--changes", type=int, default=50)
    parser.add_argument("--starts", type=int, default=5)
    args = parser.parse_args()
    await asyncio.to_thread(starts, args.starts)
    process = psutil.Process()
    stage = Stage(args.jobs, args.workers)
    samples = args.workers // 2  # each worker sends one every two seconds
    start = time.perf_counter()
    app = GridApp(stage, Settings(), role="coordinator", logbook=Logbook())
    app.once_connected = keep_what_stays
    async with app.run_test(size=(200, 60)):
        while not app.desk.jobs.table.keys:
            await asyncio.sleep(0.005)
        print(f"all read and shown      {time.perf_counter() - start:6.2f} s after the application was made")
        await asyncio.sleep(2)
        before, start = time.process_time(), time.perf_counter()
        await asyncio.sleep(args.seconds)
        cpu = (time.process_time() - before) / (time.perf_counter() - start)
        print(f"idle                    {cpu:6.1%} of a core")
        cpu, lags = await measure(app, args.seconds, args.changes, samples)
        print(
            f"{args.changes} changes, {samples} samples  {cpu:6.1%} of a core (making the changes included)"
        )
        print(f"loop lag                {spread(lags)}")
        load = asyncio.create_task(measure(app, 3600, args.changes, samples))
        took = await key_to_screen(app, 400)
        load.cancel()
        print(f"key to screen           {spread(took)}")
        for part in range(3):
            before = process.memory_info().rss
            for n in range(60_000):
                app.state.fold(stage.change() if n % 2 else stage.sample())
                if n % 400 == 0:
                    app.changed()
                    await asyncio.sleep(0.002)
            grown = (process.memory_info().rss - before) / 2**20
            print(f"20 minutes of events    {grown:+6.1f} MiB ({part + 1} of 3)")
    print(
        f"largest size            {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:6.0f} MiB",
        file=sys.stdout,
    )


if __name__ == "__main__":
    asyncio.run(main())
