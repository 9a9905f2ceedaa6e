"""A file as an answer: whole or a part of it, at the pace of its reader, with little in memory."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import quote

from aiohttp import web

from gridx.errors import GridError
from gridx.services.coordinator.api.call import Call

PART_BYTES: Final = 256 << 10
STALLED_S: Final = 60.0
"""A reader that takes nothing for so long is dropped."""
_RANGE: Final = re.compile(r"bytes=([0-9]{1,16})-([0-9]{0,16})", re.ASCII)


class NotSatisfiable(GridError):
    """The part that was asked for is not in the file."""

    code, status = "not_satisfiable", 416


async def send_file(
    call: Call,
    read: Callable[[int], Awaitable[bytes]],
    *,
    size: int,
    name: str,
    seek: Callable[[int], None] | None = None,
    tag: str = "",
) -> web.StreamResponse:
    """Answer with a file.

    Args:
        read: the next bytes, at most so many.
        name: what a browser calls it.
        seek: go to an offset; without it a part cannot be asked for.
        tag: the entity tag, without quotes.

    Raises:
        NotSatisfiable: the range begins past the end.
    """
    start, end = _wanted(call.request, size) if seek is not None else (0, size)
    part = (start, end) != (0, size)
    response = web.StreamResponse(
        status=206 if part else 200,
        headers={
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
        },
    )
    if seek is not None:
        response.headers["Accept-Ranges"] = "bytes"
        seek(start)
    if part:
        response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    if tag:
        response.headers["ETag"] = f'"{tag}"'
    response.content_length = end - start

    def sign_out(_: object) -> None:
        if call.request.transport is not None:
            call.request.transport.abort()

    with call.parts.sockets.opened(call.caller, sign_out):
        await response.prepare(call.request)
        left = end - start
        try:
            while left:
                data = await read(min(PART_BYTES, left))
                if not data:
                    break
                left -= len(data)
                async with asyncio.timeout(STALLED_S):
                    await response.write(data)
        except TimeoutError:
            left = 1
        if left:
            # It was cut off: without the rest the reader knows that this is not the file.
            response.force_close()
            sign_out(None)
        else:
            await response.write_eof()
    return response


def _wanted(request: web.Request, size: int) -> tuple[int, int]:
    """From and up to which byte; a range in another notation means the whole."""
    found = _RANGE.fullmatch(request.headers.get("Range", ""))
    if found is None:
        return 0, size
    start = int(found[1])
    end = min(size, int(found[2]) + 1) if found[2] else size
    if start >= end:
        raise NotSatisfiable(f"The file has {size:,} bytes.", "Ask for a part of it.", size=size)
    return start, end
