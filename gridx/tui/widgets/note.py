"""A few lines of text below a list; laid out again only when their number may have changed."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static


class Note(Static):
    """Text that is never read as markup; saying the same again costs nothing."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False)
        self._last = Content("")

    def say(self, text: Content | str) -> None:
        """Show a text."""
        new = Content(text) if isinstance(text, str) else text
        if new == self._last and new.spans == self._last.spans:
            return
        same_room = len(new.plain) == len(self._last.plain)
        self._last = new
        self.update(new, layout=not same_room)
