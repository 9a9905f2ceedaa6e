"""Which language a program is in, by the name of its file."""

from __future__ import annotations

from pathlib import PurePath
from typing import Final

BY_SUFFIX: Final = {
    ".py": "python",
    ".sh": "bash",
    ".bash": "bash",
    ".js": "javascript",
    ".cjs": "javascript",
}


def language_of(name: str) -> str:
    """The language of a file; Python where its name does not say."""
    return BY_SUFFIX.get(PurePath(name).suffix.lower(), "python")
