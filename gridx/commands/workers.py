"""``gridx workers``: the fleet, and to pause, resume or drain one of its machines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import click

from gridx.commands import printing
from gridx.commands.grid import json_option, with_grid
from gridx.commands.quantities import JOB_ID
from gridx.credits import format_credits
from gridx.errors import EXIT_OK
from gridx.messages import Runtime, Worker

if TYPE_CHECKING:
    from gridx.client import Client


@click.group(
    "workers", short_help="List the machines of the grid; pause, resume, drain.", invoke_without_command=True
)
@json_option
@click.pass_context
def workers(context: click.Context, as_json: bool) -> int | None:
    """List the machines of the grid; see to one of yours with pause, resume, drain."""
    return context.invoke(listing, as_json=as_json) if context.invoked_subcommand is None else None


@click.command("list")
@json_option
@with_grid
async def listing(grid: Client, as_json: bool) -> int:
    """List the machines of the grid."""
    fleet = await grid.workers()
    if as_json:
        printing.as_json({"workers": fleet})
        return EXIT_OK
    if not fleet:
        printing.note(
            "No machine has joined yet. On one that offers compute: "
            "gridx-tui --role worker --no-ui --user NAME --coordinator-ip HOST"
        )
        return EXIT_OK
    printing.table(
        (
            "ID",
            "NAME",
            "OWNER",
            "STATE",
            "CORES FREE",
            "MEMORY FREE",
            "GPUS FREE",
            "JOBS",
            "SANDBOX",
            "SEEN",
            "NOTE",
        ),
        [_row(worker) for worker in fleet],
        right=("ID", "CORES FREE", "MEMORY FREE", "GPUS FREE", "JOBS"),
    )
    for worker in fleet:
        if worker.offer is not None and worker.offer.rules and worker.state != "offline":
            rules = "; ".join(worker.offer.rules)
            printing.out(printing.one_line(f"Worker {worker.id} ({worker.name}): {rules}"))
    for warning, ids in _warnings(fleet).items():
        printing.note(f"Worker{'s' if len(ids) > 1 else ''} {', '.join(map(str, ids))}: {warning}")
    return EXIT_OK


def _warnings(fleet: list[Worker]) -> dict[str, list[int]]:
    """What the machines warn of, and which of them do."""
    found: dict[str, list[int]] = {}
    for worker in fleet:
        for warning in worker.offer.warnings if worker.offer and worker.state != "offline" else ():
            found.setdefault(warning, []).append(worker.id)
    return found


def _row(worker: Worker) -> tuple[str, ...]:
    offer = worker.offer
    seen = worker.last_seen_s
    if offer is None:
        capacity = ("", "", "", "")
    else:
        total_gib = offer.memory_mb / 1024
        capacity = (
            f"{printing.number(worker.free_cpu_millis / 1000)} of {printing.number(offer.cpu_millis / 1000)}",
            f"{worker.free_memory_mb / 1024:.1f} of {total_gib:.1f} GiB",
            f"{len(worker.free_gpus)} of {len(offer.gpus)}" if offer.gpus else "none",
            offer.sandbox + ("" if offer.isolated else " (own jobs only)"),
        )
    return (
        str(worker.id),
        worker.name,
        worker.owner,
        worker.state,
        *capacity[:3],
        str(len(worker.jobs)),
        capacity[3],
        "" if seen is None else f"{printing.seconds(seen)} ago",
        worker.state_reason,
    )


@click.command("show", short_help="Show one machine, and what applies there.")
@click.argument("worker_id", type=JOB_ID, metavar="ID")
@json_option
@with_grid
async def show(grid: Client, worker_id: int, as_json: bool) -> int:
    """Show one machine: what it offers, what its owner allows, what applies now and why."""
    worker = await grid.worker(worker_id)
    if as_json:
        printing.as_json(worker)
        return EXIT_OK
    cells = _row(worker)
    offer = worker.offer
    printing.fields(
        [
            ("worker", f"{worker.id}, {worker.name}"),
            ("owner", worker.owner),
            ("state", worker.state + (f": {worker.state_reason}" if worker.state_reason else "")),
            ("cores free", cells[4]),
            ("memory free", cells[5]),
            ("GPUs free", cells[6]),
            *_numbered("rules", offer.rules if offer else ()),
            *_numbered("GPUs", [f"{gpu.name} ({gpu.uuid})" for gpu in offer.gpus] if offer else ()),
            *_numbered("runtimes", [_runtime(one) for one in offer.runtimes] if offer else ()),
            ("sandbox", cells[8]),
            *_numbered("warnings", offer.warnings if offer else ()),
            ("jobs", ", ".join(map(str, worker.jobs))),
            ("seen", cells[9]),
            ("joined", printing.when(worker.joined_at)),
            ("version", worker.version),
            ("earned", f"{format_credits(worker.earned)} credits"),
        ]
    )
    return EXIT_OK


def _numbered(name: str, values: Iterable[str]) -> list[tuple[str, str]]:
    """Several values under one name, a line each."""
    return [(name if number == 0 else "", value) for number, value in enumerate(values)]


def _runtime(runtime: Runtime) -> str:
    return f"{runtime.name}: Python {runtime.python}, {', '.join(runtime.languages)}"


@click.command("pause")
@click.argument("worker_id", type=JOB_ID, metavar="ID")
@click.option("--give-back", is_flag=True, help="Kill what runs there at once; it runs elsewhere, unpaid.")
@json_option
@with_grid
async def pause(grid: Client, worker_id: int, give_back: bool, as_json: bool) -> int:
    """Give a machine nothing new; what runs there goes on."""
    return _tell(await grid.pause_worker(worker_id, give_back=give_back), as_json)


@click.command("resume")
@click.argument("worker_id", type=JOB_ID, metavar="ID")
@json_option
@with_grid
async def resume(grid: Client, worker_id: int, as_json: bool) -> int:
    """Give a paused machine jobs again."""
    return _tell(await grid.resume_worker(worker_id), as_json)


@click.command("drain")
@click.argument("worker_id", type=JOB_ID, metavar="ID")
@json_option
@with_grid
async def drain(grid: Client, worker_id: int, as_json: bool) -> int:
    """Let a machine finish what it runs, and leave the grid."""
    return _tell(await grid.drain_worker(worker_id), as_json)


def _tell(worker: Worker, as_json: bool) -> int:
    if as_json:
        printing.as_json(worker)
    else:
        reason = f": {worker.state_reason}" if worker.state_reason else ""
        printing.out(printing.one_line(f"Worker {worker.id} ({worker.name}) is {worker.state}{reason}"))
    return EXIT_OK


for each in (listing, show, pause, resume, drain):
    workers.add_command(each)

COMMANDS: Final = (workers,)
