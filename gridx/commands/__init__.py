"""``gridx``: everything the dashboard does, from a shell. Thin, over :mod:`gridx.client`.

Exit codes: 0 done, 1 the job failed, 2 wrong usage, 3 the grid said no, 4 the grid is out of reach, 130
interrupted. Modules here import nothing heavy at their top, so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from gridx import __version__, privatefiles
from gridx.commands import (
    account,
    admin,
    credits,
    files,
    jobs,
    machine,
    map,
    output,
    submit,
    trust,
    worker,
    workers,
)
from gridx.commands.grid import Place
from gridx.exits import ending


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--coordinator", metavar="URL", help="The grid: HOST, HOST:PORT, http:// or https://HOST:PORT.")
@click.option("--user", metavar="NAME", help="Whose saved sign-in to use.")
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="Settings file (config.toml)."
)
@click.version_option(__version__, "-V", "--version", message="Grid-X %(version)s")
@click.pass_context
def command(context: click.Context, coordinator: str | None, user: str | None, config: Path | None) -> None:
    """Submit programs to the machines of a grid, and see to them.

    \b
    gridx run FILE                 no grid needed: starts one here, runs the job, streams its output
    gridx login NAME               sign in (a new user: gridx login --register NAME)
    gridx submit FILE              and then: gridx output -f ID, gridx show ID
    gridx submit FILE --input DATA its files go along; what it leaves in out/: gridx fetch ID
    gridx doctor                   what this machine can do, and what to type where something is missing

    Exit codes: 0 done, 1 the job failed, 2 wrong usage, 3 the grid said no, 4 the grid is out of reach,
    130 interrupted.
    """
    context.obj = Place(coordinator=coordinator, user=user, config=config)


for module in (account, submit, map, jobs, output, files, workers, worker, credits, admin, trust, machine):
    for each in module.COMMANDS:
        command.add_command(each)


def main() -> None:
    """Entry point of ``gridx``."""
    privatefiles.guard()
    sys.exit(ending(lambda: command.main(prog_name="gridx", standalone_mode=False) or 0))
