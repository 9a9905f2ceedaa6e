"""Every value that crosses a wire: HTTP bodies, the workers' frames, the dashboards' events.

JSON, decoded strictly by msgspec: no coercion, unknown fields refused, every size and number bounded. All
amounts of credits are integers in microcredits. All times of day are UTC; they are for people to read, and
nothing is computed from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from gridx.errors import BadRequest, GridError, InvalidField

PROTOCOL_VERSION: Final = 1
MICROCREDITS: Final = 1_000_000
"""Microcredits in one credit."""

MAX_CODE_BYTES: Final = 1 << 20
MAX_BODY_BYTES: Final = 2 << 20
MAX_FRAME_BYTES: Final = 4 << 20
MAX_OUTPUT_FRAME_BYTES: Final = 256 << 10
MAX_BATCH: Final = 256
"""Frames in one WebSocket message."""

Microcredits = int
Stream = Literal["stdout", "stderr"]
STREAMS: Final[tuple[Stream, Stream]] = ("stdout", "stderr")

# Bounds. 2**53 is the largest integer that every JSON reader keeps exact.
Id = Annotated[int, Meta(ge=1, le=2**53)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Amount = Annotated[int, Meta(ge=1, le=2**53)]
Percent = Annotated[float, Meta(ge=0, le=100)]
Gauge = Annotated[float, Meta(ge=0, le=1e15)]
UserName = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}\Z")]
Password = Annotated[str, Meta(min_length=8, max_length=1024, pattern=r"\A[^\x00]*\Z")]
Line = Annotated[str, Meta(max_length=200, pattern=r"\A[^\x00-\x1f\x7f]*\Z")]
"""One line of text that people read; no control characters."""
Text = Annotated[str, Meta(max_length=4000, pattern=r"\A[^\x00]*\Z")]
Argument = Annotated[str, Meta(max_length=32768, pattern=r"\A[^\x00]*\Z")]
EnvName = Annotated[str, Meta(max_length=128, pattern=r"\A[A-Za-z_][A-Za-z0-9_]*\Z")]
RuntimeName = Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9._-]{0,63}\Z")]
PythonVersion = Annotated[str, Meta(pattern=r"\A3\.[0-9]{1,2}\Z")]
GpuUuid = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9-]{1,96}\Z")]
Identity = Annotated[str, Meta(pattern=r"\A[a-f0-9]{32}\Z")]


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


class Wire(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=False):
    """Base of everything that is decoded from outside: frozen, named, no unknown fields."""


# -- jobs ------------------------------------------------------------------------------------------------


class JobSpec(Wire, frozen=True):
    """What a user submits. ``cpus`` may be a fraction in steps of a thousandth; ``memory_mb`` is in MiB."""

    code: Annotated[str, Meta(max_length=MAX_CODE_BYTES)]
    language: Line = "python"
    user_id: UserName | int | None = None
    name: Line = ""
    args: Annotated[list[Argument], Meta(max_length=1000)] = []
    env: Annotated[dict[EnvName, Argument], Meta(max_length=200)] = {}
    cpus: Annotated[float, Meta(ge=0.1, le=1024)] = 1.0
    memory_mb: Annotated[int, Meta(ge=32, le=4 << 20)] = 512
    gpus: Annotated[int, Meta(ge=0, le=64)] = 0
    timeout_s: Annotated[int, Meta(ge=1, le=30 * 86400)] = 300
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0
    max_attempts: Annotated[int, Meta(ge=1, le=20)] = 3
    runtime: RuntimeName | None = None
    python: PythonVersion | None = None


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


class Job(Wire, frozen=True):
    """A job as its owner sees it. ``spec`` and ``attempts`` come with a single job, not in listings.

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
    spec: JobSpec | UnsetType = UNSET
    attempts: list[Attempt] | UnsetType = UNSET


class JobPage(Wire, frozen=True):
    """``next`` is the cursor to pass as ``before`` for the page that follows; none on the last."""

    jobs: list[Job]
    next: int | None = None


