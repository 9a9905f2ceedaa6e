"""What a job gave back: listed, and saved one by one or all together."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from gridx import safetext
from gridx.errors import InvalidField
from gridx.messages import Job, JobFiles, OutputFile
from gridx.tui import figures
from gridx.tui.screens.form import FormField, FormScreen
from gridx.tui.widgets.bars import KeyBar
from gridx.tui.widgets.drawn import Drawn
from gridx.tui.widgets.table import Cell, Column, GridTable, Key, Row


class FilesScreen(ModalScreen[None], Drawn):
    """The files of one job, or the wish to save those of all elements of an array."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "leave", "Close", tooltip="Back to the job.", id="files_close"),
        Binding("a", "save_all", "Save all", tooltip="Save all into a folder.", id="files_all"),
    ]

    def __init__(self, job: Job, files: JobFiles) -> None:
        super().__init__()
        self._job = job
        self._files: dict[str, OutputFile] = {file.path: file for file in files.files}

    def compose(self) -> ComposeResult:
        total = figures.size(sum(file.size for file in self._files.values()))
        count = len(self._files)
        said = f"What job {self._job.id} gave back: {count} file{'' if count == 1 else 's'}, {total}."
        columns = (
            Column("size", "size", 9, right=True),
            Column("path", "file", 20, stretch=True),
        )
        with Vertical(classes="dialog list"):
            yield Static(f"{said} Enter saves one, a saves all.", classes="question", markup=False)
            yield GridTable(columns, self._cells, empty="It gave back no files.")
        yield KeyBar()

    def on_mount(self) -> None:
        table = self.query_one(GridTable)
        table.show(list(self._files))
        table.focus()

    def _cells(self, key: Key) -> Row | None:
        file = self._files.get(str(key))
        if file is None:
            return None
        return (Cell(figures.size(file.size), "muted"), Cell(safetext.line(file.path, limit=400)))

    @on(GridTable.Opened)
    def _opened(self, event: GridTable.Opened) -> None:
        event.stop()
        self._save_one(str(event.key))

    def _save_one(self, path: str) -> None:
        """Ask where a file is to go, and fetch it."""
        job_id = self._job.id

        async def save(values: dict[str, str]) -> str:
            target = _target(values)
            if await asyncio.to_thread(target.exists):
                raise InvalidField(f"{target} exists already.", "Name a new file.", field="path")
            size = await self.grid.client.fetch_file(job_id, path, target)
            return f"Saved {figures.size(size)} as {target}."

        name = safetext.line(Path(path).name, limit=200)
        fields = [FormField("path", "file", name)]
        about = f"{safetext.line(path, limit=200)}. A file that exists is not overwritten."
        screen = FormScreen("Save a file", about, fields, "Save", save)
        self.app.push_screen(screen, lambda said: self.grid.tell(said) if said else None)

    def action_save_all(self) -> None:
        """Ask for a folder, and fetch everything into it."""
        save_all(self, self._job)

    def action_leave(self) -> None:
        """Close."""
        self.dismiss(None)


def save_all(screen: Drawn, job: Job) -> None:
    """Ask for a folder and fetch into it what a job gave back; of an array a folder for each element."""
    grid = screen.grid

    async def save(values: dict[str, str]) -> str:
        saved = await grid.client.fetch(job.id, _target(values))
        return f"Saved {len(saved)} files." if saved else "There was nothing to save."

    about = "A file of another content that is in the way is not overwritten."
    if job.array is not None:
        about = f"Each element's files go into a folder with its index. {about}"
    fields = [FormField("path", "folder", f"job-{job.id}")]
    form = FormScreen(f"Save what job {job.id} gave back", about, fields, "Save", save)
    grid.push_screen(form, lambda said: grid.tell(said) if said else None)


def _target(values: dict[str, str]) -> Path:
    if not values["path"].strip():
        raise InvalidField("It needs a name.", "Type one.", field="path")
    return Path(values["path"].strip()).expanduser()
