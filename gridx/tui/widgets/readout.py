"""A block of drawn lines: bars, small graphs and figures, without any markup."""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment
from textual.strip import Strip

from gridx.tui.widgets.bars import Part
from gridx.tui.widgets.drawn import Drawn


class Readout(Drawn):
    """As many lines high as it has lines; a line that did not change is not drawn again."""

    DEFAULT_CSS = "Readout { height: auto; width: 100%; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines: list[tuple[Part, ...]] = []

    def show(self, lines: Sequence[Sequence[Part]]) -> None:
        """Set the lines."""
        new = [tuple(line) for line in lines]
        if new == self._lines:
            return
        resized = len(new) != len(self._lines)
        self._lines = new
        if resized:
            self.styles.height = len(new)
        self.refresh(layout=resized)

    @property
    def plain(self) -> str:
        """What it says, without styles."""
        return "\n".join("".join(part.text for part in line) for line in self._lines)

    def render_line(self, y: int) -> Strip:
        base = self.rich_style
        if y >= len(self._lines):
            return Strip.blank(self.size.width, base)
        palette = self.grid.palette
        segments = [
            Segment(part.text, base + palette.style(part.style) if part.style else base)
            for part in self._lines[y]
        ]
        return Strip(segments).adjust_cell_length(self.size.width, base)
