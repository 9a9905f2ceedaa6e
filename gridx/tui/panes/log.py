"""What this process has logged: bounded, by level, searchable."""

from __future__ import annotations

import logging
from typing import Final

from textual import on
from textual.app import ComposeResult
from textual.widget import Widget
from textual.widgets import Input

from gridx.tui.commands import bindings
from gridx.tui.logbook import LogLine
from gridx.tui.panes.pane import Finder, Pane
from gridx.tui.state import Changes
from gridx.tui.widgets.lines import Line, LineView

LEVELS: Final = (logging.INFO, logging.WARNING, logging.ERROR, logging.DEBUG)
_STYLES: Final = ((logging.ERROR, "error"), (logging.WARNING, "warning"), (logging.INFO, ""), (0, "muted"))
_MARKS: Final = ((logging.ERROR, "E "), (logging.WARNING, "W "), (logging.INFO, "  "), (0, "d "))


class LogPane(Pane):
    """The log, newest line last."""

    NAME = "log"
    BINDINGS = bindings("log")

    def __init__(self) -> None:
        super().__init__()
        self.level = logging.INFO
        self._seen = 0
        self.view = LineView(marks=2, empty="Nothing was logged yet.", words=True)
        self.finder = Finder("search", "text; n and N go on and back")

    def compose(self) -> ComposeResult:
        yield self.view
        yield self.finder

    @property
    def entry(self) -> Widget:
        return self.view

    def apply(self, changes: Changes) -> None:
        self._read()

    def shown(self) -> None:
        self._read()

    def tick(self) -> None:
        self._read()

    def _read(self) -> None:
        new = self.grid.logbook.since(self._seen)
        if new:
            self._seen = new[-1].number
            lines = [self._line(line) for line in new if line.level >= self.level]
            if lines:
                self.view.extend(lines)
        self._describe()

    def _line(self, line: LogLine) -> Line:
        style = next(style for level, style in _STYLES if line.level >= level)
        mark = next(mark for level, mark in _MARKS if line.level >= level)
        at = line.at.astimezone().strftime("%H:%M:%S")
        return Line(f"{at} {line.source.removeprefix('gridx.')}: {line.text}", style, mark, style)

    def _describe(self) -> None:
        follow = "FOLLOW" if self.view.following else "PAUSED"
        self.title(f"{logging.getLevelName(self.level).lower()} and above · {follow}")

    def action_level(self) -> None:
        """Show from the next level on."""
        self.level = LEVELS[(LEVELS.index(self.level) + 1) % len(LEVELS)]
        self._seen = 0
        self.view.clear()
        self._read()

    @on(LineView.Following)
    def _following(self, event: LineView.Following) -> None:
        event.stop()
        self._describe()

    @on(LineView.SearchWanted)
    def _search(self, event: LineView.SearchWanted) -> None:
        event.stop()
        if isinstance(event, LineView.CopyWanted):
            text = event.text or self.view.text()[-60_000:]
            self.grid.copy(text, f"{len(text):,} characters of the log")
        else:
            self.finder.open()

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        found = self.view.search(event.value)
        self.finder.note(f"{found} lines" if event.value else "")

    @on(Input.Submitted)
    def _entered(self, event: Input.Submitted) -> None:
        event.stop()
        self.view.focus()
        self.view.action_match(1)
