"""The dashboard: the panes on the desk, the lines around them, and what follows from what is done in one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Middle
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Button, Static

from gridx import safetext
from gridx.messages import Job
from gridx.tui import arrangement, describe, figures
from gridx.tui.commands import PANES, bindings
from gridx.tui.desk import Desk
from gridx.tui.look import JOB_LOOKS
from gridx.tui.messages import EditWanted, JobChosen, JobOpened, OutputWanted, PaneWanted, Submitted
from gridx.tui.panes.jobs import JobsPane
from gridx.tui.panes.ledger import LedgerPane
from gridx.tui.panes.log import LogPane
from gridx.tui.panes.monitor import MonitorPane
from gridx.tui.panes.output import OutputPane
from gridx.tui.panes.pane import Finder, Pane
from gridx.tui.panes.submit import SubmitPane
from gridx.tui.panes.workers import WorkersPane
from gridx.tui.screens.job import JobScreen
from gridx.tui.state import Changes
from gridx.tui.widgets.bars import Bar, KeyBar, Part
from gridx.tui.widgets.drawn import Drawn
from gridx.tui.widgets.editor import Editor
from gridx.tui.widgets.field import Field
from gridx.tui.widgets.notice import Notice

FRAME_LINES = 3
"""Lines of the screen that are not the desk's."""


