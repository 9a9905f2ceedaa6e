"""Files of users and of jobs: what is allowed, what is there, what comes in and what goes out.

A user sees what he uploaded and what his jobs gave back, and nothing of what others have: that a file is here
already is told to nobody who has not sent it himself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final

from gridx.clock import Clock
from gridx.config import FileSettings, Settings
from gridx.errors import NotFound, TooLarge
from gridx.messages import (
    MAX_CODE_BYTES,
    MAX_INPUTS,
    BlobState,
    FileCaps,
    FileUsage,
    Freed,
    JobFiles,
    Limits,
    OutputFile,
)
from gridx.services.coordinator.filestore import FileStore, Incoming, whole
from gridx.services.coordinator.fleet import Fleet
from gridx.services.coordinator.live import Live
from gridx.services.coordinator.states import PAID
from gridx.services.coordinator.store import Store, blobs, files
from gridx.services.coordinator.store.blobs import Quota
from gridx.services.coordinator.store.records import AttemptRecord, JobRecord, UserRecord
from gridx.services.coordinator.uploads import Sender

MIB: Final = 1 << 20
MAX_FILES: Final = 200_000
"""Files that one user may have here, however small they are."""


def file_caps(settings: FileSettings) -> FileCaps:
    """What one attempt may give back."""
    return FileCaps(total_bytes=settings.out_mb * MIB, files=settings.out_files, depth=settings.out_depth)


class Files:
    """The front of everything about files; ``disk`` has their bytes."""

    def __init__(self, store: Store, fleet: Fleet, settings: Settings, clock: Clock) -> None:
        self._store = store
        self._fleet = fleet
        self._settings = settings
        self.disk = FileStore(store, settings.db_path, self._payer, clock)
        self._quota = Quota(settings.files.quota_mb * MIB, MAX_FILES)
        self._max_file = settings.files.max_file_mb * MIB
        self._keep = timedelta(days=settings.files.keep_days)
        self.caps = file_caps(settings.files)

    async def start(self) -> None:
        """Look over what is on the disk; see :meth:`FileStore.start`."""
        await self.disk.start()

    def close(self) -> None:
        """Take nothing more in."""
        self.disk.uploads.close()

    def _payer(self, partial: str) -> int | None:
        """On whose account a partial file of this name comes in; None: nobody wants it any more."""
        sender, _, _ = partial.partition("-")
        if sender.isdecimal():
            return int(sender)
        live = self._fleet.live(int(sender[1:])) if sender[:1] == "a" and sender[1:].isdecimal() else None
        return None if live is None else live.job.user_id

    # -- what is allowed -----------------------------------------------------------------------------------

    async def limits(self, user: UserRecord) -> Limits:
        """Every limit that a submission of this user meets."""
        coordinator = self._settings.coordinator
        return Limits(
            code_bytes=MAX_CODE_BYTES,
            file_bytes=self._max_file,
            inputs=MAX_INPUTS,
            quota_bytes=self._quota.size,
            used_bytes=(await self._store.files_taken(user.id)).size + self.disk.uploads.reserved(user.id),
            output_cap_bytes=coordinator.output_cap_bytes,
            out_files=self.caps,
            array_elements=coordinator.max_array,
            queued=coordinator.max_queued_per_user,
            running=self._settings.scheduler.max_running_per_user,
        )

    async def usage(self, user: UserRecord) -> FileUsage:
        """What the user's files take; what has begun to come counts as inputs."""
        taken = await self._store.files_taken(user.id)
        return FileUsage(
            input_bytes=taken.input_bytes + self.disk.uploads.reserved(user.id),
            output_bytes=taken.output_bytes,
            quota_bytes=self._quota.size,
            keep_days=self._settings.files.keep_days,
            largest=await self._store.kept_files(user.id),
        )

    # -- users' uploads ------------------------------------------------------------------------------------

    async def have(self, user: UserRecord, digest: str) -> BlobState:
        """How much of a file the user has sent; of what others have sent nothing is said."""
        size = await self._store.upload(user.id, bytes.fromhex(digest))
        return await self.disk.state(_user(user), digest, size)

    async def have_all(self, user: UserRecord, digests: Sequence[str]) -> list[BlobState]:
        """The same for many files."""
        sizes = await self._store.uploads(user.id, [bytes.fromhex(digest) for digest in digests])
        wanted = [(digest, sizes.get(bytes.fromhex(digest))) for digest in digests]
        return await self.disk.states(_user(user), wanted)

    async def take(self, user: UserRecord, coming: Incoming) -> BlobState:
        """Take a piece of a file from its user.

        Raises:
            TooLarge: the file is over the cap.
            QuotaExceeded, Conflict, InvalidField, TooMany, Unavailable: see :meth:`Uploads.take`.
        """
        digest = bytes.fromhex(coming.digest)
        if (await self.have(user, coming.digest)).complete:
            return whole(coming.digest, coming.size)

        async def admit(others: int) -> None:
            taken = await self._store.files_taken(user.id)
            blobs.check_quota(
                taken._replace(input_bytes=taken.input_bytes + others), coming.size, self._quota
            )

        return await self._take(
            _user(user),
            coming,
            admit,
            lambda: self._store.add_upload(user.id, digest, coming.size, self._quota),
        )

    async def delete(self, user: UserRecord, digest: str) -> Freed:
        """Delete one of the user's uploads; what has come of it when it is not whole goes, too.

        Raises:
            Conflict: a job that has not ended needs it.
        """
        freed = await self._store.delete_upload(user.id, bytes.fromhex(digest))
        await self.disk.uploads.drop(_user(user), digest)
        await self.disk.remove([bytes.fromhex(digest)])
        return freed

    async def prune(self, user: UserRecord) -> Freed:
        """Delete the user's uploads that no open job needs, and what has come of others."""
        freed = await self._store.prune_uploads(user.id)
        prefix = f"{_user(user).name}-"
        for name in [name for name in self.disk.uploads.begun() if name.startswith(prefix)]:
            await self.disk.uploads.drop_named(name)
        await self.disk.collect()
        return freed

    # -- workers -------------------------------------------------------------------------------------------

    async def input_of(self, user: UserRecord, attempt_id: int, digest: str) -> int:
        """Bytes of an input that a live attempt on one of the caller's workers was given.

        Raises:
            NotFound: there is no such attempt there, or it was not given this.
        """
        job = self._live(user, attempt_id).job
        size = await self._store.input_size(job.id, job.array_id, bytes.fromhex(digest))
        if size is None:
            raise NotFound("The job was not given such a file.", "It has what its assignment names.")
        return size

    async def have_output(self, user: UserRecord, attempt_id: int, digest: str) -> BlobState:
        """How much of a file a worker has sent for an attempt."""
        live = self._live(user, attempt_id)
        size = await self._store.sent_size(live.id, bytes.fromhex(digest))
        return await self.disk.state(_attempt(live), digest, size)

    async def take_output(self, user: UserRecord, attempt_id: int, coming: Incoming) -> BlobState:
        """Take a piece of a file that a live attempt on one of the caller's workers gives back.

        Raises:
            NotFound: there is no such attempt there.
            TooLarge: the file, or all of the attempt, is over the caps.
            QuotaExceeded: it is more than the job's owner may have.
        """
        digest = bytes.fromhex(coming.digest)
        live = self._live(user, attempt_id)
        if (await self.have_output(user, attempt_id, coming.digest)).complete:
            return whole(coming.digest, coming.size)

        async def admit(others: int) -> None:
            count, total = await self._store.sent_so_far(live.id)
            files.check_caps(count, total, coming.size, self.caps)
            taken = await self._store.files_taken(live.job.user_id)
            blobs.check_quota(
                taken._replace(input_bytes=taken.input_bytes + others), coming.size, self._quota
            )

        return await self._take(
            _attempt(live),
            coming,
            admit,
            lambda: self._store.add_sent(live.id, digest, coming.size, self.caps, self._quota),
        )

    def _live(self, user: UserRecord, attempt_id: int) -> Live:
        live = self._fleet.live(attempt_id)
        record = self._fleet.record(live.worker_id) if live is not None else None
        if live is None or record is None or record.user_id != user.id:
            raise NotFound("There is no such attempt here, or it is over.", "Its files are not wanted.")
        return live

    # -- what jobs gave back -------------------------------------------------------------------------------

    async def of_job(self, job: JobRecord, number: int | None) -> JobFiles:
        """What an attempt of a job gave back; of the last one that was paid for unless one is named.

        Raises:
            NotFound: there is no attempt of this number.
        """
        attempt = await self._attempt(job, number)
        if attempt is None:
            return JobFiles(job_id=job.id, attempt=0, files=[], left=[])
        found, left = await asyncio.gather(
            self._store.output_files(attempt.id), self._store.left_files(attempt.id)
        )
        return JobFiles(
            job_id=job.id,
            attempt=attempt.number,
            files=found,
            left=left,
            expires_at=job.ended_at + self._keep if job.ended_at is not None else None,
        )

    async def file_of_job(self, job: JobRecord, number: int | None, path: str) -> OutputFile:
        """One of these files.

        Raises:
            NotFound: the job did not give it back, or it was deleted.
        """
        attempt = await self._attempt(job, number)
        found = await self._store.output_file(attempt.id, path) if attempt is not None else None
        if found is None:
            raise NotFound(
                f"Job {job.id} has no such file.", f"gridx files {job.id} lists what it gave back."
            )
        return found

    async def delete_of_job(self, job_id: int) -> Freed:
        """Delete what a job, or every element of an array, gave back."""
        freed = await self._store.delete_outputs(job_id)
        await self.disk.collect()
        return freed

    async def _attempt(self, job: JobRecord, number: int | None) -> AttemptRecord | None:
        attempts = await self._store.attempts_of(job.id)
        if number is None:
            return next((one for one in reversed(attempts) if one.state in PAID), None)
        for one in attempts:
            if one.number == number:
                return one
        raise NotFound(
            f"Job {job.id} has no attempt {number}.", f"It had {len(attempts)}: gridx show {job.id}"
        )

    async def _take(
        self,
        sender: Sender,
        coming: Incoming,
        admit: Callable[[int], Awaitable[None]],
        write: Callable[[], Awaitable[None]],
    ) -> BlobState:
        if coming.size > self._max_file:
            raise TooLarge(
                f"The file has {coming.size:,} bytes, and {self._max_file:,} are allowed.",
                "Split it, or send it compressed.",
                limit=self._max_file,
            )
        return await self.disk.take(sender, coming, admit, write)


def _user(user: UserRecord) -> Sender:
    return Sender(str(user.id), user.id)


def _attempt(live: Live) -> Sender:
    return Sender(f"a{live.id}", live.job.user_id)
