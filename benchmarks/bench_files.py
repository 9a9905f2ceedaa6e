"""What files cost: a large one and many small ones, sent, sent again, and fetched; and memory.

A real coordinator process and real sockets; the files lie on the same disk as the coordinator's.

    python benchmarks/bench_files.py [MIB] [SMALL]
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path

from bench_arrays import memory_mib
from bench_coordinator import standing

MIB = 1 << 20


async def took(work: Awaitable[object]) -> float:
    """Seconds that something takes."""
    begun = time.perf_counter()
    await work
    return time.perf_counter() - begun


async def measure(folder: Path, size_mib: int, small: int) -> None:
    """Send, send again, and print the figures."""
    large = folder / "large"
    with large.open("wb") as file:
        for _ in range(size_mib):
            file.write(os.urandom(MIB))
    many = folder / "many"
    many.mkdir()
    for number in range(small):
        (many / str(number)).write_bytes(os.urandom(1000))
    async with standing(folder / "grid") as (client, pid):
        before = most = memory_mib(pid)

        def look(done: int, total: int) -> None:
            nonlocal most
            most = max(most, memory_mib(pid))

        sent_s = await took(client.upload(large, progress=look))
        again_s = await took(client.upload(large))
        many_s = await took(client.upload_inputs([many]))
        known_s = await took(client.upload_inputs([many]))
        freed_s = await took(client.prune_uploads())
    print(
        f"{size_mib} MiB        {size_mib / sent_s:8.0f} MiB/s sent, {again_s:.2f} s when it is there already"
    )
    print(f"{small} of 1 kB  {small / many_s:8.0f} files/s sent, {known_s:.2f} s when they are there already")
    print(f"deleting       {freed_s:8.2f} s for all of them")
    print(f"memory         {before:8.0f} MiB before, at most {most:.0f}")


if __name__ == "__main__":
    mebibytes = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    files = int(sys.argv[2]) if len(sys.argv) > 2 else 2000
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(measure(Path(name), mebibytes, files))
