"""Carries files into the job's folder and out of it again; runs inside the sandbox, for the supervisor.

Standard library only. It is sent in ahead of ``boot.py`` and run in the same namespace, where that finds
``receive`` and ``collect``. What comes in was asked for by the worker. What goes out was made by a stranger:
nothing is followed, opened twice or believed, and everything is counted while it is read.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from typing import Any

PIECE = 1 << 16
MAX_LISTED = 20_000
"""Names that are looked at in one folder."""
MAX_NAMED = 99
"""Things that are named one by one when they stay behind; the others are counted."""
SHOWN_CHARS = 150

Send = Callable[[bytes, "bytes | dict[str, Any]"], None]


# -- in ------------------------------------------------------------------------------------------------------


def receive(folder: str, files: list[dict[str, Any]], read: Callable[[int], bytes]) -> str:
    """Write the files whose bytes come now, one after the other, below a folder.

    Everything is read to its end even when it cannot be kept, so that what follows is understood.

    Args:
        read: at most so many of the next bytes; none at the end.

    Returns:
        Why they could not be written, or an empty text.

    Raises:
        EOFError: the bytes ended too early.
    """
    trouble = ""
    for file in files:
        descriptor = -1
        if not trouble:
            try:
                descriptor = _create(folder, file)
            except OSError as error:
                trouble = _trouble(file, error)
        try:
            left = file["size"]
            while left:
                data = read(min(left, 1 << 20))
                if not data:
                    raise EOFError
                left -= len(data)
                if trouble:
                    continue
                try:
                    _write(descriptor, data)
                except OSError as error:
                    trouble = _trouble(file, error)
        finally:
            if descriptor >= 0:
                os.close(descriptor)
    return trouble


def _create(folder: str, file: dict[str, Any]) -> int:
    *above, name = file["path"].split("/")
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in above:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=at)
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        return os.open(name, flags, 0o755 if file["executable"] else 0o644, dir_fd=at)
    finally:
        os.close(at)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _trouble(file: dict[str, Any], error: OSError) -> str:
    return f"{file['path']}: {error.strerror or error}"


# -- out -----------------------------------------------------------------------------------------------------


def collect(folder: str, wanted: dict[str, Any], send: Send) -> None:
    """Send the regular files below a folder, and the names of what stays behind, with why.

    Args:
        wanted: ``patterns`` of names, the expression that an allowed path matches (``name``) and its most
            characters (``longest``), and what may come in all: ``bytes``, ``files``, ``depth`` (folders below
            each other), ``within_s``.
        send: writes a frame: F a file begins, D its data, G its end, L something that stays behind.
    """
    try:
        top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    except OSError as error:
        send(b"L", {"path": "out", "why": f"it cannot be opened as a folder: {error.strerror}"})
        return
    collection = Collection(wanted, send)
    try:
        collection.folder(top, "", 0)
    finally:
        os.close(top)
    collection.close()


def shown(path: str) -> str:
    """A path with everything in it that is no plain character written as its escape."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…"