class Dashboard(Screen[None], Drawn):
    """Everything on one screen."""

    BINDINGS: ClassVar[list[BindingType]] = bindings("desk")
    AUTO_FOCUS = ""

    def __init__(self) -> None:
        super().__init__()
        self.jobs = JobsPane()
        self.submit = SubmitPane()
        self.output = OutputPane()
        self.panes: tuple[Pane, ...] = (
            self.jobs,
            self.submit,
            self.output,
            MonitorPane(),
            WorkersPane(),
            LedgerPane(),
            LogPane(),
        )
        """All panes, in the order of their numbers."""
        self._head = Bar(id="head")
        self._tab_line = Bar(whole=True, id="tabs")
        self._desk = Desk(*self.panes)
        self._notice = Notice()
        self.recent: list[str] = []
        self.zoomed = False

    def compose(self) -> ComposeResult:
        yield self._head
        yield self._tab_line
        yield self._desk
        yield self._notice
        yield KeyBar(id="keys")
        with Middle(id="too-small"):
            yield Static(id="too-small-text", markup=False)

    def on_mount(self) -> None:
        self._header()
        self._notice.say(self.grid.notice)
        self.go(arrangement.FIRST[self.grid.role])

    # -- panes -------------------------------------------------------------------------------------------

    def pane(self, name: str) -> Pane:
        """A pane by its name."""
        return next(pane for pane in self.panes if name == pane.NAME)

    def _arrange(self) -> None:
        desk = self._desk
        width, height = desk.size if desk.size.area else (self.size.width, self.size.height - FRAME_LINES)
        small = self.size.width < arrangement.LEAST_WIDTH or self.size.height < arrangement.LEAST_HEIGHT
        self.set_class(small, "-small")
        if small:
            self.query_one("#too-small-text", Static).update(
                f"This needs {arrangement.LEAST_WIDTH} columns and {arrangement.LEAST_HEIGHT} lines, "
                f"and this terminal has {self.size.width} and {self.size.height}.\nMake it larger; q quits."
            )
            return
        boxes = arrangement.plan(width, height, role=self.grid.role, recent=self.recent, zoomed=self.zoomed)
        for name in desk.place(boxes):
            pane = self.pane(name)
            if pane.missed:
                pane.missed = False
                pane.shown()
        focused = self._pane_of(self.focused)
        if self.is_current and (focused is None or not focused.display):
            entry = self.pane(next(name for name in self.recent if name in boxes)).entry
            if entry is not None:
                self.set_focus(entry, scroll_visible=False)
        self._tabs()

    @on(Desk.Resized)
    def _resized(self) -> None:
        self._arrange()

    def on_resize(self) -> None:
        self._arrange()

    def bring(self, name: str) -> None:
        """Bring a pane to the front of its place."""
        self.recent = [name, *(other for other in self.recent if other != name)]
        self._arrange()

    def go(self, name: str) -> None:
        """Bring a pane to the front and give it the focus."""
        self.bring(name)
        entry = self.pane(name).entry
        if entry is not None:
            self.set_focus(entry)

    @on(events.DescendantFocus)
    def _focused(self) -> None:
        pane = self._pane_of(self.focused)  # where it is by now, should it have gone on
        if pane is not None and (not self.recent or self.recent[0] != pane.NAME):
            self.recent = [pane.NAME, *(other for other in self.recent if other != pane.NAME)]
        self._tabs()

    def _pane_of(self, widget: Widget | None) -> Pane | None:
        if widget is None:
            return None
        return next((node for node in widget.ancestors_with_self if isinstance(node, Pane)), None)

    # -- changes -----------------------------------------------------------------------------------------

    def apply(self, changes: Changes) -> None:
        """Hand changes to the panes that are seen; the others catch up when they are."""
        for pane in self.panes:
            if pane.display or isinstance(pane, OutputPane | JobsPane | SubmitPane):
                pane.apply(changes)
            else:
                pane.missed = True
        self._header()
        if changes.jobs or changes.workers or changes.reread:
            self._tabs()

    def tick(self) -> None:
        """A second went by: what shows time is drawn again."""
        for pane in self.panes:
            if pane.display:
                pane.tick()
        self._header()

    def restyle(self) -> None:
        """The theme changed."""
        for pane in self.panes:
            pane.restyle()
        self.refresh()

    def _header(self) -> None:
        grid, state = self.grid, self.grid.state
        user = safetext.line(state.user.username) if state.user else ""
        admin = " (admin)" if state.admin else ""
        left = [Part(" Grid-X ", "primary strong"), Part(f" {grid.role} "), Part(f" {user}{admin} ", "muted")]
        right: list[Part] = []
        if grid.frozen:
            right.append(Part(" PAUSED, p goes on ", "warning strong", "freeze"))
        if state.link.connected:
            if state.balance is not None:
                right.append(Part(f" {describe.credits_short(state.balance.balance)} credits ", ""))
            right.append(Part(" ● ", "success"))
            right.append(Part(f"{grid.client.url.removeprefix('http://')} ", "muted"))
        else:
            right.append(Part(f" {self._lost()} ", "warning strong"))
        self._head.show(left, right)

    def _lost(self) -> str:
        link = self.grid.state.link
        gone_s = self.grid.clock.monotonic() - link.since
        if not link.reason:
            return "starting ..." if self.grid.starting else "connecting ..."
        at = (self.grid.clock.now() - timedelta(seconds=gone_s)).astimezone()
        return f"▲ disconnected since {at:%H:%M:%S} ({figures.age(gone_s)}), trying again"

    def _tabs(self) -> None:
        state = self.grid.state
        front = self._pane_of(self.focused)
        waiting = running = 0
        for job in state.jobs.values():
            if not job.state.ended and job.array_id is None:
                if job.array is not None:
                    waiting += job.array.queued
                    running += job.array.running
                elif job.state == "queued":
                    waiting += 1
                else:
                    running += 1
        online = sum(machine.worker.state == "online" for machine in state.machines.values())
        parts: list[Part] = []
        for number, (name, title) in enumerate(PANES, 1):
            shown = self.pane(name).display
            style = "primary reverse strong" if front and name == front.NAME else "" if shown else "muted"
            parts.append(Part(f" {number} {title} ", style, f"pane('{name}')"))
        counts = [f"{running} running"] if running else []
        counts += [f"{waiting} waiting"] if waiting else []
        counts.append(f"{online} worker{'' if online == 1 else 's'}")
        self._tab_line.show(parts, [Part(f" {count} ", "muted") for count in counts])

    def watching(self, job_id: int) -> bool:
        """Whether the user sees this job's output right now."""
        return self.is_current and self.output.display and self.output.job_id == job_id

    # -- what follows ------------------------------------------------------------------------------------

    @on(JobChosen)
    def _job_chosen(self, message: JobChosen) -> None:
        self.output.choose(message.job_id)

    @on(JobOpened)
    def _job_opened(self, message: JobOpened) -> None:
        self.open_job(message.job_id)

    def open_job(self, job_id: int) -> None:
        """Open a job's own screen."""
        if not any(isinstance(screen, JobScreen) for screen in self.app.screen_stack):
            self.app.push_screen(JobScreen(job_id))

    @on(OutputWanted)
    def _output_wanted(self, message: OutputWanted) -> None:
        self.jobs.choose(message.job_id)
        self.output.choose(message.job_id)
        self.go("output")

    @on(Submitted)
    def _submitted(self, message: Submitted) -> None:
        self._follow(message.job)

    def _follow(self, job: Job) -> None:
        """A job was submitted: show what it writes, without taking the editor away where both fit."""
        self.jobs.choose(job.id)
        self.output.choose(job.id)
        others = [name for name in self.recent if name != "output"]
        self.recent = [*others[:1], "output", *others[1:]]
        self._arrange()
        if not self.output.display:
            self.go("output")

    @on(EditWanted)
    def _edit_wanted(self, message: EditWanted) -> None:
        while self.app.screen is not self and len(self.app.screen_stack) > 1:
            self.app.pop_screen()
        self.submit.load(message.spec, message.origin)
        self.go("submit")

    @on(PaneWanted)
    def _pane_wanted(self, message: PaneWanted) -> None:
        self.go(message.pane)

    # -- actions -----------------------------------------------------------------------------------------

    def action_pane(self, name: str) -> None:
        """Go to a pane."""
        self.go(name)

    def action_turn(self, step: int) -> None:
        """Go to the next pane, or the one before."""
        names = [name for name, _ in PANES]
        pane = self._pane_of(self.focused)
        at = names.index(pane.NAME) if pane is not None else 0
        self.go(names[(at + step) % len(names)])

    def action_submit(self) -> None:
        """Submit what is in the editor; if that is not on the screen, show it first."""
        if self.submit.display and not self.has_class("-small"):
            self.submit.submit()
        else:
            self.go("submit")

    def action_zoom(self) -> None:
        """Give the pane with the focus everything, or put all back."""
        self.zoomed = not self.zoomed
        self._arrange()
        self.refresh_bindings()

    def action_output(self) -> None:
        """Go to the output of the chosen job."""
        self.go("output")

    def action_freeze(self) -> None:
        """Stop the screen from changing, or go on."""
        self.grid.freeze(not self.grid.frozen)
        self._header()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """There is nothing to leave unless one is in something."""
        if action == "back":
            finder = self._finder()
            inside = isinstance(self.focused, Editor | Field) or bool(finder and finder.opened)
            inside = inside or self._unfolded()
            return inside or self.zoomed or self._notice.display
        return True

    def _unfolded(self) -> bool:
        """Whether one is among the elements of an array."""
        return self.jobs.elements.array_id is not None and self._pane_of(self.focused) is self.jobs

    def unfold(self, array_id: int) -> None:
        """Go to the elements of an array."""
        self.jobs.elements.unfold(array_id)
        self.go("jobs")

    def _finder(self) -> Finder | None:
        """The search or filter field of the pane one is in."""
        pane = self._pane_of(self.focused)
        return next(iter(pane.query(Finder)), None) if pane is not None else None

    def action_back(self) -> None:
        """Out of a filter, a field, an array, the zoom, the notice: one at a time, in this order."""
        focused = self.focused
        pane = self._pane_of(focused)
        if pane is not None:
            finder = self._finder()
            if finder is not None and finder.opened:
                finder.close()
                if pane.entry is not None:
                    self.set_focus(pane.entry)
                return
        if isinstance(focused, Editor | Field):
            if self.jobs.display:
                self.set_focus(self.jobs.table)
            else:
                self.set_focus(self.submit.query_one("#run", Button))
        elif self._unfolded():
            self.jobs.fold()
        elif self.zoomed:
            self.action_zoom()
        elif self._notice.display:
            self._notice.close()
            self.refresh_bindings()

    def announce(self, lines: Sequence[str]) -> None:
        """Show lines that stay until they are closed."""
        self._notice.say(lines)
        self.refresh_bindings()

    @on(Notice.Closed)
    def _notice_closed(self) -> None:
        self.refresh_bindings()

    def toast(self, ended: list[Job]) -> None:
        """Say which of one's jobs ended while one looked elsewhere."""
        unseen = [job for job in ended if not self._seen(job.id)]
        for job in unseen[:3]:
            look = JOB_LOOKS[job.state]
            note = describe.job_note(job)
            self.grid.tell(
                f"{look.text}: job {job.id}, {describe.job_title(job)}" + (f". {note}" if note else ""),
                severity="information" if job.state == "succeeded" else "warning",
            )
        if len(unseen) > 3:
            well = sum(job.state == "succeeded" for job in unseen[3:])
            self.grid.tell(f"{len(unseen) - 3} more jobs ended, {well} of them succeeded.")

    def _seen(self, job_id: int) -> bool:
        top = self.app.screen
        return self.watching(job_id) or (isinstance(top, JobScreen) and top.job_id == job_id)
