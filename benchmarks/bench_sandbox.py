"""How long a small job takes from request to outcome, by the way in which it gets its place.

    python benchmarks/bench_sandbox.py [--jobs 30] [--image gridx-runtime:default]

Cold: a container made on demand, on a slot that is there. Warm: started ahead, used once; the next is ready
before the clock starts. Reuse: the same owner's next job. Process: no container.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
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


async def stream(sandbox: Sandbox, runtime: str, owner: str, jobs: int) -> None:
    for _ in range(jobs):
        await one(sandbox, runtime, owner)


async def containers(name: str, settings: WorkerSettings, jobs: int, folder: Path) -> None:
    sandbox = DockerSandbox(settings, identity="bench", data_path=folder)
    await sandbox.open()
    try:
        runtime = (await sandbox.status()).runtimes[0].name
        owners = ["owner"] * jobs if settings.reuse else [f"owner{number}" for number in range(jobs)]
        await one(sandbox, runtime, owners[0])
        timings = []
        for owner in owners:
            await ready(sandbox, settings.warm)
            timings.append(await one(sandbox, runtime, owner))
        say(name, timings)
        if settings.reuse:
            await one(sandbox, runtime, "other")
            for slots in (["owner"], ["owner", "other"]):
                begin = time.perf_counter()
                await asyncio.gather(*(stream(sandbox, runtime, owner, jobs * 10) for owner in slots))
                rate = jobs * 10 * len(slots) / (time.perf_counter() - begin)
                print(f"{f'  {len(slots)} at once':28} {rate:7.0f} jobs/s")
    finally:
        await sandbox.close()


async def processes(jobs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sandbox = ProcessSandbox(Path(folder))
        await sandbox.open()
        say("process", [await one(sandbox, "python", "owner") for _ in range(jobs)])
        await sandbox.close()


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=30)
    parser.add_argument("--image", default="gridx-runtime:default")
    arguments = parser.parse_args()
    images, jobs = [arguments.image], arguments.jobs
    await processes(jobs)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cold = WorkerSettings(runtimes=images, warm=0, reuse=False)
        await containers("cold", cold, jobs, folder)
        warm = WorkerSettings(runtimes=images, warm=1, reuse=False)
        await containers("warm, used once", warm, jobs, folder)
        reuse = WorkerSettings(runtimes=images, warm=0, reuse=True)
        await containers("reuse, same owner", reuse, jobs, folder)


if __name__ == "__main__":
    asyncio.run(main())
