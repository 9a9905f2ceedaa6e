"""Executors over a grid of real processes: a coordinator, and a machine that does one large thing at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from conftest import GridProcesses, _until_stopped, engine_missing, wait_for

from gridx.client import Client
from gridx.executor import Executor, GridFuture
from gridx.messages import Job, JobState

T = TypeVar("T")

WAITING = (JobState.QUEUED, JobState.ASSIGNED)
CORES = 2


@dataclass(frozen=True)
class Ann:
    """The caller: what she sees of her grid beside her executor."""

    processes: GridProcesses
    token: str

    @property
    def url(self) -> str:
        return self.processes.http_url

    def ask(self, question: Callable[[Client], Awaitable[T]]) -> T:
        async def put() -> T:
            async with Client(self.url, self.token) as grid:
                return await question(grid)

        return asyncio.run(put())

    def jobs(self, *states: JobState) -> Collection[Job]:
        """Her newest jobs, of these states."""
        return self.ask(lambda grid: grid.jobs(states=states, limit=200)).jobs

    def executor(self, **options: object) -> Executor:
        small = {"cpus": 0.5, "memory_mb": 256, "timeout_s": 120}
        return Executor(self.url, token=self.token, **{**small, **options})


def endless() -> None:
    time.sleep(3600)


@pytest.fixture(scope="module", params=["processes", pytest.param("containers", marks=pytest.mark.engine)])
def ann(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ann]:
    """A grid for all tests of a module: jobs are limited processes, then containers."""
    containers = request.param == "containers"
    if containers and engine_missing():
        pytest.skip(engine_missing())
    processes = GridProcesses(tmp_path_factory.mktemp("executor"))
    stopping = _until_stopped(processes)
    next(stopping)
    try:
        processes.coordinator()
        processes.worker(
            "ann",
            "desk",
            GRIDX_WORKER_CPUS=str(CORES),
            GRIDX_WORKER_SANDBOX="docker" if containers else "process",
            GRIDX_WORKER_WARM="0",
        )

        async def sign_in() -> str:
            async with Client(processes.http_url) as grid:
                return (await grid.login("ann", "correct horse")).token

        yield Ann(processes, asyncio.run(sign_in()))
    finally:
        next(stopping, None)


@pytest.fixture
def executor_of(ann: Ann) -> Iterator[Callable[..., Executor]]:
    """Makes executors with options of a test's own; at its end what is open is cancelled."""
    made: list[Executor] = []

    def make(**options: object) -> Executor:
        made.append(ann.executor(**options))
        return made[-1]

    yield make
    for executor in made:
        executor.shutdown(wait=False, cancel_futures=True)

    async def end(grid: Client) -> None:
        for job in (await grid.jobs(states=(*WAITING, JobState.RUNNING), limit=200)).jobs:
            await grid.cancel(job.id)

    ann.ask(end)
    for executor in made:
        executor.shutdown()


@pytest.fixture
def executor(executor_of: Callable[..., Executor]) -> Executor:
    return executor_of()


@pytest.fixture
def busy(executor_of: Callable[..., Executor]) -> GridFuture[None]:
    """A call that has the whole machine: all others wait, until it is stopped."""
    future = executor_of(cpus=CORES).submit(endless)
    wait_for(future.running, "the machine to be busy")
    return future


@pytest.fixture
def repository() -> Path:
    return Path(__file__).parents[3]
