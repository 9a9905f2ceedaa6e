"""Files between this worker and its coordinator, over HTTP: in pieces, resumed where they broke, patient.

A transfer that stands still, breaks or meets a coordinator that is away is tried again with a back-off. What
a coordinator says about a file for good ends it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

import aiohttp

from gridx import safetext
from gridx.errors import (
    Conflict,
    Forbidden,
    GridError,
    NotFound,
    QuotaExceeded,
    SandboxBroken,
    TooLarge,
    TooMany,
    Unauthenticated,
    Unavailable,
    Unreachable,
    Untrusted,
)
from gridx.messages import BlobState, InputFile, OutputFile, decode
from gridx.services.worker.backoff import Backoff, Complaint
from gridx.services.worker.cache import Cache
from gridx.services.worker.signin import MAX_ANSWER_BYTES, SignIn, error_of, unreachable

log = logging.getLogger("gridx.worker")

STANDSTILL_S: Final = 30.0
"""A connection over which nothing moves for so long is given up and made anew."""
FETCH_PATIENCE_S: Final = 120.0
"""An input of which nothing comes for so long, however often it is tried, ends its attempt."""
PIECE_BYTES: Final = 256 << 10
REQUEST_BYTES: Final = 8 << 20
"""What one upload request carries."""
ASK_FROM_BYTES: Final = 1 << 20
"""Of files from this size on it is asked first how much has come."""
OFFSET_HEADER: Final = "Gridx-Offset"
TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=10, sock_read=STANDSTILL_S)
DAMAGED_TRIES: Final = 2


class NotTaken(Exception):
    """The coordinator does not take a file, for good; why, for whoever looks for it."""


class Over(Exception):
    """The attempt is over for the coordinator: nothing of it is wanted."""


class Damaged(Exception):
    """What is on this machine's disk is not what the attempt gave back."""


class Transfers:
    """The worker's connections for files; opened at the first use."""

    def __init__(self, signing: SignIn, rng: random.Random) -> None:
        self._signing, self._rng = signing, rng
        self._http: aiohttp.ClientSession | None = None
        self._back = asyncio.Event()

    def coordinator_is_back(self) -> None:
        """What waits for its next try need not wait any longer."""
        self._back.set()
        self._back = asyncio.Event()

    async def close(self) -> None:
        """End all connections."""
        if self._http is not None:
            await self._http.close()
            self._http = None

    # -- in ------------------------------------------------------------------------------------------------

    async def download(self, attempt_id: int, file: InputFile, cache: Cache) -> None:
        """Get an input into the cache, going on from what is there of it.

        Raises:
            SandboxBroken: it cannot be had; why.
        """
        partial = await cache.call(cache.partial, file.sha256)
        patience = _Patience(self._rng, FETCH_PATIENCE_S)
        damaged = 0
        while True:
            before = partial.size
            try:
                if partial.size < file.size:
                    await self._get(attempt_id, file, cache, partial.size, partial.write)
                if partial.size == file.size and partial.sha256 == file.sha256:
                    await cache.call(cache.complete, file.sha256)
                    return
            except (NotFound, Forbidden):
                raise SandboxBroken(
                    f"The input {file.path} is not at the coordinator any more, or the attempt is over there."
                ) from None
            except OSError as error:
                raise SandboxBroken(
                    f"The input {file.path} could not be kept: {error.strerror or error}."
                ) from None
            except GridError as error:
                if partial.size > before:
                    patience.moved()
                if not await patience.wait(error, self._back):
                    raise SandboxBroken(f"The input {file.path} does not come: {error.message}") from None
                continue
            if partial.size < file.size:
                # The body was shorter than it was announced to be.
                patience.moved()
                continue
            damaged += 1
            await cache.call(partial.restart)
            if damaged == DAMAGED_TRIES:
                raise SandboxBroken(f"What came as the input {file.path} is not what was announced.")

    async def _get(
        self, attempt_id: int, file: InputFile, cache: Cache, offset: int, write: Callable[[bytes], None]
    ) -> None:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        left = file.size - offset
        async with self._request(
            "GET", f"/attempts/{attempt_id}/inputs/{file.sha256}", headers=headers
        ) as response:
            if response.status != (206 if offset else 200):
                raise await self._error(response)
            while left:
                data = await response.content.read(min(left, PIECE_BYTES))
                if not data:
                    raise Unreachable("The connection broke.")
                left -= len(data)
                await cache.call(write, data)

    # -- out -----------------------------------------------------------------------------------------------

    async def upload(
        self, attempt_id: int, file: OutputFile, place: Path, call: Callable[..., Awaitable[bytes]]
    ) -> None:
        """Send a file that an attempt gave back, however long the coordinator is away.

        Args:
            call: runs a blocking function in a thread of the folder where the file is.

        Raises:
            NotTaken: it is not taken, for good.
            Over: the attempt is not wanted any more.
            Damaged: the file here is not what it was.
        """
        patience = _Patience(self._rng, None)
        try:
            source = await asyncio.to_thread(lambda: place.open("rb", buffering=0))
        except OSError:
            raise Damaged from None
        with source:
            offset: int | None = None if file.size >= ASK_FROM_BYTES else 0
            while True:
                try:
                    if offset is None:
                        offset = await self._offset(attempt_id, file)
                        if offset == file.size:
                            return
                    state = await self._put(attempt_id, file, offset, source, call)
                    patience.moved()
                    if state.complete:
                        return
                    offset = state.offset
                except (NotFound, Forbidden):
                    raise Over from None
                except (QuotaExceeded, TooLarge) as error:
                    raise NotTaken(_reason(error)) from None
                except Conflict as error:
                    # Another place than was thought: something came, or was lost there.
                    found = error.details.get("offset")
                    offset = found if type(found) is int and 0 <= found <= file.size else None
                    if not await patience.wait(error, self._back):
                        raise NotTaken(error.message) from None
                except _RETRIED as error:
                    offset = None
                    await patience.wait(error, self._back)
                except GridError as error:
                    if error.code == "invalid_field":
                        raise Damaged from None
                    raise NotTaken(error.message) from None

    async def _offset(self, attempt_id: int, file: OutputFile) -> int:
        async with self._request("HEAD", _file_path(attempt_id, file)) as response:
            offset = response.headers.get(OFFSET_HEADER, "")
            if response.status in (200, 404) and offset.isascii() and offset.isdigit():
                return min(int(offset), file.size)
            if response.status == 404:
                raise NotFound("The attempt is over there.")
            raise _of_status(response.status, self._signing.url)

    async def _put(
        self,
        attempt_id: int,
        file: OutputFile,
        offset: int,
        source: BinaryIO,
        call: Callable[..., Awaitable[bytes]],
    ) -> BlobState:
        length = min(REQUEST_BYTES, file.size - offset)
        if os.fstat(source.fileno()).st_size != file.size:
            raise Damaged
        loop = asyncio.get_running_loop()

        def read(at: int, count: int) -> bytes:
            source.seek(at)
            return source.read(count)

        async def body(standstill: asyncio.Timeout) -> AsyncIterator[bytes]:
            at, end = offset, offset + length
            while at < end and (data := await call(read, at, min(PIECE_BYTES, end - at))):
                at += len(data)
                yield data
                standstill.reschedule(loop.time() + STANDSTILL_S)

        try:
            async with (
                asyncio.timeout(STANDSTILL_S) as standstill,
                self._request(
                    "PUT",
                    f"{_file_path(attempt_id, file)}?size={file.size}&offset={offset}",
                    data=body(standstill) if length else b"",
                    headers={"Content-Type": "application/octet-stream", "Content-Length": str(length)},
                ) as response,
            ):
                if response.status != 200:
                    raise await self._error(response)
                return decode(await response.content.read(MAX_ANSWER_BYTES), BlobState)
        except TimeoutError as error:
            raise unreachable(self._signing.url, error) from None

    # -- connections ---------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, data: object = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        token = self._signing.current
        if token is None:
            raise Unreachable("The worker is not signed in.")
        if self._http is None:
            self._http = aiohttp.ClientSession(timeout=TIMEOUT, auto_decompress=False)
        url = self._signing.url
        check = await self._signing.trust.check(url)
        try:
            async with self._http.request(
                method,
                url + path,
                headers={"Authorization": f"Bearer {token}", **(headers or {})},
                data=data,
                ssl=check,
                allow_redirects=False,
            ) as response:
                yield response
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            self._signing.trust.forget(url)
            raise unreachable(url, error) from None

    async def _error(self, response: aiohttp.ClientResponse) -> GridError:
        if response.status < 400:
            return Unreachable(f"{self._signing.url} answered {response.status}.")
        return error_of(self._signing.url, await response.content.read(MAX_ANSWER_BYTES))


