"""``gridx worker``: the worker on this machine, as its owner sees and steers it; needs no coordinator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click

from gridx.commands import printing
from gridx.commands.grid import Place, json_option
from gridx.errors import EXIT_OK

if TYPE_CHECKING:
    from gridx.control import Report


Deed = Literal["status", "pause", "resume", "drain"]


@click.group("worker", short_help="See to the worker on this machine.")
@click.option(
    "--data-dir", type=click.Path(path_type=Path), metavar="FOLDER", help="The worker's data folder."
)
@click.pass_context
def worker(context: click.Context, data_dir: Path | None) -> None:
    """See to the worker that runs on this machine, also while its coordinator is away.

    \b
    gridx worker status             what applies now, and why
    gridx worker pause              take nothing new; what runs goes on
    gridx worker pause --give-back  take nothing new; what runs is killed here and runs elsewhere
    gridx worker resume             take jobs again
    gridx worker drain              finish what runs, then leave the grid

    For another machine of yours: gridx workers pause ID.
    """
    place: Place = context.obj
    context.meta["gridx.worker"] = data_dir or place.settings().data_path


def _tell(do: Deed, as_json: bool, *, give_back: bool = False) -> int:
    from gridx.control import Order, tell

    report = tell(click.get_current_context().meta["gridx.worker"], Order(do=do, give_back=give_back))
    if as_json:
        printing.as_json(report)
        return EXIT_OK
    if do == "status":
        _show(report)
        return EXIT_OK
    printing.out(printing.one_line(_sentence(report)))
    if report.given_back:
        jobs = "1 job was" if report.given_back == 1 else f"{report.given_back} jobs were"
        printing.out(f"{jobs} given back.")
    elif report.running:
        jobs = "1 job goes" if len(report.running) == 1 else f"{len(report.running)} jobs go"
        printing.out(f"{jobs} on to the end.")
    return EXIT_OK


@worker.command("status", short_help="Show what applies now, and why.")
@json_option
def status(as_json: bool) -> int:
    """Show what the machine offers, what applies now and why, and what runs here."""
    return _tell("status", as_json)


@worker.command("pause", short_help="Take nothing new until resumed.")
@click.option("--give-back", is_flag=True, help="Kill what runs here at once; it runs elsewhere, unpaid.")
@json_option
def pause(give_back: bool, as_json: bool) -> int:
    """Take nothing new until resumed, also after a restart; what runs goes on."""
    return _tell("pause", as_json, give_back=give_back)


@worker.command("resume")
@json_option
def resume(as_json: bool) -> int:
    """Take jobs again, as far as the settings allow."""
    return _tell("resume", as_json)


@worker.command("drain", short_help="Finish what runs, then leave the grid.")
@json_option
def drain(as_json: bool) -> int:
    """Finish what runs, then leave the grid; a worker without a dashboard or coordinator beside it exits."""
    return _tell("drain", as_json)


def _sentence(report: Report) -> str:
    reason = f": {report.reason}" if report.reason else ""
    return f"The worker {report.name} is {report.state}{reason}."


def _show(report: Report) -> None:
    printing.fields(
        [
            ("worker", report.name + (f", number {report.worker_id}" if report.worker_id else "")),
            ("owner", report.owner),
            ("state", report.state + (f": {report.reason}" if report.reason else "")),
            ("coordinator", f"{report.coordinator} ({'connected' if report.connected else 'not in reach'})"),
            ("offers", _size(report.cpu_millis, report.memory_mb, report.gpus)),
            *[("rules" if number == 0 else "", rule) for number, rule in enumerate(report.rules)],
            ("results to send", str(report.waiting or "")),
        ]
    )
    if not report.running:
        printing.out("Nothing runs here.")
        return
    printing.table(
        ("JOB", "OWNER", "NAME", "USES"),
        [
            (str(one.job_id), one.owner, one.name, _size(one.cpu_millis, one.memory_mb, one.gpus))
            for one in report.running
        ],
        right=("JOB",),
    )


def _size(cpu_millis: int, memory_mb: int, gpus: int) -> str:
    parts = [
        printing.counted(cpu_millis / 1000, "core"),
        printing.counted(round(memory_mb / 1024, 2), "GiB"),
        *([printing.counted(gpus, "GPU")] if gpus else []),
    ]
    return ", ".join(parts)


COMMANDS: Final = (worker,)
