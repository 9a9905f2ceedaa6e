"""``gridx fetch``, ``files``, and ``--input``: what goes into jobs and what comes back."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec
from msgspec.structs import replace

from gridx import safetext
from gridx.commands import printing
from gridx.commands.grid import json_option, with_grid
from gridx.commands.naming import JOB, JobRef, number_of
from gridx.errors import EXIT_OK
from gridx.messages import Freed, JobFiles, JobSpec, OutputFile

if TYPE_CHECKING:
    from gridx.client import Client

MAX_NAMED: Final = 20
"""Files that are named when they have been fetched; of more the number is told."""


def _there(context: click.Context, option: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names as they are, once it is known that all of them can go along."""
    if names:
        from gridx.inputs import collect  # here: --help need not wait for it

        collect(names)
    return names


input_option = click.option(
    *("--input", "inputs"),
    multiple=True,
    callback=_there,
    metavar="[NAME=]PATH",
    help="A file or folder that the job finds in its folder; may be repeated.",
)
"""Inputs of a job; that they are there is checked before anything is sent."""

output_option = click.option(
    *("--output", "outputs"),
    multiple=True,
    metavar="PATTERN",
    help="Which files of out/ come back, like *.csv; may be repeated (all).",
)
"""What comes back of what the job leaves in ``out/``."""


async def with_inputs(grid: Client, spec: JobSpec, inputs: tuple[str, ...]) -> JobSpec:
    """The job with its inputs, which are sent."""
    if not inputs:
        return spec
    with _Bar() as bar:
        return replace(spec, inputs=await grid.upload_inputs(inputs, progress=bar.show))


class _Bar:
    """How far sending is, on one line of a terminal; elsewhere nothing."""

    def __init__(self) -> None:
        self._shown = -1

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown >= 0:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def show(self, done: int, total: int) -> None:
        """The bytes that are there, and all of them."""
        share = 100 * done // total if total else 100
        if share != self._shown and sys.stderr.isatty():
            self._shown = share
            sys.stderr.write(f"\rSending {printing.size(done)} of {printing.size(total)} ({share} %)\x1b[K")
            sys.stderr.flush()


@click.command("fetch", short_help="Fetch the files that a job gave back.")
@click.argument("named", type=JOB, metavar="ID")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option(
    *("-d", "--dir", "folder"),
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where to put them (job-ID).",
)
@click.option("--attempt", type=click.IntRange(1), metavar="N", help="Of this attempt; else of the last one.")
@click.option("--overwrite", is_flag=True, help="Replace files of another content.")
@json_option
@with_grid
async def fetch(
    grid: Client,
    named: JobRef,
    names: tuple[str, ...],
    folder: Path | None,
    attempt: int | None,
    overwrite: bool,
    as_json: bool,
) -> int:
    """Fetch the files that a job left in out/: all of them, or the files and folders named NAME."""
    job_id = await number_of(grid, named)
    folder = folder or Path(f"job-{job_id}")
    fetched = await grid.fetch(job_id, folder, names or None, overwrite=overwrite, attempt=attempt)
    if as_json:
        printing.as_json({"files": [str(path) for path in fetched]})
        return EXIT_OK
    if not fetched:
        array = (await grid.job(job_id)).array is not None
        printing.note(
            _no_element(job_id) if array else nothing_there(await grid.files(job_id, attempt=attempt))
        )
    elif len(fetched) <= MAX_NAMED:
        for path in fetched:
            printing.out(safetext.name(path))
    else:
        printing.out(f"{len(fetched)} files are in {safetext.name(folder)}")
    return EXIT_OK


def _no_element(array_id: int) -> str:
    return f"There are no files of array {array_id}: no element gave one back, or they were deleted."


def nothing_there(listed: JobFiles) -> str:
    """Why a job has no files to fetch."""
    if listed.expires_at is not None and listed.expires_at < datetime.now(UTC):
        return f"What job {listed.job_id} gave back was deleted: it was older than files are kept here."
    if listed.left:
        return f"Nothing of job {listed.job_id} came back; gridx files {listed.job_id} says why."
    return f"Job {listed.job_id} gave back no files. A program leaves them in its folder out/."


class _Files(click.Group):
    """``gridx files 17`` beside ``gridx files delete 17``."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """A number, also of an element, stands for the list of that job's files."""
        return super().resolve_command(ctx, ["list", *args] if args[0][:1].isdecimal() else args)


@click.group(
    "files", cls=_Files, invoke_without_command=True, short_help="Show and delete files on the grid."
)
@json_option
@click.pass_context
def files(context: click.Context, as_json: bool) -> int | None:
    """Show what your files take on the grid; gridx files ID lists what a job gave back."""
    if context.invoked_subcommand is None:
        return _usage(as_json)
    return None


