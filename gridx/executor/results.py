"""From the end of a job to the result of its call: a value, its own exception, or why there is none."""

from __future__ import annotations

import asyncio
import linecache
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from gridx import safetext
from gridx.client import Client
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
from gridx.executor.unpickling import MoreThanData, loaded
from gridx.messages import Job, JobState

RESULT: Final = "gridx-result"
"""The file in ``out/`` that holds what the call returned or raised."""
IN_A_THREAD_BYTES: Final = 256 << 10
TAIL_BYTES: Final = 2000
"""So much of stderr is quoted where a call ended without a result."""

_FRAME: Final = re.compile(r'  File "(?P<file>[^"]+)", line (?P<line>\d{1,9}), in ')


class Header(msgspec.Struct, frozen=True):
    """The first line of a result: what the pickle behind it is. The machine wrote it: texts, not facts."""

    kind: str
    type: str = ""
    message: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose machines' results may hold any object: one's own, those of ``users``, or everybody's."""

    users: frozenset[str] = frozenset()
    everybody: bool = False

    def covers(self, owner: str, me: str) -> bool:
        """Whether it holds for the machines of this owner; of one that is not known it does not."""
        name = owner.casefold()
        return self.everybody or (name != "" and (name == me.casefold() or name in self.users))


async def outcome(
    grid: Client, job: Job, sent: Collection[tuple[str, str]], *, owner: str, trusted: bool
) -> tuple[Any, BaseException | None]:
    """The value of an ended call, or the exception that it raised; JobError where there is neither.

    Args:
        owner: of the machine that ran it.
        trusted: whether its result may hold any object.

    Raises:
        Unreachable: nothing answers; ask again.
        GridError: what else the coordinator said.
    """
    if job.state not in (JobState.SUCCEEDED, JobState.FAILED):
        return None, _without_result(job)
    if not job.files:
        return None, await _nothing_came(grid, job)
    data = await grid.read_file(job.id, RESULT)
    line, _, body = data.partition(b"\n")
    try:
        header = msgspec.json.decode(line, type=Header)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None, ResultMissing(
            f"What job {job.id} left as its result is none.",
            "Did it write to out/gridx-result?",
            job_id=job.id,
        )
    if header.kind == "unpicklable":
        return None, _cannot_return(job, header)
    loading = _value if header.kind == "value" else _error
    if len(body) > IN_A_THREAD_BYTES:
        return await asyncio.to_thread(loading, job, header, body, sent, owner, trusted)
    return loading(job, header, body, sent, owner, trusted)


def _value(
    job: Job, header: Header, body: bytes, sent: Collection[tuple[str, str]], owner: str, trusted: bool
) -> tuple[Any, BaseException | None]:
    try:
        return loaded(body, sent, anything=trusted), None
    except MoreThanData as error:
        name = safetext.line(error.name)
        return None, UntrustedResult(
            f"The result of job {job.id} holds {name}, which is no data, and {owner}'s machine made it.",
            f"Return numbers, texts, lists, arrays or tables, or trust {owner} with this machine: "
            f"Executor(trust=[{owner!r}]).",
            job_id=job.id,
        )
    except Exception as error:
        failure = ResultMissing(
            f"The result of job {job.id} cannot be unpickled here: {type(error).__name__}: {error}.",
            "Is the same version of what it is made of installed here and in the runtime?",
            job_id=job.id,
        )
        failure.__cause__ = error
        return None, failure


def _error(
    job: Job, header: Header, body: bytes, sent: Collection[tuple[str, str]], owner: str, trusted: bool
) -> tuple[Any, BaseException | None]:
    text = with_sources(safetext.clean(header.traceback))
    raised: BaseException | None = None
    if body:
        try:
            value = loaded(body, sent, anything=trusted)
            raised = value if isinstance(value, BaseException) else None
        except Exception:
            raised = None
    if raised is None:
        raised = RemoteError(
            f"{safetext.line(header.type)}: {safetext.line(header.message)}",
            f"It was raised in job {job.id}.",
            job_id=job.id,
        )
    raised.__cause__ = RemoteTraceback(text)
    return None, raised


def _cannot_return(job: Job, header: Header) -> JobError:
    error = ResultMissing(
        f"The call returned a {safetext.line(header.type)}, which cannot be pickled: "
        f"{safetext.line(header.message)}.",
        "Return what can be, or write it to a file in out/.",
        job_id=job.id,
    )
    error.__cause__ = RemoteTraceback(with_sources(safetext.clean(header.traceback)))
    return error


def with_sources(text: str) -> str:
    """A traceback with the lines of the program's own files: the machine that ran them has only names.

    Of loaded modules alone, and of what a notebook keeps: the text is not to say which files are read.
    """
    loaded_files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    known = loaded_files | set(linecache.cache)
    lines = text.splitlines()
    shown: list[str] = []
    for number, line in enumerate(lines):
        shown.append(line)
        frame = _FRAME.match(line)
        bare = number + 1 == len(lines) or not lines[number + 1].startswith("    ")
        if not frame or not bare or frame["file"] not in known:
            continue
        if source := linecache.getline(frame["file"], int(frame["line"])).strip():
            shown.append(f"    {source}")
    return "\n".join(shown)


def _without_result(job: Job) -> JobError:
    """The error of a job that did not end by itself."""
    reason = f": {safetext.line(job.reason)}" if job.reason else ""
    match job.state:
        case JobState.TIMED_OUT:
            return JobTimedOut(
                f"Job {job.id} ran for longer than its {job.timeout_s} s.",
                "Give it more: with_options(timeout_s=...).",
                job_id=job.id,
            )
        case JobState.OUT_OF_MEMORY:
            return JobOutOfMemory(
                f"Job {job.id} needed more than its {job.memory_mb} MiB of memory.",
                "Give it more: with_options(memory_mb=...).",
                job_id=job.id,
            )
        case JobState.LOST:
            return JobLost(f"Job {job.id} was lost{reason}.", f"Type: gridx show {job.id}", job_id=job.id)
        case _:
            return JobCancelled(
                f"Job {job.id} was cancelled{reason}.", f"Type: gridx show {job.id}", job_id=job.id
            )


async def _nothing_came(grid: Client, job: Job) -> JobError:
    """The error of a job that ended by itself and left no result."""
    listed = await grid.files(job.id)
    for left in listed.left:
        if left.path in (RESULT, f"out/{RESULT}"):
            return ResultMissing(
                f"The result of job {job.id} did not come back: {safetext.line(left.why)}.",
                "Return less, or write it to files in out/ of which fewer are kept.",
                job_id=job.id,
            )
    how = "ended without handing in a result"
    if job.signal:
        how = f"was ended by signal {job.signal}"
    elif job.exit_code:
        how = f"ended with exit code {job.exit_code} and no result"
    error = JobFailed(f"Job {job.id} {how}.", f"Type: gridx output {job.id}", job_id=job.id)
    if job.stderr_bytes:
        tail = await grid.output(job.id, "stderr", offset=max(0, job.stderr_bytes - TAIL_BYTES))
        error.__cause__ = RemoteTraceback(safetext.decode(tail))
    return error


async def fetch_files(grid: Client, job_id: int, folder: Path, *, overwrite: bool) -> list[Path]:
    """Save what the call itself wrote into ``out/``; its result is not among it."""
    listed = await grid.files(job_id)
    names = [file.path for file in listed.files if file.path != RESULT]
    return await grid.fetch(job_id, folder, names, overwrite=overwrite)
