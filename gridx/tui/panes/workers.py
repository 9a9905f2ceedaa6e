"""The fleet: what each worker offers and runs, whose it is, what it earned, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.widget import Widget

from gridx import safetext
from gridx.credits import format_credits
from gridx.messages import Worker
from gridx.tui import deeds, describe, figures
from gridx.tui.commands import bindings
from gridx.tui.look import WORKER_LOOKS
from gridx.tui.panes.pane import Pane
from gridx.tui.state import Changes, Machine
from gridx.tui.widgets.note import Note
from gridx.tui.widgets.table import Cell, Column, GridTable, Key, Row

COLUMNS: Final = (
    Column("state", "state", 10),
    Column("id", "id", 4, right=True),
    Column("name", "name", 10, stretch=True),
    Column("owner", "owner", 10, rank=2),
    Column("cores", "cores free", 10, rank=1, right=True),
    Column("memory", "memory free", 17, rank=5, right=True),
    Column("gpus", "GPUs", 5, rank=4, right=True),
    Column("jobs", "jobs", 4, right=True),
    Column("load", "load", 5, rank=3, right=True),
    Column("seen", "seen", 5, rank=6, right=True),
    Column("sandbox", "sandbox", 8, rank=8),
    Column("earned", "earned", 9, rank=7, right=True),
)
_SORTS: Final[dict[str, Callable[[Worker], Any]]] = {
    "name": lambda worker: (worker.name.casefold(), worker.id),
    "id": lambda worker: worker.id,
    "state": lambda worker: (list(WORKER_LOOKS).index(worker.state), worker.id),
    "owner": lambda worker: (worker.owner.casefold(), worker.id),
    "cores": lambda worker: (worker.free_cpu_millis, worker.id),
    "memory": lambda worker: (worker.free_memory_mb, worker.id),
    "jobs": lambda worker: (len(worker.jobs), worker.id),
    "earned": lambda worker: (worker.earned, worker.id),
}


class WorkersPane(Pane):
    """The workers, and the chosen one in a few lines below."""

    NAME = "workers"
    BINDINGS = bindings("workers")

    def __init__(self) -> None:
        super().__init__()
        self.sort = "name"
        self.down = False
        self.table = GridTable(
            COLUMNS, self._cells, empty="No worker yet. gridx-tui --role worker on another machine joins it."
        )
        self._said = Note(id="worker-note")

    def compose(self) -> ComposeResult:
        yield self.table
        yield self._said

    def on_mount(self) -> None:
        self.table.set_arrow(self.sort, down=self.down)

    @property
    def entry(self) -> Widget:
        return self.table

    @property
    def machine(self) -> Machine | None:
        """The worker under the cursor."""
        return self.state.machines.get(self.table.key) if isinstance(self.table.key, int) else None

    def apply(self, changes: Changes) -> None:
        if changes.workers or changes.reread:
            self._fill()

    def shown(self) -> None:
        self._fill()

    def tick(self) -> None:
        self.table.refresh_rows()
        self._note()

    def _fill(self) -> None:
        workers = [machine.worker for machine in self.state.machines.values()]
        workers.sort(key=_SORTS[self.sort], reverse=self.down)
        self.table.show([worker.id for worker in workers])
        online = sum(worker.state == "online" for worker in workers)
        self.title(f"{online} online of {len(workers)}" if workers else "none")
        self._note()

    def _cells(self, key: Key) -> Row | None:
        machine = self.state.machines.get(key) if isinstance(key, int) else None
        if machine is None:
            return None
        worker, offer = machine.worker, machine.worker.offer
        look = WORKER_LOOKS[worker.state]
        seen = machine.seen_s(self.grid.clock.monotonic())
        load = worker.sample.load if worker.sample is not None else None
        warned = offer is not None and bool(offer.warnings)
        return (
            Cell(look.text, look.style),
            Cell(str(worker.id)),
            Cell(safetext.line(worker.name) + (" !" if warned else "")),
            Cell(safetext.line(worker.owner), "muted"),
            Cell(
                f"{figures.cores(worker.free_cpu_millis)}/{figures.cores(offer.cpu_millis)}" if offer else "",
            ),
            Cell(
                f"{figures.mebibytes(worker.free_memory_mb)}/{figures.mebibytes(offer.memory_mb)}"
                if offer
                else ""
            ),
            Cell(f"{len(worker.free_gpus)}/{len(offer.gpus)}" if offer and offer.gpus else "", "muted"),
            Cell(str(len(worker.jobs) or "")),
            Cell("" if load is None else f"{load:.2f}", "muted"),
            Cell("" if seen is None else figures.age(seen), "muted"),
            Cell(offer.sandbox if offer else "", "muted" if offer and offer.isolated else "warning"),
            Cell(describe.credits_short(worker.earned), "muted"),
        )

    def _note(self) -> None:
        note = self._said
        machine = self.machine
        if machine is None:
            note.say("")
            return
        worker, offer = machine.worker, machine.worker.offer
        said: list[str | tuple[str, str]] = [
            (safetext.line(worker.name), "bold"),
            f" of {safetext.line(worker.owner)} · earned {format_credits(worker.earned)} credits",
        ]
        seen = machine.seen_s(self.grid.clock.monotonic())
        said.append(f" · seen {figures.age(seen)} ago" if seen is not None else " · not seen since the start")
        if worker.jobs:
            said.append(f" · runs {', '.join(map(str, worker.jobs[:8]))}")
        if worker.state_reason:
            said.append((f"\n{worker.state}: {safetext.line(worker.state_reason)}", "$warning"))
        if offer is not None:
            wall = "" if offer.isolated else ", which is no wall: its owner's jobs only"
            runtimes = ", ".join(f"{runtime.name} ({runtime.python})" for runtime in offer.runtimes[:4])
            said.append(
                (
                    f"\n{offer.sandbox} sandbox{wall} · {safetext.line(runtimes) or 'no runtime'}",
                    "$foreground 62%",
                )
            )
            if offer.rules:
                said.append((f"\n{safetext.line('; '.join(offer.rules), limit=400)}", "$foreground 62%"))
            said += [
                (f"\nGPU {safetext.line(gpu.name)}, {figures.mebibytes(gpu.memory_mb)}", "$foreground 62%")
                for gpu in offer.gpus[:4]
            ]
            said += [(f"\n! {safetext.line(warning)}", "$warning") for warning in offer.warnings[:3]]
        note.say(Content.assemble(*said))

    @on(GridTable.Moved)
    def _moved(self, event: GridTable.Moved) -> None:
        event.stop()
        self._note()

    @on(GridTable.Opened)
    def _opened(self, event: GridTable.Opened) -> None:
        event.stop()
        machine = self.machine
        if machine is not None and machine.worker.jobs:
            self.grid.desk.open_job(machine.worker.jobs[0])

    @on(GridTable.HeaderClicked)
    def _header_clicked(self, event: GridTable.HeaderClicked) -> None:
        event.stop()
        if event.column in _SORTS:
            self._sort_by(event.column, not self.down if event.column == self.sort else self.down)

    def action_sort(self) -> None:
        """Sort by the next column."""
        names = list(_SORTS)
        self._sort_by(names[(names.index(self.sort) + 1) % len(names)], self.down)

    def action_reverse(self) -> None:
        """Turn the order around."""
        self._sort_by(self.sort, not self.down)

    def _sort_by(self, column: str, down: bool) -> None:
        self.sort, self.down = column, down
        self.table.set_arrow(column, down=down)
        self._fill()

    def action_pause(self) -> None:
        """Pause the chosen worker, after asking."""
        if self.machine is not None:
            deeds.pause_worker(self.grid, self.machine.worker)

    def action_give_back(self) -> None:
        """Free the chosen worker's machine at once, after asking."""
        if self.machine is not None:
            deeds.give_back(self.grid, self.machine.worker)

    def action_resume(self) -> None:
        """Resume the chosen worker."""
        if self.machine is not None:
            deeds.resume_worker(self.grid, self.machine.worker)

    def action_drain(self) -> None:
        """Drain the chosen worker, after asking."""
        if self.machine is not None:
            deeds.drain_worker(self.grid, self.machine.worker)

    def action_copy(self) -> None:
        """Copy the chosen worker's id."""
        if self.machine is not None:
            worker = self.machine.worker
            self.grid.copy(str(worker.id), f"worker id {worker.id}")
