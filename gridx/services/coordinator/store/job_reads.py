"""Reading jobs, their payloads, attempts and output."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from functools import cache
from typing import Any

from tortoise.expressions import Q
from tortoise.queryset import ValuesListQuery

from gridx.messages import JobState, Microcredits, Stream
from gridx.services.coordinator.states import LIVE_JOBS
from gridx.services.coordinator.store import rows
from gridx.services.coordinator.store.array_reads import JOBS, ArrayReads
from gridx.services.coordinator.store.models import Attempt, Job, JobPayload, OutputChunk
from gridx.services.coordinator.store.orm import MAX_ID, ById, Statement, bounded, storable
from gridx.services.coordinator.store.output import CHUNK_BYTES, STREAM_NUMBER
from gridx.services.coordinator.store.records import AttemptRecord, JobRecord, Payload
from gridx.services.coordinator.store.text import MAX_TEXT, literal

_JOB = Statement(lambda: Job.filter(id=0).values_list(*rows.JOB))
_WAITING = Statement(
    lambda: (
        Job.filter(Q(state="") & (Q(array_id__isnull=True) | Q(attempts__gt=0)))
        .order_by("id")
        .values_list(*rows.JOB)
    )
)
_LIVE = Statement(
    lambda: Job.filter(state="").values_list(*rows.JOB, *(f"attempt__{name}" for name in rows.ATTEMPT))
)
_ATTEMPT = Statement(lambda: Attempt.filter(id=0).values_list(*rows.ATTEMPT))
_ATTEMPTS = Statement(lambda: Attempt.filter(job_id=0).order_by("number").values_list(*rows.ATTEMPT))
_USAGE = Statement(
    lambda: Job.filter(ended_at__gte=0, charge__gt=0).values_list("user_id", "ended_at", "charge")
)
_OUTPUT = Statement(
    lambda: (
        OutputChunk.filter(attempt_id=0, stream=0, offset__gt=0, offset__lt=0)
        .order_by("offset")
        .values_list("offset", "data")
    )
)


@cache
def _page(user: bool, state: bool, text: bool) -> Statement:
    """The listing with these filters; values in this order, then ``before`` and the limit."""

    def build() -> ValuesListQuery[Any]:
        query = Job.filter(
            array_id__isnull=True, **({"user_id": 0} if user else {}), **({"state": ""} if state else {})
        )
        if text:
            query = query.filter(
                Q(name__contains="")
                | Q(id__contains="")
                | Q(worker__name__contains="")
                | Q(state__contains="")
            )
        return query.filter(id__lt=0).order_by("-id").limit(1).values_list(*rows.JOB)

    return Statement(build)


_PAYLOADS = ById(lambda ids: JobPayload.filter(job_id__in=ids).values_list(*rows.PAYLOAD))
_FAULTS = ById(lambda ids: Attempt.filter(job_id__in=ids).values_list("job_id", "worker_id", "fault"))


def _pieces(found: Iterable[Any], offset: int, limit: int) -> Iterator[bytes]:
    for start, data in found:
        yield data[max(0, offset - start) : max(0, offset + limit - start)]


class JobReads(ArrayReads):
    """What is asked of jobs and attempts; part of ``Store``."""

    async def job(self, job_id: int) -> JobRecord | None:
        """A job by id."""
        found = await self._reader.rows(_JOB, bounded(job_id))
        return rows.job_record(found[0]) if found else None

    async def jobs_by_id(self, ids: Iterable[int]) -> list[JobRecord]:
        """The jobs of these ids that there are, by id."""
        return [rows.job_record(row) for row in await JOBS.rows(self._reader, ids)]

    async def job_page(
        self,
        *,
        user_id: int | None,
        states: Collection[JobState] = (),
        text: str = "",
        before: int | None = None,
        limit: int = 50,
    ) -> list[JobRecord]:
        """Jobs that are in no array, newest first.

        Args:
            user_id: whose; None: everybody's.
            states: any of these; empty: all.
            text: literally part of the name, the id, the worker's name or the state; case does not matter.
            before: ids below this one: the last id of the page before.
            limit: how many at most.
        """
        if limit < 1 or len(text) > MAX_TEXT or not storable(text):
            return []
        last = [MAX_ID if before is None else bounded(before), limit]
        owner = [] if user_id is None else [bounded(user_id)]
        like = [literal(text)] * 4 if text else []
        # A query for each state: of one, SQLite reads the newest from the index; of several it sorts all.
        each = [[state.value] for state in set(states)] or [[]]
        statement = _page(user_id is not None, bool(states), bool(text))
        parts = await self._reader.rows_of_each(statement, [[*owner, *state, *like, *last] for state in each])
        found = sorted(parts, key=lambda row: row[0], reverse=True)
        return [rows.job_record(row) for row in found[:limit]]

    async def payload(self, job_id: int) -> Payload | None:
        """A job's program, arguments and environment."""
        return (await self.payloads([job_id])).get(job_id)

    async def payloads(self, ids: Iterable[int]) -> dict[int, Payload]:
        """Payloads by job id."""
        wanted = set(ids)
        found = {row[0]: rows.payload(row) for row in await _PAYLOADS.rows(self._reader, wanted)}
        if missing := wanted - found.keys():
            found |= await self.element_payloads(missing)
        return found

    async def attempts_of(self, job_id: int) -> list[AttemptRecord]:
        """A job's attempts, in order."""
        return [rows.attempt_record(row) for row in await self._reader.rows(_ATTEMPTS, bounded(job_id))]

    async def attempt(self, attempt_id: int) -> AttemptRecord | None:
        """An attempt by id."""
        found = await self._reader.rows(_ATTEMPT, bounded(attempt_id))
        return rows.attempt_record(found[0]) if found else None

    async def waiting_jobs(self) -> list[JobRecord]:
        """All queued jobs by id, without elements of arrays that were never tried."""
        return [rows.job_record(row) for row in await self._reader.rows(_WAITING, JobState.QUEUED.value, 0)]

    async def live_attempts(self) -> list[tuple[AttemptRecord, JobRecord]]:
        """Attempts that are assigned or running, with their jobs; by attempt id."""
        found: list[tuple[AttemptRecord, JobRecord]] = []
        for state in LIVE_JOBS:
            found += [
                (rows.attempt_record(row[len(rows.JOB) :]), rows.job_record(row))
                for row in map(tuple, await self._reader.rows(_LIVE, state.value))
            ]
        return sorted(found, key=lambda pair: pair[0].id)

    async def recent_usage(self, since: datetime) -> list[tuple[int, datetime, Microcredits]]:
        """What was charged since a time: user id, when the job ended, the charge."""
        found = await self._reader.rows(_USAGE, rows.micros(since), 0)
        return [(row[0], rows.moment(row[1]), row[2]) for row in found]

    async def machine_faults(self, job_ids: Iterable[int]) -> dict[int, set[int]]:
        """For each of these jobs that met any: the workers whose fault ended an attempt of it."""
        found: dict[int, set[int]] = {}
        for job_id, worker_id, fault in await _FAULTS.rows(self._reader, job_ids):
            if fault:
                found.setdefault(job_id, set()).add(worker_id)
        return found

    async def read_output(self, attempt_id: int, stream: Stream, offset: int, limit: int) -> bytes:
        """At most ``limit`` stored bytes of a stream from ``offset`` on; empty past the end."""
        if limit < 1 or offset < 0:
            return b""
        found = await self._reader.rows(
            _OUTPUT,
            bounded(attempt_id),
            STREAM_NUMBER[stream],
            bounded(offset) - CHUNK_BYTES,
            bounded(offset + limit),
        )
        return b"".join(_pieces(found, offset, limit))
