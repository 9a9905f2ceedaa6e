"""The elements of arrays: listed in order, found by their index, and what they wrote gathered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from typing import Final

from gridx.client_follow import stored_output
from gridx.client_wire import Wire
from gridx.messages import ElementOutput, ElementOutputs, Job, JobPage, JobState

PAGE: Final = 500


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
        """What each element wrote, in the order of their indices, page by page."""
        after: int | None = None
        while True:
            query = {"state": ",".join(states), "after": after}
            page = await self._wire.get(f"/jobs/{array_id}/outputs", ElementOutputs, query)
            for element in page.elements:
                yield await self._whole(element)
            if page.next is None:
                return
            after = page.next

    async def _whole(self, element: ElementOutput) -> ElementOutput:
        """With the rest of what was too much to come along."""
        job, stdout, stderr = element.job, element.stdout, element.stderr
        if len(stdout) < job.stdout_bytes:
            stdout += await stored_output(self._wire, job.id, "stdout", len(stdout))
        if len(stderr) < job.stderr_bytes:
            stderr += await stored_output(self._wire, job.id, "stderr", len(stderr))
        return ElementOutput(job, stdout, stderr)
