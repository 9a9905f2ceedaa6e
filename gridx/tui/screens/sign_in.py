"""Signing in: as a known user or a new one. Whatever goes wrong is said, and one can go on from there."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Button, Input, Static

from gridx import safetext
from gridx.address import named
from gridx.errors import Conflict, GridError, InvalidField, Unauthenticated
from gridx.messages import Session
from gridx.tui.widgets.bars import KeyBar
from gridx.tui.widgets.drawn import Drawn
from gridx.tui.widgets.field import Field

LABEL = "dashboard"


class SignInScreen(Screen[Session], Drawn):
    """Asks for the coordinator, a user name and a password; closes with the session."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f5,ctrl+j", "sign_in", "Sign in", tooltip="Sign in as a known user.", id="signin_known"),
        Binding("f6", "register", "New user", tooltip="Make an account and sign in.", id="signin_new"),
    ]

    def __init__(self, problem: str = "", user: str = "") -> None:
        super().__init__()
        self._problem = problem
        self._user = user

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static("Grid-X", classes="question", markup=False)
            yield Static("Sign in to a coordinator.", classes="consequence", markup=False)
            yield from self._row("coordinator", Field(self.grid.client.url, id="signin-url"))
            yield from self._row("user", Field(self._user, id="signin-user", placeholder="your name"))
            yield from self._row("password", Field(password=True, id="signin-password"))
            with Vertical(id="signin-new-user"):
                yield from self._row("again", Field(password=True, id="signin-again"))
                yield from self._row("invite", Field(id="signin-invite", placeholder="if one is needed"))
            yield Static(Content(self._problem), classes="problem", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Sign in (F5)", id="known", variant="primary", compact=True)
                yield Button("New user (F6)", id="new", compact=True)
                yield Button("Quit (ctrl+q)", id="quit", compact=True)
        yield KeyBar()

    def _row(self, label: str, field: Field) -> ComposeResult:
        with Horizontal(classes="row"):
            yield Static(label, classes="label", markup=False)
            yield field

    def on_mount(self) -> None:
        self.query_one("#signin-new-user").display = False
        self._field("password" if self._user else "user").focus()

    def _field(self, name: str) -> Field:
        return self.query_one(f"#signin-{name}", Field)

    @on(Input.Submitted)
    def _entered(self, event: Input.Submitted) -> None:
        if event.input.id == "signin-password":
            self.action_sign_in()
        elif event.input.id in ("signin-again", "signin-invite"):
            self.action_register()
        else:
            self.focus_next()

    @on(Button.Pressed, "#quit")
    async def _quit(self) -> None:
        await self.app.action_quit()

    @on(Button.Pressed, "#known")
    def action_sign_in(self) -> None:
        """Sign in as a known user."""
        self.run_worker(self._try(new=False), exclusive=True)

    @on(Button.Pressed, "#new")
    def action_register(self) -> None:
        """Make an account and sign in; the password is asked for twice, since nobody else knows it."""
        self.run_worker(self._try(new=True), exclusive=True)

    def _again(self, password: str) -> bool:
        """Whether the password of a new user was typed twice; if not yet, the field for it is shown."""
        rows, again = self.query_one("#signin-new-user"), self._field("again")
        if rows.display and again.value == password:
            return True
        wrong = rows.display and bool(again.value)
        rows.display = True
        again.value = ""
        again.focus()
        self._say(
            "The two passwords are not the same. Type it again."
            if wrong
            else "A new user: type the password once more, then Enter.",
            wrong=wrong,
        )
        return False

    async def _try(self, *, new: bool) -> None:
        user, password = self._field("user").value.strip(), self._field("password").value
        self._say("Asking ...", wrong=False)
        try:
            client = await self.grid.connect_to(named(self._field("url").value))
            if not user:
                raise InvalidField("A user name is needed.", "Type yours, or a new one.", field="username")
            if new and len(password) < 8:
                raise InvalidField(
                    "A password has at least 8 characters.", "Choose a longer one.", field="password"
                )
            if new and not self._again(password):
                return
            if met := await client.secure():
                self._say(
                    f"First connection to {client.url}. If the coordinator printed this at its start, sign "
                    f"in again: {met}",
                    wrong=False,
                )
                return
            invite = self._field("invite").value.strip()
            session = (
                await client.register(user, password, invite=invite, label=LABEL)
                if new
                else await client.login(user, password, label=LABEL)
            )
        except Unauthenticated:
            self._say(
                "The user name or the password is not right. Try again; if you are new here, F6 makes "
                "an account; an administrator can set a new password: gridx admin password NAME"
            )
            self._field("password").focus()
            return
        except Conflict:
            self._say(f"There is a user {safetext.line(user)} already. Sign in (F5), or take another name.")
            self._field("user").focus()
            return
        except GridError as error:
            self._say(safetext.line(str(error), limit=600))
            name = {"password": "password", "username": "user", "invite": "invite"}.get(
                str(error.details.get("field")), "url"
            )
            self._field(name).focus()
            return
        self.dismiss(session)

    def _say(self, text: str, *, wrong: bool = True) -> None:
        said = self.query_one(".problem", Static)
        said.set_class(not wrong, "-quiet")
        said.update(Content(text))
