"""Jobs as users submit and see them: specs, states, attempts, quotes, receipts."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Literal

from msgspec import UNSET, Meta, UnsetType, field

from gridx.messages.bounds import (
    MAX_ARRAY,
    MAX_CODE_BYTES,
    Argument,
    Count,
    EnvName,
    Id,
    Line,
    Microcredits,
    PythonVersion,
    RuntimeName,
    UserName,
    Wire,
)
from gridx.messages.files import MAX_INPUTS, InputFile, LeftFile, OutputFile


class JobState(StrEnum):
    """Where a job is in its life; see the transitions in ``services/coordinator/states.py``."""

    QUEUED = "queued"
    ASSIGNED = "assigned"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    CANCELLED = "cancelled"
    LOST = "lost"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to the job."""
        return self in ENDED


ENDED: Final = frozenset(
    {
        JobState.SUCCEEDED,
        JobState.FAILED,
        JobState.TIMED_OUT,
        JobState.OUT_OF_MEMORY,
        JobState.CANCELLED,
        JobState.LOST,
    }
)


class AttemptState(StrEnum):
    """Where one execution is. Broken, refused, released and lost are the machine's doing and unpaid."""

    ASSIGNED = "assigned"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    CANCELLED = "cancelled"
    BROKEN = "broken"
    REFUSED = "refused"
    RELEASED = "released"
    LOST = "lost"


Outcome = Literal["succeeded", "failed", "timed_out", "out_of_memory", "cancelled", "broken"]


Arguments = Annotated[list[Argument], Meta(max_length=1000)]
Inputs = Annotated[list[InputFile], Meta(max_length=MAX_INPUTS)]


class ArraySpec(Wire, frozen=True):
    """Many jobs from one spec. Each sees its index as ``GRIDX_INDEX`` and the count as ``GRIDX_COUNT``.

    Exactly one of ``count``, ``args`` and ``inputs`` says how many there are. ``args`` and ``inputs`` of an
    element come after those of the spec.
    """

    count: Annotated[int, Meta(ge=1, le=MAX_ARRAY)] | None = None
    args: Annotated[list[Arguments], Meta(min_length=1, max_length=MAX_ARRAY)] | None = None
    inputs: Annotated[list[Inputs], Meta(min_length=1, max_length=MAX_ARRAY)] | None = None
    """An element with inputs of its own gets their paths as arguments too."""
    first: Count = 0
    """Index of the first element."""
    max_fails: Annotated[int, Meta(ge=0, le=MAX_ARRAY)] | None = None
    """With more elements failed than this, those that wait are cancelled."""
    max_credits: Microcredits | None = None
    """What the whole array may cost; no more is held, and elements start while it lasts."""


class Dependency(Wire, frozen=True):
    """A job, or an array, that has to end first. ``success``: and to succeed; else this job is cancelled."""

    job_id: Id
    when: Literal["success", "end"] = "success"


class JobSpec(Wire, frozen=True):
    """What a user submits. ``cpus`` may be a fraction in steps of a thousandth; ``memory_mb`` is in MiB.

    ``max_attempts`` counts executions that a machine spoilt. ``retries`` are for the program's own failures:
    so many more executions, each paid, the first ``retry_delay_s`` after the failure and each later one after
    twice the time. ``outputs`` are patterns of names below ``out/``; what matches none stays behind.
    """

    # Its size is counted in bytes, and too many are an error of their own.
    code: Annotated[str, Meta(extra_json_schema={"maxLength": MAX_CODE_BYTES})]
    language: Line = "python"
    user_id: UserName | int | None = None
    name: Line = ""
    args: Arguments = []
    env: Annotated[dict[EnvName, Argument], Meta(max_length=200)] = {}
    cpus: Annotated[float, Meta(ge=0.1, le=1024)] = 1.0
    memory_mb: Annotated[int, Meta(ge=32, le=4 << 20)] = 512
    gpus: Annotated[int, Meta(ge=0, le=64)] = 0
    timeout_s: Annotated[int, Meta(ge=1, le=30 * 86400)] = 300
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0
    max_attempts: Annotated[int, Meta(ge=1, le=20)] = 3
    runtime: RuntimeName | None = None
    python: PythonVersion | None = None
    inputs: Inputs = []
    outputs: Annotated[list[Annotated[Line, Meta(min_length=1)]], Meta(max_length=100)] = field(
        default_factory=lambda: ["*"]
    )
    retries: Annotated[int, Meta(ge=0, le=20)] = 0
    retry_delay_s: Annotated[int, Meta(ge=0, le=86400)] = 5
    after: Annotated[list[Dependency], Meta(max_length=100)] = []
    array: ArraySpec | None = None


class JobBatch(Wire, frozen=True):
    """Several jobs in one request: all are accepted, or none."""

    jobs: Annotated[list[JobSpec], Meta(min_length=1, max_length=1000)]


