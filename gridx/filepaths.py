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
MAX_NAMES_BYTES: Final = 1 << 20
"""All paths of one job together; they go to its worker in one message."""


class Folder:
    """The paths of one job's files, put in one after the other.

    Args:
        base: what all of several jobs have; it is not changed.
    """

    def __init__(self, base: Folder | None = None) -> None:
        self._base = base
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._bytes: int = base._bytes if base is not None else 0

    def put(self, path: str) -> str:
        """Put a path in; why it cannot lie there, or ""."""
        parts = path.split("/")
        sizes = [len(part.encode("utf-8", "surrogatepass")) for part in parts]
        above = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
        if parts[0] in RESERVED:
            return f"takes the place of the job's own {parts[0]}"
        if max(sizes) > MAX_PART_BYTES:
            return f"has a part of more than {MAX_PART_BYTES} bytes"
        if self._is_file(path):
            return "is there twice"
        if self._is_folder(path) or any(self._is_file(folder) for folder in above):
            return "is a file and a folder at once"
        self._bytes += sum(sizes) + len(sizes)
        if self._bytes > MAX_NAMES_BYTES:
            return f"is one too many: the paths have more than {MAX_NAMES_BYTES:,} bytes together"
        self._files.add(path)
        self._folders.update(above)
        return ""

    def put_all(self, paths: Iterable[str]) -> tuple[int, str] | None:
        """Put paths in; the number of the first that cannot lie there, and why not."""
        for number, path in enumerate(paths):
            if why := self.put(path):
                return number, why
        return None

    def _is_file(self, path: str) -> bool:
        return path in self._files or (self._base is not None and self._base._is_file(path))

    def _is_folder(self, path: str) -> bool:
        return path in self._folders or (self._base is not None and self._base._is_folder(path))
