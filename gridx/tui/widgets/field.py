"""A one-line text field that takes no control characters and does not blink."""

from __future__ import annotations

from textual import events
from textual.widgets import Input

from gridx import safetext
from gridx.tui.widgets.inorder import act_at_once


class Field(Input):
    """An input without a frame; its label stands beside it."""

    def __init__(
        self, value: str = "", *, placeholder: str = "", password: bool = False, id: str | None = None
    ) -> None:
        super().__init__(
            safetext.line(value), placeholder=placeholder, password=password, id=id, compact=True
        )
        self.cursor_blink = False

    async def _on_key(self, event: events.Key) -> None:
        await act_at_once(self, event)

    def _on_paste(self, event: events.Paste) -> None:
        event.prevent_default()
        event.stop()
        if self.password:
            self.insert_text_at_cursor(event.text.rstrip("\r\n"))
        else:
            self.insert_text_at_cursor(safetext.line(event.text, limit=4000))
