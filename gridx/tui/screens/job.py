"""One job in full: what was asked for, its program, what happened to it, and what it cost."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from gridx import safetext
from gridx.errors import GridError, NotFound
from gridx.messages import Job, JobFiles, JobSpec, Receipt
from gridx.tui import deeds, jobtext
from gridx.tui.commands import bindings
from gridx.tui.describe import job_title
from gridx.tui.look import JOB_LOOKS
from gridx.tui.messages import EditWanted, OutputWanted, Submitted
from gridx.tui.screens.files import FilesScreen, save_all
from gridx.tui.state import Changes
from gridx.tui.widgets.bars import Bar, KeyBar, Part
from gridx.tui.widgets.drawn import Drawn
from gridx.tui.widgets.editor import Editor

NARROW = 100


class JobScreen(Screen[None], Drawn):
    """The job; it follows what happens to it."""

    BINDINGS: ClassVar[list[BindingType]] = bindings("job")

    def __init__(self, job_id: int) -> None:
        super().__init__()
        self.job_id = job_id
        self.receipt: Receipt | None = None
        self.files: JobFiles | None = None
        self._full: Job | None = None
        self._head = Bar(id="job-head")
        self._said = Static(id="job-text", markup=False)
        self._editor = Editor(read_only=True)

    def compose(self) -> ComposeResult:
        yield self._head
        with Horizontal(id="job-body"):
            with VerticalScroll(id="job-facts", classes="pane"):
                yield self._said
            with Vertical(id="job-code", classes="pane"):
                yield self._editor
        yield KeyBar()

    def on_mount(self) -> None:
        self.query_one("#job-facts").border_title = Content("What happened")
        self.query_one("#job-code").border_title = Content("Program")
        self.query_one("#job-facts").focus()
        self._show()
        self._read_soon()

    def on_resize(self) -> None:
        self.set_class(self.size.width < NARROW, "-narrow")
        self.call_after_refresh(self._show)

    def _width(self) -> int:
        """Cells for the text: without frame, padding and scrollbar."""
        return max(20, self.query_one("#job-facts").size.width - 1)

    @property
    def job(self) -> Job | None:
        """What is known of it: the newest state, and the details as they were last read."""
        return self.grid.state.jobs.get(self.job_id) or self._full

    # -- reading -----------------------------------------------------------------------------------------

    def apply(self, changes: Changes) -> None:
        """Follow the job."""
        if self.job_id in changes.jobs or changes.reread:
            self._read_soon()

    def _read_soon(self) -> None:
        self.run_worker(self._read(), exclusive=True, group="job")

    async def _read(self) -> None:
        try:
            job = await self.grid.client.job(self.job_id)
            self.receipt = await self.grid.client.receipt(self.job_id)
            self.files = await self._read_files(job)
        except GridError as error:
            if self._full is None:
                self._said.update(Content(safetext.line(str(error), limit=500)))
            return
        self._full = job
        if isinstance(job.spec, JobSpec):
            editor = self._editor
            code = safetext.clean(job.spec.code)
            if editor.text != code:
                editor.put(code)
        self._show()

    async def _read_files(self, job: Job) -> JobFiles | None:
        """What it gave back, if it may have; of an array its elements have them."""
        if job.array is not None or not job.attempt:
            return None
        try:
            return await self.grid.client.files(job.id)
        except NotFound:
            return None

    def tick(self) -> None:
        """A second went by."""
        if self._full is not None and not self._full.state.ended:
            self._show()

    def _show(self) -> None:
        job = self._full or self.job
        if job is None:
            return
        look = JOB_LOOKS[job.state]
        self._head.show(
            [
                Part(f" Job {job.id} ", "strong"),
                Part(job_title(job)),
                Part("  "),
                Part(look.text, look.style),
            ],
            [Part(f"{safetext.line(job.owner)} ", "muted")],
        )
        if self._full is not None:
            text = jobtext.whole(self._full, self.receipt, self.grid.clock.now(), self.files, self._width())
            self._said.update(text)

    # -- acting ------------------------------------------------------------------------------------------

    def action_back(self) -> None:
        """Back to the dashboard."""
        self.dismiss(None)

    def action_output(self) -> None:
        """Back to the dashboard, at this job's output."""
        self.grid.desk.post_message(OutputWanted(self.job_id))
        self.dismiss(None)

    def action_cancel(self) -> None:
        """Cancel it, after asking."""
        if self.job is not None:
            deeds.cancel(self.grid, self.job)

    def action_retry(self) -> None:
        """Submit it anew, and go there."""
        if self.job is not None:
            deeds.retry(self.grid, self.job)

    def action_edit(self) -> None:
        """Put it into the editor."""
        deeds.edit(self.grid, self.job_id)

    def action_copy(self) -> None:
        """Copy its id."""
        self.grid.copy(str(self.job_id), f"job id {self.job_id}")

    def action_files(self) -> None:
        """Show what it gave back, to save it; of an array save all of it."""
        job = self._full
        if job is None:
            return
        if job.array is not None:
            save_all(self, job)
        elif self.files is None or not self.files.files:
            self.grid.tell(f"Job {job.id} gave back no files.")
        else:
            self.app.push_screen(FilesScreen(job, self.files))

    def action_unfold(self) -> None:
        """Back to the dashboard, to the elements of the array."""
        job = self._full
        array_id = None if job is None else job.array_id if job.array is None else job.id
        if array_id is None:
            self.grid.tell(f"Job {self.job_id} is one job; only arrays have elements.")
            return
        self.dismiss(None)
        self.grid.desk.unfold(array_id)

    def on_edit_wanted(self, message: EditWanted) -> None:
        """Left to the dashboard."""

    def on_submitted(self, message: Submitted) -> None:
        """Left to the dashboard."""
