"""A small form over the screen: a few fields, one button, and errors where they belong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from gridx import safetext
from gridx.errors import GridError
from gridx.tui.widgets.bars import KeyBar
from gridx.tui.widgets.field import Field


@dataclass(frozen=True, slots=True)
class FormField:
    """One field: its name, its label, what stands in it at first."""

    name: str
    label: str
    value: str = ""
    placeholder: str = ""
    secret: bool = False
    """It is not shown as it is typed."""


class FormScreen(ModalScreen[str | None]):
    """Asks for a few values and does something with them.

    Args:
        send: does it, and says in a sentence what was done; what it raises is shown, and one may try again.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Close", tooltip="Leave it.", id="form_close"),
    ]

    def __init__(
        self,
        heading: str,
        about: str,
        fields: Sequence[FormField],
        button: str,
        send: Callable[[dict[str, str]], Awaitable[str]],
    ) -> None:
        super().__init__()
        self._heading = heading
        self._about = about
        self._fields = fields
        self._button = button
        self._send = send

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(self._heading, classes="question", markup=False)
            yield Static(self._about, classes="consequence", markup=False)
            for field in self._fields:
                with Horizontal(classes="row"):
                    yield Static(field.label, classes="label", markup=False)
                    yield Field(
                        field.value,
                        placeholder=field.placeholder,
                        password=field.secret,
                        id=f"form-{field.name}",
                    )
            yield Static("", classes="problem", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Close (Esc)", id="no", compact=True)
                yield Button(self._button, id="yes", variant="primary", compact=True)
        yield KeyBar()

    def on_mount(self) -> None:
        self.query(Field).first().focus()

    @on(Button.Pressed, "#no")
    def action_leave(self) -> None:
        """Close, and do nothing."""
        self.dismiss(None)

    @on(Input.Submitted)
    def _entered(self, event: Input.Submitted) -> None:
        fields = list(self.query(Field))
        last = event.input is fields[-1]
        if last:
            self._go()
        else:
            self.focus_next()

    @on(Button.Pressed, "#yes")
    def _go(self) -> None:
        values = {field.name: self.query_one(f"#form-{field.name}", Field).value for field in self._fields}
        self.run_worker(self._try(values), exclusive=True)

    async def _try(self, values: dict[str, str]) -> None:
        self._say("")
        try:
            said = await self._send(values)
        except GridError as error:
            self._say(safetext.line(str(error), limit=600))
            name = error.details.get("field")
            if any(field.name == name for field in self._fields):
                self.query_one(f"#form-{name}", Field).focus()
            return
        self.dismiss(said)

    def _say(self, text: str) -> None:
        self.query_one(".problem", Static).update(Content(text))
