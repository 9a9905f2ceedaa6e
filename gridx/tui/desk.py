"""The desk: lays the panes out as :mod:`gridx.tui.arrangement` plans it, and hides the others."""

from __future__ import annotations

from collections.abc import Mapping

from textual.containers import Container
from textual.geometry import NULL_OFFSET, Region, Size, Spacing
from textual.layout import ArrangeResult, Layout, WidgetPlacement
from textual.message import Message
from textual.widget import Widget

from gridx.tui.arrangement import Box


class DeskLayout(Layout):
    """Puts each child where it was told to be."""

    name = "desk"

    def __init__(self) -> None:
        self.boxes: Mapping[str, Box] = {}

    def arrange(
        self, parent: Widget, children: list[Widget], size: Size, greedy: bool = True
    ) -> ArrangeResult:
        nothing = Spacing()
        return [
            WidgetPlacement(Region(*self.boxes[child.id]), NULL_OFFSET, nothing, child)
            for child in children
            if child.id is not None and child.id in self.boxes
        ]


class Desk(Container):
    """Holds the panes."""

    DEFAULT_CSS = "Desk { height: 1fr; width: 100%; overflow: hidden; }"

    class Resized(Message):
        """The desk has another size; it has to be arranged anew."""

    def __init__(self, *children: Widget) -> None:
        super().__init__(*children)
        self._desk_layout = DeskLayout()

    @property
    def layout(self) -> Layout:
        """Its own."""
        return self._desk_layout

    def on_resize(self) -> None:
        self.post_message(self.Resized())

    def place(self, boxes: Mapping[str, Box]) -> list[str]:
        """Show these panes there, and no others; the panes that were hidden before."""
        appeared = []
        for child in self.children:
            wanted = child.id in boxes
            if wanted and not child.display:
                appeared.append(str(child.id))
            child.display = wanted
        if boxes != self._desk_layout.boxes:
            self._desk_layout.boxes = dict(boxes)
            self.refresh(layout=True)
        return appeared
