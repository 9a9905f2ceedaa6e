"""Reading jobs, their payloads, attempts and output."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime
from functools import cache
from typing import Any, Final

from tortoise.expressions import Q
from tortoise.queryset import ValuesListQuery

from gridx.messages import JobState, Microcredits, Stream
from gridx.services.coordinator.states import LIVE_JOBS
from gridx.services.coordinator.store import rows
from gridx.services.coordinator.store.models import Attempt, Job, JobPayload, OutputChunk
from gridx.services.coordinator.store.orm import MAX_ID, Reader, Statement, bounded, storable
from gridx.services.coordinator.store.output import CHUNK_BYTES, STREAM_NUMBER
from gridx.services.coordinator.store.records import AttemptRecord, JobRecord, Payload

MAX_TEXT: Final = 200
"""Characters of a search; no name is longer."""
_MAX_IN: Final = 512
"""Ids in one query."""

_JOB = Statement(lambda: Job.filter(id=0).values_list(*rows.JOB))
_WAITING = Statement(lambda: Job.filter(state="").order_by("id").values_list(*rows.JOB))
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
        query = Job.filter(**({"user_id": 0} if user else {}), **({"state": ""} if state else {}))
        if text:
            query = query.filter(
                Q(name__contains="")
                | Q(id__contains="")
                | Q(worker__name__contains="")
                | Q(state__contains="")
            )
        return query.filter(id__lt=0).order_by("-id").limit(1).values_list(*rows.JOB)

    return Statement(build)


_Build = Callable[[list[int]], ValuesListQuery[Any]]


class _ById:
    """A query for a set of ids, in as few shapes as there are powers of two."""

    def __init__(self, build: _Build) -> None:
        self._build = build
        self._statements: dict[int, Statement] = {}

    async def rows(self, reader: Reader, ids: Iterable[int]) -> list[Any]:
        found: list[Any] = []
        wanted = sorted({bounded(value) for value in ids if value > 0})
        for at in range(0, len(wanted), _MAX_IN):
            part = wanted[at : at + _MAX_IN]
            size = 1 << (len(part) - 1).bit_length()
            if size not in self._statements:
                places = list(range(size))
                self._statements[size] = Statement(lambda places=places: self._build(places))  # type: ignore[misc]
            # No row has id 0.
            found += await reader.rows(self._statements[size], *part, *[0] * (size - len(part)))
        return found


_JOBS = _ById(lambda ids: Job.filter(id__in=ids).values_list(*rows.JOB))
_PAYLOADS = _ById(lambda ids: JobPayload.filter(job_id__in=ids).values_list(*rows.PAYLOAD))
_FAULTS = _ById(lambda ids: Attempt.filter(job_id__in=ids).values_list("job_id", "worker_id", "fault"))


def _literal(text: str) -> str:
    """A LIKE pattern for texts that contain this one, every character of which means itself."""
    for special in "\\%_":
        text = text.replace(special, "\\" + special)
    return f"%{text}%"


def _pieces(found: Iterable[Any], offset: int, limit: int) -> Iterator[bytes]:
    for start, data in found:
        yield data[max(0, offset - start) : max(0, offset + limit - start)]


class JobReads:
    """What is asked of jobs and attempts; part of ``Store``."""

    _reader: Reader

    async def job(self, job_id: int) -> JobRecord | None:
        """A job by id."""
        found = await self._reader.rows(_JOB, bounded(job_id))
        return rows.job_record(found[0]) if found else None

    async def jobs_by_id(self, ids: Iterable[int]) -> list[JobRecord]:
        """The jobs of these ids that there are, by id."""
        return [rows.job_record(row) for row in await _JOBS.rows(self._reader, ids)]

    async def job_page(
        self,
        *,
        user_id: int | None,
        states: Collection[JobState] = (),
        text: str = "",
        before: int | None = None,
        limit: int = 50,
    ) -> list[JobRecord]:
        """Jobs, newest first.

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
        like = [_literal(text)] * 4 if text else []
        found: list[Any] = []
        # A query for each state: of one, SQLite reads the newest from the index; of several it sorts all.
        for state in [[state.value] for state in set(states)] or [[]]:
            statement = _page(user_id is not None, bool(state), bool(text))
            found += await self._reader.rows(statement, *owner, *state, *like, *last)
        found.sort(key=lambda row: row[0], reverse=True)
        return [rows.job_record(row) for row in found[:limit]]

    async def payload(self, job_id: int) -> Payload | None:
        """A job's program, arguments and environment."""
        return (await self.payloads([job_id])).get(job_id)

    async def payloads(self, ids: Iterable[int]) -> dict[int, Payload]:
        """Payloads by job id."""
        return {row[0]: rows.payload(row) for row in await _PAYLOADS.rows(self._reader, ids)}

    async def attempts_of(self, job_id: int) -> list[AttemptRecord]:
        """A job's attempts, in order."""
        return [rows.attempt_record(row) for row in await self._reader.rows(_ATTEMPTS, bounded(job_id))]

    async def attempt(self, attempt_id: int) -> AttemptRecord | None:
        """An attempt by id."""
        found = await self._reader.rows(_ATTEMPT, bounded(attempt_id))
        return rows.attempt_record(found[0]) if found else None

    async def waiting_jobs(self) -> list[JobRecord]:
        """All queued jobs, by id."""
        return [rows.job_record(row) for row in await self._reader.rows(_WAITING, JobState.QUEUED.value)]

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
