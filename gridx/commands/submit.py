"""``gridx submit``, ``run``, ``quote``: giving work to the grid."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from msgspec.structs import replace

from gridx import safetext
from gridx.commands import printing, streaming
from gridx.commands.array_options import Elements, array_options
from gridx.commands.files import counted, input_option, with_inputs
from gridx.commands.grid import Place, json_option, with_grid
from gridx.commands.interrupts import Interrupts
from gridx.commands.jobs import describe
from gridx.commands.spec import spec_options
from gridx.credits import format_credits
from gridx.errors import EXIT_INTERRUPTED, EXIT_JOB_FAILED, EXIT_OK, Unschedulable
from gridx.filepaths import OUT
from gridx.messages import Job, JobSpec, JobState

if TYPE_CHECKING:
    from gridx.client import Client

HINTS: Final = {
    JobState.TIMED_OUT: "Give it more time: --timeout TIME, like 30m.",
    JobState.OUT_OF_MEMORY: "Give it more memory: --memory SIZE, like 2G.",
}
"""What to type after a job that was stopped."""
EXPLAIN_AFTER_S: Final = 1.0
"""``run`` says why a job waits when it has waited this long."""
SIGNALLED: Final = 128
"""Added to the signal's number, as shells do."""


@click.command("submit", short_help="Submit a program.")
@spec_options
@input_option
@click.option("-q", "--quiet", is_flag=True, help="Print the job's id alone.")
@json_option
@with_grid
async def submit(grid: Client, spec: JobSpec, inputs: tuple[str, ...], quiet: bool, as_json: bool) -> int:
    """Submit a program: FILE, - for stdin, or -c CODE. What follows -- goes to the program."""
    job = await grid.submit(await with_inputs(grid, spec, inputs))
    warn(job)
    if as_json:
        printing.as_json(job)
    elif quiet:
        printing.out(str(job.id))
    else:
        printing.out(describe(job))
        printing.out(f"Held: {format_credits(job.hold)} credits. Live output: gridx output -f {job.id}")
    return EXIT_OK


def warn(job: Job) -> None:
    """Say of a job that was just submitted that nobody there could ever run it."""
    if job.unschedulable:
        printing.note(
            f"Note: as the grid is now, no worker could run job {job.id}: {printing.one_line(job.reason)}."
            f" It waits for one that can; to give it up: gridx cancel {job.id}"
        )


@click.command("quote", short_help="Say what a job or an array would cost.")
@spec_options
@array_options
@json_option
@with_grid
async def quote(grid: Client, spec: JobSpec, elements: Elements, as_json: bool) -> int:
    """Say what a job would cost, or a whole array, without submitting it."""
    spec = replace(spec, array=elements.spec)
    found = await grid.quote(spec)
    if as_json:
        printing.as_json(found)
        return EXIT_OK
    runs = _runs(spec)
    longest = f"FOR {f'{runs:,} x ' if runs > 1 else ''}{printing.seconds(spec.timeout_s).upper()}"
    printing.table(
        ("ITEM", "QUANTITY", "PER HOUR", longest),
        [
            (
                line.item,
                printing.counted(line.quantity, line.unit),
                format_credits(line.per_hour),
                format_credits(line.amount),
            )
            for line in found.lines
        ],
        right=("QUANTITY", "PER HOUR", longest),
    )
    printing.out()
    printing.fields(
        [
            ("an hour", f"{format_credits(found.per_hour)} credits"),
            (
                "held",
                f"{format_credits(found.hold)} credits, {_what_for(spec)}; what is not used comes back",
            ),
            ("balance", f"{format_credits(found.balance)} credits"),
            ("missing", f"{format_credits(found.shortfall)} credits" if found.shortfall else ""),
            ("would wait", found.waits_because),
        ]
    )
    return EXIT_OK


def _runs(spec: JobSpec) -> int:
    """Runs that may be paid for."""
    array = spec.array
    count = 1 if array is None else array.count or len(array.args or array.inputs or ())
    return count * (1 + spec.retries)


def _what_for(spec: JobSpec) -> str:
    if spec.array is not None and spec.array.max_credits is not None:
        return "at most its budget"
    return "for the whole timeout" if _runs(spec) == 1 else "for the whole timeout of every run and retry"


