"""``gridx jobs``, ``show``, ``output``, ``wait``, ``cancel``, ``retry``: what becomes of jobs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import click
import msgspec

from gridx.commands import printing, streaming
from gridx.commands.grid import json_option, with_grid
from gridx.commands.quantities import DURATION, JOB_ID
from gridx.credits import format_credits
from gridx.errors import EXIT_JOB_FAILED, EXIT_OK, GridError, Unreachable
from gridx.exits import complain
from gridx.messages import Job, JobState, Receipt

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


@click.command("jobs")
@click.option(
    "--state", "states", multiple=True, type=click.Choice(STATES), help="Only these; may be repeated."
)
@click.option("--text", default="", metavar="TEXT", help="Only jobs with this in their name.")
@click.option("--owner", metavar="NAME", help="Whose; for administrators, who see all jobs.")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True, help="How many.")
@click.option("--before", type=JOB_ID, metavar="ID", help="Only jobs older than this one: the next page.")
@json_option
@with_grid
async def jobs(
    grid: Client,
    states: tuple[str, ...],
    text: str,
    owner: str | None,
    limit: int,
    before: int | None,
    as_json: bool,
) -> int:
    """List jobs, newest first."""
    page = await grid.jobs(
        states=[JobState(state) for state in states], text=text, owner=owner, limit=limit, before=before
    )
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
        printing.note(f"There are more: gridx jobs --before {page.next}")
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
@click.argument("job_id", type=JOB_ID, metavar="ID")
@json_option
@with_grid
async def show(grid: Client, job_id: int, as_json: bool) -> int:
    """Show a job: its state, why it waits, its attempts and what it cost."""
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
        ("state", printing.state_words(job)),
        ("reason", job.reason),
        ("position", str(job.queue_position) if job.queue_position is not None and not ended else ""),
        ("asked for", f"{resources}, at most {printing.seconds(job.timeout_s)}"),
        ("runtime", " ".join(filter(None, (job.runtime, job.python and f"Python {job.python}")))),
        ("arguments", " ".join(spec.args) if spec else ""),
        ("attempts", str(job.attempt or "")),
        ("retries", f"{job.failures} of {job.retries}" if job.retries else ""),
        ("created", printing.when(job.created_at)),
        ("started", printing.when(job.started_at)),
        ("ended", printing.when(job.ended_at)),
        ("took", printing.took(job.started_at, job.ended_at) if job.started_at else ""),
        ("peak memory", printing.size(job.peak_memory_bytes) if job.peak_memory_bytes else ""),
        ("output", f"{printing.size(job.stdout_bytes)} stdout, {printing.size(job.stderr_bytes)} stderr"),
        ("files", _files(job)),
        ("retry of", str(job.retry_of or "")),
        ("held", f"{format_credits(receipt.hold)} credits"),
        ("charged", f"{format_credits(receipt.charge)} credits" if ended else ""),
        ("given back", f"{format_credits(receipt.released)} credits" if ended else ""),
    ]


def _files(job: Job) -> str:
    if not job.files:
        return ""
    noun = "file" if job.files == 1 else "files"
    return f"{job.files} {noun}, {printing.size(job.file_bytes)}: gridx fetch {job.id}"


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


@click.command("output", short_help="Print what a job wrote.")
@click.argument("job_id", type=JOB_ID, metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on as it comes, until the job has ended.")
@click.option("--stream", type=click.Choice(("stdout", "stderr", "both")), default="both", show_default=True)
@click.option("--attempt", type=click.IntRange(1), metavar="N", help="Of this attempt; else of the newest.")
@click.option("--raw", is_flag=True, help="The bytes as they are, escape sequences and all.")
@with_grid
async def output(grid: Client, job_id: int, follow: bool, stream: str, attempt: int | None, raw: bool) -> int:
    """Print what a job wrote: its stdout to stdout, its stderr to stderr."""
    wanted = streaming.STREAMS_OF[stream]
    if follow:
        await asyncio.gather(
            *(streaming.follow(grid, job_id, each, raw=raw, attempt=attempt) for each in wanted)
        )
        return EXIT_OK
    for each in wanted:
        writer = streaming.Writer(each, raw=raw)
        writer.write(await grid.output(job_id, each, attempt=attempt))
        writer.end()
    return EXIT_OK


@click.command("wait", short_help="Wait until jobs have ended.")
@click.argument("job_ids", type=JOB_ID, nargs=-1, required=True, metavar="ID...")
@click.option(
    "--timeout", "timeout_s", type=DURATION, metavar="TIME", help="Give up after this long (5m, 1h)."
)
@json_option
@with_grid
async def wait(grid: Client, job_ids: tuple[int, ...], timeout_s: int | None, as_json: bool) -> int:
    """Wait until jobs have ended: 0 when all succeeded, 1 when one did not, or has not ended in time."""
    ended = await asyncio.gather(*(grid.wait(job_id, timeout_s) for job_id in job_ids))
    if as_json:
        printing.as_json({"jobs": [msgspec.to_builtins(job) for job in ended]})
    else:
        for job in ended:
            printing.out(describe(job))
    return EXIT_OK if all(job.state is JobState.SUCCEEDED for job in ended) else EXIT_JOB_FAILED


@click.command("cancel", short_help="Cancel jobs, also while they run.")
@click.argument("job_ids", type=JOB_ID, nargs=-1, required=True, metavar="ID...")
@json_option
@with_grid
async def cancel(grid: Client, job_ids: tuple[int, ...], as_json: bool) -> int:
    """Cancel jobs, also while they run. One that has ended stays as it is."""
    found: list[Job] = []
    refused: list[GridError] = []
    for job_id in dict.fromkeys(job_ids):
        try:
            found.append(await grid.cancel(job_id))
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


@click.command("retry")
@click.argument("job_id", type=JOB_ID, metavar="ID")
@json_option
@with_grid
async def retry(grid: Client, job_id: int, as_json: bool) -> int:
    """Submit an ended job anew, as a job of its own."""
    job = await grid.retry(job_id)
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
    return printing.one_line(f"Job {job.id}{name} {sentence}")


COMMANDS: Final = (jobs, show, output, wait, cancel, retry)
