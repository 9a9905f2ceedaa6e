"""Passwords for commands: from the environment, a file, a pipe, or the prompt; never from an argument."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

from gridx.cli import read_password_file
from gridx.errors import SetupError

MIN_CHARS = 8


def known(file: Path | None, *, prompt: str = "Password: ") -> str:
    """The password of an account that exists.

    Raises:
        SetupError: there is none, and no terminal to ask on.
    """
    if file is not None:
        return read_password_file(file)
    if (given := os.environ.get("GRIDX_PASSWORD")) is not None:
        return given
    return _asked(prompt)


def chosen(file: Path | None, *, prompt: str = "New password: ", from_environment: bool = False) -> str:
    """A new password, asked for twice; a pipe's first line where stdin is one.

    Raises:
        SetupError: there is none, or it is too short.
    """
    if file is not None:
        password = read_password_file(file)
    elif from_environment and (given := os.environ.get("GRIDX_PASSWORD")) is not None:
        password = given
    elif not sys.stdin.isatty():
        password = sys.stdin.readline().rstrip("\r\n")
        if not password:
            raise SetupError(
                "There is no terminal to ask for the new password on, and no line came by stdin.",
                "Pipe the password into this command, or use --password-file FILE.",
            )
    else:
        password = _asked(prompt)
        if password != _asked("The same again: "):
            raise SetupError("The two passwords are not the same.", "Try again.")
    if len(password) < MIN_CHARS:
        raise SetupError(f"A password has at least {MIN_CHARS} characters.", "Choose a longer one.")
    return password


def _asked(prompt: str) -> str:
    if not sys.stdin.isatty():
        raise SetupError(
            "There is no terminal to ask for the password on.",
            "Set GRIDX_PASSWORD, or use --password-file FILE.",
        )
    return getpass.getpass(prompt)
