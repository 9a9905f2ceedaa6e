"""Fetching what jobs gave back: whole and right, or not at all, and never outside of the folder meant.

A file is written beside its place, checked by its hash, and only then moved there. A broken connection is
taken up where it broke. Paths are checked again here: a folder that holds links must not lead out of itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import quote

import aiohttp
import msgspec

from gridx import safetext
from gridx.client_follow import Patience
from gridx.client_wire import Wire
from gridx.errors import GridError, InvalidField, NotFound, Unreachable
from gridx.messages import FilePath, JobFiles, OutputFile

AT_ONCE: Final = 4
"""Files that are fetched at the same time."""
PIECE_BYTES: Final = 256 << 10


async def fetch_all(
    wire: Wire, listed: JobFiles, folder: Path, *, names: Sequence[str] | None, overwrite: bool
) -> list[Path]:
    """Fetch files of a job into a folder, which is made; what is there already with the same content stays.

    Args:
        names: paths of files, or of folders for all that is in them; None: everything.
        overwrite: whether files of another content are replaced.

    Raises:
        NotFound: the job gave back nothing of such a name.
        InvalidField: a file is in the way, or a link leads out of the folder. Nothing was written then.
    """
    chosen = _chosen(listed, names)
    targets = await asyncio.to_thread(_targets, folder, chosen)
    wanted = []
    for file, target in zip(chosen, targets, strict=True):
        if not await asyncio.to_thread(_same, target, file):
            wanted.append((file, target))
    if not overwrite:
        _refuse_to_overwrite([target for _, target in wanted])
    places = asyncio.Semaphore(AT_ONCE)

    async def one(file: OutputFile, target: Path) -> None:
        async with places:
            await fetch(wire, listed.job_id, listed.attempt, file.path, target, sha256=file.sha256)

    tasks = [asyncio.create_task(one(file, target)) for file, target in wanted]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    return targets


async def fetch(
    wire: Wire, job_id: int, attempt: int | None, path: str, target: Path, *, sha256: str = ""
) -> int:
    """Fetch one file to ``target``, whose folder is made; its bytes.

    Raises:
        NotFound: the job gave back no such file.
        InvalidField: it cannot be written.
    """
    beside = target.with_name(f".{target.name[:100]}.{secrets.token_hex(8)}.part")
    try:
        with await asyncio.to_thread(_made, beside) as file:
            size = await _download(wire, job_id, attempt, path, file, sha256)
        await asyncio.to_thread(beside.replace, target)
        return size
    except OSError as error:
        raise InvalidField(
            f"{safetext.name(target)} cannot be written: {error.strerror}.",
            "Name another folder.",
            field="folder",
        ) from None
    finally:
        with suppress(OSError):
            await asyncio.to_thread(beside.unlink)


async def read(wire: Wire, job_id: int, attempt: int | None, path: str) -> bytes:
    """One file, in memory.

    Raises:
        NotFound: the job gave back no such file.
    """
    file = io.BytesIO()
    await _download(wire, job_id, attempt, path, file, "")
    return file.getvalue()


async def _download(
    wire: Wire, job_id: int, attempt: int | None, path: str, file: BinaryIO, sha256: str
) -> int:
    digest = hashlib.sha256()
    size = 0
    patience = Patience()

    def put(data: bytes) -> None:
        file.write(data)
        digest.update(data)

    query: dict[str, Any] = {"attempt": attempt or None}
    address = f"/jobs/{job_id}/files/{quote(path, safe='/')}"
    while True:
        try:
            async with wire.stream(address, query, part=f"bytes={size}-" if size else "") as answer:
                tag = answer.headers.get("ETag", "").strip('"')
                if sha256 and tag != sha256:
                    raise _another(path)
                sha256 = tag
                if size and answer.status != 206:
                    raise _another(path)
                async for data in answer.content.iter_chunked(PIECE_BYTES):
                    if isinstance(file, io.BytesIO):
                        put(data)
                    else:
                        await asyncio.to_thread(put, data)
                    size += len(data)
                    patience = Patience()
            break
        except (aiohttp.ClientError, ConnectionError) as error:
            broken = Unreachable(f"The connection to {wire.url} broke: {error}.", "Try again.")
            await patience.another_try(broken)
        except Unreachable as error:
            await patience.another_try(error)
    if digest.hexdigest() != sha256:
        raise GridError(
            f"What came of {safetext.name(path)} is not what the job gave back.", "Fetch it again."
        )
    await asyncio.to_thread(file.flush)
    return size


def _another(path: str) -> GridError:
    return GridError(f"{safetext.name(path)} is another file now.", "Fetch it again.")


def named(listed: JobFiles, names: Sequence[str]) -> list[str]:
    """Those of ``names`` that name a file of the job, or a folder with files."""
    return [name for name in names if _of(listed, name)]


def _of(listed: JobFiles, name: str) -> list[OutputFile]:
    bare = name.rstrip("/")
    return [file for file in listed.files if file.path == bare or file.path.startswith(f"{bare}/")]


def _chosen(listed: JobFiles, names: Sequence[str] | None) -> list[OutputFile]:
    if names is None:
        return list(listed.files)
    chosen: dict[str, OutputFile] = {}
    for name in names:
        found = _of(listed, name)
        if not found:
            raise NotFound(
                f"Job {listed.job_id} gave back no {safetext.name(name)}.",
                f"gridx files {listed.job_id} lists what it gave back.",
            )
        chosen |= {file.path: file for file in found}
    return list(chosen.values())


def _targets(folder: Path, files: Sequence[OutputFile]) -> list[Path]:
    """Where each file goes; nothing is made."""
    top = folder.resolve()
    targets = []
    for file in files:
        try:
            path = msgspec.convert(file.path, FilePath)
        except (msgspec.ValidationError, UnicodeEncodeError):
            raise _outside(file.path, folder) from None
        target = folder / path
        # Of the folders on the way one may be a link already.
        if not target.parent.resolve().is_relative_to(top):
            raise _outside(file.path, folder)
        targets.append(target)
    return targets


def _outside(path: str, folder: Path) -> InvalidField:
    return InvalidField(
        f"{safetext.name(path)} would lie outside of {safetext.name(folder)}.",
        "Name a folder without links.",
        field="folder",
    )


def _same(target: Path, file: OutputFile) -> bool:
    """Whether a file is there already, with this content."""
    try:
        if target.is_symlink() or target.stat().st_size != file.size:
            return False
        with target.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256
    except OSError:
        return False


def _refuse_to_overwrite(targets: Sequence[Path]) -> None:
    there = [target for target in targets if os.path.lexists(target)]
    if there:
        more = f" and {len(there) - 3} more" if len(there) > 3 else ""
        named = ", ".join(safetext.name(target) for target in there[:3])
        raise InvalidField(
            f"{named}{more} {'is' if len(there) == 1 else 'are'} there already, with another content.",
            "Name another folder with -d, or replace with --overwrite.",
            field="folder",
        )


def _made(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("xb")
