"""The machine has no descriptors left for the coordinator."""

from __future__ import annotations

import asyncio
import contextlib
import sys

import pytest

from gridx.errors import GridError
from gridx.messages import JobState

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of another process are Linux's")


async def test_without_descriptors_it_sheds_load_and_serves_again(start):
    import resource

    grid = await start(workers=("one",))
    stop = asyncio.Event()
    loads = [asyncio.create_task(grid.load(stop)) for _ in range(2)]
    await grid.until(lambda: len(grid.accepted) > 2, "the load to be accepted")
    pid = grid.coordinator.process.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (64, limits[1]))
    host, port = grid.processes.http_url.removeprefix("http://").split(":")
    opened = []
    for _ in range(100):
        with contextlib.suppress(OSError):
            opened.append(await asyncio.open_connection(host, int(port)))
    await asyncio.to_thread(grid.coordinator.says, "(?i)too many open files|out of system resource")
    # It says so now and then, and does nothing but that.
    assert grid.coordinator.text.count("out of system resource") < 20
    # Who is connected already is served, or told that it does not work now.
    for _ in range(10):
        with contextlib.suppress(GridError):
            await grid.submit()
    for _, writer in opened:
        writer.close()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    stop.set()
    await asyncio.gather(*loads)
    assert set((await grid.ended(*grid.accepted)).values()) == {JobState.SUCCEEDED}
    await grid.ended(*(await grid.everything()))
    await grid.sound()
    assert grid.coordinator.process.poll() is None
