"""Rules for the paths of files beside each other in one folder, the same for who sends and who checks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

OUT: Final = "out"
"""Folder in which a job leaves what is to come back."""
RESERVED: Final = frozenset({"job.py", "job.sh", "job.js", OUT})
"""Names in a job's folder that are taken: the program itself, and what comes back."""
MAX_PART_BYTES: Final = 255
"""Of one part of a path, as the sandbox's file system has it."""


def obstacle(paths: Iterable[str]) -> tuple[int, str] | None:
    """Why files with these paths cannot lie in one job's folder.

    Returns:
        The number of the first path that is in the way, and what it does; None when all is well.
    """
    files: set[str] = set()
    folders: set[str] = set()
    for number, path in enumerate(paths):
        parts = path.split("/")
        above = {"/".join(parts[:depth]) for depth in range(1, len(parts))}
        if parts[0] in RESERVED:
            return number, f"takes the place of the job's own {parts[0]}"
        if any(len(part.encode("utf-8", "surrogatepass")) > MAX_PART_BYTES for part in parts):
            return number, f"has a part of more than {MAX_PART_BYTES} bytes"
        if path in files:
            return number, "is there twice"
        if path in folders or above & files:
            return number, "is a file and a folder at once"
        files.add(path)
        folders |= above
    return None
