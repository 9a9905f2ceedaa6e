"""A grid that is none: it has the methods of a client that the executor uses, and runs each job as a process.

What a real one shows only when machines fail can be said here: jobs that wait, end in any way, results that
do not come, a coordinator that is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from gridx.errors import GridError, InvalidField, NotFound, TooMany, Unreachable
from gridx.messages import (
    InputFile,
    Job,
    JobChanged,
    JobFiles,
    JobPage,
    JobSpec,
    JobState,
    LeftFile,
    Offer,
    OutputFile,
    Runtime,
    User,
    Worker,
)

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


class PretendedGrid:
    """One coordinator that every opened client speaks to.

    Attributes:
        holding: jobs wait, until :meth:`start` is called.
        away: nothing answers.
        owner: of the only machine; the caller is ann.
        room: so many jobs may be open at once.
        refusals: raised by the next submits, one each.
        batches: how many jobs came with each request.
    """

    def __init__(self) -> None:
        self.holding = False
        self.away = False
        self.owner = "ann"
        self.room = 10_000
        self.runtimes = [Runtime(name="default", python=PYTHON, languages=["python"])]
        self.refusals: deque[GridError] = deque()
        self.batches: list[int] = []
        self.opened = 0
        self.uploaded: list[str] = []
        self.forgotten: list[str] = []
        self.specs: dict[int, JobSpec] = {}
        self.known: dict[int, Job] = {}
        self.outs: dict[int, dict[str, bytes]] = {}
        self.left: dict[int, list[LeftFile]] = {}
        self.printed: dict[tuple[int, str], bytes] = {}
        self.processes: dict[int, asyncio.subprocess.Process] = {}
        self.cancelled: list[int] = []
        self._blobs: dict[str, bytes] = {}
        self._listeners: list[asyncio.Queue[Any]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="gridx-pretended-")
        self._places = None
        self._running: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[PretendedGrid]:
        self._answer()
        self.opened += 1
        self._loop = asyncio.get_running_loop()
        self._places = asyncio.Semaphore(2)
        try:
            yield self
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    def close(self) -> None:
        self._folder.cleanup()

    # -- what a test says, in its own thread -------------------------------------------------------------

    def now(self, work: Any, *args: Any) -> None:
        """Do something on the executor's loop."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(work, *args)

    def leave(self) -> None:
        """Go away: what is asked is not answered, and the streams break."""
        self.away = True
        self.now(self._break)

    def _break(self) -> None:
        for queue in self._listeners:
            queue.put_nowait(Unreachable("It is away."))

    def forget(self, number: int) -> None:
        """Know nothing of a job any more."""
        self.now(self.known.pop, number)

    def prune(self) -> None:
        """Delete every upload."""
        self._blobs.clear()

    def start(self) -> None:
        """Let what waits begin."""
        self.holding = False
        self.now(self._start_all)

    def _start_all(self) -> None:
        for job in list(self.known.values()):
            if job.state is JobState.QUEUED:
                self._spawn(job.id)

    def end(self, job_id: int, state: JobState, **fields: Any) -> None:
        """Have a job end as it never would by itself."""
        self.now(lambda: self._change(job_id, state=state, worker_id=1, **fields))

    # -- the client's methods ----------------------------------------------------------------------------

    async def me(self) -> User:
        self._answer()
        return User(id=1, username="ann", role="user", created_at=datetime.now(UTC))

    async def workers(self) -> list[Worker]:
        self._answer()
        offer = Offer(cpu_millis=4000, memory_mb=4096, runtimes=self.runtimes)
        return [Worker(id=1, name="desk", owner=self.owner, state="online", offer=offer)]

    async def worker(self, number: int) -> Worker:
        return (await self.workers())[0]

    async def submit_batch(self, specs: Sequence[JobSpec], *, idempotency_key: str) -> list[Job]:
        self._answer()
        if self.refusals:
            raise self.refusals.popleft()
        open_now = sum(not job.state.ended for job in self.known.values())
        if open_now + len(specs) > self.room:
            raise TooMany(f"{self.room} jobs may wait at once.", "Wait.")
        for spec in specs:
            msgspec.convert(msgspec.to_builtins(spec), JobSpec)
            for number, file in enumerate(spec.inputs):
                if len(self._blobs.get(file.sha256, b"")) != file.size:
                    raise InvalidField(
                        f"inputs[{number}]: {file.path} was not uploaded.", field=f"inputs[{number}]"
                    )
        self.batches.append(len(specs))
        jobs = []
        for spec in specs:
            number = len(self.known) + 1
            self.specs[number] = spec
            jobs.append(
                Job(
                    id=number,
                    name=spec.name,
                    owner="ann",
                    state=JobState.QUEUED,
                    language="python",
                    cpus=spec.cpus,
                    memory_mb=spec.memory_mb,
                    gpus=spec.gpus,
                    timeout_s=spec.timeout_s,
                    priority=spec.priority,
                    max_attempts=spec.max_attempts,
                    created_at=datetime.now(UTC),
                    reason="waits its turn",
                )
            )
            self.known[number] = jobs[-1]
            if not self.holding:
                self._spawn(number)
        return jobs

    async def job(self, number: int) -> Job:
        self._answer()
        if number not in self.known:
            raise NotFound(f"There is no job {number}.")
        return self.known[number]

    async def jobs(self, *, owner: str, limit: int, before: int) -> JobPage:
        self._answer()
        found = [self.known[number] for number in sorted(self.known, reverse=True) if number < before]
        return JobPage(jobs=found[:limit], next=found[limit - 1].id if len(found) > limit else None)

    async def cancel(self, number: int) -> Job:
        self._answer()
        self.cancelled.append(number)
        if (process := self.processes.get(number)) is not None and process.returncode is None:
            process.kill()
        if not self.known[number].state.ended:
            self._change(number, state=JobState.CANCELLED, reason="cancelled by ann")
        return self.known[number]

    async def output(self, number: int, stream: str = "stdout", *, offset: int = 0) -> bytes:
        self._answer()
        return self.printed.get((number, stream), b"")[offset:]

    async def follow(self, number: int, stream: str = "stdout") -> AsyncIterator[bytes]:
        told = 0
        while True:
            over = self.known[number].state.ended
            data = self.printed.get((number, stream), b"")[told:]
            if data:
                told += len(data)
                yield data
            elif over:
                return
            await asyncio.sleep(0.01)

    async def upload(self, data: bytes) -> InputFile:
        self._answer()
        digest = hashlib.sha256(data).hexdigest()
        self.uploaded.append(digest)
        self._blobs[digest] = data
        return InputFile(path="x", sha256=digest, size=len(data))

    async def upload_inputs(self, paths: Sequence[Path]) -> list[InputFile]:
        return [
            msgspec.structs.replace(await self.upload(path.read_bytes()), path=path.name) for path in paths
        ]

    async def delete_upload(self, digest: str) -> None:
        self._answer()
        self.forgotten.append(digest)

    async def delete_files(self, number: int) -> None:
        self._answer()
        self.outs[number] = {}

    async def files(self, number: int) -> JobFiles:
        self._answer()
        files = [
            OutputFile(path=path, sha256=hashlib.sha256(data).hexdigest(), size=len(data))
            for path, data in self.outs.get(number, {}).items()
        ]
        return JobFiles(job_id=number, attempt=1, files=files, left=self.left.get(number, []))

    async def read_file(self, number: int, path: str) -> bytes:
        self._answer()
        return self.outs[number][path]

    async def fetch(self, number: int, folder: Path, names: Sequence[str], *, overwrite: bool) -> list[Path]:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(await self.read_file(number, name))
        return [folder / name for name in names]

    @contextlib.asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[Any]]:
        self._answer()
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self._listeners.append(queue)

        async def stream() -> AsyncIterator[Any]:
            while True:
                event = await queue.get()
                if isinstance(event, GridError):
                    raise event
                yield event

        try:
            yield stream()
        finally:
            self._listeners.remove(queue)

    # -- the machine -------------------------------------------------------------------------------------

    def _answer(self) -> None:
        if self.away:
            raise Unreachable("It is away.", "Wait.")

    def _change(self, number: int, **fields: Any) -> None:
        job = self.known[number] = msgspec.structs.replace(self.known[number], **fields)
        if not self.away:
            for queue in self._listeners:
                queue.put_nowait(JobChanged(job=job))

    def _spawn(self, number: int) -> None:
        task = asyncio.create_task(self._run(number))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, number: int) -> None:
        assert self._places is not None
        async with self._places:
            await self._run_now(number)

    async def _run_now(self, number: int) -> None:
        if self.known[number].state.ended:
            return
        spec = self.specs[number]
        folder = Path(self._folder.name) / f"{os.getpid()}-{number}"
        (folder / "out").mkdir(parents=True)
        (folder / "job.py").write_text(spec.code)
        for file in spec.inputs:
            target = folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self._blobs[file.sha256])
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                *(sys.executable, "-u", "job.py"),
                cwd=folder,
                env={"PATH": "/usr/bin:/bin", **spec.env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
        try:
            process = self.processes[number] = await asyncio.shield(starting)
        except asyncio.CancelledError:
            # Half started it would leave pipes open behind the loop's end.
            await _ended(await starting)
            raise
        if self.known[number].state.ended:
            await _ended(process)
            return
        self._change(number, state=JobState.RUNNING, worker_id=1, attempt=1)

        async def pump(stream: str, pipe: asyncio.StreamReader) -> None:
            while data := await pipe.read(1 << 16):
                self.printed[number, stream] = self.printed.get((number, stream), b"") + data

        try:
            await asyncio.gather(
                pump("stdout", process.stdout),  # type: ignore[arg-type]
                pump("stderr", process.stderr),  # type: ignore[arg-type]
                process.wait(),
            )
        finally:
            await _ended(process)
        if self.known[number].state.ended:
            return
        code = process.returncode
        assert code is not None
        self.outs[number] = {
            str(path.relative_to(folder / "out")): path.read_bytes()
            for path in (folder / "out").rglob("*")
            if path.is_file()
        }
        self._change(
            number,
            state=JobState.SUCCEEDED if code == 0 else JobState.FAILED,
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            files=len(self.outs[number]),
            file_bytes=sum(map(len, self.outs[number].values())),
            stderr_bytes=len(self.printed.get((number, "stderr"), b"")),
        )


async def _ended(process: asyncio.subprocess.Process) -> None:
    """End a process and all that the loop has of it."""
    if process.returncode is None:
        process.kill()
    await process.wait()
    # Its last step would come on a later turn of the loop, which may be over by then.
    process._transport.close()  # type: ignore[attr-defined]
    await asyncio.sleep(0)


def jobs_of(grid: PretendedGrid, *states: JobState) -> Collection[int]:
    """The numbers of jobs in these states."""
    return [job.id for job in grid.known.values() if job.state in states]