class PriceLine(Wire, frozen=True):
    """One line of a quote or a receipt: a quantity of a resource over a time, and what it comes to."""

    item: Literal["cpu", "memory", "gpu"]
    quantity: float
    unit: str
    per_hour: Microcredits
    """Price of one unit for an hour."""
    amount: Microcredits
    """Rounded down; the total is rounded up once, so the lines may miss it by a microcredit each."""


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


class Receipt(Wire, frozen=True):
    """The whole account of a job: held, charged, released; a part per attempt."""

    job_id: Id
    owner: str
    state: JobState
    hold: Microcredits
    charge: Microcredits
    released: Microcredits
    attempts: list[AttemptReceipt]


# -- accounts and credits ----------------------------------------------------------------------------------


class Register(Wire, frozen=True):
    """A new user. ``invite`` is needed where the coordinator says so."""

    username: UserName
    password: Password
    invite: Annotated[str, Meta(max_length=200)] = ""
    label: Line = ""


class Login(Wire, frozen=True):
    """Exchange a password for a token; ``label`` names it in the list of tokens."""

    username: Annotated[str, Meta(max_length=200)]
    password: Annotated[str, Meta(max_length=1024)]
    label: Line = ""


class User(Wire, frozen=True):
    """Who one is."""

    id: Id
    username: str
    role: Literal["user", "admin"]
    created_at: datetime
    disabled: bool = False


class Session(Wire, frozen=True):
    """A fresh token; it is shown this once."""

    token: str
    expires_at: datetime
    user: User


class TokenInfo(Wire, frozen=True):
    """A token without its secret."""

    id: Id
    label: str
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    current: bool


class Balance(Wire, frozen=True):
    """What a user has, in microcredits. ``held`` is set aside for jobs that have not ended."""

    user: str
    balance: Microcredits
    held: Microcredits
    earned: Microcredits
    spent: Microcredits
    unit: Literal["microcredit"] = "microcredit"


class Entry(Wire, frozen=True):
    """One posting to a user's account, with the transaction's reason."""

    id: Id
    transaction_id: Id
    at: datetime
    kind: Literal["grant", "hold", "settle", "release", "transfer"]
    amount: int
    """Signed: what the account gained."""
    job_id: int | None = None
    attempt_id: int | None = None
    note: str = ""


class EntryPage(Wire, frozen=True):
    """``next`` is the cursor to pass as ``before``."""

    entries: list[Entry]
    next: int | None = None


class Transfer(Wire, frozen=True):
    """Credits from the caller to another user."""

    to: UserName
    amount: Amount
    note: Line = ""


class Grant(Wire, frozen=True):
    """Credits from the mint to a user; admins only."""

    to: UserName
    amount: Amount
    note: Line = ""


class AuditFinding(Wire, frozen=True):
    """One difference between what the ledger says and what it must say."""

    check: str
    message: str


class AuditReport(Wire, frozen=True):
    """The verdict of a full recomputation; ``ok`` when ``findings`` is empty."""

    ok: bool
    findings: list[AuditFinding]
    accounts: int
    transactions: int
    postings: int
    jobs: int
    in_circulation: Microcredits
    """What users, escrow and treasury have together: what the mint has given."""
    held: Microcredits


class UserUpdate(Wire, frozen=True):
    """What an admin may change of a user."""

    role: Literal["user", "admin"] | None = None
    disabled: bool | None = None
    password: Password | None = None


class UserPage(Wire, frozen=True):
    """All users, for admins."""

    users: list[User]


# -- machines ----------------------------------------------------------------------------------------------


class Gpu(Wire, frozen=True):
    """One whole GPU that a worker offers."""

    uuid: GpuUuid
    name: Line
    memory_mb: Annotated[int, Meta(ge=0, le=16 << 20)]


class GpuSample(Wire, frozen=True):
    """One GPU now; a metric that the card does not offer is null."""

    uuid: GpuUuid
    name: Line
    utilisation_percent: Percent | None
    memory_used_bytes: Count | None
    memory_total_bytes: Count | None
    temperature_c: Annotated[float, Meta(ge=-100, le=1000)] | None
    power_w: Annotated[float, Meta(ge=0, le=100_000)] | None


