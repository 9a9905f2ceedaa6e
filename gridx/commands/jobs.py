"""``gridx jobs``, ``show``, ``output``, ``wait``, ``cancel``, ``retry``: what becomes of jobs."""

from __future__ import annotations

import asyncio
import shlex
from datetime import datetime
from typing import TYPE_CHECKING, Final

import click
import msgspec

from gridx.commands import printing
from gridx.commands.grid import json_option, with_grid
from gridx.commands.naming import JOB, JobRef, number_of
from gridx.commands.quantities import DURATION, JOB_ID
from gridx.credits import format_credits
from gridx.errors import EXIT_JOB_FAILED, EXIT_OK, GridError, Unreachable
from gridx.exits import complain
from gridx.messages import Job, JobSpec, JobState, Receipt

if TYPE_CHECKING:
    from gridx.client import Client

SENTENCES: Final = {
    JobState.QUEUED: "is queued",
    JobState.ASSIGNED: "is assigned to a worker",
    JobState.RUNNING: "is running",
    JobState.CANCELLING: "is being cancelled",
    JobState.SUCCEEDED: "succeeded",
    JobState.FAILED: "failed",
    JobState.TIMED_OUT: "ran out of time",
    JobState.OUT_OF_MEMORY: "ran out of memory",
    JobState.CANCELLED: "was cancelled",
    JobState.LOST: "was lost",
}
STATES: Final = tuple(state.value for state in JobState)


@click.command("jobs", short_help="List jobs, newest first.")
@click.option(
    "--state", "states", multiple=True, type=click.Choice(STATES), help="Only these; may be repeated."
)
@click.option("--text", default="", metavar="TEXT", help="Only jobs with this in their name.")
@click.option("--owner", metavar="NAME", help="Whose; for administrators, who see all jobs.")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True, help="How many.")
@click.option("--before", type=JOB_ID, metavar="ID", help="Only jobs older than this one: the next page.")
@click.option("--array", type=JOB_ID, metavar="ID", help="The elements of this array, in their order.")
@click.option("--after", type=JOB_ID, metavar="ID", help="With --array: only elements behind this one.")
@json_option
@with_grid
async def jobs(
    grid: Client,
    states: tuple[str, ...],
    text: str,
    owner: str | None,
    limit: int,
    before: int | None,
    array: int | None,
    after: int | None,
    as_json: bool,
) -> int:
    """List jobs, newest first; an array is one line, and --array lists what it is made of."""
    wanted = [JobState(state) for state in states]
    if array is not None:
        return await _list_elements(grid, array, wanted, after, limit, as_json)
    if after is not None:
        raise click.UsageError("--after goes with --array.")
    page = await grid.jobs(states=wanted, text=text, owner=owner, limit=limit, before=before)
    if as_json:
        printing.as_json(page)
        return EXIT_OK
    if not page.jobs:
        printing.note("No jobs. To submit one: gridx submit FILE")
        return EXIT_OK
    printing.table(
        ("ID", "STATE", "NAME", "OWNER", "WORKER", "CREATED", "TOOK", "CHARGE", "REASON"),
        [_row(job) for job in page.jobs],
        right=("ID", "TOOK", "CHARGE"),
    )
    if page.next is not None:
        same = [word for state in states for word in ("--state", state)]
        same += ["--text", text] if text else []
        same += ["--owner", owner] if owner else []
        printing.note(f"There are more: {shlex.join(['gridx', 'jobs', *same, '--before', str(page.next)])}")
    return EXIT_OK


async def _list_elements(
    grid: Client, array: int, states: list[JobState], after: int | None, limit: int, as_json: bool
) -> int:
    page = await grid.elements(array, states=states, after=after, limit=limit)
    if as_json:
        printing.as_json(page)
        return EXIT_OK
    printing.table(
        ("INDEX", "ID", "STATE", "WORKER", "STARTED", "TOOK", "CHARGE", "REASON"),
        [
            (
                str(job.array_index),
                str(job.id),
                printing.state_words(job),
                job.worker_name,
                printing.when(job.started_at),
                printing.took(job.started_at, job.ended_at) if job.started_at else "",
                format_credits(job.charge) if job.state.ended else "",
                job.reason,
            )
            for job in page.jobs
        ],
        right=("INDEX", "ID", "TOOK", "CHARGE"),
    )
    if page.next is not None:
        same = "".join(f" --state {state}" for state in states)
        printing.note(f"There are more: gridx jobs --array {array}{same} --after {page.next}")
    return EXIT_OK


