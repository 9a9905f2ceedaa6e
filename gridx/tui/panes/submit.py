"""Where a job is written and sent: the program, what it asks for, and what that costs, as one types."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Final

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Button, Input, Static, TextArea

from gridx import safetext
from gridx.credits import format_credits
from gridx.errors import GridError, InvalidField
from gridx.languages import language_of
from gridx.messages import MAX_CODE_BYTES, JobSpec, Quote
from gridx.quantities import parse_cores, parse_count, parse_mebibytes, parse_seconds
from gridx.tui import describe
from gridx.tui.commands import bindings
from gridx.tui.messages import Submitted
from gridx.tui.panes.pane import Pane
from gridx.tui.screens.form import FormField, FormScreen
from gridx.tui.screens.history import HistoryScreen
from gridx.tui.state import Changes
from gridx.tui.widgets.editor import Editor
from gridx.tui.widgets.field import Field

SAMPLE: Final = """\
# A sample job: F5 runs it on the grid.
import platform
import time

print("Hello from", platform.node())
print("Python", platform.python_version())

for step in range(1, 6):
    print(f"step {step} of 5", flush=True)
    time.sleep(0.3)
"""
QUOTE_DELAY_S: Final = 0.3
FIELDS: Final = (
    ("name", "name", "", "what it is called"),
    ("cpus", "cores", "1", "1"),
    ("memory_mb", "memory", "256M", "256M"),
    ("gpus", "GPUs", "0", "0"),
    ("timeout_s", "timeout", "5m", "5m"),
)
"""(field of the spec, label, first value, placeholder)."""


class SubmitPane(Pane):
    """The editor, the resources beside it, the price below."""

    NAME = "submit"
    BINDINGS = bindings("submit")

    def __init__(self) -> None:
        super().__init__()
        self.origin = "sample"
        self._base = JobSpec(code="")
        """What a resubmitted job had besides the fields shown here."""
        self._quote_timer: Timer | None = None
        self._sending = False
        self._wanted = False
        """The key was pressed before there was a grid to send to."""
        self.editor = Editor(SAMPLE, id="code")
        self._fields = {
            name: Field("sample" if name == "name" else value, placeholder=placeholder, id=f"field-{name}")
            for name, _, value, placeholder in FIELDS
        }
        self._said = Static(id="price", markup=False)

    def compose(self) -> ComposeResult:
        yield self.editor
        with Vertical(id="form"):
            with Horizontal(classes="row"):
                yield from self._labelled(0)
            with Horizontal(classes="row"):
                yield from self._labelled(1)
                yield from self._labelled(2)
            with Horizontal(classes="row"):
                yield from self._labelled(3)
                yield from self._labelled(4)
            yield self._said
            with Horizontal(classes="buttons"):
                yield Button(
                    f"Run ({self.grid.key_of('desk_submit')})", id="run", variant="primary", compact=True
                )
                yield Button("Open", id="open", compact=True)
                yield Button("History", id="history", compact=True)
                yield Button("New", id="clear", compact=True)

    def _labelled(self, number: int) -> ComposeResult:
        name, label, *_ = FIELDS[number]
        yield Static(label, classes="label", markup=False)
        yield self._fields[name]

    def on_mount(self) -> None:
        self._entitle()
        self._requote()

    @property
    def entry(self) -> Widget:
        return self.editor

    def _entitle(self) -> None:
        self.title(self.origin)

    # -- the spec ----------------------------------------------------------------------------------------

    def field(self, name: str) -> Field:
        """The field of one value of the spec."""
        return self._fields[name]

    def spec(self) -> JobSpec:
        """What would be submitted.

        Raises:
            InvalidField: a field cannot be read; ``details["field"]`` says which.
        """
        from msgspec.structs import replace

        return replace(
            self._base,
            code=self.editor.text,
            name=safetext.line(self.field("name").value),
            cpus=parse_cores(self.field("cpus").value),
            memory_mb=parse_mebibytes(self.field("memory_mb").value),
            gpus=parse_count(self.field("gpus").value, "gpus"),
            timeout_s=parse_seconds(self.field("timeout_s").value),
        )

    def load(self, spec: JobSpec, origin: str) -> None:
        """Put a spec into the form, to be changed and submitted."""
        self._base = spec
        self.origin = origin
        left_out = self.editor.put(spec.code)
        for name, value in (
            ("name", spec.name),
            ("cpus", f"{spec.cpus:g}"),
            ("memory_mb", f"{spec.memory_mb}M"),
            ("gpus", str(spec.gpus)),
            ("timeout_s", f"{spec.timeout_s}s"),
        ):
            self.field(name).value = safetext.line(value)
        self._entitle()
        self._requote()
        if left_out:
            self.grid.tell(
                f"{left_out} characters that cannot be shown were left out of the program.",
                severity="warning",
            )

    # -- the price ---------------------------------------------------------------------------------------

    @on(Input.Changed)
    @on(TextArea.Changed)
    def _typed(self, event: Input.Changed | TextArea.Changed) -> None:
        event.stop()
        if isinstance(event, Input.Changed) or self._said.has_class("problem"):
            self._requote()

    def apply(self, changes: Changes) -> None:
        if changes.reread and self._wanted:
            self._wanted = False
            self.submit()
        if changes.reread or changes.balance:
            self._requote()

    def shown(self) -> None:
        self._requote()

    def _requote(self) -> None:
        if self._quote_timer is not None:
            self._quote_timer.stop()
        self._quote_timer = self.set_timer(QUOTE_DELAY_S, self._quote)

    def _quote(self) -> None:
        self._quote_timer = None
        if self._sending:
            return
        try:
            spec = self.spec()
        except InvalidField as error:
            self._problem(error)
            return
        if self.state.link.connected:
            self.run_worker(self._ask_price(spec), exclusive=True, group="quote")

    async def _ask_price(self, spec: JobSpec) -> None:
        from msgspec.structs import replace

        try:
            quote = await self.grid.client.quote(replace(spec, code=""))
        except GridError as error:
            self._problem(error)
            return
        self._price(quote)

    def _price(self, quote: Quote) -> None:
        self._mark(None)
        price = self._said
        price.remove_class("problem")
        said: list[str | tuple[str, str]] = [
            "at most ",
            (describe.credits_short(quote.hold), "bold"),
            " of your ",
            (describe.credits_short(quote.balance), "bold"),
            " credits",
        ]
        if quote.shortfall:
            said.append((f"\n{format_credits(quote.shortfall)} credits are missing", "$error"))
        elif not quote.waits_because:
            said.append((f"\n{describe.credits_short(quote.per_hour)} an hour", "$foreground 62%"))
        else:
            said.append((f"\nnot at once: {safetext.line(quote.waits_because)}", "$foreground 62%"))
        price.update(Content.assemble(*said))

    def _problem(self, error: GridError) -> None:
        """Say what is wrong, beside the field it is about."""
        self._mark(error.details.get("field"))
        price = self._said
        price.add_class("problem")
        price.update(Content(safetext.line(str(error), limit=500)))

    def _mark(self, wrong: object) -> None:
        for name, *_ in FIELDS:
            self.field(name).set_class(name == wrong, "-wrong")
        self.editor.set_class(wrong == "code", "-wrong")

    # -- acting ------------------------------------------------------------------------------------------

    @on(Button.Pressed, "#run")
    def _run_pressed(self) -> None:
        self.submit()

    @on(Input.Submitted)
    def _entered(self, event: Input.Submitted) -> None:
        event.stop()
        self.app.action_focus_next()

    def submit(self) -> None:
        """Send the job."""
        if self._sending:
            return
        if self.grid.starting:
            self._wanted = True
            self.grid.tell("The grid is starting; the program runs as soon as it has.")
            return
        try:
            spec = self.spec()
            if not spec.code.strip():
                raise InvalidField(
                    "There is no program.", "Type one, or open a file with ctrl+o.", field="code"
                )
            if len(spec.code.encode("utf-8", "replace")) > MAX_CODE_BYTES:
                raise InvalidField("The program is longer than 1 MiB.", "Let it make its data.", field="code")
        except InvalidField as error:
            self._problem(error)
            self.grid.tell_error(error)
            wrong = error.details.get("field")
            (self.editor if wrong == "code" else self.field(str(wrong))).focus()
            return
        self._sending = True
        self.run_worker(self._send(spec), group="submit")

    async def _send(self, spec: JobSpec) -> None:
        try:
            job = await self.grid.client.submit(spec, idempotency_key=uuid.uuid4().hex)
        except GridError as error:
            self._problem(error)
            self.grid.tell_error(error)
            return
        finally:
            self._sending = False
        self.state.put_jobs([job])
        self.grid.changed()
        self.post_message(Submitted(job))

    @on(Button.Pressed, "#open")
    def action_open_file(self) -> None:
        """Read a program from a file that is asked for."""

        async def read(values: dict[str, str]) -> str:
            return await self._open(values["path"])

        fields = [FormField("path", "file", "", "examples/hello.py")]
        about = "The program is read once; what is in the editor now is replaced (ctrl+z brings it back)."
        self.app.push_screen(
            FormScreen("Open a program", about, fields, "Open", read),
            lambda said: self.grid.tell(said) if said else None,
        )

    async def _open(self, name: str) -> str:
        path = Path(name.strip())

        def read() -> bytes | None:
            whole = path.expanduser()
            if not whole.is_file():
                return None
            with whole.open("rb") as file:
                return file.read(MAX_CODE_BYTES + 1)

        try:
            data = await asyncio.to_thread(read)
            if data is None:
                raise InvalidField(f"There is no file {name!r}.", "Give its path from here.", field="path")
            text = data.decode()
        except OSError as error:
            raise InvalidField(f"{name}: {error.strerror}.", "Name another file.", field="path") from None
        except UnicodeDecodeError:
            raise InvalidField(f"{name} is not UTF-8 text.", "Name a program.", field="path") from None
        if len(data) > MAX_CODE_BYTES:
            raise InvalidField(f"{name} is longer than 1 MiB.", "Name a smaller file.", field="path")
        from msgspec.structs import replace

        self._base = replace(self._base, language=language_of(path.name))
        self.editor.put(text)
        self.field("name").value = safetext.line(path.stem)
        self.origin = safetext.line(path.name)
        self._entitle()
        self.editor.focus()
        return f"Opened {path.name}."

    @on(Button.Pressed, "#history")
    def action_history(self) -> None:
        """Choose from what was submitted before."""
        self.app.push_screen(HistoryScreen(), self._recall)

    def _recall(self, job_id: int | None) -> None:
        from gridx.tui import deeds

        if job_id is not None:
            deeds.edit(self.grid, job_id)

    @on(Button.Pressed, "#clear")
    def action_clear(self) -> None:
        """Begin anew."""
        self._base = JobSpec(code="")
        self.origin = "new"
        self.editor.put("")
        self.field("name").value = ""
        self._entitle()
        self.editor.focus()
