"""``gridx map``: one program over many arguments, numbers or files, as one array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click
from msgspec.structs import replace

from gridx.commands import array_progress, printing
from gridx.commands.array_options import Elements, array_options
from gridx.commands.files import input_option, with_inputs
from gridx.commands.grid import json_option, with_grid
from gridx.commands.interrupts import Interrupts
from gridx.commands.jobs import describe
from gridx.commands.spec import spec_options
from gridx.commands.submit import warn
from gridx.credits import format_credits
from gridx.errors import EXIT_INTERRUPTED, EXIT_JOB_FAILED, EXIT_OK
from gridx.messages import Job, JobSpec, JobState

if TYPE_CHECKING:
    from gridx.client import Client


@click.command("map", short_help="Run a program many times: over arguments, numbers, files.")
@spec_options
@input_option
@array_options
@click.option("--detach", is_flag=True, help="Do not wait for the end.")
@click.option("-q", "--quiet", is_flag=True, help="Print the array's id alone.")
@json_option
@with_grid
async def map_(
    grid: Client,
    spec: JobSpec,
    inputs: tuple[str, ...],
    elements: Elements,
    detach: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Run FILE once for each line of --args, number of --range, or file of --each.

    All of them are one array, with one id: its elements see GRIDX_INDEX and GRIDX_COUNT. Follows until the
    last has ended, unless told to --detach; exits with 1 when any did not succeed. Ctrl-C cancels the rest.
    """
    if elements.spec is None:
        raise click.UsageError("Over what? Give --args FILE, --range A-B, --each PATTERN, or --count N.")
    following = _Following(grid)
    array = await following.submit(await with_inputs(grid, spec, inputs), elements)
    if not as_json:
        printing.out(str(array.id) if quiet else describe(array))
    warn(array)
    if detach:
        if as_json:
            printing.as_json(array)
        elif not quiet:
            printing.out(f"Held: {format_credits(array.hold)} credits. How far it is: gridx show {array.id}")
        return EXIT_OK
    array = await array_progress.follow(grid, array.id, quiet=quiet or as_json)
    if as_json:
        printing.as_json(array)
    elif not quiet:
        printing.out(describe(array))
        printing.out(_and_now(array))
        if (await grid.receipt(array.id)).left:
            printing.note(f"Some files were left behind: gridx files {array.id} says which and why.")
    if following.interrupted:
        return EXIT_INTERRUPTED
    return EXIT_OK if array.state is JobState.SUCCEEDED else EXIT_JOB_FAILED


class _Following:
    def __init__(self, grid: Client) -> None:
        self._grid = grid
        self._array: Job | None = None
        self._interrupts = Interrupts(self._cancel)

    @property
    def interrupted(self) -> bool:
        return self._interrupts.count > 0

    async def submit(self, spec: JobSpec, elements: Elements) -> Job:
        whole = replace(spec, array=await elements.with_files(self._grid))
        with self._interrupts.deferred():
            self._array = await self._grid.submit(whole)
        return self._array

    async def _cancel(self) -> None:
        if self._array is not None:
            printing.note(f"\nCancelling array {self._array.id}; once more leaves at once.")
            await self._grid.cancel(self._array.id)


def _and_now(array: Job) -> str:
    progress = array.array
    cost = f"Cost: {format_credits(array.charge)} credits. Output: gridx output {array.id} --all"
    if progress is not None and progress.succeeded < progress.count:
        return f"{cost}. What did not succeed once more: gridx retry {array.id}"
    return cost


COMMANDS: Final = (map_,)
