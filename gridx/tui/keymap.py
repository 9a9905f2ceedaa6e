"""Other keys for commands, as the configuration gives them: ``COMMAND=KEY KEY``."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from gridx.errors import ConfigError
from gridx.tui.commands import COMMANDS

KEY: Final = "dashboard.keys"
_NAME: Final = re.compile(r"(?:(?:ctrl|alt|shift|super)\+)*(?:[a-z0-9_]{1,24}|[!-~])")


def read_keymap(entries: Sequence[str]) -> dict[str, str]:
    """Commands to their keys, separated by commas as Textual wants them.

    Raises:
        ConfigError: no such command, no such key, or two commands of one place on the same key.
    """
    known = {command.id: command for command in COMMANDS}
    keymap: dict[str, str] = {}
    for entry in entries:
        name, equals, value = (part.strip() for part in entry.partition("="))
        keys = value.split()
        if not equals or not keys:
            raise ConfigError(f"{KEY}: {entry!r} is not COMMAND=KEY.", "Like jobs_cancel=x.", key=KEY)
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {close[0]}?" if close else "docs/dashboard.md lists the commands."
            raise ConfigError(f"{KEY}: there is no command {name!r}.", hint, key=KEY)
        for key in keys:
            if not _NAME.fullmatch(key) or key == ",":
                raise ConfigError(
                    f"{KEY}: {key!r} is not a key.", "Like x, X, f9, ctrl+t, alt+1, slash, space.", key=KEY
                )
        keymap[name] = ",".join(keys)
    _check_clashes(keymap)
    return keymap


def _check_clashes(keymap: dict[str, str]) -> None:
    for scope in {command.scope for command in COMMANDS}:
        used = Counter(
            key
            for command in COMMANDS
            if command.scope == scope
            for key in keymap.get(command.id, command.keys).split(",")
        )
        for key, count in used.items():
            if count > 1:
                names = [
                    command.id
                    for command in COMMANDS
                    if command.scope == scope and key in keymap.get(command.id, command.keys).split(",")
                ]
                raise ConfigError(
                    f"{KEY}: the key {key!r} would do two things: {' and '.join(names)}.",
                    "Give one of them another key.",
                    key=KEY,
                )