def _row(job: Job) -> tuple[str, ...]:
    return (
        str(job.id),
        printing.state_words(job),
        job.name,
        job.owner,
        job.worker_name,
        printing.when(job.created_at),
        printing.took(job.started_at, job.ended_at) if job.started_at else "",
        format_credits(job.charge) if job.state.ended else "",
        job.reason,
    )


@click.command("show", short_help="Show a job, its attempts and its cost.")
@click.argument("named", type=JOB, metavar="ID")
@json_option
@with_grid
async def show(grid: Client, named: JobRef, as_json: bool) -> int:
    """Show a job: its state, why it waits, its attempts and what it cost. 17[3] is an element of array 17."""
    job_id = await number_of(grid, named)
    job, receipt = await asyncio.gather(grid.job(job_id), grid.receipt(job_id))
    if as_json:
        printing.as_json({**msgspec.to_builtins(job), "receipt": msgspec.to_builtins(receipt)})
        return EXIT_OK
    printing.fields(_facts(job, receipt))
    if receipt.attempts:
        printing.out()
        printing.table(
            ("ATTEMPT", "STATE", "WORKER", "OWNER", "STARTED", "CHARGED TIME", "CHARGE", "REASON"),
            _attempts(job, receipt),
            right=("CHARGED TIME", "CHARGE"),
        )
    lines = [(attempt.number, line) for attempt in receipt.attempts for line in attempt.lines if line.amount]
    if lines:
        printing.out()
        printing.table(
            ("ATTEMPT", "ITEM", "QUANTITY", "PER HOUR", "AMOUNT"),
            [
                (
                    str(attempt),
                    line.item,
                    printing.counted(line.quantity, line.unit),
                    format_credits(line.per_hour),
                    format_credits(line.amount),
                )
                for attempt, line in lines
            ],
            right=("QUANTITY", "PER HOUR", "AMOUNT"),
        )
    left = [(str(part.number), f"out/{one.path}", one.why) for part in receipt.attempts for one in part.left]
    if left:
        printing.out()
        printing.table(("ATTEMPT", "LEFT BEHIND", "WHY"), left)
    if receipt.left:
        printing.out()
        printing.left_behind(receipt.left)
    return EXIT_OK


def _facts(job: Job, receipt: Receipt) -> list[tuple[str, str]]:
    gpus = f", {printing.counted(job.gpus, 'GPU')}" if job.gpus else ""
    resources = f"{printing.counted(job.cpus, 'core')}, {job.memory_mb} MiB{gpus}"
    spec = job.spec if not isinstance(job.spec, msgspec.UnsetType) else None
    ended = job.state.ended
    return [
        ("job", str(job.id)),
        ("name", job.name),
        ("owner", job.owner),
        ("element", f"{job.array_index} of array {job.array_id}" if job.array_id is not None else ""),
        ("state", printing.state_words(job)),
        ("elements", printing.elements(job.array) if job.array else ""),
        ("reason", job.reason),
        ("waits since", printing.when(_waits_since(job))),
        ("position", str(job.queue_position) if job.queue_position is not None and not ended else ""),
        ("asked for", f"{resources}, at most {printing.seconds(job.timeout_s)}"),
        ("runtime", " ".join(filter(None, (job.runtime, job.python and f"Python {job.python}")))),
        ("arguments", " ".join(spec.args) if spec else ""),
        ("waits for", _parents(spec) if spec else ""),
        ("attempts", str(job.attempt or "")),
        ("retries", _retries(job)),
        ("created", printing.when(job.created_at)),
        ("started", printing.when(job.started_at)),
        ("ended", printing.when(job.ended_at)),
        ("took", printing.took(job.started_at, job.ended_at) if job.started_at else ""),
        ("peak memory", printing.size(job.peak_memory_bytes) if job.peak_memory_bytes else ""),
        (
            "output",
            ""
            if job.array
            else f"{printing.size(job.stdout_bytes)} stdout, {printing.size(job.stderr_bytes)} stderr",
        ),
        ("files", _files(job)),
        ("retry of", str(job.retry_of or "")),
        ("budget", _budget(job)),
        ("held", f"{format_credits(receipt.hold)} credits"),
        ("still held", f"{format_credits(job.hold)} credits" if job.array and not ended else ""),
        ("charged", f"{format_credits(receipt.charge)} credits" if ended or receipt.charge else ""),
        ("given back", f"{format_credits(receipt.released)} credits" if ended else ""),
    ]


def _retries(job: Job) -> str:
    if not job.retries:
        return ""
    return f"{job.retries} of each element" if job.array else f"{job.failures} of {job.retries}"


