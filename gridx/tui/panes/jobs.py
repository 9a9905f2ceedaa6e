"""The list of jobs: what they are doing, on which machine, at what cost, and why one waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Input

from gridx import safetext
from gridx.errors import GridError
from gridx.messages import Job, JobState
from gridx.tui import arrays, deeds, describe, figures
from gridx.tui.commands import bindings
from gridx.tui.feed import PAGE
from gridx.tui.filters import JobFilter, parse_filter
from gridx.tui.look import JOB_LOOKS
from gridx.tui.messages import JobChosen, JobOpened
from gridx.tui.panes.elements import Elements
from gridx.tui.panes.pane import Finder, Pane
from gridx.tui.state import Changes
from gridx.tui.widgets.note import Note
from gridx.tui.widgets.table import Cell, Column, GridTable, Key, Row

PLACE: Final = 12
"""Cells of the column that tells the worker, or how far an array is."""
COLUMNS: Final = (
    Column("state", "state", 15),
    Column("id", "id", 6, right=True),
    Column("name", "name", 12, stretch=True),
    Column("owner", "owner", 10, rank=5),
    Column("worker", "worker", PLACE, rank=3),
    Column("age", "age", 5, rank=4, right=True),
    Column("run", "run", 7, rank=1, right=True),
    Column("cost", "cost", 9, rank=2, right=True),
    Column("note", "why", 28, rank=6, stretch=True),
)
WITH_OWNERS: Final = tuple(replace(column, rank=1) if column.key == "owner" else column for column in COLUMNS)
"""For a coordinator, where the jobs are of many."""
_ORDER: Final = {state: n for n, state in enumerate(JobState)}
_SORTS: Final[dict[str, Callable[[Job], Any]]] = {
    "id": lambda job: job.id,
    "state": lambda job: (_ORDER[job.state], job.id),
    "name": lambda job: (job.name.casefold(), job.id),
    "owner": lambda job: (job.owner.casefold(), job.id),
    "worker": lambda job: (job.worker_name.casefold(), job.id),
    "age": lambda job: (-job.created_at.timestamp(), job.id),
    "run": lambda job: (
        (job.ended_at.timestamp() - job.started_at.timestamp())
        if job.ended_at and job.started_at
        else (1e12 - job.started_at.timestamp() if job.started_at else -1.0),
        job.id,
    ),
    "cost": lambda job: (job.charge if job.state.ended else job.hold, job.id),
}
SEARCH_DELAY_S: Final = 0.3


class JobsPane(Pane):
    """Jobs, newest first unless sorted otherwise; a page of them, and the pages before it."""

    NAME = "jobs"
    BINDINGS = bindings("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.filter = JobFilter()
        self.sort = "id"
        self.down = True
        self._floor = 0
        """Jobs below this id are on older pages."""
        self._ceiling: int | None = None
        self._older: int | None = None
        """Cursor of the next older page, if there is one."""
        self._newer: list[int | None] = []
        self._search: Timer | None = None
        self._wanted: int | None = None
        self.elements = Elements(self, self._elements_read)
        self.table = GridTable(COLUMNS, self._cells)
        self.finder = Finder("filter", "words  state:running  owner:ann  worker:lab")
        self._said = Note(id="job-note")

    def compose(self) -> ComposeResult:
        yield self.table
        yield self.finder
        yield self._said

    def on_mount(self) -> None:
        if self.grid.role == "coordinator":
            self.table.columns = WITH_OWNERS
        self.table.set_arrow(self.sort, down=self.down)

    @property
    def entry(self) -> Widget:
        return self.table

    @property
    def job(self) -> Job | None:
        """The job under the cursor."""
        return self.state.jobs.get(self.table.key) if isinstance(self.table.key, int) else None

    def choose(self, job_id: int) -> None:
        """Put the cursor on a job, as soon as it is known."""
        self._wanted = job_id
        self._fill()

    # -- rows --------------------------------------------------------------------------------------------

    def apply(self, changes: Changes) -> None:
        if changes.reread and self._ceiling is None:
            self._read_page(None)
        if self.elements.array_id in changes.jobs or changes.reread:
            self.elements.changed()
        if changes.jobs or changes.reread or changes.link:
            self._fill()

    def shown(self) -> None:
        self._fill()

    def tick(self) -> None:
        self.table.refresh_rows()

    def _shown(self) -> list[Job]:
        if self.elements.array_id is not None:
            known = (self.state.jobs.get(id_) for id_ in self.elements.ids)
            return [job for job in known if job is not None and self.filter.shows(job)]
        return [
            job
            for job in self.state.jobs.values()
            if job.array_id is None
            and job.id >= self._floor
            and (self._ceiling is None or job.id < self._ceiling)
            and self.filter.shows(job)
        ]

    def _fill(self) -> None:
        jobs = self._shown()
        unfolded = self.elements.array_id is not None
        # The elements of an array are read from the first on, unless another order is asked for.
        jobs.sort(key=_SORTS[self.sort], reverse=self.down != (unfolded and self.sort == "id"))
        table = self.table
        table.empty = (
            "No job passes the filter. Esc clears it."
            if self.filter
            else f"No jobs yet. {self.grid.key_of('desk_submit')} runs the program in the editor."
        )
        table.show([job.id for job in jobs])
        if self._wanted is not None and self._wanted in table.keys:
            table.select(self._wanted)
            self._wanted = None
        self._note()
        self._entitle(jobs)

    def _entitle(self, jobs: list[Job]) -> None:
        """Say in the frame how many there are, of which array, and how to come to the others."""
        if self.elements.array_id is not None:
            self._entitle_elements(jobs)
            return
        waiting = sum(job.state is JobState.QUEUED for job in jobs)
        running = sum(not job.state.ended for job in jobs) - waiting
        words = [f"{len(jobs)}{'+' if self._older is not None else ''}"]
        words += [f"{running} running"] if running else []
        words += [f"{waiting} waiting"] if waiting else []
        pages = []
        if self._ceiling is not None:
            pages.append("[ newer")
        if self._older is not None:
            pages.append("] older")
        if self.filter:
            words.append("filtered")
        self.title(" · ".join(words), "  ".join(pages))

    def _entitle_elements(self, jobs: list[Job]) -> None:
        elements = self.elements
        array = self.state.jobs.get(elements.array_id or 0)
        name = describe.job_title(array) if array is not None else ""
        keys = [f"{self.grid.key_of('jobs_unfold')} folds"]
        keys += ["[ before"] if elements.later_pages else []
        keys += ["] more"] if elements.next is not None else []
        words = [
            f"{len(jobs)} elements of {elements.array_id} {name}",
            *(["filtered"] if self.filter else []),
        ]
        self.title(" · ".join(words), "  ".join(keys))

    def _cells(self, key: Key) -> Row | None:
        job = self.state.jobs.get(key) if isinstance(key, int) else None
        if job is None:
            return None
        look = JOB_LOOKS[job.state]
        now = self.grid.clock.now()
        quiet = "muted" if job.state.ended else ""
        return (
            Cell(look.text, look.style),
            Cell(str(job.id)),
            Cell(describe.job_title(job)),
            Cell(safetext.line(job.owner), "muted"),
            Cell(describe.job_place(job, PLACE), "muted" if job.array is None else look.style),
            Cell(figures.age(describe.job_age_s(job, now)), "muted"),
            Cell(describe.job_run(job, now), quiet),
            Cell(describe.job_cost(job), quiet),
            Cell(arrays.note(job, now) or describe.job_note(job), "muted"),
        )

    def _note(self) -> None:
        """The line below the list: what there is to say about the chosen job."""
        job = self.job
        note = self._said
        if job is None:
            note.say("")
            return
        place = f", place {job.queue_position} in the queue" if job.queue_position else ""
        words = " · ".join(
            word for word in (arrays.note(job, self.grid.clock.now()), describe.job_note(job)) if word
        )
        words = words or {
            JobState.RUNNING: f"runs on {safetext.line(job.worker_name)}",
            JobState.SUCCEEDED: f"exit code 0 on {safetext.line(job.worker_name)}",
        }.get(job.state, "")
        look = JOB_LOOKS[job.state]
        said: list[str | tuple[str, str]] = [f"{job.id} ", (look.word, f"${_color(look.style)}"), f"{place}"]
        note.say(Content.assemble(*said, f": {words}" if words else ""))

    # -- pages -------------------------------------------------------------------------------------------

    def action_older(self) -> None:
        """Show the page before this one; of an array the next of its elements."""
        if self.elements.array_id is not None:
            self.elements.page(1)
        elif self._older is not None:
            self._newer.append(self._ceiling)
            self._read_page(self._older)

    def action_newer(self) -> None:
        """Show the page after this one; of an array the elements before."""
        if self.elements.array_id is not None:
            self.elements.page(-1)
        elif self._newer:
            self._read_page(self._newer.pop())

    def action_unfold(self) -> None:
        """Show the elements of the array under the cursor, or the jobs again."""
        job = self.job
        if self.elements.array_id is not None:
            self.fold()
        elif job is not None and job.array is not None:
            self.elements.unfold(job.id)
            self.table.move_to(0)
            self._fill()
        elif job is not None:
            self.grid.tell(f"Job {job.id} is one job; only arrays have elements.")

    def fold(self) -> None:
        """Show the jobs again, with the cursor on the array."""
        self._wanted = self.elements.array_id
        self.elements.fold()
        self._fill()

    def _elements_read(self) -> None:
        self.grid.changed()
        self._fill()

    def _read_page(self, before: int | None) -> None:
        self.run_worker(self._read(before), exclusive=True, group="page")

    async def _read(self, before: int | None) -> None:
        wanted = self.filter
        try:
            page = await self.grid.client.jobs(
                states=sorted(wanted.states),
                text=max(wanted.words, key=len, default=""),
                limit=PAGE,
                before=before,
            )
        except GridError as error:
            self.grid.tell_error(error)
            return
        self.state.put_jobs(page.jobs)
        self._ceiling, self._older = before, page.next
        self._floor = page.jobs[-1].id if page.jobs and page.next is not None else 0
        self._fill()

    # -- filter and order --------------------------------------------------------------------------------

    def action_filter(self) -> None:
        """Type a filter."""
        self.finder.open()

    def clear_filter(self) -> None:
        """Show everything again."""
        self.finder.close()
        self.table.focus()

    @on(Input.Changed)
    def _filter_typed(self, event: Input.Changed) -> None:
        event.stop()
        wanted = parse_filter(event.value)
        if wanted.unknown:
            self.finder.note(f"no state {wanted.unknown[0]}"[:30])
        else:
            self.finder.note("")
        if wanted == self.filter:
            return
        self.filter = wanted
        self._newer.clear()
        self._fill()
        if self._search is not None:
            self._search.stop()
        self._search = self.set_timer(SEARCH_DELAY_S, self._search_now)

    def _search_now(self) -> None:
        self._search = None
        self._read_page(None)

    @on(Input.Submitted)
    def _filter_entered(self, event: Input.Submitted) -> None:
        event.stop()
        self.table.focus()

    def action_sort(self) -> None:
        """Sort by the next column that is shown."""
        names = list(_SORTS)
        self._sort_by(names[(names.index(self.sort) + 1) % len(names)], self.down)

    def action_reverse(self) -> None:
        """Turn the order around."""
        self._sort_by(self.sort, not self.down)

    @on(GridTable.HeaderClicked)
    def _header_clicked(self, event: GridTable.HeaderClicked) -> None:
        event.stop()
        if event.column in _SORTS:
            self._sort_by(event.column, not self.down if event.column == self.sort else self.down)

    def _sort_by(self, column: str, down: bool) -> None:
        self.sort, self.down = column, down
        self.table.set_arrow(column, down=down)
        self._fill()

    # -- acting ------------------------------------------------------------------------------------------

    @on(GridTable.Moved)
    def _moved(self, event: GridTable.Moved) -> None:
        event.stop()
        self._note()
        self.post_message(JobChosen(event.key if isinstance(event.key, int) else None))

    @on(GridTable.Opened)
    def _opened(self, event: GridTable.Opened) -> None:
        event.stop()
        if isinstance(event.key, int):
            self.post_message(JobOpened(event.key))

    def action_cancel(self) -> None:
        """Cancel the chosen job, after asking."""
        if self.job is not None:
            deeds.cancel(self.grid, self.job)

    def action_retry(self) -> None:
        """Submit the chosen job anew."""
        if self.job is not None:
            deeds.retry(self.grid, self.job)

    def action_edit(self) -> None:
        """Put the chosen job into the editor."""
        if self.job is not None:
            deeds.edit(self.grid, self.job.id)

    def action_copy(self) -> None:
        """Copy the chosen job's id."""
        if self.job is not None:
            self.grid.copy(str(self.job.id), f"job id {self.job.id}")


def _color(style: str) -> str:
    """The theme's variable of a palette style."""
    name = style.split()[0]
    return "foreground 62%" if name == "muted" else name
