"""``gridx.Executor``: a ``concurrent.futures.Executor`` whose workers are the machines of a grid."""

from gridx.executor.errors import (
    JobCancelled,
    JobError,
    JobFailed,
    JobLost,
    JobOutOfMemory,
    JobTimedOut,
    RemoteError,
    RemoteTraceback,
    ResultMissing,
    UntrustedResult,
)
from gridx.executor.future import GridFuture
from gridx.executor.pool import Executor, print_output

__all__ = [
    "Executor",
    "GridFuture",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobLost",
    "JobOutOfMemory",
    "JobTimedOut",
    "RemoteError",
    "RemoteTraceback",
    "ResultMissing",
    "UntrustedResult",
    "print_output",
]
