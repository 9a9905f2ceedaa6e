"""What is asked of files, and written of them; part of ``Store``."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, TypeVar

from gridx.messages import FileCaps, Freed, KeptFiles, LeftFile, OutputFile
from gridx.services.coordinator.store import blobs, files
from gridx.services.coordinator.store.aside import Aside
from gridx.services.coordinator.store.blobs import NOTHING, Quota, Taken
from gridx.services.coordinator.store.models import (
    FilesTaken,
    InputUse,
    SentBlob,
    Upload,
)
from gridx.services.coordinator.store.models import (
    LeftFile as LeftRow,
)
from gridx.services.coordinator.store.models import (
    OutputFile as OutputRow,
)
from gridx.services.coordinator.store.orm import Reader, Statement, bounded, storable
from gridx.services.coordinator.store.rows import micros

P = ParamSpec("P")
T = TypeVar("T")

MAX_KEPT: Final = 20
"""Jobs that a user is told when he asks what his files take."""
AT_ONCE: Final = 200
"""Rows that one step of tidying takes, so that others get to write between two."""

_TAKEN = Statement(
    lambda: FilesTaken.filter(user_id=0).values_list("inputs", "input_bytes", "outputs", "output_bytes")
)
_UPLOAD = Statement(lambda: Upload.filter(user_id=0, blob__digest=b"").values_list("blob__size"))
_MANY: Final = 256
"""Digests in one query."""
_UPLOADS = Statement(
    lambda: Upload.filter(user_id=0, blob__digest__in=[b""] * _MANY).values_list("blob__digest", "blob__size")
)
_USED = Statement(lambda: InputUse.filter(job_id__in=[0, 0], blob__digest=b"").values_list("blob__size"))
_SENT = Statement(lambda: SentBlob.filter(attempt_id=0, blob__digest=b"").values_list("blob__size"))
_SENT_ALL = Statement(lambda: SentBlob.filter(attempt_id=0).values_list("blob__digest", "blob__size"))
_OUTPUTS = Statement(
    lambda: OutputRow.filter(attempt_id=0).order_by("path").values_list("path", "blob__digest", "blob__size")
)
_OUTPUT = Statement(
    lambda: OutputRow.filter(attempt_id=0, path="").values_list("path", "blob__digest", "blob__size")
)
_KEPT: Final = (
    "SELECT COALESCE(array_id, id) AS number, MAX(name), SUM(files), SUM(file_bytes) AS size FROM jobs"
    " WHERE user_id = ? AND files > 0 GROUP BY number ORDER BY size DESC, number DESC LIMIT ?"
)
MAX_LEFT: Final = 100
"""Of what the elements of an array left behind, so much is told at once."""
_LINE_CHARS: Final = 200
_LEFT_BY_ELEMENTS: Final = (
    "SELECT jobs.array_index, left_files.path, left_files.why FROM jobs JOIN left_files"
    " ON left_files.attempt_id = (SELECT MAX(attempts.id) FROM attempts WHERE attempts.job_id = jobs.id)"
    " WHERE jobs.array_id = ? ORDER BY jobs.id, left_files.id LIMIT ?"
)
_LEFT = Statement(lambda: LeftRow.filter(attempt_id=0).order_by("id").values_list("path", "why"))


class Filing:
    """Users' uploads, jobs' inputs, what attempts gave back, and what of it is deleted."""

    _reader: Reader
    _aside: Aside

    if TYPE_CHECKING:

        async def _write(
            self,
            operation: Callable[Concatenate[sqlite3.Connection, int, P], T],
            *args: P.args,
            **kwargs: P.kwargs,
        ) -> T:
            """Run an operation and return its result after the commit; the store's own."""

    # -- reading -------------------------------------------------------------------------------------------

    async def files_taken(self, user_id: int) -> Taken:
        """What a user's files take."""
        found = await self._reader.rows(_TAKEN, bounded(user_id))
        return Taken(*found[0]) if found else NOTHING

    async def upload(self, user_id: int, digest: bytes) -> int | None:
        """Bytes of a blob that the user has uploaded; None when he has not, whoever else has."""
        found = await self._reader.rows(_UPLOAD, bounded(user_id), digest)
        return found[0][0] if found else None

    async def uploads(self, user_id: int, digests: Sequence[bytes]) -> dict[bytes, int]:
        """Which of these blobs the user has uploaded, with their bytes."""
        found: dict[bytes, int] = {}
        for at in range(0, len(digests), _MANY):
            part = list(digests[at : at + _MANY])
            part += [b""] * (_MANY - len(part))
            rows = await self._reader.rows(_UPLOADS, bounded(user_id), *part)
            found |= {row[0]: row[1] for row in rows}
        return found

    async def input_size(self, job_id: int, array_id: int | None, digest: bytes) -> int | None:
        """Bytes of a blob that a job, or its array, was given; None when it was not."""
        found = await self._reader.rows(_USED, bounded(job_id), bounded(array_id or 0), digest)
        return found[0][0] if found else None

    async def sent_size(self, attempt_id: int, digest: bytes) -> int | None:
        """Bytes of a blob that a worker has sent for an attempt that has not ended."""
        found = await self._reader.rows(_SENT, bounded(attempt_id), digest)
        return found[0][0] if found else None

    async def sent_so_far(self, attempt_id: int) -> tuple[int, int]:
        """How many blobs a worker has sent for an attempt, and their bytes."""
        found = await self._reader.rows(_SENT_ALL, bounded(attempt_id))
        return len(found), sum(size for _, size in found)

    async def missing_outputs(self, attempt_id: int, named: Sequence[OutputFile]) -> list[OutputFile]:
        """Those of the files that an end names which its worker has not sent."""
        found = await self._reader.rows(_SENT_ALL, bounded(attempt_id))
        sent = {digest.hex(): size for digest, size in found}
        return [file for file in named if sent.get(file.sha256) != file.size]

    async def output_files(self, attempt_id: int) -> list[OutputFile]:
        """What an attempt gave back, by path."""
        found = await self._reader.rows(_OUTPUTS, bounded(attempt_id))
        return [OutputFile(path=path, sha256=digest.hex(), size=size) for path, digest, size in found]

    async def output_file(self, attempt_id: int, path: str) -> OutputFile | None:
        """One of these files."""
        if not storable(path):
            return None
        found = await self._reader.rows(_OUTPUT, bounded(attempt_id), path)
        if not found:
            return None
        name, digest, size = found[0]
        return OutputFile(path=name, sha256=digest.hex(), size=size)

    async def left_files(self, attempt_id: int) -> list[LeftFile]:
        """What an attempt left in ``out/`` that did not come back."""
        return [
            LeftFile(path=path, why=why) for path, why in await self._reader.rows(_LEFT, bounded(attempt_id))
        ]

    async def kept_files(self, user_id: int) -> list[KeptFiles]:
        """The user's jobs and arrays of which most is kept."""

        def read(db: sqlite3.Connection) -> list[KeptFiles]:
            return [
                KeptFiles(job_id=number, name=name, files=count, bytes=size)
                for number, name, count, size in db.execute(_KEPT, (user_id, MAX_KEPT))
            ]

        return await self._aside.run(read)

    async def left_by_elements(self, array_id: int) -> list[LeftFile]:
        """What the elements of an array left behind, the index before each path; the first of it."""

        def read(db: sqlite3.Connection) -> list[LeftFile]:
            return [
                LeftFile(path=f"{index}/{path}"[:_LINE_CHARS], why=why)
                for index, path, why in db.execute(_LEFT_BY_ELEMENTS, (array_id, MAX_LEFT))
            ]

        return await self._aside.run(read)

    async def blobs(self) -> dict[str, int]:
        """Every blob with its size, by its hash in hexadecimal; it takes a while where there are many."""

        def read(db: sqlite3.Connection) -> dict[str, int]:
            return {digest.hex(): size for digest, size in db.execute("SELECT digest, size FROM blobs")}

        return await self._aside.run(read)

    async def unreferenced_blobs(self) -> list[bytes]:
        """Some of the blobs to which nothing refers."""
        return await self._aside.run(lambda db: blobs.unreferenced(db, AT_ONCE))

    # -- writing -------------------------------------------------------------------------------------------

    async def add_upload(self, user_id: int, digest: bytes, size: int, quota: Quota) -> None:
        """A user has sent a blob. See :func:`blobs.add_upload`."""
        await self._write(blobs.add_upload, user_id, digest, size, quota)

    async def add_sent(self, attempt_id: int, digest: bytes, size: int, caps: FileCaps, quota: Quota) -> None:
        """A worker has sent a blob. See :func:`files.add_sent`."""
        await self._write(files.add_sent, attempt_id, digest, size, caps, quota)

    async def delete_upload(self, user_id: int, digest: bytes) -> Freed:
        """A user wants a blob no more. See :func:`blobs.delete_upload`."""
        return await self._write(blobs.delete_upload, user_id, digest)

    async def prune_uploads(self, user_id: int) -> Freed:
        """Delete a user's uploads that no open job needs."""
        return await self._write(blobs.prune_uploads, user_id)

    async def delete_outputs(self, job_id: int) -> Freed:
        """Delete what a job, or every element of an array, gave back."""
        return await self._write(files.delete_outputs, job_id)

    async def forget_blobs(self, digests: Sequence[bytes]) -> list[bytes]:
        """Delete the rows of blobs to which nothing refers; their bytes may go then."""
        return await self._write(blobs.forget_blobs, digests)

    async def expire_files(self, before: datetime) -> int:
        """Delete some of what was last used, or whose job ended, before a time; how much was found."""
        moment = micros(before)
        found = await self._write(blobs.expire_uploads, moment, AT_ONCE)
        found += await self._write(files.expire_outputs, moment, AT_ONCE)
        await self._write(files.drop_stale)
        return found
