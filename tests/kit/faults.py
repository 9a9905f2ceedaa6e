"""A grid of real processes to which bad things happen, and what must be true after each of them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gridx.client import Client
from gridx.errors import GridError
from gridx.messages import Job, JobSpec, JobState, Receipt

T = TypeVar("T")

PASSWORD = "correct horse"
ALL_DAY = "import time\nprint('begun', flush=True)\ntime.sleep(600)"
"""A program that does not end by itself."""
FIRST_NEVER_ENDS = """
import os, time
print("begun", flush=True)
while os.environ["GRIDX_ATTEMPT"] == "1":
    time.sleep(0.02)
    print("." * 500, flush=True)
"""
"""A program whose first attempt writes a little again and again, and whose second ends at once."""


def spec(code: str = "print('done')", **fields: Any) -> JobSpec:
    return JobSpec(**{"code": code, "timeout_s": 120, "memory_mb": 64, "cpus": 0.1, **fields})


@dataclass
class Grid:
    """The processes of a test, ann who submits, and the administrator."""

    processes: Any
    until: Callable[..., Awaitable[Any]]
    coordinator: Any
    ann: Client
    admin: Client
    accepted: set[int] = field(default_factory=set)
    """Jobs of which the coordinator said that it has them."""

    async def start_again(self) -> None:
        """The coordinator, which has ended."""
        self.processes.nodes.remove(self.coordinator)
        self.coordinator = await asyncio.to_thread(self.processes.coordinator)

    async def until_killed(self, node: Any) -> None:
        """Wait until a node has come to its failpoint."""
        await asyncio.to_thread(node.process.wait, 60)
        assert node.process.returncode == -signal.SIGKILL, node.text

    async def answer(self, call: Callable[[], Awaitable[T]]) -> T:
        """Ask until there is an answer, as a user does while the coordinator is away."""

        async def once() -> T | None:
            with contextlib.suppress(GridError):
                return await call()
            return None

        return await self.until(once, "an answer")

    async def submit(self, code: str = "print('done')", *, key: str | None = None, **fields: Any) -> Job:
        job = await self.ann.submit(spec(code, **fields), idempotency_key=key)
        self.accepted.add(job.id)
        return job

    async def running(self, job_id: int) -> Job:
        """Wait until the program has written something."""

        async def look() -> Job | None:
            job = await self.ann.job(job_id)
            return job if job.state is JobState.RUNNING and await self.ann.output(job_id) else None

        return await self.until(look, f"job {job_id} to run")

    async def ended(self, *job_ids: int) -> dict[int, JobState]:
        """Wait until they have ended, while the coordinator may be away in between."""
        left, states = set(job_ids), {}

        async def look() -> bool:
            with contextlib.suppress(GridError):
                for job_id in sorted(left):
                    job = await self.ann.job(job_id)
                    if not job.state.ended:
                        return False
                    states[job_id] = job.state
                    left.discard(job_id)
            return not left

        await self.until(look, f"{len(job_ids)} jobs to end", 120)
        return states

    async def everything(self) -> list[int]:
        """All jobs that there are, also those of which nobody was told."""
        return list(await all_jobs(self.admin))

    async def load(self, stop: asyncio.Event) -> None:
        """Submit one job after the other and see each to its end; what is not answered is sent again."""
        while not stop.is_set():
            key = secrets.token_hex(8)
            job = await self.answer(lambda key=key: self.submit(key=key))
            await self.ended(job.id)

    async def sound(self, *, idle: bool = True) -> dict[int, Receipt]:
        """What must be true whatever happened; the receipts of all jobs.

        Args:
            idle: no job is expected to be under way any more.
        """
        report = await self.admin.audit()
        assert report.ok, report.findings
        jobs = await all_jobs(self.admin)
        assert self.accepted <= jobs.keys()
        receipts = {}
        held = 0
        for job in jobs.values():
            receipt = receipts[job.id] = await self.admin.receipt(job.id)
            paid = [attempt for attempt in receipt.attempts if attempt.charge]
            assert len(paid) <= 1, receipt
            assert receipt.charge == sum(attempt.charge for attempt in paid)
            if job.state.ended:
                assert receipt.hold == receipt.charge + receipt.released, receipt
            else:
                assert not idle, job
                held += receipt.hold
        assert report.held == held
        if idle:
            for folder in self.processes.folder.glob("worker-*/sandbox"):
                await self.until(lambda folder=folder: not any(folder.iterdir()), "no sandbox to be left")
        return receipts


async def all_jobs(client: Client) -> dict[int, Job]:
    found: dict[int, Job] = {}
    before = None
    while True:
        page = await client.jobs(limit=200, before=before)
        found |= {job.id: job for job in page.jobs}
        before = page.next
        if before is None:
            return found
