"""The elements of arrays: listed in order, found by their index, and what they wrote gathered."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import Final

from gridx.client_follow import stored_output
from gridx.client_wire import Wire
from gridx.messages import Job, JobPage, JobState

PAGE: Final = 500
AT_ONCE: Final = 8
"""Elements whose output is read at the same time."""


@dataclass(frozen=True, slots=True)
class ElementOutput:
    """An element with all that its last attempt wrote."""

    job: Job
    stdout: bytes
    stderr: bytes


class ClientArrays:
    """What a client asks about arrays; part of ``Client``. An array's number is that of a job."""

    _wire: Wire

    async def elements(
        self,
        array_id: int,
        *,
        states: Collection[JobState] = (),
        after: int | None = None,
        limit: int = PAGE,
    ) -> JobPage:
        """A page of an array's elements in order; its ``next`` is the ``after`` of the one that follows."""
        query = {"array": array_id, "state": ",".join(states), "after": after, "limit": limit}
        return await self._wire.get("/jobs", JobPage, query)

    async def element(self, array_id: int, index: int) -> Job:
        """The element with this index. Raises NotFound where there is none."""
        page = await self._wire.get("/jobs", JobPage, {"array": array_id, "index": index})
        return page.jobs[0]

    async def all_elements(self, array_id: int, *, states: Collection[JobState] = ()) -> AsyncIterator[Job]:
        """All elements, page by page."""
        after: int | None = None
        while True:
            page = await self.elements(array_id, states=states, after=after)
            for job in page.jobs:
                yield job
            if page.next is None:
                return
            after = page.next

    async def outputs(
        self, array_id: int, *, states: Collection[JobState] = ()
    ) -> AsyncIterator[ElementOutput]:
        """What each element wrote, in the order of their indices; some are read ahead at the same time."""
        reading: deque[asyncio.Task[ElementOutput]] = deque()
        try:
            async for job in self.all_elements(array_id, states=states):
                reading.append(asyncio.create_task(self._read(job)))
                if len(reading) >= AT_ONCE:
                    yield await reading.popleft()
            while reading:
                yield await reading.popleft()
        finally:
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)

    async def _read(self, job: Job) -> ElementOutput:
        stdout = await stored_output(self._wire, job.id, "stdout") if job.stdout_bytes else b""
        stderr = await stored_output(self._wire, job.id, "stderr") if job.stderr_bytes else b""
        return ElementOutput(job, stdout, stderr)
