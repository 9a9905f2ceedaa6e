"""A table that draws only the lines one sees, so that its length costs nothing.

Rows are known by their keys; cells are asked for when a line is drawn, and it is drawn again only when they
differ from what is on the screen. Columns have fixed widths, and the least important ones go when the
table is narrow. Cells are plain text with the name of a style: nothing in them is ever read as markup.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from gridx.tui.cells import fit
from gridx.tui.commands import bindings
from gridx.tui.widgets.drawn import Drawn

Key = int | str


class Cell(NamedTuple):
    """One cell: text that is safe to print and a style of the palette."""

    text: str
    style: str = ""


Row = Sequence[Cell]


@dataclass(frozen=True, slots=True)
class Column:
    """A column; ``rank`` 0 is always shown, and the highest rank goes first where it is narrow."""

    key: str
    title: str
    width: int
    rank: int = 0
    right: bool = False
    stretch: bool = False
    """Takes the cells that are left; ``width`` is then the least it needs."""


def fit_columns(columns: Sequence[Column], width: int) -> list[tuple[int, int]]:
    """The columns that fit into ``width`` cells: (index, width) of each, in order."""
    kept = list(range(len(columns)))

    def needed() -> int:
        return sum(columns[i].width for i in kept) + max(0, len(kept) - 1)

    while needed() > width and any(columns[i].rank for i in kept):
        kept.remove(max(kept, key=lambda i: (columns[i].rank, i)))
    spare = max(0, width - needed())
    stretching = [i for i in kept if columns[i].stretch]
    result = []
    for i in kept:
        extra = spare // len(stretching) if i in stretching else 0
        if stretching and i == stretching[-1]:
            extra = spare - spare // len(stretching) * (len(stretching) - 1)
        result.append((i, columns[i].width + extra))
    return result


class GridTable(ScrollView, Drawn, can_focus=True):
    """A list with a cursor.

    Args:
        columns: all columns; those that fit are shown.
        cells: gives the cells of a key, one per column; None for a key that is gone.
        empty: what is shown while there are no rows.
        sticky: the cursor stays on its row also while it is on the first one and others come before it.
    """

    BINDINGS = bindings("table")
    DEFAULT_CSS = """
    GridTable { overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1; height: 1fr; }
    """

    class Moved(Message):
        """The cursor is on another row, or on none."""

        def __init__(self, table: GridTable, key: Key | None) -> None:
            super().__init__()
            self.table = table
            self.key = key

        @property
        def control(self) -> GridTable:
            """The table, for ``@on`` selectors."""
            return self.table

    class Opened(Message):
        """A row was opened: Enter or a double click."""

        def __init__(self, table: GridTable, key: Key) -> None:
            super().__init__()
            self.table = table
            self.key = key

        @property
        def control(self) -> GridTable:
            """The table, for ``@on`` selectors."""
            return self.table

    class HeaderClicked(Message):
        """The title of a column was clicked."""

        def __init__(self, table: GridTable, column: str) -> None:
            super().__init__()
            self.table = table
            self.column = column

        @property
        def control(self) -> GridTable:
            """The table, for ``@on`` selectors."""
            return self.table

    def __init__(
        self,
        columns: Sequence[Column],
        cells: Callable[[Key], Row | None],
        *,
        empty: str = "",
        sticky: bool = True,
        id: str | None = None,
    ) -> None:
        super().__init__(id=id)
        self.columns = columns
        self.empty = empty
        self.sticky = sticky
        self.keys: Sequence[Key] = ()
        self.cursor = 0
        self._cells = cells
        self._drawn: dict[Key, Row] = {}
        self._fitted: list[tuple[int, int]] = []
        self._arrow: tuple[str, bool] | None = None

    # -- rows --------------------------------------------------------------------------------------------

    @property
    def key(self) -> Key | None:
        """The row under the cursor."""
        return self.keys[self.cursor] if 0 <= self.cursor < len(self.keys) else None

    def show(self, keys: Sequence[Key]) -> None:
        """Set the rows. The cursor stays on its row, or where that was if it is gone."""
        before, old = self.key, self.keys
        if keys != old:
            self.keys = keys
            if not self.sticky and self.cursor == 0:
                pass
            elif before is not None and not (self.cursor < len(keys) and keys[self.cursor] == before):
                try:
                    self.cursor = keys.index(before)
                except ValueError:
                    self.cursor = max(0, min(self.cursor, len(keys) - 1))
            if len(keys) != len(old):
                self._measure()
            if len(self._drawn) > 4 * len(keys) + 100:
                self._drawn.clear()
            self._reveal(keep=True)
            self.refresh()
            if self.key != before:
                self.post_message(self.Moved(self, self.key))
        else:
            self.refresh_rows()

    def refresh_rows(self, keys: Collection[Key] | None = None) -> None:
        """Draw the visible lines again whose cells changed; of ``keys`` only, if given."""
        for y, key in self._visible():
            if keys is not None and key not in keys:
                continue
            row = self._cells(key)
            if row is not None and row != self._drawn.get(key):
                self.refresh(Region(0, y, self.size.width, 1))

    def select(self, key: Key) -> None:
        """Put the cursor on a row."""
        if key in self.keys:
            self.move_to(self.keys.index(key))

    def set_arrow(self, column: str, *, down: bool) -> None:
        """Show by which column, and which way, the rows are sorted."""
        self._arrow = (column, down)
        self.refresh(Region(0, 0, self.size.width, 1))

    def move_to(self, index: int) -> None:
        """Put the cursor on a line, and bring it into view."""
        index = max(0, min(index, len(self.keys) - 1))
        if index == self.cursor:
            self._reveal()
            return
        old, self.cursor = self.cursor, index
        self._reveal()
        for line in (old, index):
            self.refresh(Region(0, line - self.scroll_offset.y + 1, self.size.width, 1))
        self.post_message(self.Moved(self, self.key))

    def _visible(self) -> list[tuple[int, Key]]:
        top = self.scroll_offset.y
        return [(y + 1, key) for y, key in enumerate(self.keys[top : top + max(0, self.size.height - 1)])]

    def _reveal(self, *, keep: bool = False) -> None:
        """Scroll so that the cursor is seen; with ``keep`` only if the top of the list moved under it."""
        window = max(1, self.size.height - 1)
        top = self.scroll_offset.y
        if keep and top == 0 and self.cursor >= window and not self.has_focus:
            return
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False, force=True)
        elif self.cursor >= top + window:
            self.scroll_to(y=self.cursor - window + 1, animate=False, force=True)

    def _measure(self) -> None:
        # A cell for the cursor's mark, and one for the scrollbar, which lies over the last.
        fitted = fit_columns(self.columns, max(0, self.size.width - 2))
        if fitted != self._fitted:
            self._fitted = fitted
            self.refresh()
        size = Size(self.size.width, len(self.keys) + 1)
        if self.show_vertical_scrollbar and size.height > self.size.height and self.size.height:
            # Only the scrollbar's thumb changes: no reason to lay out the whole screen again.
            self.set_reactive(GridTable.virtual_size, size)
            self.vertical_scrollbar.window_virtual_size = size.height
        else:
            self.virtual_size = size

    # -- drawing -----------------------------------------------------------------------------------------

    def on_resize(self) -> None:
        self._measure()
        self._reveal()

    def restyle(self) -> None:
        """Draw everything again, for a new theme."""
        self._drawn.clear()
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        base = self.rich_style
        if y == 0:
            return self._header(width, base)
        index = self.scroll_offset.y + y - 1
        if not self.keys and y == 2 and self.empty:
            style = base + self.grid.palette.style("muted")
            return Strip([Segment(fit(" " + self.empty, width), style)], width)
        if index >= len(self.keys):
            return Strip.blank(width, base)
        key = self.keys[index]
        row = self._cells(key)
        if row is None:
            return Strip.blank(width, base)
        self._drawn[key] = row
        chosen = index == self.cursor
        mark = " "
        if chosen:
            base += self.grid.palette.style("cursor" if self.has_focus else "resting")
            mark = "›"
        segments = [Segment(mark, base + self.grid.palette.style("primary strong"))]
        self._lay(segments, [row[i] for i, _ in self._fitted], base)
        return Strip(segments).adjust_cell_length(width, base)

    def _header(self, width: int, base: Style) -> Strip:
        cells = []
        style = "muted"
        for i, _ in self._fitted:
            column = self.columns[i]
            title = column.title
            if self._arrow and self._arrow[0] == column.key:
                arrow = "↓" if self._arrow[1] else "↑"
                title = f"{title}{arrow}"
            cells.append(Cell(title, style))
        segments = [Segment(" ", base)]
        self._lay(segments, cells, base)
        return Strip(segments).adjust_cell_length(width, base)

    def _lay(self, segments: list[Segment], cells: Sequence[Cell], base: Style) -> None:
        palette = self.grid.palette
        last = len(cells) - 1
        for n, ((i, width), cell) in enumerate(zip(self._fitted, cells, strict=True)):
            text = fit(cell.text, width, right=self.columns[i].right)
            segments.append(Segment(text, base + palette.style(cell.style) if cell.style else base))
            if n != last:
                segments.append(Segment(" ", base))

    # -- acting ------------------------------------------------------------------------------------------

    def watch_has_focus(self, value: bool) -> None:
        super().watch_has_focus(value)
        self.refresh(Region(0, self.cursor - self.scroll_offset.y + 1, self.size.width, 1))

    def on_click(self, event: events.Click) -> None:
        event.stop()
        if event.y == 0:
            at = 1
            for i, width in self._fitted:
                if at <= event.x < at + width:
                    self.post_message(self.HeaderClicked(self, self.columns[i].key))
                at += width + 1
            return
        index = self.scroll_offset.y + event.y - 1
        if index < len(self.keys):
            self.move_to(index)
            if event.chain == 2 and self.key is not None:
                self.post_message(self.Opened(self, self.key))

    def action_move(self, lines: int) -> None:
        """Move the cursor by lines."""
        self.move_to(self.cursor + lines)

    def action_page(self, pages: int) -> None:
        """Move the cursor by screenfuls."""
        self.move_to(self.cursor + pages * max(1, self.size.height - 2))

    def action_first(self) -> None:
        """Move the cursor to the first row."""
        self.move_to(0)

    def action_last(self) -> None:
        """Move the cursor to the last row."""
        self.move_to(len(self.keys) - 1)

    def action_open(self) -> None:
        """Open the row under the cursor."""
        if self.key is not None:
            self.post_message(self.Opened(self, self.key))