class Collection:
    """One collection: what may still come, and how much stays behind."""

    def __init__(self, wanted: dict[str, Any], send: Send) -> None:
        self.send = send
        self.patterns: list[str] = wanted["patterns"]
        self.name, self.longest = re.compile(wanted["name"]), wanted["longest"]
        self.bytes, self.total = wanted["bytes"], wanted["bytes"]
        self.files, self.most = wanted["files"], wanted["files"]
        self.depth = wanted["depth"]
        self.end: float = time.monotonic() + wanted["within_s"]
        self.left = 0

    def stays(self, path: str, why: str) -> None:
        """Something stays behind."""
        self.left += 1
        if self.left <= MAX_NAMED:
            self.send(b"L", {"path": shown(path), "why": why})

    def close(self) -> None:
        """Say how much stays behind that was not named."""
        if self.left > MAX_NAMED:
            self.send(b"L", {"path": "…", "why": f"and {self.left - MAX_NAMED:,} more; these are not named"})

    def folder(self, at: int, above: str, depth: int) -> None:
        """Send what is wanted of a folder and of those below it."""
        for name in self.names(at, above):
            path = above + name
            if self.late():
                self.stays(path, "the time to collect files was over")
                return
            try:
                found = os.stat(name, dir_fd=at, follow_symlinks=False)
                if not stat.S_ISDIR(found.st_mode):
                    self.file(at, name, path, found)
                elif depth >= self.depth:
                    self.stays(path + "/", f"it lies below {self.depth} folders, and more are not taken")
                else:
                    self.below(at, name, path, depth)
            except OSError as error:
                self.stays(path, f"it cannot be read: {error.strerror or error}")

    def names(self, at: int, above: str) -> Iterator[str]:
        """Names in a folder, in order; of very many, those that come first."""
        names: list[str] = []
        with os.scandir(at) as entries:
            for entry in entries:
                if len(names) == MAX_LISTED:
                    self.stays(above or "out", f"it holds more than {MAX_LISTED:,} names")
                    break
                names.append(entry.name)
        yield from sorted(names)

    def late(self) -> bool:
        """Whether the time to collect is over."""
        return time.monotonic() > self.end

    def below(self, at: int, name: str, path: str, depth: int) -> None:
        inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
        try:
            self.folder(inner, path + "/", depth + 1)
        finally:
            os.close(inner)

    def file(self, at: int, name: str, path: str, found: os.stat_result) -> None:
        """Send one file, or say why not. What no pattern names was not asked for, and is no news."""
        if not any(
            fnmatch.fnmatchcase(path, pattern) or ("/" not in pattern and fnmatch.fnmatchcase(name, pattern))
            for pattern in self.patterns
        ):
            return
        why = self.unfit(path, found)
        if why:
            self.stays(path, why)
            return
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
        try:
            # Asked again of what is open: the name may by now be that of something else.
            opened = os.fstat(descriptor)
            why = self.unfit(path, opened)
            if why:
                self.stays(path, why)
                return
            self.files -= 1
            self.bytes -= opened.st_size
            self.send(b"F", {"path": path, "size": opened.st_size})
            why = self.content(descriptor, opened)
            self.send(b"G", {"why": why})
            if why:
                self.files += 1
                self.bytes += opened.st_size
                self.stays(path, why)
        finally:
            os.close(descriptor)

    def unfit(self, path: str, found: os.stat_result) -> str:
        """Why something may not come; empty when it may."""
        kind = KINDS.get(stat.S_IFMT(found.st_mode), "it is no regular file")
        if kind:
            return kind
        if found.st_nlink != 1:
            return "it is a hard link: a file with more than one name"
        if len(path) > self.longest:
            return f"its name has more than {self.longest:,} characters"
        if not self.name.match(path):
            return "its name is not allowed"
        if self.files <= 0:
            return f"more than {self.most:,} files are not taken"
        if found.st_size > self.bytes:
            return (
                f"it has {found.st_size:,} bytes; {self.total:,} may come in all, {self.bytes:,} of them now"
            )
        return ""

    def content(self, descriptor: int, opened: os.stat_result) -> str:
        """Send what is in a file; why it is not whole, or an empty text."""
        left = opened.st_size
        while left:
            if self.late():
                return "the time to collect files was over"
            try:
                data = os.read(descriptor, min(left, PIECE))
            except OSError as error:
                return f"it cannot be read: {error.strerror or error}"
            if not data:
                break
            left -= len(data)
            self.send(b"D", data)
        now = os.fstat(descriptor)
        if left or (now.st_size, now.st_mtime_ns) != (opened.st_size, opened.st_mtime_ns):
            return "it changed while it was read"
        return ""


KINDS = {
    stat.S_IFREG: "",
    stat.S_IFLNK: "it is a symbolic link",
    stat.S_IFIFO: "it is a FIFO",
    stat.S_IFSOCK: "it is a socket",
    stat.S_IFCHR: "it is a device",
    stat.S_IFBLK: "it is a device",
}
