"""``gridx output``: what a job wrote, or all elements of an array in their order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import click

from gridx.commands import printing, streaming
from gridx.commands.grid import with_grid
from gridx.commands.naming import JOB, JobRef, number_of
from gridx.errors import EXIT_OK

if TYPE_CHECKING:
    from gridx.client import Client


@click.command("output", short_help="Print what a job wrote.")
@click.argument("named", type=JOB, metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on as it comes, until the job has ended.")
@click.option("--stream", type=click.Choice(("stdout", "stderr", "both")), default="both", show_default=True)
@click.option("--attempt", type=click.IntRange(1), metavar="N", help="Of this attempt; else of the newest.")
@click.option("--raw", is_flag=True, help="The bytes as they are, escape sequences and all.")
@click.option("--all", "whole", is_flag=True, help="Of an array: what all elements wrote, by their indices.")
@click.option(
    "--json", "as_json", is_flag=True, help="With --all: a JSON object for each element, one a line."
)
@with_grid
async def output(
    grid: Client,
    named: JobRef,
    follow: bool,
    stream: str,
    attempt: int | None,
    raw: bool,
    whole: bool,
    as_json: bool,
) -> int:
    """Print what a job wrote: its stdout to stdout, its stderr to stderr. 17[3] is an element of array 17."""
    if whole:
        if follow or attempt is not None or named.index is not None:
            raise click.UsageError("--all is for a whole array, as it is now.")
        return await _of_all(grid, named.number, stream, raw=raw, as_json=as_json)
    if as_json:
        raise click.UsageError("--json goes with --all.")
    job_id = await number_of(grid, named)
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


async def _of_all(grid: Client, array_id: int, stream: str, *, raw: bool, as_json: bool) -> int:
    wanted = streaming.STREAMS_OF[stream]
    async for one in grid.outputs(array_id):
        if as_json:
            printing.json_line(
                {
                    "index": one.job.array_index,
                    "job": one.job.id,
                    "state": one.job.state.value,
                    "exit_code": one.job.exit_code,
                    "stdout": one.stdout.decode(errors="replace"),
                    "stderr": one.stderr.decode(errors="replace"),
                }
            )
            continue
        for each in wanted:
            writer = streaming.Writer(each, raw=raw)
            writer.write(one.stdout if each == "stdout" else one.stderr)
            writer.end()
    return EXIT_OK


COMMANDS: Final = (output,)
