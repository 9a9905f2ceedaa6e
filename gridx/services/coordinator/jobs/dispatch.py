"""From waiting to sent: plans a round when something changed, commits it at once, sends it in batches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from typing import Final

from msgspec.structs import replace

from gridx.clock import Clock
from gridx.config import Settings
from gridx.errors import GridError, Unavailable
from gridx.messages import Assign, Assignment, AttemptState, JobState
from gridx.services.coordinator.files import file_caps
from gridx.services.coordinator.fleet import Fleet
from gridx.services.coordinator.jobs.backlog import Backlog, weight_of
from gridx.services.coordinator.jobs.lifecycle import Lifecycle
from gridx.services.coordinator.live import Ask, Live
from gridx.services.coordinator.scheduler import Placement
from gridx.services.coordinator.store import Store
from gridx.services.coordinator.store.records import AttemptRecord, JobRecord, NewAttempt, Payload

log = logging.getLogger("gridx.coordinator")

RETRY_S: Final = 1.0
ASSIGN_BYTES: Final = 512 << 10
"""Programs that go into one frame; one that is larger goes alone."""
ASSIGN_ATTEMPTS: Final = 64
INPUT_BYTES: Final = 160
"""About what an input takes in a frame beside its path."""


class Dispatcher:
    """Gives waiting jobs to workers. ``cancelled``: jobs whose cancel came while they were being placed."""

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        backlog: Backlog,
        lifecycle: Lifecycle,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._backlog = backlog
        self._lifecycle = lifecycle
        self._clock = clock
        self._lease_s = settings.coordinator.lease_s
        self._cap_bytes = settings.coordinator.output_cap_bytes
        self._out_files = file_caps(settings.files)
        self.cancelled: dict[int, str] = {}
        self.rounds = 0

    async def run(self) -> None:
        """Place jobs whenever something changed, for ever."""
        while True:
            await self._backlog.changed.wait()
            self._backlog.changed.clear()
            if len(self._backlog):
                await self._round()
            # Others have their turn on the event loop between two rounds.
            await asyncio.sleep(0)

    async def _round(self) -> None:
        self.rounds += 1
        plan = self._backlog.plan()
        if plan.more:
            self._backlog.changed.set()
        if not plan.placements:
            return
        taken = [(self._backlog.take(placement), placement) for placement in plan.placements]
        try:
            attempts = await self._store.assign(
                [NewAttempt(p.job_id, p.worker_id, p.gpus, p.runtime) for _, p in taken]
            )
        except Unavailable as error:
            for record, _ in taken:
                self._backlog.add(record)
            log.warning("no job can be placed now: %s", error.message)
            await asyncio.sleep(RETRY_S)
            return
        begun: list[Live] = []
        for (record, placement), attempt in zip(taken, attempts, strict=True):
            if attempt is not None:
                begun.append(self._begin(record, placement, attempt))
            elif not self._backlog.put_back(record):
                # It was cancelled while it was being placed.
                self._backlog.forget(record.id)
                self.cancelled.pop(record.id, None)
        if begun:
            await self._send(begun)

    def _begin(self, record: JobRecord, placement: Placement, attempt: AttemptRecord) -> Live:
        now = self._clock.monotonic()
        job = replace(
            record,
            state=JobState.ASSIGNED,
            reason="",
            not_before=None,
            files=0,
            file_bytes=0,
            attempts=attempt.number,
            current_attempt_id=attempt.id,
            worker_id=attempt.worker_id,
            worker_name=attempt.worker_name,
            stdout_bytes=0,
            stderr_bytes=0,
        )
        live = Live(attempt, job, now + self._lease_s, now, weight_of(job))
        self._fleet.begin(live)
        self._lifecycle.tell(job)
        log.debug("attempt %d of job %d goes to worker %d", attempt.id, job.id, placement.worker_id)
        return live

    async def _send(self, begun: Sequence[Live]) -> None:
        try:
            payloads = await self._payloads([live.job for live in begun])
        except GridError as error:
            log.warning("programs cannot be read now: %s", error.message)
            payloads = {}
        by_worker: dict[int, list[Assignment]] = {}
        for live in begun:
            job_id, payload = live.job.id, payloads.get(live.job.id)
            cancelled = self.cancelled.pop(job_id, "")
            if self._fleet.live(live.id) is not live:
                continue
            if cancelled or live.asked is Ask.CANCEL:
                why = cancelled or live.job.reason or Ask.CANCEL.value
            elif payload is None:
                why = "its program could not be read"
            elif self._fleet.link(live.worker_id) is None:
                why = "its worker went away before it was sent"
            else:
                by_worker.setdefault(live.worker_id, []).append(self._assignment(live, payload))
                self._backlog.payloads.drop(job_id)
                continue
            self._lifecycle.spawn(self._lifecycle.give_back(live, AttemptState.RELEASED, why, fault=False))
        for worker_id, assignments in by_worker.items():
            for part in _parts(assignments):
                self._fleet.send(worker_id, Assign(attempts=part))

    async def _payloads(self, jobs: Sequence[JobRecord]) -> dict[int, Payload]:
        kept = self._backlog.payloads
        found: dict[int, Payload] = {}
        elements: dict[int, list[int]] = {}
        for job in jobs:
            if job.array_id is not None:
                elements.setdefault(job.array_id, []).append(job.id)
            elif (payload := kept.get(job.id)) is not None:
                found[job.id] = payload
        for array_id, job_ids in elements.items():
            shared = kept.get(array_id) or (await self._store.shared_payloads([array_id])).get(array_id)
            if shared is not None:
                kept.keep(array_id, shared)
                found |= await self._store.own_payloads(array_id, shared, job_ids)
        missing = [job.id for job in jobs if job.array_id is None and job.id not in found]
        if missing:
            found |= await self._store.payloads(missing)
        return found

    def _assignment(self, live: Live, payload: Payload) -> Assignment:
        job = live.job
        return Assignment(
            attempt_id=live.id,
            job_id=job.id,
            number=live.attempt.number,
            owner=job.owner,
            name=job.name,
            code=payload.code,
            language=job.language,
            args=payload.args,
            env=payload.env,
            cpu_millis=job.cpu_millis,
            memory_mb=job.memory_mb,
            gpus=list(live.attempt.gpus),
            timeout_s=job.timeout_s,
            runtime=live.attempt.runtime,
            output_cap_bytes=self._cap_bytes,
            inputs=payload.inputs,
            outputs=payload.outputs,
            out_files=self._out_files,
            array_index=job.array_index,
            array_count=payload.array_count,
        )


def _parts(assignments: Sequence[Assignment]) -> Iterator[list[Assignment]]:
    """Cut into frames that are not too large."""
    part: list[Assignment] = []
    size = 0
    for assignment in assignments:
        bytes_more = 512 + len(assignment.code) + sum(map(len, assignment.args))
        bytes_more += sum(len(name) + len(value) for name, value in assignment.env.items())
        bytes_more += sum(INPUT_BYTES + len(one.path.encode()) for one in assignment.inputs)
        if part and (size + bytes_more > ASSIGN_BYTES or len(part) >= ASSIGN_ATTEMPTS):
            yield part
            part, size = [], 0
        part.append(assignment)
        size += bytes_more
    if part:
        yield part
