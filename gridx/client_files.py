"""The client's part about files: limits, uploads, inputs of jobs, and what jobs gave back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from gridx import client_fetching, client_sending, safetext
from gridx.client_sending import Progress, Uploaded
from gridx.client_wire import Wire
from gridx.errors import NotFound
from gridx.inputs import check_limits, collect
from gridx.messages import FileUsage, Freed, InputFile, Job, JobFiles, JobState, Limits


class ClientFiles:
    """Files; part of :class:`~gridx.client.Client`."""

    _wire: Wire

    if TYPE_CHECKING:

        async def job(self, job_id: int) -> Job:
            """One job; the client's own."""

        def all_elements(self, array_id: int, *, states: Collection[JobState] = ()) -> AsyncIterator[Job]:
            """An array's elements; the client's own."""

    async def limits(self) -> Limits:
        """Every limit that a submission meets, and what of the quota is used."""
        return await self._wire.get("/limits", Limits)

    async def usage(self) -> FileUsage:
        """What one's files take, and what is allowed."""
        return await self._wire.get("/blobs/usage", FileUsage)

    async def upload(
        self, source: str | Path | bytes | BinaryIO, *, progress: Progress | None = None
    ) -> Uploaded:
        """Send a file, bytes, or what a stream still holds; nothing is sent of what is there already.

        It goes on over broken connections and restarts of the coordinator, where it broke off.

        Raises:
            TooLarge: over what one file may have.
            QuotaExceeded: over what one user may have.
            InvalidField: it cannot be read, or it changed while it was sent.
        """
        return await client_sending.send(
            self._wire, Path(source) if isinstance(source, str) else source, progress
        )

    async def upload_inputs(
        self, paths: Iterable[str | Path], *, root: Path | None = None, progress: Progress | None = None
    ) -> list[InputFile]:
        """Send files and folders for a job: ``spec.inputs`` is what comes back.

        See :func:`gridx.inputs.collect` for how names are read and what is left out of folders. All is
        checked before anything is sent.

        Raises:
            InvalidField: a file is missing, or cannot go along; nothing was sent.
            TooLarge, QuotaExceeded: it does not fit, and the largest files are named; nothing was sent.
        """
        found = await asyncio.to_thread(collect, list(paths), root)
        limits = await self.limits()
        check_limits(found, limits)
        return await client_sending.send_inputs(self._wire, found, limits, progress)

    async def delete_upload(self, sha256: str) -> Freed:
        """Delete one of one's uploads. Raises Conflict while a job needs it."""
        return await self._wire.send("DELETE", f"/blobs/{sha256}", Freed)

    async def prune_uploads(self) -> Freed:
        """Delete all of one's uploads that no open job needs."""
        return await self._wire.send("POST", "/blobs/prune", Freed)

    async def files(self, job_id: int, *, attempt: int | None = None) -> JobFiles:
        """What a job gave back, and what it left behind; of the last attempt that came to its end."""
        return await self._wire.get(f"/jobs/{job_id}/files", JobFiles, {"attempt": attempt})

    async def read_file(self, job_id: int, path: str, *, attempt: int | None = None) -> bytes:
        """One file that a job gave back, in memory.

        Raises:
            NotFound: the job gave back no such file.
        """
        return await client_fetching.read(self._wire, job_id, attempt, path)

    async def fetch_file(
        self, job_id: int, path: str, target: str | Path, *, attempt: int | None = None
    ) -> int:
        """Fetch one file to ``target``, which is replaced, whole or not at all; its bytes.

        Raises:
            NotFound: the job gave back no such file.
        """
        return await client_fetching.fetch(self._wire, job_id, attempt, path, Path(target))

    async def fetch(
        self,
        job_id: int,
        folder: str | Path,
        names: Sequence[str] | None = None,
        *,
        overwrite: bool = False,
        attempt: int | None = None,
    ) -> list[Path]:
        """Fetch what a job gave back into a folder: all, or what ``names`` names; where it lies now.

        Of an array each element's files go into a folder with its index as the name; ``names`` are taken from
        the elements that have them.

        Raises:
            NotFound: it gave back nothing of such a name.
            InvalidField: a file of another content is in the way; of this job nothing was written.
        """
        job = await self.job(job_id)
        if job.array is None:
            listed = await self.files(job_id, attempt=attempt)
            return await client_fetching.fetch_all(
                self._wire, listed, Path(folder), names=names, overwrite=overwrite
            )
        fetched: list[Path] = []
        missing = dict.fromkeys(names or ())
        async for element in self.all_elements(job_id):
            if element.files:
                listed = await self.files(element.id, attempt=attempt)
                here = None if names is None else client_fetching.named(listed, names)
                for name in here or ():
                    missing.pop(name, None)
                inside = Path(folder) / str(element.array_index)
                fetched += await client_fetching.fetch_all(
                    self._wire, listed, inside, names=here, overwrite=overwrite
                )
        if missing:
            raise NotFound(
                f"No element of array {job_id} gave back {', '.join(map(safetext.name, missing))}.",
                f"gridx files {job_id} lists the elements that gave back files.",
            )
        return fetched

    async def delete_files(self, job_id: int) -> Freed:
        """Delete what a job, or every element of an array, gave back."""
        return await self._wire.send("DELETE", f"/jobs/{job_id}/files", Freed)
