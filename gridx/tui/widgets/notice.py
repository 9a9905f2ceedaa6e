"""Lines above the keys that stay until they are closed: what is to be known at a first start."""

from __future__ import annotations

from collections.abc import Sequence

from textual import events
from textual.content import Content
from textual.message import Message
from textual.widgets import Static


class Notice(Static):
    """Said once, and in nobody's way: it takes no focus, and Esc or a click closes it."""

    DEFAULT_CSS = "Notice { height: auto; max-height: 8; width: 100%; display: none; }"

    class Closed(Message):
        """It was read."""

    def __init__(self) -> None:
        super().__init__(id="notice", markup=False)

    def say(self, lines: Sequence[str]) -> None:
        """Show these lines, the first of them as a heading."""
        if lines:
            first, *rest = lines
            self.update(Content.assemble((first, "bold"), *(f"\n{line}" for line in rest)))
            self.display = True

    def close(self) -> None:
        """Hide it for good; what it said is forgotten too, since it may have been a password."""
        self.update("")
        self.display = False

    def on_click(self, event: events.Click) -> None:
        event.stop()
        self.close()
        self.post_message(self.Closed())
