"""Text that comes in line by line: followed, wrapped, searched, selected, and bounded.

Only the lines one sees are drawn, so 100,000 lines and lines of a megabyte cost no more than short ones. Each
line has a mark in front (which stream it is of) and a style; its text is safe and is never read as markup.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from rich.segment import Segment
from textual import events
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip

from gridx.tui.cells import wrap, wrap_words
from gridx.tui.commands import bindings
from gridx.tui.widgets.drawn import Drawn

MAX_LINES: Final = 20_000
MAX_ROWS: Final = 60_000
"""Rows on the screen that are kept after wrapping; the oldest go first."""


class Line(NamedTuple):
    """One line, without its newline."""

    text: str
    style: str = ""
    mark: str = ""
    """Drawn in the gutter; empty for none."""
    mark_style: str = ""


class LineView(ScrollView, Drawn, can_focus=True):
    """Lines, the newest last.

    Args:
        marks: width of the column for marks, in cells.
        empty: what is shown while there are no lines.
        words: long lines break between words, as prose does; a program's output breaks where it must.
    """

    BINDINGS = bindings("lines")
    DEFAULT_CSS = """
    LineView { overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1; height: 1fr; }
    """

    class Following(Message):
        """Whether the view stays at the newest line has changed."""

        def __init__(self, view: LineView) -> None:
            super().__init__()
            self.view = view

        @property
        def control(self) -> LineView:
            """The view, for ``@on`` selectors."""
            return self.view

    class SearchWanted(Message):
        """The key for searching was pressed."""

        def __init__(self, view: LineView) -> None:
            super().__init__()
            self.view = view

        @property
        def control(self) -> LineView:
            """The view, for ``@on`` selectors."""
            return self.view

    class CopyWanted(SearchWanted):
        """The key for copying was pressed; ``text`` is what was selected with the mouse, if anything."""

        def __init__(self, view: LineView, text: str) -> None:
            super().__init__(view)
            self.text = text

    def __init__(
        self, *, marks: int = 0, empty: str = "", words: bool = False, id: str | None = None
    ) -> None:
        super().__init__(id=id)
        self._wrap = wrap_words if words else wrap
        self.margin_cells = marks
        self.empty = empty
        self.lines: list[Line] = []
        self.following = True
        self.dropped = 0
        """Lines that were let go to stay within bounds."""
        self.pattern = ""
        self._rows: list[tuple[int, int, int]] = []
        self._width = 0
        self._match = -1

    # -- content -----------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Forget everything."""
        self.lines.clear()
        self._rows.clear()
        self.dropped = 0
        self._match = -1
        self.following = True
        self._resized()
        self.refresh()

    def extend(self, lines: Iterable[Line]) -> None:
        """Add lines at the end."""
        for line in lines:
            self._add(line)
        self._settle()

    def amend(self, line: Line) -> None:
        """Put a line in the place of the last one: it goes on, or was written over."""
        last = len(self.lines) - 1
        if last < 0:
            self.extend([line])
            return
        while self._rows and self._rows[-1][0] == last:
            self._rows.pop()
        self.lines.pop()
        self._add(line)
        self._settle()

    def text(self) -> str:
        """All that is kept, as text."""
        return "\n".join(line.text for line in self.lines)

    def _add(self, line: Line) -> None:
        index = len(self.lines)
        self.lines.append(line)
        if self._width:
            self._rows.extend((index, start, end) for start, end in self._wrap(line.text, self._width))

    def _settle(self) -> None:
        if len(self.lines) > MAX_LINES or len(self._rows) > MAX_ROWS:
            cut = max(0, len(self.lines) - MAX_LINES * 9 // 10)
            if len(self._rows) > MAX_ROWS:
                cut = max(cut, self._rows[len(self._rows) - MAX_ROWS * 9 // 10][0])
            cut = min(cut, len(self.lines) - 1)
            del self.lines[:cut]
            self.dropped += cut
            self._match = -1
            self._rewrap()
        self._resized()
        self.refresh()

    def _rewrap(self) -> None:
        self._rows = [
            (index, start, end)
            for index, line in enumerate(self.lines)
            for start, end in self._wrap(line.text, self._width)
        ]

    def _resized(self) -> None:
        self.virtual_size = Size(self.size.width, len(self._rows))
        if self.following:
            self.scroll_end(animate=False, immediate=True, x_axis=False, force=True)

    def on_resize(self) -> None:
        width = max(1, self.size.width - self.margin_cells - 1)  # the last cell is the scrollbar's
        if width != self._width:
            self._width = width
            self._rewrap()
            self._resized()
            self.refresh()
        elif self.following:
            self.scroll_end(animate=False, immediate=True, x_axis=False, force=True)

    def restyle(self) -> None:
        """Draw everything again, for a new theme."""
        self.refresh()

    # -- drawing -----------------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        base = self.rich_style
        palette = self.grid.palette
        at = self.scroll_offset.y + y
        if at >= len(self._rows):
            if not self.lines and y == 1 and self.empty:
                text = (" " + self.empty)[:width]
                return Strip([Segment(text, base + palette.style("muted"))]).adjust_cell_length(width, base)
            return Strip.blank(width, base)
        index, start, end = self._rows[at]
        line = self.lines[index]
        mark = (line.mark if start == 0 else "").ljust(self.margin_cells)
        segments = [Segment(mark, base + palette.style(line.mark_style))] if self.margin_cells else []
        style = base + palette.style(line.style) if line.style else base
        piece = line.text[start:end]
        spans = self._spans(index, start, end)
        if (chosen := self._selected(at)) is not None:
            spans = [(*chosen, "reverse")]
        done = 0
        for first, last, name in spans:
            segments.append(Segment(piece[done:first], style))
            segments.append(Segment(piece[first:last], style + palette.style(name)))
            done = last
        segments.append(Segment(piece[done:], style))
        return Strip(segments).adjust_cell_length(width, base).apply_offsets(-self.margin_cells, at)

    def _spans(self, index: int, start: int, end: int) -> list[tuple[int, int, str]]:
        """Where the searched text stands in one row; a match over a break is marked in both rows."""
        if not self.pattern:
            return []
        text = self.lines[index].text
        if len(text) > 4096:
            around = max(0, start - len(self.pattern))
            text, shift = text[around : end + len(self.pattern)], around
        else:
            shift = 0
        folded, wanted = text.casefold(), self.pattern
        if len(folded) != len(text):
            folded = text.lower() if len(text.lower()) == len(text) else text
        found, at = [], folded.find(wanted)
        while at >= 0:
            first, last = max(start, at + shift), min(end, at + shift + len(wanted))
            if first < last:
                found.append((first - start, last - start, "found"))
            at = folded.find(wanted, at + len(wanted))
        return found

    # -- searching ---------------------------------------------------------------------------------------

    def search(self, text: str) -> int:
        """Mark every place of ``text``, without regard to case; how many lines have it."""
        self.pattern = text.casefold()
        self._match = -1
        self.refresh()
        return sum(self.pattern in line.text.casefold() for line in self.lines) if self.pattern else 0

    def action_match(self, step: int) -> None:
        """Go to the next line that has what is searched."""
        if not self.pattern or not self.lines:
            return
        count = len(self.lines)
        start = self._match if self._match >= 0 else (-1 if step > 0 else count)
        for distance in range(1, count + 1):
            index = (start + step * distance) % count
            if self.pattern in self.lines[index].text.casefold():
                self._match = index
                self._set_following(False)
                row = next(i for i, found in enumerate(self._rows) if found[0] == index)
                self.scroll_to(y=max(0, row - self.size.height // 2), animate=False, force=True)
                return

    # -- selecting ---------------------------------------------------------------------------------------

    @property
    def allow_select(self) -> bool:
        return True

    def _selected(self, row: int) -> tuple[int, int] | None:
        selection = self.text_selection
        if selection is None or (span := selection.get_span(row)) is None:
            return None
        first, last = span
        _, start, end = self._rows[row]
        return max(0, first), end - start if last == -1 else min(last, end - start)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The text of the rows under the selection; rows of one line are put together again."""
        parts: list[str] = []
        before = -1
        for row, (index, start, end) in enumerate(self._rows):
            span = selection.get_span(row)
            if span is None:
                continue
            first, last = span
            piece = self.lines[index].text[start:end]
            piece = piece[first:] if last == -1 else piece[first:last]
            if before not in (-1, index):
                parts.append("\n")
            parts.append(piece)
            before = index
        return ("".join(parts), "\n") if parts else None

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()

    # -- acting ------------------------------------------------------------------------------------------

    def _set_following(self, value: bool) -> None:
        if value != self.following:
            self.following = value
            self.post_message(self.Following(self))
        if value:
            self.scroll_end(animate=False, immediate=True, x_axis=False, force=True)

    def _moved(self) -> None:
        """After moving: at the end one follows again, elsewhere not."""
        self._set_following(self.scroll_offset.y >= self.max_scroll_y)

    def action_scroll(self, lines: int) -> None:
        """Move by lines."""
        self.scroll_to(y=self.scroll_offset.y + lines, animate=False, force=True)
        self._moved()

    def action_scroll_pages(self, pages: int) -> None:
        """Move by screenfuls."""
        self.action_scroll(pages * max(1, self.size.height - 1))

    def action_first(self) -> None:
        """Go to the beginning."""
        self.scroll_to(y=0, animate=False, force=True)
        self._moved()

    def action_last(self) -> None:
        """Go to the end, and follow."""
        self._set_following(True)

    def action_follow(self) -> None:
        """Follow, or stop following."""
        self._set_following(not self.following)

    def action_search(self) -> None:
        """Ask the pane for its search field."""
        self.post_message(self.SearchWanted(self))

    def action_copy(self) -> None:
        """Ask the pane to copy."""
        self.post_message(self.CopyWanted(self, self.screen.get_selected_text() or ""))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        event.prevent_default()
        self.action_scroll(-3)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        event.prevent_default()
        self.action_scroll(3)
