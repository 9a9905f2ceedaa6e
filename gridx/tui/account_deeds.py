"""What an administrator does to accounts: make one, give it credits or a password, close it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from gridx import safetext
from gridx.credits import format_credits, parse_credits
from gridx.errors import GridError, InvalidField
from gridx.messages import User, UserUpdate
from gridx.tui.screens.form import FormField, FormScreen

if TYPE_CHECKING:
    from gridx.tui.app import GridApp

Done = Callable[[], None]
"""Called after something was done, to read it again."""


def _show(app: GridApp, screen: FormScreen, done: Done) -> None:
    def closed(said: str | None) -> None:
        if said:
            app.tell(said)
            done()

    app.push_screen(screen, closed)


def grant(app: GridApp, user: User, done: Done) -> None:
    """Ask how many credits a user is to get, and make them."""
    name = safetext.line(user.username)

    async def send(values: dict[str, str]) -> str:
        amount = parse_credits(values["amount"])
        await app.client.grant(user.username, amount, values["note"].strip())
        return f"{name} got {format_credits(amount)} credits."

    fields = [FormField("amount", "credits", "", "100"), FormField("note", "note", "", "what it is for")]
    _show(
        app,
        FormScreen(
            f"Grant credits to {name}", "They are made, not taken from anybody.", fields, "Grant", send
        ),
        done,
    )


def create(app: GridApp, done: Done) -> None:
    """Ask for a name and a password, and make the account."""

    async def send(values: dict[str, str]) -> str:
        name = values["username"].strip()
        await app.client.create_user(name, _same(values))
        return f"There is a user {safetext.line(name)} now."

    fields = [FormField("username", "user name", "", "alice"), *_PASSWORDS]
    _show(
        app, FormScreen("New user", "Tell them the password; they can change it.", fields, "Make", send), done
    )


def password(app: GridApp, user: User, done: Done) -> None:
    """Ask for another password of a user, and set it."""
    name = safetext.line(user.username)

    async def send(values: dict[str, str]) -> str:
        await app.client.update_user(user.username, UserUpdate(password=_same(values)))
        return f"{name} has a new password."

    about = "Whoever is signed in as this user has to sign in again, workers too."
    _show(app, FormScreen(f"New password for {name}", about, list(_PASSWORDS), "Set", send), done)


def toggle(app: GridApp, user: User, done: Done) -> None:
    """Close an account, after asking, or open it again."""
    app.run_worker(_telling(app, _toggle(app, user, done)), name="disable", group="deeds")


async def _toggle(app: GridApp, user: User, done: Done) -> None:
    name = safetext.line(user.username)
    if not user.disabled and not await app.ask(
        f"Close the account of {name}?",
        "Its sign-ins end and its workers leave. What it has stays, and it can be opened again.",
        "Close the account",
    ):
        return
    await app.client.update_user(user.username, UserUpdate(disabled=not user.disabled))
    app.tell(f"The account of {name} is {'open again' if user.disabled else 'closed'}.")
    done()


async def _telling(app: GridApp, deed: Awaitable[None]) -> None:
    try:
        await deed
    except GridError as error:
        app.tell_error(error)


_PASSWORDS = (
    FormField("password", "password", "", "at least 8 characters", secret=True),
    FormField("again", "again", "", "the same", secret=True),
)


def _same(values: dict[str, str]) -> str:
    if values["password"] != values["again"]:
        raise InvalidField("The two passwords are not the same.", "Type it again.", field="again")
    return values["password"]
