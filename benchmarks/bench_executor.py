"""How quick functions are on the grid: one call after the other, many at once, by chunks, and large ones.

    python benchmarks/bench_executor.py [--calls 1000] [--cores 4] [--sandbox process|docker]

A coordinator and a worker as processes of their own on this machine, in a folder that is removed at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gridx.client import Client
from gridx.executor import Executor

PASSWORD = "correct horse"


@contextmanager
def grid(folder: Path, cores: int, sandbox: str) -> Iterator[tuple[str, str]]:
    """The URL of a grid and a token of its only user, who also has its only worker."""
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, *flags: str, **environ: str) -> tuple[subprocess.Popen[bytes], Path]:
        log = folder / f"{name}.log"
        with log.open("wb") as file:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "gridx.cli", "--no-ui", "--data-dir", str(folder / name), *flags],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "GRIDX_CONFIG": os.devnull, "GRIDX_HOME": str(folder), **environ},
                )
            )
        return started[-1], log

    def says(node: tuple[subprocess.Popen[bytes], Path], pattern: str) -> str:
        while not (found := re.search(pattern, node[1].read_text())):
            assert node[0].poll() is None, node[1].read_text()
            time.sleep(0.02)
        return found[1]

    local = ("--host", "127.0.0.1", "--http-port", "0", "--ws-port", "0")
    try:
        coordinator = start(
            "coordinator",
            *("--role", "coordinator", *local),
            GRIDX_COORDINATOR_MAX_QUEUED_PER_USER="100000",
            GRIDX_CREDITS_SIGNUP_GRANT="100000",
        )
        url = says(coordinator, r"HTTP API: (http://\S+)")
        worker = start(
            "worker",
            *("--role", "worker", "--user", "ann"),
            GRIDX_PASSWORD=PASSWORD,
            COORDINATOR_HTTP=url,
            COORDINATOR_WS=says(coordinator, r"WebSocket: (ws://[^/\s]+)"),
            GRIDX_WORKER_CPUS=str(cores),
            GRIDX_WORKER_SANDBOX=sandbox,
        )
        says(worker, r"(connected to)")

        async def sign_in() -> str:
            async with Client(url) as client:
                return (await client.login("ann", PASSWORD)).token

        yield url, asyncio.run(sign_in())
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait()


def nothing(number: int = 0) -> int:
    return number


def reverse(data: bytes) -> bytes:
    return data[::-1]


def say(name: str, seconds: float, calls: int) -> None:
    print(f"{name:44} {seconds:8.2f} s {calls / seconds:10,.0f} calls/s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--cores", type=float, default=4)
    parser.add_argument("--sandbox", choices=("process", "docker"), default="process")
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="gridx-bench-") as name,
        grid(Path(name), int(asked.cores), asked.sandbox) as (url, token),
        Executor(url, token=token, cpus=0.5, memory_mb=128, timeout_s=60) as pool,
    ):
        pool.submit(nothing).result()
        times = []
        for _ in range(30):
            start = time.perf_counter()
            pool.submit(nothing).result()
            times.append((time.perf_counter() - start) * 1000)
        print(f"one call after the other: {statistics.median(times):.0f} ms, worst {max(times):.0f} ms")

        start = time.perf_counter()
        futures = [pool.submit(nothing, number) for number in range(asked.calls)]
        print(f"{asked.calls} submits return in {time.perf_counter() - start:.2f} s")
        assert [future.result() for future in futures] == list(range(asked.calls))
        say(f"{asked.calls} calls", time.perf_counter() - start, asked.calls)

        start = time.perf_counter()
        assert list(pool.map(nothing, range(asked.calls), chunksize=50)) == list(range(asked.calls))
        say(f"{asked.calls} calls, 50 to a job", time.perf_counter() - start, asked.calls)

        data = os.urandom(32 << 20)
        start = time.perf_counter()
        assert pool.with_options(memory_mb=1024).submit(reverse, data).result() == data[::-1]
        say("32 MiB there and back", time.perf_counter() - start, 1)


if __name__ == "__main__":
    main()
