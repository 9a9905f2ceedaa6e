"""``gridx doctor`` and ``gridx runtime``: what this machine can do for the grid."""

from __future__ import annotations

import asyncio
from typing import Final

import click

from gridx.commands import printing
from gridx.commands.grid import Place, json_option
from gridx.errors import EXIT_JOB_FAILED, EXIT_OK

MARKS: Final = {"ok": ("ok", "green"), "note": ("note", "yellow"), "problem": ("PROBLEM", "red")}


@click.command("doctor")
@click.option("--no-job", is_flag=True, help="Only look; do not run a job.")
@json_option
@click.pass_obj
def doctor(place: Place, no_job: bool, as_json: bool) -> int:
    """Check this machine, and say what to type where something is missing; 1 when something is wrong."""
    from gridx.doctor import collect, examine, well

    settings = place.settings()
    if as_json:
        findings = asyncio.run(collect(settings, job=not no_job))
        printing.as_json({"ok": well(findings), "findings": findings})
        return EXIT_OK if well(findings) else EXIT_JOB_FAILED

    async def main() -> bool:
        findings = []
        async for finding in examine(settings, job=not no_job):
            findings.append(finding)
            word, colour = MARKS[finding.verdict]
            mark = click.style(word.ljust(7), fg=colour)
            printing.out(f"{mark}  {printing.one_line(f'{finding.what}: {finding.found}')}")
            if finding.hint:
                printing.out(f"         {printing.one_line(finding.hint)}")
        return well(findings)

    ready = asyncio.run(main())
    printing.out()
    printing.out("This machine is ready." if ready else "This machine is not ready; see the hints above.")
    return EXIT_OK if ready else EXIT_JOB_FAILED


@click.group("runtime")
def runtime() -> None:
    """The images in which jobs run on this machine."""


COMMANDS: Final = (doctor, runtime)
