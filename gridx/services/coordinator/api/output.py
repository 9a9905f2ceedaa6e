"""``/jobs/{id}/output``: what a job wrote, a part at a time or as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Final, Literal

from aiohttp import web
from msgspec import Meta

from gridx.errors import Unavailable
from gridx.messages import Count, Stream, Wire
from gridx.services.coordinator.api.call import Call, Route
from gridx.services.coordinator.events import Change
from gridx.services.coordinator.jobs import OutputPart

MAX_PART_BYTES: Final = 1 << 20
FOLLOW_PART_BYTES: Final = 64 << 10
"""A slow reader holds one such part in memory, and what the kernel buffers."""
LOOK_EVERY_S: Final = 2.0
"""While nothing comes, whether the reader is still there is looked up this often."""
STALLED_S: Final = 60.0
"""A reader that takes nothing for so long is dropped."""


class OutputQuery(Wire, frozen=True):
    """Which bytes: of a stream of the last attempt, or of attempt number ``attempt``, from ``offset`` on."""

    stream: Stream = "stdout"
    offset: Count = 0
    limit: Annotated[int, Meta(ge=1, le=MAX_PART_BYTES)] = MAX_PART_BYTES
    attempt: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    follow: Literal["0", "1", "false", "true", ""] = "0"


async def output(call: Call, query: OutputQuery) -> web.StreamResponse:
    if query.follow in ("1", "true", ""):
        return await _follow(call, query)
    part = await call.parts.jobs.output(
        call.caller.user,
        call.id(),
        attempt=query.attempt,
        stream=query.stream,
        offset=query.offset,
        limit=query.limit,
    )
    return web.Response(
        body=part.data,
        content_type="application/octet-stream",
        headers={
            "Gridx-Attempt": str(part.attempt),
            "Gridx-Next-Offset": str(part.next_offset),
            "Gridx-Over": str(int(part.attempt_over)),
            "Gridx-Ended": str(int(part.job_ended)),
        },
    )


async def _follow(call: Call, query: OutputQuery) -> web.StreamResponse:
    request, job_id = call.request, call.id()
    newest = await _newest(call, job_id, query.stream)
    attempt = query.attempt or newest.attempt
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    if attempt:
        response.headers["Gridx-Attempt"] = str(attempt)

    def sign_out(_: object) -> None:
        if request.transport is not None:
            request.transport.abort()

    with call.parts.sockets.opened(call.caller, sign_out):
        await response.prepare(request)
        try:
            async for data in _coming(call, job_id, query):
                async with asyncio.timeout(STALLED_S):
                    await response.write(data)
        except (Unavailable, TimeoutError):
            # Without the last chunk the reader knows that this was not the end.
            response.force_close()
            sign_out(None)
    return response


async def _newest(call: Call, job_id: int, stream: Stream) -> OutputPart:
    """The last attempt that has begun, number 0 when none has; NotFound for a job of others."""
    return await call.parts.jobs.output(
        call.caller.user, job_id, attempt=None, stream=stream, offset=0, limit=1
    )


async def _coming(call: Call, job_id: int, query: OutputQuery) -> AsyncIterator[bytes]:
    """The bytes of one attempt, or of every attempt from the last one on, until there is no more to come.

    Raises:
        Unavailable: the coordinator stops.
        ConnectionResetError: the reader has gone.
    """
    number, offset, begun = query.attempt or 0, query.offset, False
    with call.parts.hub.watching(job_id, output=True) as change:
        while True:
            change.looked()
            if not begun:
                newest = await _newest(call, job_id, query.stream)
                if newest.attempt and newest.attempt >= number:
                    number, begun = number or newest.attempt, True
                elif newest.job_ended:
                    return
                else:
                    await _wait(call, change)
                    continue
            part = await call.parts.jobs.output(
                call.caller.user,
                job_id,
                attempt=number,
                stream=query.stream,
                offset=offset,
                limit=FOLLOW_PART_BYTES,
            )
            if part.data:
                yield part.data
                offset = part.next_offset
            elif part.attempt_over and query.attempt is not None:
                return
            elif part.attempt_over:
                number, offset, begun = number + 1, 0, False
            if not part.attempt_over and len(part.data) < FOLLOW_PART_BYTES:
                await _wait(call, change)


async def _wait(call: Call, change: Change) -> None:
    if not call.parts.hub.closing:
        await change.wait(LOOK_EVERY_S)
    if call.parts.hub.closing:
        raise Unavailable("The coordinator is stopping.", "Go on from this offset when it is back.")
    transport = call.request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the reader has gone")


ROUTES = (
    Route(
        *("GET", "/jobs/{id}/output", output, OutputQuery),
        says="What a job wrote: a part of it, or with ``follow`` all that comes until the job has ended.",
        gives="application/octet-stream",
        headers={
            "Gridx-Attempt": "Number of the attempt whose output it is.",
            "Gridx-Next-Offset": "Where the next part begins; not with ``follow``.",
            "Gridx-Over": "1 when the attempt has ended and this was all; not with ``follow``.",
            "Gridx-Ended": "1 when the job has ended; not with ``follow``.",
        },
    ),
)
