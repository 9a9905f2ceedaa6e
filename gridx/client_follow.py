"""Following a job over broken connections and over its attempts, byte by byte, without gap or repetition."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gridx.client_wire import Wire
from gridx.errors import GridError, NotFound, Unreachable
from gridx.messages import Job, Stream

if TYPE_CHECKING:
    from gridx.client import Client

log = logging.getLogger("gridx.client")

PATIENCE_S: Final = 120.0
"""How long ``wait`` and ``follow`` go on while nothing answers; a restart of the coordinator is shorter."""


@dataclass(frozen=True, slots=True)
class FollowedOutput:
    """Bytes of one stream of one attempt, from ``offset``; a job that was tried again starts at 0 anew."""

    attempt: int
    offset: int
    data: bytes


class Patience:
    """Back-off for what outlives a broken connection: gives up with the last error when time is over."""

    def __init__(self) -> None:
        self._since = asyncio.get_running_loop().time()
        self._tries = 0

    async def another_try(self, error: GridError) -> None:
        """Pause before the next try, longer each time. Raises ``error`` when that was the last."""
        if asyncio.get_running_loop().time() - self._since > PATIENCE_S:
            raise error
        if self._tries == 1:
            log.warning("%s Trying again for up to %.0f s.", error.message, PATIENCE_S)
        self._tries += 1
        await asyncio.sleep(min(5.0, 0.1 * 2**self._tries) * random.uniform(0.5, 1.0))  # noqa: S311


async def follow_attempts(
    grid: Client, wire: Wire, job_id: int, stream: Stream, offset: int, attempt: int | None
) -> AsyncIterator[FollowedOutput]:
    """Output from ``offset`` of ``attempt`` (None: the newest) on, until the job has ended."""
    number = attempt or max(1, (await grid.job(job_id)).attempt)
    patience = Patience()
    while True:
        query = {"stream": stream, "attempt": number, "offset": offset, "follow": 1}
        try:
            try:
                async with wire.stream(f"/jobs/{job_id}/output", query) as response:
                    async for data in response.content.iter_any():
                        patience = Patience()
                        yield FollowedOutput(number, offset, data)
                        offset += len(data)
                silent = False
            except Unreachable as error:
                if not error.details.get("silent"):
                    raise
                silent = True
            job = await grid.job(job_id)
            if silent:
                patience = Patience()
            # The response also ends when the coordinator stops: the job itself says whether it is over.
            if not _attempt_is_over(job, number):
                if not silent:
                    await patience.another_try(Unreachable(f"{grid.url} ended the output early."))
                continue
            rest = await _rest(grid, job_id, stream, offset, number)
            if rest:
                yield FollowedOutput(number, offset, rest)
                offset += len(rest)
        except Unreachable as error:
            await patience.another_try(error)
            continue
        if job.state.ended and job.attempt <= number:
            return
        number, offset = number + 1, 0


async def _rest(grid: Client, job_id: int, stream: Stream, offset: int, number: int) -> bytes:
    try:
        return await grid.output(job_id, stream, offset=offset, attempt=number)
    except NotFound:
        return b""  # the job ended before that attempt began


def _attempt_is_over(job: Job, number: int) -> bool:
    if job.state.ended or job.attempt > number:
        return True
    attempts = job.attempts if isinstance(job.attempts, list) else []
    return any(attempt.number == number and attempt.ended_at is not None for attempt in attempts)


async def stored_output(
    wire: Wire, job_id: int, stream: Stream, offset: int = 0, attempt: int | None = None
) -> bytes:
    """Everything that is stored of a stream, of the last attempt unless one is named."""
    data = b""
    while True:
        query = {"stream": stream, "offset": offset + len(data), "attempt": attempt}
        async with wire.read(f"/jobs/{job_id}/output", query) as response:
            part = await response.read()
            number = response.headers.get("Gridx-Attempt", "")
        if not part:
            return data
        data += part
        # The next part is of the same attempt, also when another one begins in between.
        attempt = int(number) if number.isdecimal() and int(number) else attempt