class MachineSample(Wire, frozen=True):
    """A machine now. Rates are bytes a second since the sample before; ``load`` is the 1-minute average."""

    cpu_percent: Annotated[list[Percent], Meta(max_length=4096)]
    """Per logical core."""
    load: Gauge | None
    memory_used_bytes: Count
    memory_total_bytes: Count
    swap_used_bytes: Count
    disk_used_bytes: Count
    disk_total_bytes: Count
    disk_read_bps: Gauge
    disk_write_bps: Gauge
    net_rx_bps: Gauge
    net_tx_bps: Gauge
    gpus: Annotated[list[GpuSample], Meta(max_length=64)]


class Runtime(Wire, frozen=True):
    """What a sandbox can run: an image (or the machine's interpreter) with its Python and languages."""

    name: RuntimeName
    python: PythonVersion
    languages: Annotated[list[Line], Meta(max_length=32)]
    image: Line = ""
    digest: Line = ""


class Offer(Wire, frozen=True):
    """What a worker puts at the grid's disposal."""

    cpu_millis: Annotated[int, Meta(ge=0, le=4_096_000)]
    """Thousandths of a core."""
    memory_mb: Annotated[int, Meta(ge=0, le=64 << 20)]
    gpus: Annotated[list[Gpu], Meta(max_length=64)] = []
    runtimes: Annotated[list[Runtime], Meta(max_length=64)] = []
    sandbox: Literal["docker", "process"] = "docker"
    isolated: bool = True
    """False where the sandbox is no wall; such a worker is given its own owner's jobs only."""
    own_jobs_only: bool = False
    warnings: Annotated[list[Line], Meta(max_length=32)] = []


class Worker(Wire, frozen=True):
    """A worker as the grid sees it. ``free_*`` is computed from the attempts that live on it."""

    id: Id
    name: str
    owner: str
    state: Literal["online", "offline", "paused", "draining", "unready"]
    state_reason: str = ""
    offer: Offer | None = None
    free_cpu_millis: int = 0
    free_memory_mb: int = 0
    free_gpus: list[str] = []
    jobs: list[int] = []
    last_seen_s: float | None = None
    """Seconds since its last sign of life; null when it has not been seen since the coordinator started."""
    joined_at: datetime | None = None
    version: str = ""
    sample: MachineSample | None = None
    earned: Microcredits = 0


class WorkerPage(Wire, frozen=True):
    """The fleet."""

    workers: list[Worker]


class Health(Wire, frozen=True):
    """Whether the coordinator serves; open to everybody, so it says little."""

    status: Literal["ok", "stopping"]
    version: str
    protocol: int


# -- frames: worker -> coordinator ---------------------------------------------------------------------------


class Frame(Wire, frozen=True, tag_field="type", tag=str.lower):
    """Base of the frames of the workers' channel. A WebSocket message is a JSON array of frames."""


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
    spooled: Annotated[list[Id], Meta(max_length=100_000)] = []
    """Attempts that ended and whose results were not acknowledged."""


class Sample(Frame, frozen=True):
    """Sign of life: renews the leases of ``attempts`` and tells the machine's load."""

    seq: Count
    attempts: Annotated[list[Id], Meta(max_length=10_000)]
    sample: MachineSample | None = None
    state: Literal["online", "paused", "draining", "unready"] = "online"
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


class Released(Frame, frozen=True):
    """The worker gives the attempt back unfinished: it drains, or its owner wants the machine."""

    attempt_id: Id
    reason: Line


WorkerFrame = Hello | Sample | Offering | Accepted | Refused | Started | Output | Finished | Released


# -- frames: coordinator -> worker ---------------------------------------------------------------------------


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


class Drain(Frame, frozen=True):
    """Take nothing new; finish what runs; then leave."""


class Rejected(Frame, frozen=True):
    """A frame or the connection was refused; what and why. Some are followed by a close."""

    code: str
    message: str
    hint: str = ""


CoordinatorFrame = Welcome | Assign | Cancel | Ack | Renewed | Pause | Drain | Rejected


# -- events: coordinator -> dashboards -----------------------------------------------------------------------


class JobChanged(Frame, frozen=True, tag="job"):
    """A job of one's own (any job, for an admin) is new or changed."""

    job: Job


