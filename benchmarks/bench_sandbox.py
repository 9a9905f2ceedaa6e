"""How long a small job takes from request to outcome, by the way in which it gets its place.

    python benchmarks/bench_sandbox.py [--jobs 30] [--slots 1] [--image gridx-runtime:default]

Cold: a container made on demand, one on a fresh slot and one on a slot that is there. Warm: started ahead, used
once; the next is ready before the clock starts. Reuse: the same owner's next job. Process: no container.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from gridx.config import WorkerSettings
from gridx.services.worker.sandbox.base import RunRequest, Sandbox
from gridx.services.worker.sandbox.docker import DockerSandbox
from gridx.services.worker.sandbox.process import ProcessSandbox

CODE = "print('hello')"


async def one(sandbox: Sandbox, runtime: str, owner: str) -> tuple[float, float]:
    """Milliseconds to the first output and to the outcome."""
    start = time.perf_counter()
    first = 0.0

    async def sink(stream: str, data: bytes) -> None:
        nonlocal first
        first = first or time.perf_counter() - start

    async def started() -> None:
        return

    request = RunRequest(
        attempt_id=1,
        job_id=1,
        owner=owner,
        code=CODE,
        language="python",
        args=(),
        env={},
        cpu_millis=1000,
        memory_mb=512,
        gpus=(),
        timeout_s=60,
        runtime=runtime,
        output_cap_bytes=1 << 20,
    )
    outcome = await sandbox.run(request, sink, started, asyncio.Event())
    assert outcome.outcome == "succeeded", outcome
    return first * 1000, (time.perf_counter() - start) * 1000


async def ready(sandbox: DockerSandbox, count: int) -> None:
    while int((await sandbox.status()).details["places ready"]) < count:
        await asyncio.sleep(0.01)


def say(name: str, timings: list[tuple[float, float]]) -> None:
    first = statistics.median(first for first, _ in timings)
    whole = sorted(whole for _, whole in timings)
    print(
        f"{name:28} first output {first:7.1f} ms   outcome {statistics.median(whole):7.1f} ms"
        f"   p90 {whole[len(whole) * 9 // 10]:7.1f} ms"
    )


async def measure(
    jobs: int,
    name: str,
    job: Callable[[int], Awaitable[tuple[float, float]]],
    before: Callable[[], Awaitable[None]],
) -> None:
    timings = []
    for number in range(jobs):
        await before()
        timings.append(await job(number))
    say(name, timings)


async def containers(arguments: argparse.Namespace) -> None:
    async def nothing() -> None:
        return

    images = [arguments.image]
    for name, settings, owner in (
        ("cold", WorkerSettings(runtimes=images, warm=0, reuse=False), lambda n: f"owner{n}"),
        ("warm, used once", WorkerSettings(runtimes=images, warm=1, reuse=False), lambda n: f"owner{n}"),
        ("reuse, same owner", WorkerSettings(runtimes=images, warm=0, reuse=True), lambda n: "owner"),
    ):
        sandbox = DockerSandbox(settings, identity="bench")
        await sandbox.open()
        try:
            runtime = (await sandbox.status()).runtimes[0].name
            await one(sandbox, runtime, owner(-1))

            async def before(sandbox: DockerSandbox = sandbox, warm: int = settings.warm) -> None:
                await ready(sandbox, warm)

            await measure(arguments.jobs, name, lambda n, s=sandbox, o=owner: one(s, runtime, o(n)), before)
            if settings.reuse:
                await one(sandbox, runtime, "other")

                async def stream(owner: str, sandbox: DockerSandbox = sandbox) -> None:
                    for _ in range(arguments.jobs * 10):
                        await one(sandbox, runtime, owner)

                begin = time.perf_counter()
                await stream("owner")
                print(f"{'  one slot':28} {arguments.jobs * 10 / (time.perf_counter() - begin):7.0f} jobs/s")
                begin = time.perf_counter()
                await asyncio.gather(stream("owner"), stream("other"))
                print(f"{'  two slots':28} {arguments.jobs * 20 / (time.perf_counter() - begin):7.0f} jobs/s")
        finally:
            await sandbox.close()


async def processes(arguments: argparse.Namespace) -> None:
    async def nothing() -> None:
        return

    with tempfile.TemporaryDirectory() as folder:
        sandbox = ProcessSandbox(Path(folder))
        await sandbox.open()
        await measure(arguments.jobs, "process", lambda n: one(sandbox, "python", "owner"), nothing)
        await sandbox.close()


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=30)
    parser.add_argument("--image", default="gridx-runtime:default")
    arguments = parser.parse_args()
    await processes(arguments)
    await containers(arguments)


if __name__ == "__main__":
    asyncio.run(main())
