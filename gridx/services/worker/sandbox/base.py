"""The contract of every sandbox: prepare -> run -> stream of output, outcome -> destroy.

A sandbox runs a stranger's program and is believed only about what the worker measures itself. A bad program
is a result, never an exception; what keeps the machine from running it is ``SandboxBroken`` and costs nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from gridx.messages import FileCaps, InputFile, LeftFile, Outcome, OutputFile, Runtime, Stream

NOTHING_BACK = FileCaps(total_bytes=0, files=0, depth=1)

FLOOD_FACTOR = 64
"""An attempt that writes this many times its output cap to one stream is ended: it floods."""


@dataclass(slots=True)
class Meter:
    """What a running attempt has used so far, by its sandbox's word. It only grows."""

    cpu_ms: int = 0

    def read(self, cpu_ms: int) -> None:
        """Take a reading."""
        self.cpu_ms = max(self.cpu_ms, cpu_ms)


class FileSink(Protocol):
    """Takes the files that a job left in ``out/``, one after the other. Awaiting it is the back-pressure.

    Raises:
        SandboxBroken: the disk is full.
    """

    async def begin(self, path: str, size: int) -> None:
        """A file of so many bytes begins; path and size were checked."""

    async def write(self, data: bytes) -> None:
        """Its next bytes, at most 64 KiB."""

    async def end(self) -> OutputFile:
        """It is whole."""

    async def drop(self) -> None:
        """It is not, and does not count."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """One attempt, checked against the worker's own caps before it gets here.

    Attributes:
        output_cap_bytes: what is kept of each stream; past it the rest is dropped and a marker appended.
        timeout_s: from the moment the job's own code runs, on the worker's monotonic clock.
        gpus: UUIDs of whole GPUs; nothing else of the accelerator is visible inside.
        owner: whose job it is; a warm place is used again for the same owner only.
        meter: kept up to date while the attempt runs.
        number: which of the job's attempts this is, from 1; the job sees it as ``GRIDX_ATTEMPT``.
        inputs: files for the job's folder, each with the place on this machine where its bytes are.
        outputs: patterns of the names below ``out/`` that are wanted back; none: nothing is.
        out_files: how much may come back.
        files: takes what comes back; None: nothing is wanted.
    """

    attempt_id: int
    job_id: int
    owner: str
    code: str
    language: str
    args: tuple[str, ...]
    env: dict[str, str]
    cpu_millis: int
    memory_mb: int
    gpus: tuple[str, ...]
    timeout_s: int
    runtime: str
    output_cap_bytes: int
    pids: int = 64
    number: int = 1
    inputs: tuple[tuple[InputFile, Path], ...] = ()
    outputs: tuple[str, ...] = ()
    out_files: FileCaps = NOTHING_BACK
    files: FileSink | None = None
    meter: Meter = field(default_factory=Meter, compare=False)


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How an attempt ended.

    ``exit_code`` and ``signal`` are the job's own, at most one of them set. Both are unset when the worker
    ended the job. What went to the sink is the sink's to count, marker included. ``files`` went to the
    sink of files, ``left`` stayed behind.
    """

    outcome: Outcome
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""
    wall_ms: int = 0
    cpu_ms: int | None = None
    peak_memory_bytes: int | None = None
    files: tuple[OutputFile, ...] = ()
    left: tuple[LeftFile, ...] = ()


OutputSink = Callable[[Stream, bytes], Awaitable[None]]
"""Takes output in order, as it comes, in chunks of at most 64 KiB; awaiting it is the back-pressure."""

StartedHook = Callable[[], Awaitable[None]]
"""Called once, when the job's own code begins to run: from here on its time counts and is paid."""


@dataclass(frozen=True, slots=True)
class SandboxStatus:
    """What a sandbox can do now. ``unready`` is empty when it can run attempts, else why not."""

    kind: Literal["docker", "process"]
    isolated: bool
    runtimes: tuple[Runtime, ...]
    warnings: tuple[str, ...] = ()
    unready: str = ""
    details: dict[str, str] = field(default_factory=dict)
    """For ``gridx doctor``: engine, its version, security options, and the like."""
    gpus: bool = True
    """Whether it can give GPUs to a job."""
    cpu_millis: int | None = None
    memory_bytes: int | None = None
    """What the machine of the engine has, which may be a virtual one; None: this one's."""


class Sandbox(Protocol):
    """A way to run attempts in isolation."""

    async def open(self) -> None:
        """Find the engine, remove what an earlier run of this worker left, resolve the runtimes.

        Raises:
            EngineMissing: no engine answers; says what was tried.
            ImageMissing: the engine has none of the runtimes' images.
        """

    async def status(self) -> SandboxStatus:
        """Look at the engine now; quick, never raises for an engine that is away."""

    def unfit(self, inputs: Sequence[InputFile], memory_mb: int) -> str:
        """Why files like these do not go into the folder of a job with so much memory; empty when they do."""

    async def run(
        self, request: RunRequest, sink: OutputSink, started: StartedHook, cancel: asyncio.Event
    ) -> RunOutcome:
        """Run one attempt to its end and leave nothing behind, however this ends.

        When ``cancel`` is set, kill everything and return ``cancelled`` with what was measured. When the
        calling task is cancelled, the sandbox is destroyed before the cancellation goes on.

        Raises:
            SandboxBroken: the machine's fault; the attempt is tried elsewhere and not paid.
        """

    async def sweep(self) -> int:
        """Remove what carries this worker's own label and belongs to no live attempt; how many."""

    async def close(self) -> None:
        """Destroy everything that this worker made."""
