"""Every key that works where one is, made from the bindings in force."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import ActiveBinding, Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from gridx.tui.cells import wrap_words
from gridx.tui.commands import COMMANDS
from gridx.tui.widgets.bars import KeyBar

ABOUT = (
    "A job goes from queued over assigned and running to its end. What it costs at most is held when it is "
    "submitted; what it did cost is settled when it ends, and the rest is given back."
)
KEYS = 21
"""Cells of the column with the keys."""
_HEADINGS = {
    "app": "Everywhere",
    "desk": "Dashboard",
    "table": "In lists",
    "lines": "In texts",
    "jobs": "Jobs",
    "submit": "Submit",
    "output": "Output",
    "workers": "Workers",
    "ledger": "Ledger",
    "log": "Log",
    "job": "This job",
}


class HelpScreen(ModalScreen[None]):
    """The keys, by where they work."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,f1", "leave", "Close", tooltip="Close the help.", id="help_close"),
        Binding("j", "scroll(2)", show=False),
        Binding("k", "scroll(-2)", show=False),
    ]

    def __init__(self, active: Iterable[ActiveBinding]) -> None:
        super().__init__()
        self._active = list(active)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog list"):
            yield Static("What the keys do here. Esc closes.", classes="question", markup=False)
            with VerticalScroll():
                yield Static(id="help-text", markup=False)
        yield KeyBar()

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()

    def on_resize(self) -> None:
        self.call_after_refresh(self._write)

    def _write(self) -> None:
        width = self.query_one(VerticalScroll).size.width - 2  # without the scrollbar
        self.query_one("#help-text", Static).update(self._text(max(KEYS + 10, width)))

    def _text(self, width: int) -> Content:
        scopes = {command.id: command.scope for command in COMMANDS}
        keys: dict[str, tuple[str, list[str], str]] = {}
        for active in self._active:
            binding = active.binding
            scope = scopes.get(binding.id or "", "")
            if not scope or not binding.tooltip:
                continue
            shown = self.app.get_key_display(binding)
            entry = keys.setdefault(str(binding.id), (scope, [], binding.tooltip))
            if shown not in entry[1]:
                entry[1].append(shown)
        parts: list[str | tuple[str, str]] = []
        general = ("table", "lines", "desk", "app")
        for scope in (*(scope for scope in _HEADINGS if scope not in general), *general):
            lines = [(shown, text) for found, shown, text in keys.values() if found == scope]
            if not lines:
                continue
            parts.append((f"\n{_HEADINGS[scope]}\n", "bold"))
            for names, text in lines:
                pieces = wrap_words(text, width - KEYS)
                first, *others = (text[start:end] for start, end in pieces)
                parts += [(f"  {'  '.join(names):<{KEYS - 3}}", "$primary"), f" {first}\n"]
                parts += [f"{'':<{KEYS}}{other}\n" for other in others]
        parts += ["\n", (ABOUT, "$foreground 62%")]
        return Content.assemble(*parts)

    def action_leave(self) -> None:
        """Close."""
        self.dismiss(None)

    def action_scroll(self, lines: int) -> None:
        """Scroll by lines."""
        scroll = self.query_one(VerticalScroll)
        scroll.scroll_to(y=scroll.scroll_offset.y + lines, animate=False)
