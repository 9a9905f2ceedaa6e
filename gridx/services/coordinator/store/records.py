"""What the store takes and gives: plain frozen values, no models, no connections.

They are structs of msgspec because some are made for every step of every job: a frozen dataclass of thirty
fields takes ten times as long to make.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from msgspec import Struct, field

from gridx.messages import (
    AttemptState,
    Dependency,
    InputFile,
    JobState,
    LeftFile,
    Microcredits,
    OutputFile,
    Stream,
)
from gridx.services.coordinator.ledger import Prices as Prices


class UserRecord(Struct, frozen=True):
    """A user with the password's hash; never leaves the coordinator."""

    id: int
    username: str
    role: Literal["user", "admin"]
    password_hash: str
    disabled: bool
    created_at: datetime


class TokenRecord(Struct, frozen=True):
    """A token without its secret; the database has only the SHA-256."""

    id: int
    user_id: int
    label: str
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None


Stop = Literal["", "cancel", "fails", "budget", "parent"]
"""Why no element of an array starts any more: it was cancelled, too many of it failed, its budget is used up,
what it waited for did not succeed."""


class NewArray(Struct, frozen=True):
    """That a new job is many: their indices, and what each has of its own."""

    indices: Sequence[int]
    total_count: int
    """What elements are told of how many there are; more than there are here when some are tried again."""
    args: Sequence[list[str]] | None = None
    """Of each element, after those that all share."""
    inputs: Sequence[list[InputFile]] | None = None
    max_fails: int | None = None
    max_credits: Microcredits | None = None
    retry_of: int | None = None
    """The array of which these are elements that did not succeed."""
    retried: Sequence[int] = ()
    """Their ids there."""


class NewJob(Struct, frozen=True):
    """A job to be accepted: its spec, priced. ``hold`` is for one job, all its retries included."""

    code: str
    language: str
    name: str
    args: list[str]
    env: dict[str, str]
    cpu_millis: int
    memory_mb: int
    gpus: int
    timeout_s: int
    priority: int
    max_attempts: int
    runtime: str | None
    python: str | None
    prices: Prices
    hold: Microcredits
    retry_of: int | None = None
    inputs: Sequence[InputFile] = ()
    outputs: Sequence[str] = ("*",)
    retries: int = 0
    retry_delay_s: int = 0
    after: Sequence[Dependency] = ()
    array: NewArray | None = None


class JobRecord(Struct, frozen=True):
    """A job without its payload (code, args, env), which is read apart when it is needed."""

    id: int
    user_id: int
    owner: str
    state: JobState
    reason: str
    language: str
    name: str
    cpu_millis: int
    memory_mb: int
    gpus: int
    timeout_s: int
    priority: int
    max_attempts: int
    runtime: str | None
    python: str | None
    prices: Prices
    hold: Microcredits
    charge: Microcredits
    attempts: int
    """Attempts begun."""
    faults: int
    """Attempts that ended by a machine's fault; ``max_attempts`` of them end the job as lost."""
    current_attempt_id: int | None
    worker_id: int | None
    """Of the current attempt, or of the last when there is none."""
    worker_name: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    exit_code: int | None
    signal: int | None
    peak_memory_bytes: int | None
    stdout_bytes: int
    stderr_bytes: int
    retry_of: int | None
    array_id: int | None = None
    array_index: int | None = None
    retries: int = 0
    retry_delay_s: int = 0
    failures: int = 0
    """Attempts that failed by the program's own fault, were paid, and are followed by another."""
    not_before: datetime | None = None
    files: int = 0
    file_bytes: int = 0

    @property
    def held(self) -> Microcredits:
        """What one that has not ended may still cost."""
        return self.hold - self.charge


class ArrayRecord(Struct, frozen=True):
    """Many jobs of one submission. Its elements are the jobs ``id + 1`` to ``id + count``."""

    id: int
    user_id: int
    owner: str
    name: str
    count: int
    first_index: int
    total_count: int
    max_fails: int | None
    max_credits: Microcredits | None
    unit: Microcredits
    """What one element may cost at most."""
    hold: Microcredits
    held: Microcredits
    """What lies in escrow for all of them now."""
    charge: Microcredits
    open_charge: Microcredits
    """Of the charge, what fell on elements that have not ended."""
    running_charge: Microcredits
    """Of that, what fell on elements that have a machine."""
    queued: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    state: JobState
    reason: str
    stop: Stop
    changes: int
    """Grows with every change: of two records the one with more is the newer."""
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    retry_of: int | None
    model: JobRecord
    """An element as it was submitted: what all of them ask of a machine."""

    @property
    def cover(self) -> Microcredits:
        """What the elements that have not ended may still cost, all together."""
        return (self.queued + self.running) * self.unit - self.open_charge

    @property
    def bound(self) -> Microcredits:
        """Of ``held``, what elements that have a machine may still need."""
        return self.running * self.unit - self.running_charge

    def affords(self, charge: Microcredits = 0) -> bool:
        """Whether one more element may start, ``charge`` of which was spent on it before."""
        return self.held - self.bound >= self.unit - charge


