"""``gridx doctor`` and ``gridx runtime``: what this machine can do for the grid."""

from __future__ import annotations

import asyncio
import json
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

from gridx.commands import printing
from gridx.commands.grid import Place, json_option
from gridx.errors import EXIT_JOB_FAILED, EXIT_OK, EngineMissing
from gridx.messages import Runtime

if TYPE_CHECKING:
    from gridx.config import WorkerSettings
    from gridx.doctor import Finding

MARKS: Final = {"ok": ("ok", "green"), "note": ("note", "yellow"), "problem": ("PROBLEM", "red")}


@click.command("doctor", short_help="Check this machine, and say what to type.")
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

    async def main() -> list[Finding]:
        findings = []
        async for finding in examine(settings, job=not no_job):
            findings.append(finding)
            word, colour = MARKS[finding.verdict]
            mark = click.style(word.ljust(7), fg=colour)
            printing.out(f"{mark}  {printing.one_line(f'{finding.what}: {finding.found}')}")
            if finding.hint:
                printing.out(f"         {printing.one_line(finding.hint)}")
        return findings

    findings = asyncio.run(main())
    printing.out()
    if not well(findings):
        printing.out("This machine is not ready; see the hints above.")
        return EXIT_JOB_FAILED
    contained = any(finding.what == "image" and finding.verdict == "ok" for finding in findings)
    printing.out(
        "This machine is ready."
        if contained
        else "This machine is ready for its owner's jobs; for jobs of others see the notes above."
    )
    return EXIT_OK


@click.group("runtime")
def runtime() -> None:
    """The images in which jobs run on this machine."""


@runtime.command("build", short_help="Build an image for jobs from an image registry.")
@click.option("--node", is_flag=True, help="The image for JavaScript, in place of the default one.")
@click.pass_obj
def build(place: Place, node: bool) -> int:
    """Build the default image, with numpy, pandas and scikit-learn, or with --node one for JavaScript.

    An image registry must be in reach; where none is, scripts/build-runtime-image does the same.
    """
    from gridx.services.worker.sandbox.engine import find_engine
    from gridx.services.worker.sandbox.runtimes import DEFAULT_IMAGE, NODE_IMAGE, build_runtime

    settings = place.settings()
    tag = NODE_IMAGE if node else DEFAULT_IMAGE

    async def say(line: str) -> None:
        printing.out(printing.one_line(line))

    async def main() -> None:
        engine = await find_engine(settings.worker.engine)
        try:
            made = await build_runtime(engine, say, tag=tag)
        finally:
            await engine.close()
        spoken = ", ".join(made.runtime.languages)
        printing.out(printing.one_line(f"{made.runtime.image} is ready; it speaks {spoken}."))
        if tag not in settings.worker.runtimes:
            listed = json.dumps([*settings.worker.runtimes, tag])
            printing.out(f"To offer it, write under [worker] in config.toml: runtimes = {listed}")

    asyncio.run(main())
    return EXIT_OK


@runtime.command("list")
@json_option
@click.pass_obj
def listing(place: Place, as_json: bool) -> int:
    """List what a worker on this machine would run jobs in."""
    settings = place.settings()
    rows = asyncio.run(_runtimes(settings.worker))
    if as_json:
        printing.as_json({"runtimes": rows})
        return EXIT_OK
    printing.table(
        ("RUNTIME", "LANGUAGES", "PYTHON", "SANDBOX", "IMAGE", "NOTE"),
        [
            (row["name"], row["languages"], row["python"], row["sandbox"], row["image"], row["note"])
            for row in rows
        ],
    )
    return EXIT_OK


async def _runtimes(worker: WorkerSettings) -> list[dict[str, str]]:
    """The images of the owner's list, usable or not; without an engine the interpreter of this machine."""
    from gridx.services.worker.sandbox.engine import find_engine
    from gridx.services.worker.sandbox.runtimes import list_runtimes

    rows: list[dict[str, str]] = []
    try:
        if worker.sandbox != "process":
            engine = await find_engine(worker.engine)
            try:
                listed = await list_runtimes(engine, worker.runtimes)
            finally:
                await engine.close()
            rows += [_row(image.runtime, "docker") for image in listed.usable]
            rows += [
                {
                    "name": "",
                    "languages": "",
                    "python": "",
                    "sandbox": "docker",
                    "image": bad.image,
                    "note": bad.reason,
                }
                for bad in listed.unusable
            ]
            if not listed.usable:
                printing.note("The image is missing. Type: gridx runtime build")
    except EngineMissing as error:
        if worker.sandbox == "docker":
            raise
        printing.note(f"{error.message} {error.hint}")
    if worker.sandbox == "process" or not any(row["name"] for row in rows):
        rows += await _without_engine(worker)
    return rows


async def _without_engine(worker: WorkerSettings) -> list[dict[str, str]]:
    from gridx.services.worker.sandbox import open_sandbox

    process = msgspec.structs.replace(worker, sandbox="process")
    with tempfile.TemporaryDirectory(prefix="gridx-runtime-") as folder:
        sandbox = await open_sandbox(process, identity=secrets.token_hex(16), data_path=Path(folder))
        try:
            status = await sandbox.status()
        finally:
            await sandbox.close()
    return [_row(runtime, "process", "its owner's own jobs only") for runtime in status.runtimes]


def _row(runtime: Runtime, sandbox: str, note: str = "") -> dict[str, str]:
    return {
        "name": runtime.name,
        "languages": ",".join(runtime.languages),
        "python": runtime.python,
        "sandbox": sandbox,
        "image": runtime.image,
        "note": note,
    }


COMMANDS: Final = (doctor, runtime)
