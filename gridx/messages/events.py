"""What dashboards are told, and the one shape of errors."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from gridx.messages.accounts import Balance, User
from gridx.messages.bounds import Count, Id, Stream, Wire
from gridx.messages.frames import Frame, Rejected
from gridx.messages.jobs import Job
from gridx.messages.machines import Worker


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
