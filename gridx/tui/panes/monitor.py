"""How machines are doing: this one and every worker, as bars with their recent past."""

from __future__ import annotations

from typing import Final

from textual import on
from textual.app import ComposeResult
from textual.widget import Widget

from gridx import safetext
from gridx.tui import figures, machine
from gridx.tui.panes.pane import Pane
from gridx.tui.state import Changes, Machine
from gridx.tui.widgets.bars import Part
from gridx.tui.widgets.readout import Readout
from gridx.tui.widgets.table import Cell, Column, GridTable, Key, Row

HERE: Final = 0
"""Key of the machine in front of the user; workers' ids begin at 1."""
BAR: Final = 6
LISTED: Final = 4
"""Lines of the list that are kept for it however much there is to say of one machine."""
COLUMNS: Final = (
    Column("name", "machine", 12, stretch=True),
    Column("cpu", "cpu", BAR + 5),
    Column("memory", "memory", BAR + 5),
    Column("gpu", "gpu", 5, rank=2, right=True),
    Column("jobs", "jobs", 4, rank=1, right=True),
    Column("past", "cpu before", 20, rank=3),
)


class MonitorPane(Pane):
    """The chosen machine in full, all of them in a line each."""

    NAME = "monitor"

    def __init__(self) -> None:
        super().__init__()
        self.readout = Readout(id="machine")
        self.table = GridTable(COLUMNS, self._cells)

    def compose(self) -> ComposeResult:
        yield self.readout
        yield self.table

    @property
    def entry(self) -> Widget:
        return self.table

    def _machine(self, key: Key | None) -> Machine | None:
        if key in (HERE, None):
            return self.grid.local.machine
        return self.state.machines.get(int(key)) if key is not None else None

    def apply(self, changes: Changes) -> None:
        if changes.workers or changes.reread:
            self._fill()

    def shown(self) -> None:
        self._fill()

    def tick(self) -> None:
        self._fill()

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    def _fill(self) -> None:
        workers = sorted(
            (m.worker for m in self.state.machines.values() if m.worker.state != "offline"),
            key=lambda worker: (worker.name.casefold(), worker.id),
        )
        self.table.show([HERE, *(worker.id for worker in workers)])
        self._draw()

    @on(GridTable.Moved)
    def _moved(self, event: GridTable.Moved) -> None:
        event.stop()
        self._draw()

    def _draw(self) -> None:
        key = self.table.key
        chosen = self._machine(key)
        name = "this machine" if key in (HERE, None) else safetext.line(chosen.worker.name) if chosen else ""
        width = self.readout.size.width or self.size.width
        stale = chosen.stale_s(self.grid.clock.monotonic()) if chosen is not None else None
        self.title(name, f"stale {figures.age(stale)}" if stale is not None else "")
        if chosen is None or chosen.worker.sample is None:
            why = self.grid.local.problem if key in (HERE, None) else "no sample yet"
            self.readout.show([[Part(f" {why or 'reading ...'}", "muted")]])
            return
        # The list of machines keeps its title and some lines; the chosen machine has the rest.
        listed = min(len(self.table.keys), LISTED) + 1
        room = max(6, self.size.height - listed)
        self.readout.show(machine.draw(chosen.worker.sample, chosen.history, width, room=room))

    def _cells(self, key: Key) -> Row | None:
        found = self._machine(key)
        if found is None:
            return (Cell("this machine", "muted"), *[Cell("")] * 5) if key == HERE else None
        here = key == HERE
        name = "this machine" if here else safetext.line(found.worker.name)
        jobs = "" if here else str(len(found.worker.jobs) or "")
        stale = found.stale_s(self.grid.clock.monotonic())
        if stale is not None:
            return (
                Cell(name),
                Cell(f"stale {figures.age(stale)}", "warning"),
                *[Cell("")] * 2,
                Cell(jobs),
                Cell(""),
            )
        if not found.history.cpu:
            return (Cell(name), Cell("no sample", "muted"), *[Cell("")] * 2, Cell(jobs), Cell(""))
        history = found.history
        sample = found.worker.sample
        gpu = f"{history.gpu[-1]:.0%}" if sample is not None and sample.gpus else ""
        return (
            Cell(name, "" if not here else "strong"),
            self._gauge(history.cpu[-1]),
            self._gauge(history.memory[-1]),
            Cell(gpu),
            Cell(jobs, "muted"),
            Cell(figures.graph(list(history.cpu), 20, 1.0), "faint"),
        )

    def _gauge(self, part: float) -> Cell:
        filled, rest = figures.bar(part, BAR)
        return Cell(
            f"{filled}{rest} {figures.percent(part)}", "warning" if part >= machine.BUSY else "primary"
        )
