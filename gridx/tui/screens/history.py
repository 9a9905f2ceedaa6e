"""What one has submitted before, to take it into the editor again."""

from __future__ import annotations

from typing import ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from gridx.errors import GridError
from gridx.messages import Job
from gridx.tui import describe, figures
from gridx.tui.look import JOB_LOOKS
from gridx.tui.widgets.bars import KeyBar
from gridx.tui.widgets.drawn import Drawn
from gridx.tui.widgets.table import Cell, Column, GridTable, Key, Row

SHOWN: Final = 200


class HistoryScreen(ModalScreen[int | None], Drawn):
    """One's own jobs, newest first; the answer is the one to edit."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "leave", "Close", tooltip="Leave it.", id="history_close"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._jobs: dict[int, Job] = {}

    def compose(self) -> ComposeResult:
        columns = (
            Column("id", "id", 6, right=True),
            Column("name", "name", 16, stretch=True),
            Column("state", "state", 15, rank=1),
            Column("asks", "asked for", 30, rank=2),
            Column("age", "age", 5, right=True),
        )
        with Vertical(classes="dialog list"):
            yield Static(
                "Submitted before. Enter takes it into the editor.", classes="question", markup=False
            )
            yield GridTable(columns, self._cells, empty="Nothing was submitted yet.")
        yield KeyBar()

    async def on_mount(self) -> None:
        table = self.query_one(GridTable)
        table.focus()
        self.run_worker(self._read(), exclusive=True)

    async def _read(self) -> None:
        user = self.grid.state.user
        try:
            page = await self.grid.client.jobs(limit=SHOWN, owner=user.username if user else None)
        except GridError as error:
            self.grid.tell_error(error)
            return
        self._jobs = {job.id: job for job in page.jobs}
        self.query_one(GridTable).show(list(self._jobs))

    def _cells(self, key: Key) -> Row | None:
        job = self._jobs.get(key) if isinstance(key, int) else None
        if job is None:
            return None
        look = JOB_LOOKS[job.state]
        return (
            Cell(str(job.id)),
            Cell(describe.job_title(job)),
            Cell(look.text, look.style),
            Cell(describe.job_asks(job), "muted"),
            Cell(figures.age(describe.job_age_s(job, self.grid.clock.now())), "muted"),
        )

    @on(GridTable.Opened)
    def _opened(self, event: GridTable.Opened) -> None:
        event.stop()
        self.dismiss(event.key if isinstance(event.key, int) else None)

    def action_leave(self) -> None:
        """Close, and change nothing."""
        self.dismiss(None)
