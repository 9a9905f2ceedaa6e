"""The sandbox for machines without a container engine: a limited process. No wall, and it says so.

The same supervisor as in a container, as a process of this machine: own session, own folder, a clean
environment, limits by ``setrlimit`` and by the supervisor's watch over memory and number of processes. With
bubblewrap there are namespaces too. Either way such a worker is given its own owner's jobs only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from gridx import safetext
from gridx.errors import EngineMissing, SandboxBroken
from gridx.messages import InputFile, Runtime
from gridx.services.worker.sandbox import bubblewrap
from gridx.services.worker.sandbox.base import (
    OutputSink,
    RunOutcome,
    RunRequest,
    SandboxStatus,
    StartedHook,
)
from gridx.services.worker.sandbox.dialogue import Dialogue, Line
from gridx.services.worker.sandbox.judgement import judge, outcome
from gridx.services.worker.sandbox.languages import LANGUAGES, spoken
from gridx.services.worker.sandbox.supervisor import (
    DEFAULT_PATH,
    LOADER,
    Surroundings,
    encode_request,
    greeting,
)

log = logging.getLogger("gridx.worker")

RUNTIME_NAME: Final = "python"
NOT_A_WALL: Final = (
    "Jobs run as limited processes of this machine, which is no wall: only its owner's own jobs come here."
)
MARK: Final = "GRIDX_PLACE"
"""In the environment of everything in a sandbox, so that what outlived its supervisor is found."""
MAX_FILE_BYTES: Final = 4 << 30
MAX_FILES: Final = 256
MEMORY_SPARE: Final = 2 << 30
"""Address space past the memory limit: libraries map much that they never touch. The supervisor watches what
is really in memory; this only stops what would outrun it."""
NICE: Final = 5
LAST_WORDS: Final = 4096
END_WITHIN_S: Final = 5.0


class ProcessChannel:
    """A supervisor's pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._words = b""
        self._listener = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        assert self._process.stderr is not None
        while data := await self._process.stderr.read(LAST_WORDS):
            self._words = (self._words + data)[-LAST_WORDS:]

    async def send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        await self._process.stdin.drain()

    async def receive(self) -> bytes:
        assert self._process.stdout is not None
        return await self._process.stdout.read(1 << 16)

    async def end_input(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def last_words(self) -> str:
        return safetext.line(self._words.decode("utf-8", "replace")[-400:], limit=400)

    async def close(self) -> None:
        """Stop listening, and read what is left: a pipe that is not read to its end is never closed."""
        self._listener.cancel()
        await asyncio.gather(self._listener, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_WITHIN_S):
                for pipe in (self._process.stdout, self._process.stderr):
                    assert pipe is not None
                    while await pipe.read(1 << 16):
                        pass


class ProcessSandbox:
    """Runs attempts as limited processes of this machine.

    Args:
        data_path: the worker's data folder; each attempt gets a folder below it while it runs.
        why: why there is nothing better, for the warnings.
    """

    def __init__(self, data_path: Path, *, why: str = "") -> None:
        self._root = data_path / "sandbox"
        self._live: set[str] = set()
        self._bwrap = ""
        self._warnings: tuple[str, ...] = ()
        self._languages: list[str] = []
        self._why = why

    async def open(self) -> None:
        """Make the folder, remove what an earlier run left in it, see whether bubblewrap works."""
        if os.name != "posix":
            raise EngineMissing(
                "On this system jobs can run in containers only, and no container engine is set up.",
                "Install Docker Desktop, start it, and try again.",
            )
        self._languages = spoken(lambda program: shutil.which(program, path=_path()) is not None)
        await asyncio.to_thread(self._root.mkdir, 0o700, parents=True, exist_ok=True)
        await self.sweep()
        trial = self._folder("trial")
        try:
            self._bwrap, without = await bubblewrap.find(trial)
        finally:
            await self._remove(trial)
        warnings = [NOT_A_WALL]
        if self._why:
            warnings.append(self._why)
        if not self._bwrap:
            warnings.append(
                f"Jobs can reach the network and read what this user can read: {without.rstrip('.')}."
            )
            if hasattr(os, "geteuid") and os.geteuid() == 0:
                warnings.append("The worker runs as root, and so do its jobs; start it as another user.")
        if sys.platform != "linux":
            warnings.append("This system keeps no memory limit for processes.")
        self._warnings = tuple(warnings)

    async def status(self) -> SandboxStatus:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return SandboxStatus(
            "process",
            isolated=False,
            runtimes=(Runtime(name=RUNTIME_NAME, python=version, languages=self._languages),),
            warnings=self._warnings,
            details={"interpreter": sys.executable, "bubblewrap": self._bwrap or "no"},
        )

    def unfit(self, inputs: Sequence[InputFile], memory_mb: int) -> str:
        # They lie on the disk, which the worker's own budget is for.
        return ""

    async def run(
        self, request: RunRequest, sink: OutputSink, started: StartedHook, cancel: asyncio.Event
    ) -> RunOutcome:
        if request.runtime != RUNTIME_NAME or request.language not in self._languages:
            raise SandboxBroken(
                f"This worker does not offer the runtime {request.runtime} for {request.language}."
            )
        if request.gpus:
            raise SandboxBroken("A process sandbox cannot keep a job to the GPUs that it was given.")
        mark = secrets.token_hex(8)
        folder = await asyncio.to_thread(self._folder, f"{request.attempt_id}-{mark}")
        process: asyncio.subprocess.Process | None = None
        channel: ProcessChannel | None = None
        try:
            process = await self._spawn(folder, mark)
            channel = ProcessChannel(process)
            line = Line(channel)
            await channel.send(greeting())
            await line.ready()
            around = self._surroundings(request, folder, mark)
            running = process

            async def kill() -> None:
                await _kill(running, mark)

            dialogue = Dialogue(line, request, sink, started, kill=kill, check=_nothing)
            ending = await dialogue.run(encode_request(request, around), cancel)
            if ending.how == "vanished":
                if not ending.began:
                    raise SandboxBroken(f"The sandbox ended by itself. {channel.last_words()}".strip())
                return outcome(ending, "failed", "It ended its own supervisor.")
            if ending.not_begun:
                # On this machine's disk, whose room is not the job's to ask for.
                why = safetext.line(ending.not_begun)
                raise SandboxBroken(f"The inputs could not be written on the worker: {why}.")
            return judge(request, ending)
        except OSError as error:
            raise SandboxBroken(f"The sandbox could not be started: {error.strerror or error}.") from None
        finally:
            await asyncio.shield(asyncio.create_task(self._destroy(process, channel, folder, mark)))

    async def sweep(self) -> int:
        """Remove folders of attempts that are over; their processes ended when their worker did."""
        names = await asyncio.to_thread(lambda: [entry.name for entry in self._root.iterdir()])
        left = [name for name in names if name not in self._live]
        for name in left:
            await self._remove(self._root / name)
        return len(left)

    async def close(self) -> None:
        if await asyncio.to_thread(self._root.is_dir):
            await self.sweep()

    def _folder(self, name: str) -> Path:
        folder = self._root / name
        self._live.add(name)
        folder.mkdir(0o700)
        return folder

    async def _remove(self, folder: Path) -> None:
        self._live.discard(folder.name)
        await asyncio.to_thread(_delete, folder)

    async def _spawn(self, folder: Path, mark: str) -> asyncio.subprocess.Process:
        prefix = bubblewrap.command(self._bwrap, folder) if self._bwrap else []
        return await asyncio.create_subprocess_exec(
            *prefix,
            *(sys.executable, "-I", "-c", LOADER),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=folder,
            env={"PATH": _path(), "LANG": "C.UTF-8", MARK: mark},
            start_new_session=True,
        )

    def _surroundings(self, request: RunRequest, folder: Path, mark: str) -> Surroundings:
        inside = bubblewrap.JOB_FOLDER if self._bwrap else str(folder)
        cores = max(1, -(-request.cpu_millis // 1000))
        return Surroundings(
            folder=inside,
            alone=bool(self._bwrap),
            cgroup=False,
            rlimits={
                # Less than any core: none is written, and no program of the machine is run for it, as at 0.
                "RLIMIT_CORE": 1,
                "RLIMIT_CPU": request.timeout_s * max(cores, os.cpu_count() or 1) + 5,
                "RLIMIT_FSIZE": MAX_FILE_BYTES,
                "RLIMIT_NOFILE": MAX_FILES,
                **(
                    {}
                    if LANGUAGES[request.language].sparse
                    else {"RLIMIT_AS": (request.memory_mb << 20) * 2 + MEMORY_SPARE}
                ),
            },
            nice=NICE,
            path=_path(),
            env={"TMPDIR": "/tmp" if self._bwrap else inside, MARK: mark},  # noqa: S108
        )

    async def _destroy(
        self,
        process: asyncio.subprocess.Process | None,
        channel: ProcessChannel | None,
        folder: Path,
        mark: str,
    ) -> None:
        if process is not None:
            if channel is not None:
                await channel.end_input()
                # A supervisor whose job is over ends at once; its exit is the common way.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await process.wait()
            await _kill(process, mark)
            if channel is not None:
                await channel.close()
        await self._remove(folder)


async def _nothing() -> None:
    """A process of this machine can always be heard."""


def _path() -> str:
    """Where a job finds programs: next to the interpreter, then the system's."""
    return f"{Path(sys.executable).parent}:{DEFAULT_PATH}"


async def _kill(process: asyncio.subprocess.Process, mark: str) -> None:
    """End the supervisor and everything below it, then what outlived it."""
    await asyncio.to_thread(_kill_tree, process.pid if process.returncode is None else None, mark)
    try:
        async with asyncio.timeout(END_WITHIN_S):
            await process.wait()
    except TimeoutError:
        raise SandboxBroken("A killed sandbox does not end; the machine is in trouble.") from None


def _kill_tree(pid: int | None, mark: str) -> None:
    found: list[psutil.Process] = []
    if pid is not None:
        with contextlib.suppress(psutil.Error):
            supervisor = psutil.Process(pid)
            found = [*supervisor.children(recursive=True), supervisor]
    found += _marked(mark)
    for victim in found:
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            victim.send_signal(signal.SIGKILL)


def _marked(mark: str) -> Sequence[psutil.Process]:
    """Processes that have a sandbox's mark in the environment they started with."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark:
                found.append(process)
    return found


def _delete(folder: Path) -> None:
    """Delete a folder that a stranger filled: closed folders are opened, what cannot go is logged."""

    def opened(function: object, path: str, error: object) -> None:
        for place in (Path(path).parent, Path(path)):
            with contextlib.suppress(OSError):
                if not place.is_symlink() and place.is_dir() and place != folder.parent:
                    place.chmod(0o700)

    for _ in range(64):
        shutil.rmtree(folder, onerror=opened)
        if not folder.exists():
            return
    log.warning("the folder %s of an attempt that is over cannot be removed", folder)