@click.command("run", short_help="Run a program and stream its output.")
@spec_options
@input_option
@click.option(
    *("-d", "--dir", "folder"),
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where to put what the program leaves in out/ (out, where the grid ends with the run).",
)
@click.option(
    "--local", is_flag=True, help="In a grid of this process, also where another one is configured."
)
@click.option("--raw", is_flag=True, help="The program's bytes as they are, escape sequences and all.")
@click.pass_obj
def run(
    place: Place, spec: JobSpec, inputs: tuple[str, ...], folder: Path | None, local: bool, raw: bool
) -> int:
    """Run a program and stream its output; exits with the program's exit code.

    Where no grid is configured, one is started in this process. Ctrl-C cancels the job. The program's own
    stdin is empty.
    """

    async def main() -> int:
        job = _Run(spec, inputs, folder, raw=raw)
        async with _grid(place, local, spec) as (grid, passing):
            return await job.to_its_end(grid, passing=passing)

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        return EXIT_INTERRUPTED


@asynccontextmanager
async def _grid(place: Place, local: bool, spec: JobSpec) -> AsyncIterator[tuple[Client, bool]]:
    """The grid to run on, and whether it ends with the run."""
    from gridx import credentials

    settings = place.settings()
    if not local and (settings.client.coordinator or credentials.of_shell().last() is not None):
        async with place.signed_in() as grid:
            yield grid, False
        return
    from gridx.local import local_grid

    async with local_grid(settings) as (grid, worker):
        if worker.offer is not None and not worker.offer.isolated:
            printing.note("Note: this runs in a limited process, not in a container; gridx doctor says why.")
        # Nothing else runs on this grid and nobody will join it: what has to wait now waits for ever.
        if obstacle := (await grid.quote(spec)).waits_because:
            raise Unschedulable(
                f"This machine cannot run it: {obstacle}.",
                "Ask for less, or submit it to a grid that has more.",
            )
        yield grid, True


class _Run:
    """One job from submit to its end, with its output; a signal cancels it, a second one leaves at once."""

    def __init__(self, spec: JobSpec, inputs: tuple[str, ...], folder: Path | None, *, raw: bool) -> None:
        self._grid: Client | None = None
        self._spec = spec
        self._inputs = inputs
        self._folder = folder
        self._raw = raw
        self._job: Job | None = None
        self._interrupts = Interrupts(self._cancel)

    async def to_its_end(self, grid: Client, *, passing: bool) -> int:
        """Run it, and fetch what it gave back: where asked to, or where else it would be lost."""
        spec = await with_inputs(grid, self._spec, self._inputs)
        self._grid = grid
        with self._interrupts.deferred():
            self._job = await grid.submit(spec)
        explaining = asyncio.create_task(_explain(grid, self._job.id), name="explain")
        try:
            await asyncio.gather(
                *(streaming.follow(grid, self._job.id, each, raw=self._raw) for each in ("stdout", "stderr"))
            )
            job = await grid.wait(self._job.id)
        finally:
            explaining.cancel()
            await asyncio.gather(explaining, return_exceptions=True)
        await self._take_files(grid, job, passing)
        if job.state is not JobState.SUCCEEDED:
            printing.note(describe(job))
            if hint := HINTS.get(job.state):
                printing.note(hint)
        return EXIT_INTERRUPTED if self._interrupts.count else _exit_code(job)

    async def _take_files(self, grid: Client, job: Job, passing: bool) -> None:
        if not job.state.ended:
            return
        listed = await grid.files(job.id)
        if listed.files and (self._folder is not None or passing):
            folder = self._folder or Path(OUT)
            await grid.fetch(job.id, folder, overwrite=True)
            printing.note(f"{counted(listed.files)} in {safetext.name(folder)}")
        elif listed.files:
            printing.note(f"{counted(listed.files)} on the grid: gridx fetch {job.id}")
        for one in listed.left:
            printing.note(printing.one_line(f"{OUT}/{one.path} was left behind: {one.why}"))

    async def _cancel(self) -> None:
        if self._grid is not None and self._job is not None:
            printing.note(f"Cancelling job {self._job.id}; once more leaves at once.")
            await self._grid.cancel(self._job.id)


async def _explain(grid: Client, job_id: int) -> None:
    """Say why the job waits, once for each reason."""
    told = ""
    while True:
        await asyncio.sleep(EXPLAIN_AFTER_S)
        job = await grid.job(job_id)
        if job.state is not JobState.QUEUED:
            return
        if job.reason and job.reason != told:
            told = job.reason
            printing.note(f"Job {job_id} waits: {told}")


def _exit_code(job: Job) -> int:
    if job.state is JobState.SUCCEEDED:
        return EXIT_OK
    if job.state is JobState.FAILED and job.exit_code:
        return job.exit_code
    if job.state is JobState.FAILED and job.signal:
        return SIGNALLED + job.signal
    return EXIT_JOB_FAILED


COMMANDS: Final = (submit, run, quote)
