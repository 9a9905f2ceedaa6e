"""Reading arrays, their elements, and what jobs wait for."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable
from functools import cache
from typing import Any, Final

from msgspec.structs import replace
from tortoise.expressions import Q
from tortoise.queryset import ValuesListQuery

from gridx.messages import Dependency as Wanted
from gridx.messages import JobState
from gridx.services.coordinator.store import rows
from gridx.services.coordinator.store.models import (
    Array,
    ArrayElement,
    ArrayPayload,
    Dependency,
    Job,
    OutputChunk,
)
from gridx.services.coordinator.store.orm import MAX_ID, ById, Reader, Statement, bounded, storable
from gridx.services.coordinator.store.output import STREAM_NUMBER
from gridx.services.coordinator.store.records import ArrayRecord, JobRecord, Payload
from gridx.services.coordinator.store.text import MAX_TEXT, literal

JOBS: Final = ById(lambda ids: Job.filter(id__in=ids).values_list(*rows.JOB))
_ARRAY = Statement(lambda: Array.filter(id=0).values_list(*rows.ARRAY))
_OPEN_ARRAYS = Statement(lambda: Array.filter(ended_at__isnull=True).order_by("id").values_list(*rows.ARRAY))
_FRESH = Statement(
    lambda: Job.filter(array_id=0, state="", attempts=0).order_by("id").values_list("id", "array_index")
)
_ELEMENT = Statement(lambda: Job.filter(array_id=0, array_index=0, id__gt=0).values_list(*rows.JOB))
_UNMET = Statement(lambda: Dependency.filter(met=False).order_by("id").values_list("job_id", "parent_id"))
_PARENTS = Statement(
    lambda: Dependency.filter(job_id=0).order_by("parent_id").values_list("parent_id", "needs")
)
_ELEMENTS_OF = ById(lambda ids: Job.filter(id__in=ids).values_list("id", "array_id"))
_SHARED = ById(
    lambda ids: ArrayPayload.filter(array_id__in=ids).values_list(
        "array_id", "code", "args", "env", "inputs", "outputs", "array__total_count"
    )
)
_OWN = Statement(
    lambda: ArrayElement.filter(array_id=0, position__gte=0, position__lte=0).values_list(
        "position", "args", "inputs"
    )
)


_LAST_ATTEMPTS = ById(lambda ids: Job.filter(id__in=ids).values_list("id", "attempt_id"))
_CHUNKS = ById(
    lambda ids: OutputChunk.filter(attempt_id__in=ids).values_list("attempt_id", "stream", "offset", "data")
)


@cache
def _page(user: bool, state: bool, text: bool) -> Statement:
    """The listing with these filters; values in this order, then ``before`` and the limit."""

    def build() -> ValuesListQuery[Any]:
        query = Array.filter(**({"user_id": 0} if user else {}), **({"state": ""} if state else {}))
        if text:
            query = query.filter(Q(name__contains="") | Q(id__contains="") | Q(state__contains=""))
        return query.filter(id__lt=0).order_by("-id").limit(1).values_list(*rows.ARRAY)

    return Statement(build)


@cache
def _elements(state: bool) -> Statement:
    def build() -> ValuesListQuery[Any]:
        # Elements have the numbers after their array's; without a state those alone are walked, in order.
        query = Job.filter(array_id=0, state="") if state else Job.all()
        return query.filter(id__gt=0, id__lte=0).order_by("id").limit(1).values_list(*rows.JOB)

    return Statement(build)


class ArrayReads:
    """What is asked of arrays; part of ``Store``."""

    _reader: Reader

    async def array(self, array_id: int) -> ArrayRecord | None:
        """An array by its number."""
        found = await self._arrays(await self._reader.rows(_ARRAY, bounded(array_id)))
        return found[0] if found else None

    async def open_arrays(self) -> list[ArrayRecord]:
        """Arrays that have not ended, by number."""
        return await self._arrays(await self._reader.rows(_OPEN_ARRAYS))

    async def array_page(
        self,
        *,
        user_id: int | None,
        states: Collection[JobState] = (),
        text: str = "",
        before: int | None = None,
        limit: int = 50,
    ) -> list[ArrayRecord]:
        """Arrays, newest first. Arguments as for ``job_page``; an array has no worker."""
        if limit < 1 or len(text) > MAX_TEXT or not storable(text):
            return []
        last = [MAX_ID if before is None else bounded(before), limit]
        owner = [] if user_id is None else [bounded(user_id)]
        like = [literal(text)] * 3 if text else []
        each = [[state.value] for state in set(states)] or [[]]
        statement = _page(user_id is not None, bool(states), bool(text))
        parts = await self._reader.rows_of_each(statement, [[*owner, *state, *like, *last] for state in each])
        found = sorted(parts, key=lambda row: row[0], reverse=True)
        return await self._arrays(found[:limit])

    async def elements(
        self,
        array: ArrayRecord,
        *,
        states: Collection[JobState] = (),
        after: int | None = None,
        limit: int = 50,
    ) -> list[JobRecord]:
        """Elements in the order of their indices, from behind the id ``after`` on."""
        bounds = [max(array.id, bounded(after or 0)), array.id + array.count, limit]
        each = [[array.id, state.value] for state in set(states)] or [[]]
        parts = await self._reader.rows_of_each(
            _elements(bool(states)), [[*wanted, *bounds] for wanted in each]
        )
        found = sorted(parts, key=lambda row: row[0])
        return [rows.job_record(row) for row in found[:limit]]

    async def element(self, array: ArrayRecord, index: int) -> JobRecord | None:
        """An element by its index."""
        if array.count == array.total_count:
            position = index - array.first_index
            if not 0 <= position < array.count:
                return None
            found = await self._reader.rows(_ELEMENT, array.id, bounded(index), array.id + position)
        else:
            found = await self._reader.rows(_ELEMENT, array.id, bounded(index), array.id)
        return rows.job_record(found[0]) if found else None

    async def fresh_elements(self, array_id: int) -> list[tuple[int, int]]:
        """Ids and indices of elements that wait and were never tried."""
        found = await self._reader.rows(_FRESH, bounded(array_id), JobState.QUEUED.value, 0)
        return [(row[0], row[1]) for row in found]

    async def element_payloads(self, ids: Iterable[int]) -> dict[int, Payload]:
        """What elements are given, each with what it has of its own."""
        members: dict[int, list[int]] = defaultdict(list)
        for job_id, array_id in await _ELEMENTS_OF.rows(self._reader, ids):
            if array_id is not None:
                members[array_id].append(job_id)
        found: dict[int, Payload] = {}
        for array_id, shared in (await self.shared_payloads(members)).items():
            found |= await self.own_payloads(array_id, shared, members[array_id])
        return found

    async def shared_payloads(self, array_ids: Iterable[int]) -> dict[int, Payload]:
        """What the elements of these arrays have in common."""
        return {
            row[0]: replace(rows.payload(row), array_count=row[6])
            for row in await _SHARED.rows(self._reader, array_ids)
        }

    async def own_payloads(
        self, array_id: int, shared: Payload, job_ids: Collection[int]
    ) -> dict[int, Payload]:
        """What these elements of an array are given: what they share, and what each has of its own."""
        found = dict.fromkeys(job_ids, shared)
        first, last = min(job_ids), max(job_ids)
        own = await self._reader.rows(_OWN, array_id, first - array_id - 1, last - array_id - 1)
        for position, args, inputs in own:
            job_id = array_id + 1 + position
            if job_id in found:
                files = rows.input_files(inputs)
                found[job_id] = replace(
                    shared,
                    args=[*shared.args, *json.loads(args), *(file.path for file in files)],
                    inputs=[*shared.inputs, *files],
                )
        return found

    async def last_outputs(self, job_ids: Iterable[int]) -> dict[int, tuple[bytes, bytes]]:
        """All that is stored of stdout and stderr of these jobs' last attempts. They are kept in memory."""
        attempts = {
            attempt_id: job_id
            for job_id, attempt_id in await _LAST_ATTEMPTS.rows(self._reader, job_ids)
            if attempt_id is not None
        }
        parts: dict[tuple[int, int], list[tuple[int, bytes]]] = defaultdict(list)
        for attempt_id, stream, offset, data in await _CHUNKS.rows(self._reader, attempts):
            parts[attempt_id, stream].append((offset, data))
        joined = {key: b"".join(data for _, data in sorted(found)) for key, found in parts.items()}
        stdout, stderr = STREAM_NUMBER["stdout"], STREAM_NUMBER["stderr"]
        return {
            job_id: (joined.get((attempt_id, stdout), b""), joined.get((attempt_id, stderr), b""))
            for attempt_id, job_id in attempts.items()
        }

    async def unmet_dependencies(self) -> list[tuple[int, int]]:
        """Who waits for whom: a job or array, and a parent of it. Some of the former may have ended."""
        return [(row[0], row[1]) for row in await self._reader.rows(_UNMET, False)]

    async def dependencies_of(self, job_id: int) -> list[Wanted]:
        """What a job or array was to wait for."""
        found = await self._reader.rows(_PARENTS, bounded(job_id))
        return [Wanted(job_id=row[0], when=row[1]) for row in found]

    async def _arrays(self, found: Iterable[Any]) -> list[ArrayRecord]:
        arrays = list(found)
        firsts = {
            row[0] - 1: rows.job_record(row)
            for row in await JOBS.rows(self._reader, [row[0] + 1 for row in arrays])
        }
        return [rows.array_record(row, firsts[row[0]]) for row in arrays]