class Attempt(Wire, frozen=True):
    """One execution of a job, as its owner sees it. ``id`` is the fencing token."""

    id: Id
    number: int
    state: AttemptState
    worker_id: int
    worker_name: str
    worker_owner: str
    assigned_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    reason: str = ""
    runtime: str = ""
    gpus: list[str] = []


class ArrayProgress(Wire, frozen=True):
    """Where the elements of an array are; the counts add up to ``count``."""

    count: int
    queued: int
    running: int
    """Assigned, running or being cancelled."""
    succeeded: int
    failed: int
    """Failed, timed out, out of memory or lost."""
    cancelled: int
    max_fails: int | None = None
    max_credits: Microcredits | None = None


class Job(Wire, frozen=True):
    """A job as its owner sees it. ``spec`` and ``attempts`` come with a single job, not in listings.

    An array is shown as one job with ``array``: its state is ``queued`` until an element starts, ``running``
    until the last has ended, then ``succeeded`` if all did, ``cancelled`` if it was, else ``failed``. Its
    ``hold`` is what is held now, its ``charge`` the sum. An element is a job with ``array_id``.

    ``reason`` says why it waits while it waits, and how it ended once it has ended.
    """

    id: Id
    name: str
    owner: str
    state: JobState
    language: str
    cpus: float
    memory_mb: int
    gpus: int
    timeout_s: int
    priority: int
    max_attempts: int
    created_at: datetime
    runtime: str | None = None
    python: str | None = None
    reason: str = ""
    attempt: int = 0
    """Attempts begun so far."""
    worker_id: int | None = None
    worker_name: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    signal: int | None = None
    peak_memory_bytes: int | None = None
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    """Bytes stored; what is past the cap is not counted."""
    hold: Microcredits = 0
    charge: Microcredits = 0
    retry_of: int | None = None
    queue_position: int | None = None
    unschedulable: bool = False
    """It waits, and no worker that is connected could ever run it; ``reason`` says why."""
    retries: int = 0
    failures: int = 0
    """Attempts that failed by the program's own fault and were, or are to be, tried again."""
    not_before: datetime | None = None
    """When a failed program is tried again, at the earliest."""
    array: ArrayProgress | None = None
    array_id: int | None = None
    array_index: int | None = None
    files: int = 0
    file_bytes: int = 0
    """Files that came back, and their bytes."""
    spec: JobSpec | UnsetType = UNSET
    attempts: list[Attempt] | UnsetType = UNSET


class JobPage(Wire, frozen=True):
    """``next`` is the cursor to pass as ``before`` for the page that follows; none on the last.

    Of an array's elements, which are listed from the first to the last, it is passed as ``after``.
    """

    jobs: list[Job]
    next: int | None = None


class ElementOutput(Wire, frozen=True):
    """What an element's last attempt wrote; less than ``job`` says where that was too much to come along."""

    job: Job
    stdout: bytes = b""
    stderr: bytes = b""


class ElementOutputs(Wire, frozen=True):
    """Elements of an array in their order; ``next`` is passed as ``after`` for those that follow."""

    elements: list[ElementOutput]
    next: int | None = None


class PriceLine(Wire, frozen=True):
    """One line of a quote or a receipt: a quantity of a resource over a time, and what it comes to."""

    item: Literal["cpu", "memory", "gpu"]
    quantity: float
    unit: str
    per_hour: Microcredits
    """Price of one unit for an hour."""
    amount: Microcredits
    """What it adds to the sum, which is rounded up; the lines add up to the total."""


class Quote(Wire, frozen=True):
    """What a job would cost. ``hold`` is set aside at submit: the price of the whole timeout."""

    per_hour: Microcredits
    hold: Microcredits
    lines: list[PriceLine]
    balance: Microcredits
    shortfall: Microcredits
    waits_because: str = ""
    """Why it could not start at once, as the fleet is now; empty when it could."""


class AttemptReceipt(Wire, frozen=True):
    """How the charge of one attempt came about."""

    attempt_id: Id
    number: int
    state: AttemptState
    worker_id: int
    worker_name: str
    worker_owner: str
    charged_ms: int
    """Lease time that the coordinator measured, never more than the timeout; 0 for what is not paid."""
    lines: list[PriceLine]
    charge: Microcredits
    fee: Microcredits
    gpus: list[str]
    runtime: str
    reason: str = ""
    files: list[OutputFile] = []
    left: list[LeftFile] = []
    """What the program left in ``out/``: what came back of it, and what did not, with the reason."""


class Receipt(Wire, frozen=True):
    """The whole account of a job: held, charged, released; a part per attempt."""

    job_id: Id
    owner: str
    state: JobState
    hold: Microcredits
    charge: Microcredits
    released: Microcredits
    attempts: list[AttemptReceipt]
    left: list[LeftFile] = []
    """Of an array: what its elements left behind, the index before each path; the first hundred."""
