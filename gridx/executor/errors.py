"""How a call can end other than by its own result or its own exception.

All are :class:`~gridx.errors.GridError`: a sentence, a hint, and the job they are about.
"""

from __future__ import annotations

import concurrent.futures
from typing import Any

from gridx.errors import EXIT_JOB_FAILED, GridError


class JobError(GridError):
    """The call has no result. ``job_id`` is its job's, None where it never became one."""

    code, status, exit_code = "job_error", 500, EXIT_JOB_FAILED

    def __init__(self, message: str, hint: str = "", **details: Any) -> None:
        super().__init__(message, hint, **details)
        self.job_id: int | None = details.get("job_id")


class JobFailed(JobError):
    """Its process ended before it could hand in a result: by a signal, or by ``os._exit``."""

    code = "job_failed"


class JobTimedOut(JobError):
    """It ran for longer than its ``timeout_s``."""

    code = "job_timed_out"


class JobOutOfMemory(JobError):
    """It needed more memory than its ``memory_mb``."""

    code = "job_out_of_memory"


class JobLost(JobError):
    """Each machine that had it went away or broke, as often as ``max_attempts`` says."""

    code = "job_lost"


class JobCancelled(JobError, concurrent.futures.CancelledError):
    """Somebody cancelled its job: another program, the shell, an administrator, or ``future.stop()``."""

    code = "job_cancelled"


class ResultMissing(JobError):
    """The call ended, but what it returned did not come back: it cannot be pickled, or is over a limit."""

    code = "result_missing"


class UntrustedResult(JobError):
    """The result holds more than data and comes from the machine of somebody who is not trusted."""

    code = "untrusted_result"


class RemoteError(JobError):
    """The call raised an exception that cannot be brought back as it was; its text and traceback can."""

    code = "remote_error"


class RemoteTraceback(Exception):
    """The traceback of an exception as text, from where it was raised: the ``__cause__`` of that one."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'
