"""Sends calls to the grid, hears of their ends, and gives each future its result; on one event loop.

Calls that come within a few milliseconds go in one request. One event stream tells of all jobs; after a
broken connection everything is read again, so nothing is missed. Whatever fails for good fails futures: none
is left without a result.
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import Any, Final, TypeVar

from gridx.client import Client
from gridx.errors import (
    GridError,
    InsufficientCredits,
    NotFound,
    ProtocolMismatch,
    TooMany,
    Unauthenticated,
    Unavailable,
    Unreachable,
    Unschedulable,
    Untrusted,
)
from gridx.executor.calls import Call, InputPaths, Parcel, Parcels
from gridx.executor.future import GridFuture
from gridx.executor.results import Trust, outcome
from gridx.messages import Job, JobChanged, JobSpec, JobState, Stream

log = logging.getLogger("gridx.executor")

T = TypeVar("T")
OpenGrid = Callable[[], AbstractAsyncContextManager[Client]]

GATHER_S: Final = 0.004
"""Calls that come within this time of the first go in one request."""
MAX_CALLS: Final = 500
"""In one request; and its programs have at most :data:`MAX_BYTES`."""
MAX_BYTES: Final = 3 << 20
FIRST_PATIENCE_S: Final = 15.0
"""How long nothing may answer when nothing ever did: more likely the address is wrong."""
IDLE_S: Final = 30.0
"""After so long without a call the connection is closed; the next call opens it again."""
PAGE: Final = 500
FEW: Final = 4
"""Jobs that are asked for one by one; more of them by pages."""
UPLOADS_AT_ONCE: Final = 4
FORGET_BYTES: Final = 256 << 10
"""A result file of so many bytes is deleted on the grid once it is here; smaller ones go with their time."""
FATAL: Final = (Unauthenticated, Untrusted, ProtocolMismatch)
"""What no other call of this sign-in will get around."""


class Desk:
    """All calls of one executor, from when they come to their results.

    Args:
        open_grid: gives a signed-in client.
        patience_s: how long nothing may answer before the calls under way fail.
        trust: whose results may hold more than data.
        closed: called when a call is over.
    """

    def __init__(
        self,
        open_grid: OpenGrid,
        parcels: Parcels,
        *,
        patience_s: float,
        trust: Trust,
        closed: Callable[[Call], None],
    ) -> None:
        self._open_grid = open_grid
        self._parcels = parcels
        self._patience_s = patience_s
        self._trust = trust
        self._closed = closed
        self._grid: Client | None = None
        self._me = ""
        self._reached = False
        self._open: dict[GridFuture[Any], Call] = {}
        self._questions: set[object] = set()
        self._by_job: dict[int, Call] = {}
        self._ready: deque[Call] = deque()
        self._wake = asyncio.Event()
        self._ends = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._sending = 0
        self._unasked: dict[int, Job] = {}
        self._streams = 0
        self._window = MAX_CALLS
        self._told_to_wait = False
        self._uploads = asyncio.Semaphore(UPLOADS_AT_ONCE)
        self._uploads_begun = False
        self._uploading: dict[str, asyncio.Future[None]] = {}
        self._offered: set[tuple[str | None, str | None]] = set()
        self._owners: dict[int, str] = {}
        self._following: dict[Call, asyncio.Task[None]] = {}
        self._stopping = False

    # -- from the session, on this loop ------------------------------------------------------------------

    def take(self, call: Call) -> None:
        """A new call."""
        self._open[call.future] = call
        if not call.parcels and call.inputs is None:
            self._ready.append(call)
        elif self._uploads_begun:
            self._spawn(self._upload(call))
        self._wake.set()

    def cancel(self, future: GridFuture[Any]) -> None:
        """The future was cancelled, or is to be stopped: so is its job."""
        if (call := self._open.get(future)) is not None:
            self._spawn(self._cancel(call))

    def stop(self) -> None:
        """Nothing more will come: end with the last call."""
        self._stopping = True
        self._ends.set()

    @property
    def busy(self) -> bool:
        """Whether calls or questions are open; one may have come when :meth:`run` was about to return."""
        return bool(self._open or self._questions)

    def expect(self) -> object:
        """A question will come, in any thread: be there for it."""
        ticket = object()
        self._questions.add(ticket)
        return ticket

    async def answer(self, question: Callable[[Client], Awaitable[T]], ticket: object) -> T:
        """Put a question of the caller's to the grid."""
        try:
            if self._grid is not None:
                return await question(self._grid)
            async with self._open_grid() as grid:
                return await question(grid)
        finally:
            self._questions.discard(ticket)
            self._ends.set()

    # -- the loop ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until nothing is open and nothing more comes. Never raises: what fails, fails futures."""
        try:
            async with AsyncExitStack() as stack:
                self._wake.set()
                self._grid = await self._patiently(lambda: stack.enter_async_context(self._open_grid()))
                self._me = (await self._patiently(self._grid.me)).username
                self._uploads_begun = True
                for call in self._open.values():
                    if call.parcels or call.inputs is not None:
                        self._spawn(self._upload(call))
                loops = [
                    asyncio.create_task(work) for work in (self._send_all(), self._hear_all(), self._end())
                ]
                try:
                    done, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
                finally:
                    for task in (*loops, *self._tasks):
                        task.cancel()
                    await asyncio.gather(*loops, *self._tasks, return_exceptions=True)
        except Exception as error:
            if not isinstance(error, GridError):
                log.exception("the executor's work broke")
            self._fail_all(error)
        finally:
            self._grid = None
            self._uploads_begun = False

    async def _end(self) -> None:
        """Return when nothing is open and nothing comes any more, or came for a while."""
        while True:
            self._ends.clear()
            busy = bool(self.busy or self._tasks)
            if not busy and self._stopping:
                return
            try:
                async with asyncio.timeout(None if busy else IDLE_S):
                    await self._ends.wait()
            except TimeoutError:
                return

    def _fail_all(self, error: BaseException) -> None:
        for call in list(self._open.values()):
            self._close(call, None, _again(error))
        self._ready.clear()
        self._by_job.clear()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended_task)

    def _ended_task(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._ends.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a part of the executor's work broke", exc_info=error)

    def _close(self, call: Call, value: Any, error: BaseException | None) -> None:
        """The call is over: tell the future, and drop what only this call needed."""
        if call.over:
            return
        call.over = True
        self._open.pop(call.future, None)
        if call.future.job_id is not None:
            self._by_job.pop(call.future.job_id, None)
        unused = [parcel for parcel in call.parcels.values() if self._parcels.leave(parcel)]
        sent = [parcel.sha256 for parcel in unused if parcel.sent]
        if sent and self._grid is not None and not isinstance(error, Unreachable):
            self._spawn(self._forget_uploads(sent))
        try:
            call.future._end(value, error)
        finally:
            self._closed(call)
            self._ends.set()

    # -- patience ----------------------------------------------------------------------------------------

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until there is an answer. Raises what the coordinator says, and Unreachable after a while."""
        loop = asyncio.get_running_loop()
        since, tries = loop.time(), 0
        while True:
            try:
                answer = await ask()
            except (Unreachable, Unavailable) as error:
                tries += 1
                await self._pause(error, since, tries)
            else:
                self._reached = True
                return answer

    async def _pause(self, error: GridError, since: float, tries: int) -> None:
        """Wait before another try; raises when patience is over."""
        waited = asyncio.get_running_loop().time() - since
        patience_s = self._patience_s if self._reached else min(self._patience_s, FIRST_PATIENCE_S)
        if waited >= patience_s:
            raise type(error)(
                f"{error.message} It was tried for {waited:.0f} s; jobs that were accepted go on.",
                error.hint,
                **error.details,
            ) from None
        if tries == 2:
            log.warning("%s Trying again for up to %.0f s.", error.message, patience_s)
        await asyncio.sleep(
            min(5.0, 0.05 * 2**tries, patience_s - waited) * random.uniform(0.5, 1.0)  # noqa: S311
        )

    # -- sending -----------------------------------------------------------------------------------------

    async def _send_all(self) -> None:
        while True:
            self._wake.clear()
            while not self._ready:
                await self._wake.wait()
                self._wake.clear()
                self._ends.set()
            await asyncio.sleep(GATHER_S)
            if batch := self._next_batch():
                await self._send(batch)

    def _next_batch(self) -> list[Call]:
        batch: list[Call] = []
        size = 0
        while self._ready and len(batch) < self._window:
            call = self._ready[0]
            if call.over:
                self._ready.popleft()
                continue
            size += len(call.code)
            if batch and size > MAX_BYTES:
                break
            batch.append(self._ready.popleft())
        return batch

    async def _send(self, batch: Sequence[Call]) -> None:
        """Submit calls together; where that is refused, find out which one is to blame."""
        assert self._grid is not None
        batch = [call for call in batch if not call.over]
        if not batch:
            return
        specs = [call.spec() for call in batch]
        self._sending += 1
        streams = self._streams
        try:
            for spec in specs:
                await self._check_offered(spec)
            jobs = await self._accepted(specs)
        except (InsufficientCredits, TooMany) as error:
            await self._no_room(batch, error)
            return
        except FATAL:
            raise
        except GridError as error:
            if len(batch) == 1:
                if not self._send_again(batch[0], error):
                    self._close(batch[0], None, error)
                return
            middle = len(batch) // 2
            await self._send(batch[:middle])
            await self._send(batch[middle:])
            return
        finally:
            self._sending -= 1
        self._window = min(MAX_CALLS, self._window * 2)
        for call, job in zip(batch, jobs, strict=True):
            call.future.job_id = job.id
            if call.over:
                # Cancelled while it was on its way.
                self._spawn(self._cancel_job(job.id))
                continue
            self._by_job[job.id] = call
            self._look(self._unasked.pop(job.id, job))
        if not self._sending:
            self._unasked.clear()
        if streams != self._streams:
            self._spawn(self._read_again())

    def _send_again(self, call: Call, error: GridError) -> bool:
        """Whether a call was refused since its files are gone, pruned while it waited; they are sent anew."""
        files = bool(call.parcels or call.inputs)
        if call.sent_again or not files or not str(error.details.get("field", "")).startswith("inputs"):
            return False
        call.sent_again = True
        for parcel in call.parcels.values():
            parcel.sent = False
        if call.inputs is not None:
            call.inputs.found = None
        self._spawn(self._upload(call))
        return True

    async def _accepted(self, specs: Sequence[JobSpec]) -> list[Job]:
        assert self._grid is not None
        grid, key = self._grid, uuid.uuid4().hex
        return await self._patiently(lambda: grid.submit_batch(specs, idempotency_key=key))

    async def _no_room(self, batch: Sequence[Call], error: GridError) -> None:
        """Credits or a quota do not allow so many at once: fewer, or one after the other as they end."""
        if len(batch) > 1:
            self._ready.extendleft(reversed(batch))
            self._window = max(1, len(batch) // 2)
            return
        self._window = 1
        wait_s = _seconds(error.details.get("retry_after_s"))
        if not self._by_job and wait_s is None:
            self._close(batch[0], None, error)
            return
        if not self._told_to_wait:
            log.warning("Calls wait for others of this executor to end: %s", error)
            self._told_to_wait = True
        self._ready.appendleft(batch[0])
        self._ends.clear()
        try:
            async with asyncio.timeout(wait_s):
                await self._ends.wait()
        except TimeoutError:
            pass

    async def _check_offered(self, spec: JobSpec) -> None:
        """Refuse a Python that no worker has: a pickle of another would not run, and would wait for ever."""
        assert self._grid is not None
        wanted = (spec.python, spec.runtime)
        if wanted in self._offered:
            return
        offers = [worker.offer for worker in await self._patiently(self._grid.workers) if worker.offer]
        runtimes = [runtime for offer in offers for runtime in offer.runtimes]
        fits = [
            runtime
            for runtime in runtimes
            if spec.language in runtime.languages
            and spec.python in (None, runtime.python)
            and spec.runtime in (None, runtime.name)
        ]
        if fits:
            self._offered.add(wanted)
        elif runtimes:
            asked = f"Python {spec.python}" + (f" in the runtime {spec.runtime}" if spec.runtime else "")
            offered = sorted({f"{runtime.python} ({runtime.name})" for runtime in runtimes})
            raise Unschedulable(
                f"The call needs {asked}; the fleet offers {', '.join(offered)}.",
                "Run this program with a Python that the fleet offers, or add a runtime: gridx runtime",
            )

    # -- files -------------------------------------------------------------------------------------------

    async def _upload(self, call: Call) -> None:
        """Send what the call needs as files, each once; then the call itself is ready."""
        grid = self._grid
        assert grid is not None
        try:
            for parcel in call.parcels.values():
                await self._sent(parcel.sha256, partial(self._send_parcel, grid, parcel))
            if call.inputs is not None and call.inputs.found is None:
                await self._sent(f"inputs {id(call.inputs)}", partial(self._send_inputs, grid, call.inputs))
        except Exception as error:
            self._close(call, None, _again(error))
            return
        self._ready.append(call)
        self._wake.set()

    async def _sent(self, name: str, send: Callable[[], Awaitable[None]]) -> None:
        """Send something, or wait for whoever sends it already."""
        if (under_way := self._uploading.get(name)) is not None:
            await asyncio.wait([under_way])
            if not under_way.cancelled() and (error := under_way.exception()) is not None:
                raise _again(error)
            return
        done = self._uploading[name] = asyncio.get_running_loop().create_future()
        try:
            async with self._uploads:
                await self._patiently(send)
        except BaseException as error:
            if isinstance(error, Exception):
                done.set_exception(error)
                done.exception()  # whoever waits takes it; nobody may
            else:
                done.cancel()
            raise
        else:
            done.set_result(None)
        finally:
            del self._uploading[name]

    async def _send_parcel(self, grid: Client, parcel: Parcel) -> None:
        if not parcel.sent:
            await grid.upload(parcel.data)
            parcel.sent = True

    async def _send_inputs(self, grid: Client, inputs: InputPaths) -> None:
        if inputs.found is None:
            inputs.found = await grid.upload_inputs(inputs.paths)

    async def _forget_uploads(self, digests: Iterable[str]) -> None:
        assert self._grid is not None
        for digest in digests:
            try:
                await self._grid.delete_upload(digest)
            except GridError as error:
                log.debug("an upload stays until its time is over: %s", error)

    # -- hearing -----------------------------------------------------------------------------------------

    async def _hear_all(self) -> None:
        assert self._grid is not None
        loop = asyncio.get_running_loop()
        since: float | None = None
        tries = 0
        while True:
            try:
                async with self._grid.events() as events:
                    since, tries, self._reached = None, 0, True
                    self._streams += 1
                    self._spawn(self._read_again())
                    async for event in events:
                        if isinstance(event, JobChanged):
                            self._look(event.job)
            except (Unreachable, Unavailable) as error:
                if since is None or not self._open:
                    since = loop.time()
                tries += 1
                await self._pause(error, since, tries)

    async def _read_again(self) -> None:
        """Look at every job that is under way: the stream began, and what was before it is not in it."""
        grid = self._grid
        assert grid is not None
        wanted = set(self._by_job)
        if not wanted:
            return
        try:
            before: int | None = max(wanted) + 1
            while len(wanted) > FEW and before is not None:
                page = await self._patiently(partial(grid.jobs, owner=self._me, limit=PAGE, before=before))
                for job in page.jobs:
                    if job.id in wanted:
                        wanted.discard(job.id)
                        self._look(job)
                before = page.next if wanted and page.next and page.next > min(wanted) else None
            for number in wanted:
                await self._look_at(grid, number)
        except Unreachable:
            return  # the stream is broken, too, and its next beginning looks again

    async def _look_at(self, grid: Client, number: int) -> None:
        try:
            self._look(await self._patiently(partial(grid.job, number)))
        except NotFound as error:
            # The coordinator's database is another one than when it accepted the job.
            if (call := self._by_job.get(number)) is not None:
                self._close(call, None, error)

    def _look(self, job: Job) -> None:
        """Something is known of a job."""
        call = self._by_job.get(job.id)
        if call is None:
            if self._sending:
                self._unasked[job.id] = job
            return
        if job.state in (JobState.RUNNING, JobState.CANCELLING):
            call.future._begin()
        if call.on_output is not None and call not in self._following and job.attempt:
            self._following[call] = asyncio.create_task(self._follow(call, job.id))
        if job.state.ended:
            del self._by_job[job.id]
            self._ends.set()
            self._spawn(self._finish(call, job))

    async def _finish(self, call: Call, job: Job) -> None:
        """Fetch the result of an ended job and give it to the future."""
        grid = self._grid
        assert grid is not None
        value, error = None, None
        try:
            if (following := self._following.pop(call, None)) is not None:
                await asyncio.wait([following])
            owner = await self._owner(job)
            trusted = self._trust.covers(owner, self._me)
            value, error = await self._patiently(
                lambda: outcome(grid, job, call.classes, owner=owner, trusted=trusted)
            )
        except Exception as failure:
            error = failure
        self._close(call, value, error)
        if job.files == 1 and job.file_bytes >= FORGET_BYTES:
            try:
                await grid.delete_files(job.id)
            except GridError as failure:
                log.debug("the result of job %d stays until its time is over: %s", job.id, failure)

    async def _owner(self, job: Job) -> str:
        """Whose machine a job ran on; empty where it ran on none."""
        grid, number = self._grid, job.worker_id
        if number is None or grid is None:
            return ""
        if number not in self._owners:
            try:
                self._owners[number] = (await self._patiently(lambda: grid.worker(number))).owner
            except NotFound:
                return ""
        return self._owners[number]

    async def _follow(self, call: Call, job_id: int) -> None:
        """Pass on what the call prints, as it comes."""
        streams: tuple[Stream, ...] = ("stdout", "stderr")
        await asyncio.gather(*(self._follow_stream(call, job_id, stream) for stream in streams))

    async def _follow_stream(self, call: Call, job_id: int, stream: Stream) -> None:
        assert self._grid is not None and call.on_output is not None
        try:
            async for data in self._grid.follow(job_id, stream):
                await asyncio.to_thread(call.on_output, call.future, stream, data)
        except Exception:
            log.exception("the output of job %d could not be passed on", job_id)

    # -- cancelling --------------------------------------------------------------------------------------

    async def _cancel(self, call: Call) -> None:
        """End the job of a call, or see that it never becomes one."""
        if call.future.cancelled():
            number = call.future.job_id
            self._close(call, None, None)
            if number is not None:
                await self._cancel_job(number)
        elif call.future.job_id is not None:
            await self._cancel_job(call.future.job_id)

    async def _cancel_job(self, number: int) -> None:
        grid = self._grid
        if grid is None:
            return
        try:
            await self._patiently(lambda: grid.cancel(number))
        except GridError as error:
            log.warning("job %d could not be cancelled: %s", number, error)


def _again(error: BaseException) -> BaseException:
    """The error for one more future: each raises its own, with its own traceback."""
    if isinstance(error, GridError):
        return type(error)(error.message, error.hint, **error.details)
    return error


def _seconds(value: Any) -> float | None:
    try:
        return min(60.0, max(0.1, float(value)))
    except (TypeError, ValueError):
        return None
