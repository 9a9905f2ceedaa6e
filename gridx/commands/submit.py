"""``gridx submit``, ``run``, ``quote``: giving work to the grid."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from gridx import safetext
from gridx.commands import printing, streaming
from gridx.commands.files import counted, input_option, output_option, with_inputs
from gridx.commands.grid import Place, json_option, with_grid
from gridx.commands.jobs import describe
from gridx.commands.quantities import DURATION, MEMORY, VARIABLE
from gridx.credits import format_credits
from gridx.errors import EXIT_INTERRUPTED, EXIT_JOB_FAILED, EXIT_OK, InvalidField, TooLarge, Unschedulable
from gridx.filepaths import OUT
from gridx.messages import MAX_CODE_BYTES, Job, JobSpec, JobState, decode, encode

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

_OPTIONS: Final[tuple[Callable[[Callable[..., Any]], Callable[..., Any]], ...]] = (
    click.option("-c", "--code", metavar="CODE", help="The program itself, in place of FILE."),
    click.option("--name", metavar="TEXT", help="What to call the job; else the file's name."),
    click.option("--cpus", type=float, metavar="N", help="Cores, also a fraction (1)."),
    click.option(
        "--memory", "memory_mb", type=MEMORY, metavar="SIZE", help="Memory, like 512M or 1.5G (512M)."
    ),
    click.option("--gpus", type=int, metavar="N", help="Whole GPUs (0)."),
    click.option(
        "--timeout", "timeout_s", type=DURATION, metavar="TIME", help="Longest run, like 90s, 5m, 2h (5m)."
    ),
    click.option(
        "--env", type=VARIABLE, multiple=True, metavar="KEY=VALUE", help="A variable; may be repeated."
    ),
    click.option("--priority", type=int, metavar="N", help="Among one's own jobs: -100 to 100 (0)."),
    click.option("--max-attempts", type=int, metavar="N", help="Tries, when machines fail (3)."),
    click.option(
        "--retries", type=int, metavar="N", help="More runs, each paid, when the program fails (0)."
    ),
    click.option(
        "--retry-delay",
        "retry_delay_s",
        type=DURATION,
        metavar="TIME",
        help="Pause before the first retry, like 30s; then twice as long each time (5s).",
    ),
    click.option("--runtime", metavar="NAME", help="Which image; else any that fits."),
    click.option("--python", metavar="3.N", help="Which Python; else any."),
    output_option,
)


def spec_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """FILE or ``-`` or ``-c``, arguments after it, and what the job asks for; the command gets a ``spec``."""

    @functools.wraps(function)
    def call(*positional: Any, words: tuple[str, ...], **given: Any) -> Any:
        fields = {option: given.pop(option) for option in _FIELDS}
        return function(*positional, spec=spec_of(words, **fields), **given)

    wrapped: Callable[..., Any] = click.argument("words", nargs=-1, metavar="FILE [-- ARGUMENT...]")(call)
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


OPTIONS: Final = {
    "cpus": ("--cpus", ""),
    "memory_mb": ("--memory", " MiB"),
    "timeout_s": ("--timeout", " seconds"),
    "retry_delay_s": ("--retry-delay", " seconds"),
}
"""What a field is called on the command line, and its unit; others are called like their field."""

_FIELDS: Final = (
    "code",
    "name",
    "cpus",
    "memory_mb",
    "gpus",
    "timeout_s",
    "env",
    "priority",
    "max_attempts",
    "retries",
    "retry_delay_s",
    "runtime",
    "python",
    "outputs",
)


def spec_of(
    words: tuple[str, ...],
    *,
    code: str | None,
    name: str | None,
    env: tuple[tuple[str, str], ...],
    **asked: Any,
) -> JobSpec:
    """The job that a command line describes.

    Raises:
        UsageError: no program was named.
        InvalidField: it cannot be read, or a value is out of range.
    """
    if code is None:
        if not words:
            raise click.UsageError("Which program? Name a FILE, or - for stdin, or give -c CODE.")
        source, *words_left = words
        code = _read(source)
        name = name if name is not None else ("stdin" if source == "-" else Path(source).name)
    else:
        words_left = list(words)
    if len(code.encode("utf-8", "surrogatepass")) > MAX_CODE_BYTES:
        raise TooLarge(
            f"The program has more than {MAX_CODE_BYTES:,} bytes.",
            "Send a smaller one, and let it make its data itself.",
        )
    fields = {key: value for key, value in asked.items() if value not in (None, ())}
    spec = JobSpec(code=code, name=name or "", args=words_left, env=dict(env), **fields)
    try:
        return decode(encode(spec), JobSpec)
    except InvalidField as error:
        raise _of_option(error) from None
    except UnicodeEncodeError:
        raise InvalidField(
            "The job holds characters that are not Unicode.", "Use UTF-8.", field="args"
        ) from None


def _of_option(error: InvalidField) -> InvalidField:
    """The refusal of a field in the words of the command line."""
    field = str(error.details.get("field", ""))
    option, unit = OPTIONS.get(field, (f"--{field}".replace("_", "-"), ""))
    if field.partition("[")[0] == "args":
        option = "ARGUMENT"
    words = error.message.removeprefix(f"{field}: ").removesuffix(".")
    return InvalidField(
        f"{option} {words}{unit if words[-1:].isdigit() else ''}.",
        "--help shows all options.",
        field=field,
    )


def _read(source: str) -> str:
    try:
        data = sys.stdin.buffer.read(MAX_CODE_BYTES + 1) if source == "-" else Path(source).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise InvalidField(
            f"{source} cannot be read: {error.strerror}.", "Name a file.", field="code"
        ) from None
    except UnicodeDecodeError:
        raise InvalidField(f"{source} is not UTF-8 text.", "Save it as UTF-8.", field="code") from None


@click.command("submit", short_help="Submit a Python program.")
@spec_options
@input_option
@click.option("-q", "--quiet", is_flag=True, help="Print the job's id alone.")
@json_option
@with_grid
async def submit(grid: Client, spec: JobSpec, inputs: tuple[str, ...], quiet: bool, as_json: bool) -> int:
    """Submit a Python program: FILE, - for stdin, or -c CODE. What follows -- goes to the program."""
    job = await grid.submit(await with_inputs(grid, spec, inputs))
    if as_json:
        printing.as_json(job)
    elif quiet:
        printing.out(str(job.id))
    else:
        printing.out(describe(job))
        printing.out(f"Held: {format_credits(job.hold)} credits. Live output: gridx output -f {job.id}")
    return EXIT_OK


@click.command("quote")
@spec_options
@json_option
@with_grid
async def quote(grid: Client, spec: JobSpec, as_json: bool) -> int:
    """Say what a job would cost, without submitting it."""
    found = await grid.quote(spec)
    if as_json:
        printing.as_json(found)
        return EXIT_OK
    printing.table(
        ("ITEM", "QUANTITY", "PER HOUR", f"FOR {printing.seconds(spec.timeout_s).upper()}"),
        [
            (
                line.item,
                printing.counted(line.quantity, line.unit),
                format_credits(line.per_hour),
                format_credits(line.amount),
            )
            for line in found.lines
        ],
        right=("QUANTITY", "PER HOUR", f"FOR {printing.seconds(spec.timeout_s).upper()}"),
    )
    printing.out()
    printing.fields(
        [
            ("an hour", f"{format_credits(found.per_hour)} credits"),
            (
                "held",
                f"{format_credits(found.hold)} credits, for the whole timeout; what is not used comes back",
            ),
            ("balance", f"{format_credits(found.balance)} credits"),
            ("missing", f"{format_credits(found.shortfall)} credits" if found.shortfall else ""),
            ("would wait", found.waits_because),
        ]
    )
    return EXIT_OK


@click.command("run", short_help="Run a Python program and stream its output.")
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
    """Run a Python program and stream its output; exits with the program's exit code.

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
        self._signals = 0
        self._cancelling: asyncio.Task[Job] | None = None
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C leaves at once
            loop.add_signal_handler(signal.SIGINT, self._signalled)
            loop.add_signal_handler(signal.SIGTERM, self._signalled)

    async def to_its_end(self, grid: Client, *, passing: bool) -> int:
        """Run it, and fetch what it gave back: where asked to, or where else it would be lost."""
        spec = await with_inputs(grid, self._spec, self._inputs)
        self._grid = grid
        self._job = await grid.submit(spec)
        if self._signals:
            self._cancel()
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
        return EXIT_INTERRUPTED if self._signals else _exit_code(job)

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

    def _signalled(self) -> None:
        self._signals += 1
        if (self._signals > 1 or self._grid is None) and self._task is not None:
            self._task.cancel()
        elif self._job is not None:
            self._cancel()

    def _cancel(self) -> None:
        assert self._grid is not None and self._job is not None
        printing.note(f"Cancelling job {self._job.id}; once more leaves at once.")
        self._cancelling = asyncio.create_task(self._grid.cancel(self._job.id), name="cancel")


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