class Accepted(Struct, frozen=True):
    """A job or array that was taken in, and the jobs and arrays that it waits for."""

    record: JobRecord | ArrayRecord
    job: NewJob
    waits_for: Sequence[int]


class Aftermath(Struct):
    """What a step changed beside the job that it was about, as of its commit."""

    accepted: list[Accepted] = []
    arrays: dict[int, ArrayRecord] = {}
    cancelled: list[JobRecord] = []
    """Jobs that waited for one that did not succeed."""
    met: list[tuple[int, int]] = []
    """A waiting job, or array, and a parent that ended as it had to."""
    uncovered: list[int] = []
    """Elements that were to start and are not covered by what their array holds."""
    payers: set[int] = set()
    """Users whose balances moved."""


class Payload(Struct, frozen=True):
    """What a worker needs beside the record."""

    code: str
    args: list[str]
    env: dict[str, str]
    inputs: list[InputFile] = []
    outputs: list[str] = field(default_factory=lambda: ["*"])
    array_count: int | None = None
    """How many elements the array has, to each of them."""


class NewAttempt(Struct, frozen=True):
    """A placement to be committed."""

    job_id: int
    worker_id: int
    gpus: tuple[str, ...]
    runtime: str


class AttemptRecord(Struct, frozen=True):
    """One execution. ``id`` grows over all jobs: it is the fencing token."""

    id: int
    job_id: int
    number: int
    worker_id: int
    worker_name: str
    worker_owner: str
    worker_user_id: int
    state: AttemptState
    gpus: tuple[str, ...]
    runtime: str
    assigned_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    assigned_mono_ms: int
    """Monotonic clock of boot ``boot_id`` when its lease began; comparable only within the same boot."""
    boot_id: str
    reason: str
    charged_ms: int
    charge: Microcredits
    fee: Microcredits
    stdout_bytes: int
    stderr_bytes: int
    pruned_at: datetime | None = None
    """When its printed output and files were deleted for their age."""


class End(Struct, frozen=True):
    """How an attempt ended, and so its job if it is not tried again; ``ledger`` computed the charge."""

    job_state: JobState
    attempt_state: AttemptState
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    peak_memory_bytes: int | None = None
    charged_ms: int = 0
    charge: Microcredits = 0
    fee: Microcredits = 0
    files: Sequence[OutputFile] = ()
    left: Sequence[LeftFile] = ()


class WorkerRecord(Struct, frozen=True):
    """A worker that has joined at least once."""

    id: int
    user_id: int
    owner: str
    identity: str
    name: str
    version: str
    joined_at: datetime
    paused: bool


class BalanceRecord(Struct, frozen=True):
    """A user's account; ``balance`` is spendable, ``held`` lies in escrow."""

    user_id: int
    username: str
    balance: Microcredits
    held: Microcredits
    earned: Microcredits
    spent: Microcredits


class EntryRecord(Struct, frozen=True):
    """One posting to a user's account."""

    id: int
    transaction_id: int
    at: datetime
    kind: Literal["grant", "hold", "settle", "release", "transfer"]
    amount: int
    job_id: int | None
    attempt_id: int | None
    note: str


class Idempotency(Struct, frozen=True):
    """The caller's key and the digest of the body it came with."""

    key: str
    digest: bytes


class Submitted(Struct, frozen=True):
    """The jobs and arrays of one submission; ``replayed`` when an earlier request had made them."""

    jobs: list[JobRecord | ArrayRecord]
    replayed: bool


class OutputChunk(Struct, frozen=True):
    """Bytes of one stream of an attempt, from ``offset`` on."""

    attempt_id: int
    stream: Stream
    offset: int
    data: bytes


class Begin(Struct, frozen=True):
    """That an attempt's program runs, and in which runtime."""

    runtime: str


class Finished(Struct, frozen=True):
    """A job that ended with its attempt, and whose accounts that moved."""

    job: JobRecord
    payer_id: int
    """The job's owner, a user's id."""
    payee_id: int
    """The worker's owner, a user's id."""
