"""The bytes of a job's input files on their way into its sandbox, read piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from gridx.errors import SandboxBroken
from gridx.messages import InputFile

PIECE_BYTES: Final = 1 << 20
TOGETHER_BYTES: Final = 64 << 10
"""Files smaller than this are read at once, several in one trip to the disk."""
PAGE_BYTES: Final = 4096


async def pieces(inputs: Sequence[tuple[InputFile, Path]]) -> AsyncIterator[bytes]:
    """The files' bytes one after the other, in pieces of at most a MiB.

    Raises:
        SandboxBroken: a file here is not as it was announced.
    """
    small: list[tuple[InputFile, Path]] = []
    size = 0
    for file, place in inputs:
        if file.size <= TOGETHER_BYTES:
            small.append((file, place))
            size += file.size
            if size < PIECE_BYTES - TOGETHER_BYTES and len(small) < 64:
                continue
        if small:
            yield await asyncio.to_thread(_read_all, small)
            small, size = [], 0
        if file.size > TOGETHER_BYTES:
            opened = await asyncio.to_thread(_open, file, place)
            try:
                left = file.size
                while left:
                    try:
                        data = await asyncio.to_thread(opened.read, min(left, PIECE_BYTES))
                    except OSError as error:
                        raise _unreadable(file, error) from None
                    if not data:
                        raise _broken(file)
                    left -= len(data)
                    yield data
            finally:
                opened.close()
    if small:
        yield await asyncio.to_thread(_read_all, small)


def room_bytes(files: Iterable[InputFile]) -> int:
    """What files take in a file system in memory, which gives out whole pages."""
    return sum(-(-file.size // PAGE_BYTES) * PAGE_BYTES for file in files)


def names(files: Iterable[InputFile]) -> int:
    """How many files and folders files come to."""
    found: set[str] = set()
    for file in files:
        parts = file.path.split("/")
        found.update("/".join(parts[: count + 1]) for count in range(len(parts)))
    return len(found)


def _read_all(files: Sequence[tuple[InputFile, Path]]) -> bytes:
    data = bytearray()
    for file, place in files:
        with _open(file, place) as opened:
            try:
                part = opened.read(file.size + 1)
            except OSError as error:
                raise _unreadable(file, error) from None
        if len(part) != file.size:
            raise _broken(file)
        data += part
    return bytes(data)


def _open(file: InputFile, place: Path) -> BinaryIO:
    try:
        return place.open("rb", buffering=0)
    except OSError as error:
        raise _unreadable(file, error) from None


def _unreadable(file: InputFile, error: OSError) -> SandboxBroken:
    return SandboxBroken(f"The input {file.path} cannot be read on the worker: {error.strerror or error}.")


def _broken(file: InputFile) -> SandboxBroken:
    return SandboxBroken(f"The input {file.path} is not whole on the worker.")
