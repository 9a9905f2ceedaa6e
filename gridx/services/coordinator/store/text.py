"""Searching for a text as it stands."""

from __future__ import annotations

from typing import Final

MAX_TEXT: Final = 200
"""Characters of a search; no name is longer."""


def literal(text: str) -> str:
    """A LIKE pattern for texts that contain this one, every character of which means itself."""
    for special in "\\%_":
        text = text.replace(special, "\\" + special)
    return f"%{text}%"
