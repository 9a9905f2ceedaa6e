"""What an array costs: the submit of all its elements, running them when that costs nothing, and memory.

A real coordinator process and real sockets; workers that answer every assignment at once.

    python benchmarks/bench_arrays.py [ELEMENTS]
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

import psutil
from bench_coordinator import SPEC, standing
from msgspec.structs import replace

from gridx.messages import ArraySpec, JobState


def memory_mib(pid: int) -> float:
    """What the coordinator's process has in memory."""
    return float(psutil.Process(pid).memory_info().rss) / (1 << 20)


async def measure(folder: Path, count: int) -> None:
    """Submit an array, wait for its end, print the figures."""
    async with standing(folder) as (client, pid):
        before = most = memory_mib(pid)
        spec = replace(SPEC, args=["-v"], array=ArraySpec(args=[[f"file-{n}"] for n in range(count)]))
        begun = time.perf_counter()
        array = await client.submit(spec)
        submitted_s = time.perf_counter() - begun
        slowest = 0.0
        while not array.state.ended:
            await asyncio.sleep(0.2)
            asked = time.perf_counter()
            array = await client.job(array.id)
            slowest = max(slowest, time.perf_counter() - asked)
            most = max(most, memory_mib(pid))
        ended_s = time.perf_counter() - begun
        assert array.state is JobState.SUCCEEDED
        listed = [job.array_index async for job in client.all_elements(array.id)]
        assert listed == list(range(count))
        begun = time.perf_counter()
        gathered = [one.job.array_index async for one in client.outputs(array.id)]
        gathered_s = time.perf_counter() - begun
        assert gathered == listed
        for _ in range(3):
            array = await client.wait((await client.submit(spec)).id)
        after = memory_mib(pid)
        print(f"{count} elements with arguments of their own")
        print(f"submit         {submitted_s:8.2f} s")
        print(f"run and paid   {count / ended_s:8.0f} elements/s")
        print(f"slowest look   {slowest * 1000:8.0f} ms while they ran")
        print(f"outputs        {gathered_s:8.2f} s to gather all")
        print(
            f"memory         {before:8.0f} MiB before, at most {most:.0f}, {after:.0f} after three more such"
        )


if __name__ == "__main__":
    elements = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(measure(Path(name), elements))
