"""The workers' channel: one union per direction. A WebSocket message is a JSON array of frames."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from gridx.messages.bounds import (
    MAX_BATCH,
    MAX_CODE_BYTES,
    MAX_OUTPUT_FRAME_BYTES,
    Argument,
    Count,
    EnvName,
    GpuUuid,
    Id,
    Identity,
    Line,
    RuntimeName,
    Stream,
    Text,
    UserName,
    Wire,
)
from gridx.messages.files import MAX_INPUTS, MAX_OUTPUT_FILES, FileCaps, InputFile, LeftFile, OutputFile
from gridx.messages.jobs import Outcome
from gridx.messages.machines import MachineSample, Offer

Standing = Literal["online", "paused", "closed", "draining", "unready"]
"""Whether a worker takes new attempts, by its own word."""


class Frame(Wire, frozen=True, tag_field="type", tag=str.lower):
    """Base of the frames of the workers' channel. A WebSocket message is a JSON array of frames."""


# -- worker -> coordinator ---------------------------------------------------------------------------------


class StreamOffsets(Wire, frozen=True):
    """Bytes of each stream of an attempt that the coordinator has stored."""

    stdout: Count
    stderr: Count


class Hello(Frame, frozen=True):
    """First frame: who the worker is and everything it has, in full, at each connection."""

    protocol: int
    version: Line
    identity: Identity
    name: Line
    offer: Offer
    running: Annotated[list[Id], Meta(max_length=10_000)] = []
    """Attempts that it is executing."""
    spooled: Annotated[list[Id], Meta(max_length=10_000)] = []
    """Attempts that ended and whose results were not acknowledged."""
    released: Annotated[list[Id], Meta(max_length=10_000)] = []
    """Attempts that it gave back and of which it was not told that this is known."""
    state: Standing = "online"
    state_reason: Line = ""


class Sample(Frame, frozen=True):
    """Sign of life: renews the leases of ``attempts`` and tells the machine's load."""

    seq: Count
    attempts: Annotated[list[Id], Meta(max_length=10_000)]
    sample: MachineSample | None = None
    state: Standing = "online"
    state_reason: Line = ""


class Offering(Frame, frozen=True):
    """The offer changed: an engine came or went, an image was built, the owner changed a cap."""

    offer: Offer


class Accepted(Frame, frozen=True):
    """The worker has the attempt and prepares a sandbox."""

    attempt_id: Id


class Refused(Frame, frozen=True):
    """The worker will not run the attempt, for a reason of its own."""

    attempt_id: Id
    reason: Line


class Started(Frame, frozen=True):
    """The job's own code runs from now on."""

    attempt_id: Id
    runtime: RuntimeName


class Output(Frame, frozen=True):
    """Bytes of a stream, from an offset. What is stored already is skipped, a gap is refused."""

    attempt_id: Id
    stream: Stream
    offset: Count
    data: Annotated[bytes, Meta(max_length=MAX_OUTPUT_FRAME_BYTES)]


class Finished(Frame, frozen=True):
    """The attempt ended; sent until acknowledged. Lengths are of what was sent as output, marker included."""

    attempt_id: Id
    outcome: Outcome
    exit_code: Annotated[int, Meta(ge=-(2**31), le=2**31)] | None = None
    signal: Annotated[int, Meta(ge=1, le=128)] | None = None
    reason: Text = ""
    wall_ms: Count = 0
    cpu_ms: Count | None = None
    peak_memory_bytes: Count | None = None
    stdout_bytes: Count = 0
    stderr_bytes: Count = 0
    files: Annotated[list[OutputFile], Meta(max_length=MAX_OUTPUT_FILES)] = []
    """What the job left in ``out/``; each was uploaded before this is sent."""
    left: Annotated[list[LeftFile], Meta(max_length=100)] = []
    """What of it did not come, and why; the first hundred."""


class Sending(Frame, frozen=True):
    """The program has ended and its files are on their way; ``finished`` comes after them."""

    attempt_id: Id


class Released(Frame, frozen=True):
    """The worker gives the attempt back unfinished: it drains, or its owner wants the machine."""

    attempt_id: Id
    reason: Line


class Resumed(Frame, frozen=True):
    """The owner, at the machine, lets it take jobs again: a pause that the coordinator keeps is over, too."""


WorkerFrame = (
    Hello
    | Sample
    | Offering
    | Accepted
    | Refused
    | Started
    | Output
    | Sending
    | Finished
    | Released
    | Resumed
)


# -- coordinator -> worker ---------------------------------------------------------------------------------


class Resume(Wire, frozen=True):
    """What the coordinator has of an attempt that the worker named in its hello."""

    attempt_id: Id
    current: bool
    """False: the attempt is over for the coordinator; kill it, drop its result."""
    offsets: StreamOffsets


class Welcome(Frame, frozen=True):
    """Answer to a hello: the worker's id, the clocks, and where to go on with each named attempt."""

    worker_id: Id
    owner: str
    heartbeat_s: float
    lease_s: float
    resume: list[Resume] = []


class Assignment(Wire, frozen=True):
    """One attempt to run, whole: the worker needs nothing else."""

    attempt_id: Id
    job_id: Id
    number: Annotated[int, Meta(ge=1, le=1_000_000)]
    owner: UserName
    name: Line
    code: Annotated[str, Meta(max_length=MAX_CODE_BYTES)]
    language: Line
    args: list[Argument]
    env: dict[EnvName, Argument]
    cpu_millis: Annotated[int, Meta(ge=100, le=1_024_000)]
    memory_mb: Annotated[int, Meta(ge=32, le=4 << 20)]
    gpus: list[GpuUuid]
    timeout_s: Annotated[int, Meta(ge=1, le=30 * 86400)]
    runtime: RuntimeName
    output_cap_bytes: Annotated[int, Meta(ge=0, le=1 << 30)]
    inputs: Annotated[list[InputFile], Meta(max_length=2 * MAX_INPUTS)] = []
    outputs: Annotated[list[Line], Meta(max_length=100)] = []
    """Patterns of the names below ``out/`` that are wanted; none: nothing is."""
    out_files: FileCaps = FileCaps(total_bytes=0, files=0, depth=1)
    array_index: Count | None = None
    array_count: Count | None = None


class Assign(Frame, frozen=True):
    """Attempts to run."""

    attempts: Annotated[list[Assignment], Meta(max_length=MAX_BATCH)]


class Cancel(Frame, frozen=True):
    """Kill these attempts; each is answered by its ``finished``."""

    attempt_ids: list[Id]
    reason: Line = ""


class Ack(Frame, frozen=True):
    """These attempts' ends are committed, or no longer matter: their results may be dropped."""

    attempt_ids: list[Id]


class Renewed(Frame, frozen=True):
    """The sample of this number has come; leases run from the moment it was sent."""

    seq: Count


class Pause(Frame, frozen=True):
    """Take nothing new until resumed."""

    paused: bool
    give_back: bool = False
    """What runs is given back at once."""
    by_owner: bool = False
    """The worker's own owner wants it: a resume then ends a pause that was made at the machine, too."""


class Drain(Frame, frozen=True):
    """Take nothing new; finish what runs; then leave."""


class Rejected(Frame, frozen=True):
    """A frame or the connection was refused; what and why. Some are followed by a close."""

    code: str
    message: str
    hint: str = ""


CoordinatorFrame = Welcome | Assign | Cancel | Ack | Renewed | Pause | Drain | Rejected
