"""What all panes have in common: a frame with a title, and when they are told of changes."""

from __future__ import annotations

from typing import ClassVar, Self

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.geometry import Region
from textual.widget import Widget
from textual.widgets import Static

from gridx.tui.commands import PANES
from gridx.tui.state import Changes, GridState
from gridx.tui.widgets.drawn import Drawn
from gridx.tui.widgets.field import Field

NUMBERS = {name: n for n, (name, _) in enumerate(PANES, 1)}
TITLES = dict(PANES)


class Pane(Vertical, Drawn):
    """One part of the dashboard."""

    NAME: ClassVar[str]

    def __init__(self) -> None:
        super().__init__(id=self.NAME, classes="pane")
        self._titled: tuple[str, str] | None = None
        self._titling = False
        self.missed = True
        """Something changed while the pane was not on the screen."""
        self.title()

    @property
    def state(self) -> GridState:
        """What is known of the grid."""
        return self.grid.state

    @property
    def entry(self) -> Widget | None:
        """What gets the focus when one goes to the pane."""
        return None

    def title(self, about: str = "", right: str = "") -> None:
        """Set the frame's title: number, name and a few words; ``right`` stands at its lower edge."""
        before, self._titled = self._titled, (about, right)
        self._titling = True
        try:
            if before is None or about != before[0]:
                words = f"{NUMBERS[self.NAME]} {TITLES[self.NAME]}"
                self.border_title = Content.assemble(words, (f"  {about}" if about else "", "not bold"))
            if before is None or right != before[1]:
                self.border_subtitle = Content(right)
        finally:
            self._titling = False

    def refresh(
        self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False
    ) -> Self:
        """As ever; but a new title draws the frame's two lines, and not all that is in the pane."""
        if self._titling:
            width, height = self.outer_size
            regions = (Region(-1, -1, width, 1), Region(-1, height - 2, width, 1))
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)

    def apply(self, changes: Changes) -> None:
        """Take changes in; called at most four times a second, and only while the pane is shown."""

    def shown(self) -> None:
        """The pane came to the screen after changes that it has not seen."""

    def tick(self) -> None:
        """A second went by."""

    def restyle(self) -> None:
        """The theme changed."""
        for widget in self.query("GridTable, LineView, Editor"):
            restyle = getattr(widget, "restyle", None)
            if restyle is not None:
                restyle()


class Finder(Static):
    """A search or filter field at the foot of a pane, out of the way until it is wanted."""

    DEFAULT_CSS = """
    Finder { height: 1; layout: horizontal; display: none; }
    Finder.-open { display: block; }
    Finder Static { width: auto; padding: 0 1 0 0; }
    Finder Field { width: 1fr; }
    """

    def __init__(self, label: str, placeholder: str) -> None:
        super().__init__()
        self._label = label
        self.field = Field(placeholder=placeholder)
        self._said = Static("", classes="note", markup=False)

    def compose(self) -> ComposeResult:
        yield Static(self._label, markup=False)
        yield self.field
        yield self._said

    @property
    def text(self) -> str:
        """What was typed."""
        return self.field.value

    @property
    def opened(self) -> bool:
        """Whether it is on the screen."""
        return self.has_class("-open")

    def open(self) -> None:
        """Show it, and type into it."""
        self.add_class("-open")
        self.screen.set_focus(self.field)  # at once: what is typed next belongs here

    def close(self) -> None:
        """Hide it, and forget what was typed."""
        self.remove_class("-open")
        self.field.value = ""
        self.note("")

    def note(self, text: str) -> None:
        """A few words behind the field."""
        self._said.update(Content(text))
