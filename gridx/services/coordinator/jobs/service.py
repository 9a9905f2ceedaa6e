"""What users, admins and workers ask of jobs; the front of this package."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from msgspec import UNSET
from msgspec.structs import replace

from gridx.clock import Clock
from gridx.config import Settings
from gridx.errors import Conflict, Forbidden, InvalidField, NotFound
from gridx.messages import (
    ENDED,
    ElementOutputs,
    Job,
    JobPage,
    JobSpec,
    JobState,
    Quote,
    Receipt,
    Stream,
)
from gridx.services.coordinator import ledger
from gridx.services.coordinator.fleet import Fleet
from gridx.services.coordinator.jobs import elements, submission
from gridx.services.coordinator.jobs.array_news import ArrayNews
from gridx.services.coordinator.jobs.backlog import Backlog
from gridx.services.coordinator.jobs.dispatch import Dispatcher
from gridx.services.coordinator.jobs.lifecycle import Hub, Lifecycle
from gridx.services.coordinator.jobs.recovery import take_up
from gridx.services.coordinator.jobs.sweeper import Sweeper
from gridx.services.coordinator.jobs.views import (
    array_receipt,
    array_spec,
    array_view,
    attempt_view,
    job_view,
    receipt_view,
    spec_view,
)
from gridx.services.coordinator.jobs.workers import WorkerSide
from gridx.services.coordinator.live import Ask
from gridx.services.coordinator.states import LIVE_ATTEMPTS, PAID
from gridx.services.coordinator.store import Store
from gridx.services.coordinator.store.records import (
    Aftermath,
    ArrayRecord,
    AttemptRecord,
    Idempotency,
    JobRecord,
    NewJob,
    Submitted,
    UserRecord,
)
from gridx.services.coordinator.store.submit import hold_for

log = logging.getLogger("gridx.coordinator")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OutputPart:
    """A part of a stream.

    Attributes:
        attempt: the attempt's number within the job; 0 when none has begun.
        next_offset: where to go on.
        attempt_over: the attempt has ended, and this part reaches the end of the stream.
        job_ended: nothing more will come of the job.
    """

    data: bytes
    attempt: int
    next_offset: int
    attempt_over: bool
    job_ended: bool


class Jobs(WorkerSide):
    """The life of all jobs."""

    def __init__(self, store: Store, fleet: Fleet, hub: Hub, settings: Settings, clock: Clock) -> None:
        backlog = Backlog(fleet, settings, clock)
        lifecycle = Lifecycle(store, fleet, backlog, hub, settings, clock)
        super().__init__(store, fleet, lifecycle, settings)
        self._hub = hub
        self._clock = clock
        self._prices = ledger.prices_from(settings.credits)
        self._backlog = backlog
        self._dispatcher = Dispatcher(store, fleet, self._backlog, self._lifecycle, settings, clock)
        self._news = ArrayNews(hub, backlog)
        self._sweeper = Sweeper(fleet, self._backlog, self._lifecycle, settings, clock)
        self._background: list[asyncio.Task[None]] = []
        self._on_failure: list[Callable[[BaseException], None]] = []

    # -- start and stop ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up what an earlier run left: what waits, what lives on workers, what was consumed."""
        await take_up(self._store, self._fleet, self._backlog, self._settings, self._clock)
        self._store.on_aftermath(self._follow)
        for name, work in (
            ("dispatcher", self._dispatcher.run()),
            ("sweeper", self._sweeper.run()),
            ("array-news", self._news.run()),
        ):
            self._watch(name, work)

    async def stop(self) -> None:
        """Place nothing any more. What is not committed is told again by the workers."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._lifecycle.stop()

    def on_failure(self, callback: Callable[[BaseException], None]) -> None:
        """Be told when a part died without which no job gets on."""
        self._on_failure.append(callback)

    def _watch(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=f"gridx-{name}")

        def over(done: asyncio.Task[None]) -> None:
            if not done.cancelled() and (error := done.exception()) is not None:
                self._failed(f"the {name} died", error)

        task.add_done_callback(over)
        self._background.append(task)

    def _failed(self, what: str, error: BaseException) -> None:
        log.critical("%s", what, exc_info=error)
        for callback in self._on_failure:
            callback(error)

    def _follow(self, aftermath: Aftermath) -> None:
        """Take over what a step of the store changed beside its own job."""
        try:
            self._take_over(aftermath)
        except Exception as error:
            # What is in memory is not what is stored any more; a start puts that right.
            self._failed("what the store changed could not be taken over", error)

    def _take_over(self, aftermath: Aftermath) -> None:
        for new in aftermath.accepted:
            record, payload, array = new.record, submission.shared(new.job), new.job.array
            if isinstance(record, JobRecord):
                self._backlog.add(record, payload, new.waits_for)
            elif array is not None:
                ids = range(record.id + 1, record.id + 1 + record.count)
                self._backlog.add_array(record, ids, array.indices, payload, new.waits_for)
        for changed in aftermath.arrays.values():
            self._backlog.array_changed(changed)
            self._news.changed(changed)
            if changed.stop:
                self._hub.elements_changed(changed.id, changed.count)
        self._backlog.uncovered(aftermath.uncovered)
        for child, parent in aftermath.met:
            self._backlog.met(child, parent)
        for ended in aftermath.cancelled:
            self._backlog.remove(ended.id)
            self._lifecycle.tell(ended)
        self._hub.credits_changed(aftermath.payers)

    # -- users -------------------------------------------------------------------------------------------

    async def submit(
        self, user: UserRecord, specs: Sequence[JobSpec], idempotency: Idempotency | None
    ) -> tuple[list[Job], bool]:
        """Accept jobs, all or none; the second value says that an earlier request with this key had done it.

        Raises:
            InsufficientCredits, TooMany, Conflict: see ``Store.submit``.
            Forbidden, TooLarge, InvalidField: see ``submission.check``.
        """
        languages = self._fleet.languages()
        for spec in specs:
            submission.check(spec, user, languages, self._settings.coordinator.max_array)
        new = [submission.priced(spec, self._prices) for spec in specs]
        done = await self._to_the_end(self._accept(user, new, idempotency))
        return [self._view(record) for record in done.jobs], done.replayed

    async def _accept(
        self, user: UserRecord, new: Sequence[NewJob], idempotency: Idempotency | None
    ) -> Submitted:
        done = await self._store.submit(
            user.id,
            new,
            idempotency=idempotency,
            max_queued=self._settings.coordinator.max_queued_per_user,
        )
        if not done.replayed:
            for record in done.jobs:
                if isinstance(record, ArrayRecord):
                    self._news.changed(record)
                else:
                    self._lifecycle.tell(record)
            self._hub.credits_changed([user.id])
        return done

    async def quote(self, user: UserRecord, spec: JobSpec) -> Quote:
        """What the job would cost, whether the balance covers it, and why it would wait."""
        submission.check(spec, user, self._fleet.languages(), self._settings.coordinator.max_array)
        new = submission.priced(spec, self._prices)
        hold = hold_for(new)
        balance = (await self._store.balance(user.id)).balance
        return Quote(
            per_hour=ledger.price_per_hour(new.prices, new.cpu_millis, new.memory_mb, new.gpus),
            hold=hold,
            lines=submission.price_lines(new),
            balance=balance,
            shortfall=max(0, hold - balance),
            waits_because=self._backlog.would_wait(user.id, user.username, submission.need(spec)),
        )

    async def job(self, user: UserRecord, job_id: int) -> Job:
        """One job in full, or an array."""
        record = await self._own(user, job_id)
        if isinstance(record, ArrayRecord):
            shared, after = await asyncio.gather(
                self._store.shared_payloads([job_id]), self._store.dependencies_of(job_id)
            )
            return self._view(record, array_spec(record, shared[job_id], after))
        payload, attempts, after = await asyncio.gather(
            self._store.payload(job_id), self._store.attempts_of(job_id), self._store.dependencies_of(job_id)
        )
        if payload is None:
            return self._view(record)
        return self._view(record, spec_view(record, payload, after), attempts)

    async def record(self, user: UserRecord, job_id: int) -> JobRecord:
        """A job as the store has it, for what else belongs to it.

        Raises:
            InvalidField: it is an array, of which each element has that for itself.
        """
        record = await self._own(user, job_id)
        if isinstance(record, ArrayRecord):
            raise InvalidField(
                f"Job {job_id} is an array: output and files are its elements'.",
                f"gridx output {job_id} --all prints what they wrote, in order.",
                field="id",
            )
        return record

    async def page(
        self,
        user: UserRecord,
        *,
        states: Collection[JobState] = (),
        text: str = "",
        owner: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> JobPage:
        """Jobs, newest first: one's own; for an admin everybody's, or one owner's."""
        user_id: int | None = user.id
        if user.role == "admin":
            user_id = None
            if owner is not None:
                found = await self._store.user_by_name(owner)
                if found is None:
                    raise NotFound(f"There is no user {owner}.", "gridx admin users lists them.")
                user_id = found.id
        elif owner is not None and owner.casefold() != user.username.casefold():
            raise Forbidden("One sees one's own jobs only.", "Leave the owner out.")
        wanted: dict[str, Any] = {
            "user_id": user_id,
            "states": states,
            "text": text,
            "before": before,
            "limit": limit + 1,
        }
        jobs, arrays = await asyncio.gather(self._store.job_page(**wanted), self._store.array_page(**wanted))
        records: list[JobRecord | ArrayRecord] = [*jobs, *arrays]
        records.sort(key=lambda record: record.id, reverse=True)
        shown = records[:limit]
        return JobPage(
            jobs=[self._view(record) for record in shown],
            next=shown[-1].id if len(records) > limit else None,
        )

    async def elements(
        self,
        user: UserRecord,
        array_id: int,
        *,
        states: Collection[JobState] = (),
        index: int | None = None,
        after: int | None = None,
        limit: int = 50,
    ) -> JobPage:
        """Elements of an array in the order of their indices, or the one of an index.

        Raises:
            NotFound: there is no such array, or index.
        """
        array = await self._own_array(user, array_id)
        if index is not None:
            return await elements.one(self._store, self._view, array, index)
        return await elements.page(self._store, self._view, array, states, after, limit)

    async def outputs(
        self,
        user: UserRecord,
        array_id: int,
        *,
        states: Collection[JobState] = (),
        after: int | None = None,
        limit: int = 50,
    ) -> ElementOutputs:
        """As ``elements``, with what each wrote, as far as it is little."""
        array = await self._own_array(user, array_id)
        return await elements.outputs(self._store, self._view, array, states, after, limit)

    async def cancel(self, user: UserRecord, job_id: int) -> Job:
        """Cancel: at once while it waits, else when its worker has killed it. Repeats change nothing."""
        reason = f"cancelled by {user.username}"
        if isinstance(await self._own(user, job_id), ArrayRecord):
            return self._view(await self._to_the_end(self._cancel_array(job_id, reason)))
        record = await self._to_the_end(self._cancel(job_id, reason))
        if record is None:
            raise _no_job(job_id)
        return self._view(record)

    async def _cancel(self, job_id: int, reason: str) -> JobRecord | None:
        record = await self._store.cancel(job_id, reason)
        if record is None:
            return None
        if record.state is JobState.CANCELLED:
            self._backlog.remove(job_id)
            self._hub.credits_changed([record.user_id])
            self._lifecycle.tell(record)
        elif record.state is JobState.CANCELLING:
            self._kill(job_id, reason)
            self._lifecycle.tell(record)
        return record

    async def _cancel_array(self, array_id: int, reason: str) -> ArrayRecord:
        done = await self._store.cancel_array(array_id, reason)
        if done is None:
            raise _no_job(array_id)
        for job_id in done.live:
            self._kill(job_id, reason)
        self._hub.credits_changed([done.array.user_id])
        return done.array

    def _kill(self, job_id: int, reason: str) -> None:
        """Let the worker kill a job that is being cancelled."""
        live = self._fleet.live_of_job(job_id)
        if live is None:
            self._dispatcher.cancelled[job_id] = reason
            return
        live.job = replace(live.job, state=JobState.CANCELLING, reason=reason)
        if live.asked is None:
            self._lifecycle.ask(live, Ask.CANCEL)
        if live.job.array_id is not None:
            self._lifecycle.tell(live.job)

    async def retry(self, user: UserRecord, job_id: int, idempotency: Idempotency | None) -> tuple[Job, bool]:
        """Submit an ended job once more, as a new job at today's prices; of an array what did not succeed.

        Raises:
            Conflict: it has not ended, or there is nothing to be tried again.
        """
        record = await self._own(user, job_id)
        if not record.state.ended:
            raise Conflict(f"Job {job_id} is {record.state}.", f"Wait for its end, or: gridx cancel {job_id}")
        if isinstance(record, ArrayRecord):
            new = await self._array_again(record)
        else:
            payload = await self._store.payload(job_id)
            if payload is None:
                raise _no_job(job_id)
            new = submission.again(record, payload, self._prices)
        try:
            done = await self._to_the_end(self._accept(user, [new], idempotency))
        except InvalidField as error:
            if "sha256" not in error.details:
                raise
            raise Conflict(
                f"Inputs of job {job_id} are no longer kept here, so it cannot be tried again as it was.",
                "Submit it anew with its files: gridx submit --input, or gridx map.",
            ) from None
        return self._view(done.jobs[0]), done.replayed

    async def _array_again(self, array: ArrayRecord) -> NewJob:
        failed = await self._store.elements(array, states=ENDED - {JobState.SUCCEEDED}, limit=array.count)
        if not failed:
            raise Conflict(
                f"All elements of array {array.id} succeeded.", f"Its output: gridx output {array.id} --all"
            )
        shared = (await self._store.shared_payloads([array.id]))[array.id]
        own = await self._store.own_payloads(array.id, shared, [job.id for job in failed])
        return submission.array_again(array, shared, failed, own, self._prices)

    async def output(
        self,
        user: UserRecord,
        job_id: int,
        *,
        attempt: int | None,
        stream: Stream,
        offset: int,
        limit: int,
    ) -> OutputPart:
        """Bytes that an attempt wrote, by its number within the job; None: the last one's."""
        record = await self.record(user, job_id)
        attempts = await self._store.attempts_of(job_id)
        if attempt is None:
            chosen = attempts[-1] if attempts else None
        else:
            chosen = next((one for one in attempts if one.number == attempt), None)
            if chosen is None and (record.state.ended or attempt < 1):
                raise NotFound(
                    f"Job {job_id} has no attempt {attempt}.", f"It had {len(attempts)}: gridx show {job_id}"
                )
        if chosen is None:
            return OutputPart(b"", 0, offset, record.state.ended, record.state.ended)
        if chosen.pruned_at is not None and (chosen.stdout_bytes or chosen.stderr_bytes):
            raise NotFound(
                f"The output of job {job_id} was deleted; it was older than"
                f" {self._settings.files.keep_days} days.",
                "Fetch what is to be kept before then: gridx output ID > FILE",
            )
        data = await self._store.read_output(chosen.id, stream, offset, limit)
        length = chosen.stdout_bytes if stream == "stdout" else chosen.stderr_bytes
        over = chosen.state not in LIVE_ATTEMPTS and offset + len(data) >= length
        return OutputPart(data, chosen.number, offset + len(data), over, record.state.ended)

    async def receipt(self, user: UserRecord, job_id: int) -> Receipt:
        """The account of a job."""
        record = await self._own(user, job_id)
        if isinstance(record, ArrayRecord):
            return array_receipt(record, await self._store.left_by_elements(job_id))
        attempts = await self._store.attempts_of(job_id)
        files = {
            one.id: (await self._store.output_files(one.id), await self._store.left_files(one.id))
            for one in attempts
            if one.state in PAID
        }
        return receipt_view(record, attempts, files)

    # -- all ---------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, int | float]:
        """Counts for metrics: gauges of now, and totals since the start."""
        live = self._fleet.all_live()
        running = sum(one.started for one in live)
        return {
            "jobs_queued": len(self._backlog),
            "attempts_assigned": len(live) - running,
            "attempts_running": running,
            "workers_online": self._fleet.online(),
            "workers_known": len(self._fleet.view()),
            "scheduling_rounds_total": self._dispatcher.rounds,
            **{f"attempts_{state}_total": count for state, count in self._lifecycle.ended.items()},
        }

    async def _own_array(self, user: UserRecord, array_id: int) -> ArrayRecord:
        array = await self._own(user, array_id)
        if not isinstance(array, ArrayRecord):
            raise NotFound(f"Job {array_id} is no array.", f"gridx show {array_id} shows it.")
        return array

    async def _own(self, user: UserRecord, job_id: int) -> JobRecord | ArrayRecord:
        record = await self._store.job(job_id) or await self._store.array(job_id)
        if record is None or (record.user_id != user.id and user.role != "admin"):
            raise _no_job(job_id)
        return record

    def _view(
        self,
        record: JobRecord | ArrayRecord,
        spec: JobSpec | None = None,
        attempts: Sequence[AttemptRecord] = (),
    ) -> Job:
        if isinstance(record, ArrayRecord):
            wait = self._backlog.waits(record) if record.queued else None
            return array_view(record, wait, spec=spec or UNSET)
        wait = self._backlog.waits(record) if record.state is JobState.QUEUED else None
        if spec is None:
            return job_view(record, wait)
        return job_view(record, wait, spec=spec, attempts=[attempt_view(attempt) for attempt in attempts])

    async def _to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        """What is committed must also be known here, even when the caller has gone meanwhile."""
        task: Awaitable[T] = self._lifecycle.spawn(work)
        return await asyncio.shield(task)


def _no_job(job_id: int) -> NotFound:
    return NotFound(f"There is no job {job_id}, or it is not yours.", "gridx jobs lists yours.")