_RETRIED: Final = (Unreachable, Unavailable, TooMany, Unauthenticated, Untrusted)


class _Patience:
    """Waits between tries, longer each time that nothing moved; at most so long in all."""

    def __init__(self, rng: random.Random, patience_s: float | None) -> None:
        self._backoff, self._complaint = Backoff(rng), Complaint(log)
        self._patience_s = patience_s
        self._moved_at = asyncio.get_running_loop().time()

    def moved(self) -> None:
        """Something came through."""
        self._backoff.reset()
        self._complaint.over()
        self._moved_at = asyncio.get_running_loop().time()

    async def wait(self, error: GridError, back: asyncio.Event) -> bool:
        """Wait before the next try, until ``back`` at most.

        Returns:
            False: nothing has moved for too long, or trying is of no use.
        """
        standing_s = asyncio.get_running_loop().time() - self._moved_at
        if self._patience_s is not None and (
            standing_s > self._patience_s or not isinstance(error, _RETRIED)
        ):
            return False
        retry_after = error.details.get("retry_after_s", 0)
        wait_s = self._backoff.next(
            at_least_s=float(retry_after) if isinstance(retry_after, int | float) else 0.0
        )
        self._complaint.say(f"a file does not get through yet: {error.message}", wait_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await back.wait()
        return True


def _file_path(attempt_id: int, file: OutputFile) -> str:
    return f"/attempts/{attempt_id}/files/{file.sha256}"


def _of_status(status: int, url: str) -> GridError:
    """The error of an answer that has no body."""
    if status == 401:
        return Unauthenticated("The coordinator does not accept the token.")
    if status in (403, 404):
        return NotFound("The attempt is over there.")
    return Unavailable(f"{safetext.line(url)} answered {status}.")


def _reason(error: GridError) -> str:
    return "the owner's quota is full" if isinstance(error, QuotaExceeded) else error.message.rstrip(".")