def _files(job: Job) -> str:
    if not job.files:
        return ""
    noun = "file" if job.files == 1 else "files"
    return f"{job.files} {noun}, {printing.size(job.file_bytes)}: gridx fetch {job.id}"


def _waits_since(job: Job) -> datetime | None:
    """When the job was submitted, or its last attempt ended."""
    if job.state is not JobState.QUEUED:
        return None
    attempts = [] if isinstance(job.attempts, msgspec.UnsetType) else job.attempts
    return max([job.created_at, *(one.ended_at for one in attempts if one.ended_at is not None)])


def _parents(spec: JobSpec) -> str:
    return ", ".join(
        f"{one.job_id} ({'success' if one.when == 'success' else 'any end'})" for one in spec.after
    )


def _budget(job: Job) -> str:
    if job.array is None or job.array.max_credits is None:
        return ""
    return f"{format_credits(job.array.max_credits)} credits"


def _attempts(job: Job, receipt: Receipt) -> list[tuple[str, ...]]:
    begun = (
        {} if isinstance(job.attempts, msgspec.UnsetType) else {a.number: a.started_at for a in job.attempts}
    )
    return [
        (
            str(part.number),
            part.state.value.replace("_", " "),
            part.worker_name,
            part.worker_owner,
            printing.when(begun.get(part.number)),
            printing.seconds(part.charged_ms / 1000) if part.charged_ms else "",
            format_credits(part.charge),
            part.reason,
        )
        for part in receipt.attempts
    ]


@click.command("wait", short_help="Wait until jobs have ended.")
@click.argument("named", type=JOB, nargs=-1, required=True, metavar="ID...")
@click.option(
    "--timeout", "timeout_s", type=DURATION, metavar="TIME", help="Give up after this long (5m, 1h)."
)
@json_option
@with_grid
async def wait(grid: Client, named: tuple[JobRef, ...], timeout_s: int | None, as_json: bool) -> int:
    """Wait until jobs have ended: 0 when all succeeded, 1 when one did not, or has not ended in time."""
    job_ids = [await number_of(grid, one) for one in named]
    ended = await asyncio.gather(*(grid.wait(job_id, timeout_s) for job_id in job_ids))
    if as_json:
        printing.as_json({"jobs": [msgspec.to_builtins(job) for job in ended]})
    else:
        for job in ended:
            printing.out(describe(job))
    return EXIT_OK if all(job.state is JobState.SUCCEEDED for job in ended) else EXIT_JOB_FAILED


@click.command("cancel", short_help="Cancel jobs, also while they run.")
@click.argument("named", type=JOB, nargs=-1, required=True, metavar="ID...")
@json_option
@with_grid
async def cancel(grid: Client, named: tuple[JobRef, ...], as_json: bool) -> int:
    """Cancel jobs, also while they run. One that has ended stays as it is; of an array all that has not."""
    found: list[Job] = []
    refused: list[GridError] = []
    for one in dict.fromkeys(named):
        try:
            found.append(await grid.cancel(await number_of(grid, one)))
        except Unreachable:
            raise
        except GridError as error:  # the others are cancelled all the same
            refused.append(error)
            complain(error.message, error.hint)
        else:
            if not as_json:
                printing.out(describe(found[-1]))
    if as_json:
        printing.as_json({"jobs": [msgspec.to_builtins(job) for job in found]})
    return refused[0].exit_code if refused else EXIT_OK


@click.command("retry", short_help="Submit ended jobs anew; of an array what failed.")
@click.argument("named", type=JOB, metavar="ID")
@json_option
@with_grid
async def retry(grid: Client, named: JobRef, as_json: bool) -> int:
    """Submit an ended job anew, as a job of its own; of an array what did not succeed, as a new array."""
    job = await grid.retry(await number_of(grid, named))
    if as_json:
        printing.as_json(job)
    else:
        printing.out(describe(job))
    return EXIT_OK


def describe(job: Job) -> str:
    """A job in a line, safe to print."""
    name = f" ({job.name})" if job.name else ""
    sentence = SENTENCES[job.state]
    if job.state is JobState.CANCELLED and job.reason.startswith("cancelled by "):
        sentence = f"was {job.reason}"
    elif job.reason:
        sentence += f": {job.reason}"
    if job.array is not None:
        return printing.one_line(f"Array {job.id}{name} {sentence} ({printing.elements(job.array)})")
    return printing.one_line(f"Job {job.id}{name} {sentence}")


COMMANDS: Final = (jobs, show, wait, cancel, retry)