class OutputArrived(Frame, frozen=True, tag="output"):
    """Bytes of a stream of a job that one watches."""

    job_id: Id
    attempt: int
    """Number of the attempt within the job; offsets count from its beginning."""
    stream: Stream
    offset: Count
    data: bytes


class WorkerChanged(Frame, frozen=True, tag="worker"):
    """A worker came, went, or sent a sample."""

    worker: Worker


class CreditsChanged(Frame, frozen=True, tag="credits"):
    """One's balance moved."""

    balance: Balance


class Ready(Frame, frozen=True, tag="ready"):
    """First event: whose stream this is. What changed before it is read over HTTP."""

    user: User
    version: str


class Watch(Frame, frozen=True):
    """From the client: send the output of these jobs, and of no others, as it comes."""

    jobs: Annotated[list[Id], Meta(max_length=1000)]


Event = JobChanged | OutputArrived | WorkerChanged | CreditsChanged | Ready | Rejected


class ErrorBody(Wire, frozen=True):
    """The inside of the one error shape."""

    code: str
    message: str
    hint: str = ""
    details: dict[str, Any] = {}


class ErrorReply(Wire, frozen=True):
    """``{"error": {...}}``: the one shape of every HTTP error."""

    error: ErrorBody


# -- coding ------------------------------------------------------------------------------------------------

T = TypeVar("T")

_encoder = msgspec.json.Encoder()
_worker_frames: msgspec.json.Decoder[list[WorkerFrame]] = msgspec.json.Decoder(
    Annotated[list[WorkerFrame], Meta(min_length=1, max_length=MAX_BATCH)]
)
_coordinator_frames: msgspec.json.Decoder[list[CoordinatorFrame]] = msgspec.json.Decoder(
    Annotated[list[CoordinatorFrame], Meta(min_length=1, max_length=MAX_BATCH)]
)
_event: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
encode = _encoder.encode


def _refusal(error: msgspec.MsgspecError | UnicodeDecodeError | RecursionError) -> GridError:
    """Turn a decoder's complaint into the field's path and a sentence."""
    if isinstance(error, msgspec.ValidationError):
        text, _, path = str(error).partition(" - at `")
        # The key of a mapping is told as "key` in `$.env".
        field = path.rstrip("`").removeprefix("key` in `").removeprefix("$").removeprefix(".")
        if "unknown field `" in text or "missing required field `" in text:
            name = text.split("`")[1]
            field = f"{field}.{name}" if field else name
        if not field and ", got `" in text:
            return BadRequest(f"This is not what is taken here: {text}.", "Send what the README names.")
        field = field or "body"
        return InvalidField(
            f"{field}: {text}.", "See the API section of the README for what is allowed.", field=field
        )
    return BadRequest(f"This is not valid JSON: {error}.", "Send one JSON value, encoded as UTF-8.")


def decode(data: bytes | str, kind: type[T]) -> T:
    """Decode one JSON value of a known type.

    Raises:
        BadRequest: not JSON, not UTF-8, nested too deep.
        InvalidField: a field is unknown, missing, of the wrong type or out of range.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _refusal(error) from None


def convert(values: Mapping[str, str], kind: type[T]) -> T:
    """Read the parameters of a query, which are all text, as the fields of a struct.

    Raises:
        InvalidField: a parameter is unknown, missing, not of its type or out of range.
    """
    try:
        return msgspec.convert(dict(values), kind, strict=False)
    except msgspec.ValidationError as error:
        raise _refusal(error) from None


def decode_worker_frames(data: bytes | str) -> list[WorkerFrame]:
    """Decode what a worker sent: a batch of 1 to ``MAX_BATCH`` frames. Raises as :func:`decode`."""
    try:
        return _worker_frames.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _refusal(error) from None


def decode_coordinator_frames(data: bytes | str) -> list[CoordinatorFrame]:
    """Decode what the coordinator sent a worker. Raises as :func:`decode`."""
    try:
        return _coordinator_frames.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _refusal(error) from None


def decode_event(data: bytes | str) -> Event:
    """Decode one event of ``/events``. Raises as :func:`decode`."""
    try:
        return _event.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _refusal(error) from None