@with_grid
async def _usage(grid: Client, as_json: bool) -> int:
    usage = await grid.usage()
    if as_json:
        printing.as_json(usage)
        return EXIT_OK
    limits = await grid.limits()
    caps = limits.out_files
    used = usage.input_bytes + usage.output_bytes
    printing.fields(
        [
            ("inputs", printing.size(usage.input_bytes)),
            ("from jobs", printing.size(usage.output_bytes)),
            ("together", f"{printing.size(used)} of {printing.size(usage.quota_bytes)}"),
            ("kept", f"{usage.keep_days} days after the last use, or the job's end"),
            ("one file", f"at most {printing.size(limits.file_bytes)}"),
            (
                "one job",
                f"takes {limits.inputs} files, gives back {printing.size(caps.total_bytes)} in {caps.files}",
            ),
        ]
    )
    if usage.largest:
        printing.out()
        printing.table(
            ("JOB", "NAME", "FILES", "SIZE"),
            [(str(one.job_id), one.name, str(one.files), printing.size(one.bytes)) for one in usage.largest],
            right=("JOB", "FILES", "SIZE"),
        )
    return EXIT_OK


@files.command("list", short_help="List what a job gave back (gridx files ID).")
@click.argument("named", type=JOB, metavar="ID")
@click.option("--attempt", type=click.IntRange(1), metavar="N", help="Of this attempt; else of the last one.")
@json_option
@with_grid
async def list_files(grid: Client, named: JobRef, attempt: int | None, as_json: bool) -> int:
    """List what a job gave back, and what it left behind with the reason."""
    job_id = await number_of(grid, named)
    job = await grid.job(job_id)
    if job.array is not None:
        return await _list_elements(grid, job_id, as_json)
    listed = await grid.files(job_id, attempt=attempt)
    if as_json:
        printing.as_json(listed)
        return EXIT_OK
    if listed.files:
        printing.table(
            ("SIZE", "NAME"),
            [(printing.size(file.size), file.path) for file in listed.files],
            right=("SIZE",),
        )
        printing.note(
            f"To fetch them: gridx fetch {job_id}. They are kept until {printing.when(listed.expires_at)}."
        )
    if listed.left:
        printing.left_behind(listed.left)
    if not listed.files and not listed.left:
        printing.note(nothing_there(listed))
    return EXIT_OK


async def _list_elements(grid: Client, array_id: int, as_json: bool) -> int:
    found = [element async for element in grid.all_elements(array_id) if element.files]
    if as_json:
        printing.as_json({"elements": [msgspec.to_builtins(await grid.files(one.id)) for one in found]})
        return EXIT_OK
    if found:
        printing.table(
            ("INDEX", "JOB", "FILES", "SIZE"),
            [
                (str(one.array_index), str(one.id), str(one.files), printing.size(one.file_bytes))
                for one in found
            ],
            right=("INDEX", "JOB", "FILES", "SIZE"),
        )
    else:
        printing.note(_no_element(array_id))
    if left := (await grid.receipt(array_id)).left:
        printing.left_behind(left)
    return EXIT_OK


@files.command("delete", short_help="Delete what jobs gave back.")
@click.argument("named", type=JOB, nargs=-1, required=True, metavar="ID...")
@json_option
@with_grid
async def delete(grid: Client, named: tuple[JobRef, ...], as_json: bool) -> int:
    """Delete the files that jobs gave back. The jobs themselves stay."""
    freed = [await grid.delete_files(await number_of(grid, one)) for one in dict.fromkeys(named)]
    return _told(freed, as_json)


@files.command("prune", short_help="Delete inputs that no job needs.")
@json_option
@with_grid
async def prune(grid: Client, as_json: bool) -> int:
    """Delete all your inputs that no open job needs. They are sent again when they are needed."""
    return _told([await grid.prune_uploads()], as_json)


def _told(freed: list[Freed], as_json: bool) -> int:
    all_of_it = Freed(files=sum(one.files for one in freed), bytes=sum(one.bytes for one in freed))
    if as_json:
        printing.as_json(all_of_it)
    else:
        count = all_of_it.files
        noun = "file was" if count == 1 else "files were"
        printing.out(f"{count} {noun} deleted: {printing.size(all_of_it.bytes)}.")
    return EXIT_OK


def counted(found: Sequence[OutputFile]) -> str:
    """``1 file (3 KiB) is``, to be gone on with."""
    size = printing.size(sum(file.size for file in found))
    return f"1 file ({size}) is" if len(found) == 1 else f"{len(found)} files ({size}) are"


COMMANDS: Final[tuple[Any, ...]] = (fetch, files)
