"""The program editor: Python colours, line numbers, undo, and no text that a terminal would obey."""

from __future__ import annotations

from typing import Final

from rich.style import Style
from textual import events
from textual.widgets import TextArea
from textual.widgets.text_area import TextAreaTheme

from gridx import safetext
from gridx.tui.widgets.drawn import Drawn
from gridx.tui.widgets.inorder import act_at_once

_DARK: Final = {
    "keyword": "#c9a6ff",
    "string": "#9bd6b4",
    "number": "#f2cc60",
    "comment": "#7d8894",
    "function": "#6cb6ff",
    "type": "#f2cc60",
    "builtin": "#ffb08a",
}
_LIGHT: Final = {
    "keyword": "#7a3fc0",
    "string": "#00694f",
    "number": "#8a5a00",
    "comment": "#6b7580",
    "function": "#0860ca",
    "type": "#8a5a00",
    "builtin": "#b8400c",
}


def _theme(name: str, colors: dict[str, str]) -> TextAreaTheme:
    def style(kind: str) -> Style:
        return Style(color=colors[kind])

    return TextAreaTheme(
        name=name,
        syntax_styles={
            **dict.fromkeys(
                ("keyword", "keyword.function", "keyword.return", "keyword.operator"), style("keyword")
            ),
            **dict.fromkeys(
                ("conditional", "repeat", "include", "exception", "operator.word"), style("keyword")
            ),
            **dict.fromkeys(("string", "string.documentation"), style("string")),
            **dict.fromkeys(("number", "float", "boolean", "constant.builtin"), style("number")),
            "comment": Style(color=colors["comment"], italic=True),
            **dict.fromkeys(("function", "function.call", "method", "method.call"), style("function")),
            **dict.fromkeys(("type", "class", "type.class", "constructor"), style("type")),
            **dict.fromkeys(("function.builtin", "variable.builtin", "type.builtin"), style("builtin")),
        },
    )


class Editor(TextArea, Drawn):
    """A text area for programs. It refuses control characters, whether typed, pasted or loaded."""

    def __init__(self, text: str = "", *, read_only: bool = False, id: str | None = None) -> None:
        super().__init__(
            safetext.clean(text),
            language="python",
            theme="css",
            soft_wrap=False,
            tab_behavior="indent",
            read_only=read_only,
            show_line_numbers=True,
            max_checkpoints=200,
            id=id,
            compact=True,
        )
        self.cursor_blink = False

    def on_mount(self) -> None:
        self.register_theme(_theme("grid-dark", _DARK))
        self.register_theme(_theme("grid-light", _LIGHT))
        self.register_theme(TextAreaTheme(name="grid-plain"))
        self.restyle()

    def restyle(self) -> None:
        """Take the colours of the application's theme."""
        dark = self.app.current_theme.dark
        self.theme = "grid-plain" if self.app.no_color else "grid-dark" if dark else "grid-light"

    def put(self, text: str) -> int:
        """Set the whole text; how many characters had to be left out because they cannot be shown."""
        text = text.replace("\r\n", "\n")
        safe = safetext.clean(text)
        self.replace(safe, (0, 0), self.document.end)
        self.move_cursor((0, 0))
        return len(text) - len(safe)

    async def _on_key(self, event: events.Key) -> None:
        await act_at_once(self, event)

    async def _on_paste(self, event: events.Paste) -> None:
        event.prevent_default()
        event.stop()
        if not self.read_only:
            text = safetext.clean(event.text.replace("\r\n", "\n").replace("\r", "\n"))
            if result := self._replace_via_keyboard(text, *self.selection):
                self.move_cursor(result.end_location)
