"""How many jobs a coordinator carries from submit to paid, when running them costs nothing.

A real coordinator process, its real database, real sockets; workers that answer every assignment at once.
Each job is accepted, held, assigned, started, finished, settled and released, each step committed with
``synchronous=FULL`` before it is answered.

    python benchmarks/bench_coordinator.py [JOBS] [IN_FLIGHT] [BATCH]
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from gridx import __version__
from gridx.client import Client
from gridx.messages import (
    PROTOCOL_VERSION,
    Accepted,
    Assign,
    Finished,
    Hello,
    JobSpec,
    JobState,
    Offer,
    Runtime,
    Sample,
    Started,
    decode_coordinator_frames,
    encode,
)

SPEC = JobSpec(code="pass", cpus=0.1, memory_mb=32, timeout_s=60)


async def instant_worker(session: aiohttp.ClientSession, url: str, token: str, name: str) -> None:
    """A worker that has room for everything and runs each attempt in no time."""
    runtime = Runtime(name="default", python="3.11", languages=["python"])
    offer = Offer(cpu_millis=1_000_000, memory_mb=1 << 20, runtimes=[runtime])
    hello = Hello(
        protocol=PROTOCOL_VERSION,
        version=__version__,
        identity=secrets.token_hex(16),
        name=name,
        offer=offer,
    )
    async with session.ws_connect(url, headers={"Authorization": f"Bearer {token}"}, max_msg_size=0) as ws:
        await ws.send_str(encode([hello]).decode())
        held: list[int] = []

        async def beat() -> None:
            seq = 0
            while True:
                await asyncio.sleep(1)
                seq += 1
                await ws.send_str(encode([Sample(seq=seq, attempts=held)]).decode())

        beating = asyncio.create_task(beat())
        try:
            async for message in ws:
                for frame in decode_coordinator_frames(message.data):
                    if not isinstance(frame, Assign):
                        continue
                    answers: list[Accepted | Started | Finished] = []
                    for one in frame.attempts:
                        answers += [
                            Accepted(attempt_id=one.attempt_id),
                            Started(attempt_id=one.attempt_id, runtime=one.runtime),
                            Finished(attempt_id=one.attempt_id, outcome="succeeded", exit_code=0, wall_ms=1),
                        ]
                    for start in range(0, len(answers), 240):
                        await ws.send_str(encode(answers[start : start + 240]).decode())
        finally:
            beating.cancel()


@asynccontextmanager
async def standing(folder: Path) -> AsyncIterator[tuple[Client, int]]:
    """A coordinator process with two such workers: an admin's client, and the process's id."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("GRIDX_", "COORDINATOR_"))}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gridx.cli", "--role", "coordinator", "--no-ui", "--host", "127.0.0.1"),
        *("--http-port", "0", "--ws-port", "0", "--data-dir", str(folder)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**environ, "GRIDX_CONFIG": os.devnull, "GRIDX_CREDITS_SIGNUP_GRANT": "100000000"},
    )
    assert process.stdout is not None
    urls: list[str] = []
    while line := (await process.stdout.readline()).decode():
        if found := re.search(r"(?:HTTP API|WebSocket): (\S+)", line):
            urls.append(found[1])
        if "ready" in line.lower():
            break
    drained = asyncio.create_task(process.stdout.read())
    try:
        async with Client(urls[0]) as stranger:
            token = (await stranger.register("bench", "correct horse battery")).token
        async with aiohttp.ClientSession() as session, Client(urls[0], token) as client:
            workers = [
                asyncio.create_task(instant_worker(session, urls[1], token, f"w{n}")) for n in range(2)
            ]
            while sum(worker.state == "online" for worker in await client.workers()) < 2:
                await asyncio.sleep(0.05)
            yield client, process.pid
            report = await client.audit() if (await client.me()).role == "admin" else None
            assert report is None or report.ok
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
    finally:
        process.terminate()
        await process.wait()
        await drained


async def measure(folder: Path, jobs: int, in_flight: int, batch: int) -> None:
    """Start a coordinator, load it, print the figures."""
    async with standing(folder) as (client, _):
        await load(client, jobs, in_flight, batch)


async def load(client: Client, jobs: int, in_flight: int, batch: int) -> None:
    """Submit with so many requests in flight, then wait until all have been paid."""
    left = iter(range(0, jobs, batch))
    submits_ms: list[float] = []
    ids: list[int] = []

    async def submitter() -> None:
        for _ in left:
            begun = time.perf_counter()
            if batch == 1:
                ids.append((await client.submit(SPEC)).id)
            else:
                ids.extend(job.id for job in await client.submit_batch([SPEC] * batch))
            submits_ms.append((time.perf_counter() - begun) * 1000)

    begun = time.perf_counter()
    await asyncio.gather(*(submitter() for _ in range(in_flight)))
    accepted_s = time.perf_counter() - begun
    for job_id in reversed(ids[-64:]):
        await client.wait(job_id)
    while page := (await client.jobs(states=("queued", "assigned", "running"), limit=1)).jobs:
        await client.wait(page[0].id)
    ended_s = time.perf_counter() - begun

    round_trips_ms: list[float] = []
    for _ in range(200):
        begun = time.perf_counter()
        job = await client.submit(SPEC)
        done = await client.wait(job.id)
        assert done.state is JobState.SUCCEEDED
        round_trips_ms.append((time.perf_counter() - begun) * 1000)

    submits = statistics.quantiles(submits_ms, n=100)
    trips = statistics.quantiles(round_trips_ms, n=100)
    print(f"{len(ids)} jobs, {in_flight} requests in flight, {batch} jobs a request")
    print(f"accepted       {len(ids) / accepted_s:8.0f} jobs/s")
    print(f"run and paid   {len(ids) / ended_s:8.0f} jobs/s")
    print(f"submit         p50 {submits[49]:6.1f} ms   p99 {submits[98]:6.1f} ms")
    print(f"submit to end  p50 {trips[49]:6.1f} ms   p99 {trips[98]:6.1f} ms   (one at a time)")


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:4]]
    count, flight, size = (*numbers, *(5000, 64, 1)[len(numbers) :])
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(measure(Path(name), count, flight, size))
