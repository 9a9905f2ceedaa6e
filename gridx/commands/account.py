"""``gridx login`` and ``logout``."""

from __future__ import annotations

import asyncio
import platform
from pathlib import Path
from typing import Final

import click

from gridx.commands import passwords, printing
from gridx.commands.grid import Place
from gridx.errors import EXIT_OK

LABEL: Final = "gridx on "

password_file = click.option(
    "--password-file", type=click.Path(path_type=Path), metavar="FILE", help="Its first line is the password."
)


@click.command("login")
@click.argument("user")
@click.option("--register", is_flag=True, help="Make the account first.")
@click.option(
    "--invite", default="", metavar="CODE", help="The code that lets one sign up, where one is needed."
)
@password_file
@click.pass_obj
def login(place: Place, user: str, register: bool, invite: str, password_file: Path | None) -> int:
    """Sign in, and save the sign-in for the commands that follow.

    The password comes from --password-file, GRIDX_PASSWORD or the prompt.
    """
    from gridx import credentials
    from gridx.client import Client

    settings = place.settings()
    url, _ = credentials.resolve(settings)
    label = printing.one_line(LABEL + platform.node())

    def password_for(where: str) -> str:
        if register:
            prompt = f"New password for {user} at {where}: "
            return passwords.chosen(password_file, prompt=prompt, from_environment=True)
        return passwords.known(password_file, prompt=f"Password of {user} at {where}: ")

    async def main() -> None:
        async with Client(url, timeout_s=settings.client.timeout_s) as grid:
            # A certificate that is new is shown before anything secret is typed.
            await grid.secure()
            password = password_for(grid.url)
            if register:
                session = await grid.register(user, password, invite=invite, label=label)
            else:
                session = await grid.login(user, password, label=label)
            credentials.remember(grid.url, session)
            printing.out(printing.one_line(f"Signed in as {session.user.username} at {grid.url}."))
            if session.notice:
                printing.note(session.notice)

    asyncio.run(main())
    return EXIT_OK


@click.command("logout")
@click.pass_obj
def logout(place: Place) -> int:
    """End the saved sign-in, here and at the coordinator."""
    from gridx import credentials
    from gridx.client import Client
    from gridx.errors import GridError, Unauthenticated

    settings = place.settings()
    url, token = credentials.resolve(settings)
    if token is None:
        printing.out(printing.one_line(f"Nobody is signed in at {url}."))
        return EXIT_OK

    async def main() -> None:
        async with Client(url, token, timeout_s=settings.client.timeout_s) as grid:
            try:
                await grid.logout()
            except Unauthenticated:
                pass  # it had ended already
            except GridError as error:
                printing.note(f"The coordinator was not told: {error.message}")

    asyncio.run(main())
    credentials.of_shell().forget(url)
    printing.out(printing.one_line(f"Signed out at {url}."))
    return EXIT_OK


COMMANDS: Final = (login, logout)
