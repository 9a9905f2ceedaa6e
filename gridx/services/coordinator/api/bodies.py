"""Reading bodies: capped in size, in time, and in what all of them together hold in memory at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Any, Final, TypeVar

from aiohttp import web

from gridx import messages
from gridx.errors import BadRequest, TooLarge, TooMany
from gridx.messages import MAX_BODY_BYTES
from gridx.services.coordinator.turns import SMALL_BYTES, Turns

T = TypeVar("T")

BODY_GRACE_S: Final = 8.0
BODY_BYTES_PER_S: Final = 8 << 10
"""A body has the grace, and then a second for each so many bytes that have come."""
MAX_STRANGER_BYTES: Final = 16 << 10
"""Of a body of somebody who has not signed in yet."""
MAX_HELD_BYTES: Final = 128 << 20
"""Of all bodies that are being read."""


class Held:
    """How much of the bodies that are being read lies in memory."""

    def __init__(self, most: int = MAX_HELD_BYTES) -> None:
        self._left = most

    def take(self, size: int) -> None:
        """Count bytes in. Raises TooMany when all bodies together would be too large."""
        if size > self._left:
            raise TooMany(
                "The coordinator is taking in as much as it can hold.",
                "Try again in a moment.",
                retry_after_s=2,
            )
        self._left -= size

    def give(self, size: int) -> None:
        """Count bytes out."""
        self._left += size


HELD: Final = web.AppKey("held", Held)
TURNS: Final = web.AppKey("turns", Turns)


async def read_json(
    request: web.Request, kind: type[T], most: int = MAX_BODY_BYTES, *, user_id: int = 0
) -> T:
    """The body as the type says, strictly; of two fields of one name nobody knows which is meant.

    Args:
        user_id: who sends it; large bodies of one user are taken in one after the other.

    Raises:
        BadRequest: it is not JSON, or names a field twice.
        InvalidField: a field is unknown, missing, of the wrong type or out of range.
        TooLarge, TooMany: as :func:`read_body`.
    """
    turns = request.app[TURNS]
    small = most <= SMALL_BYTES or (request.content_length or most) <= SMALL_BYTES
    async with nullcontext() if small else turns.line(user_id):
        data = await read_body(request, most)
        return await turns.read(data, lambda data: _strictly(data, kind))


def _strictly(data: bytes, kind: type[T]) -> T:
    value = messages.decode(data, kind)
    try:
        json.loads(data, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"This is not valid JSON: {error}.", "Send one JSON value.") from None
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> None:
    names = {name for name, _ in pairs}
    if len(names) != len(pairs):
        raise BadRequest("This is not valid JSON: a field is given twice.", "Give each once.")


async def read_body(request: web.Request, most: int = MAX_BODY_BYTES) -> bytes:
    """Read the body with a cap on its size and its time.

    Raises:
        TooLarge: over the cap, or compressed, which could hide any size.
        TooMany: others send so much at this moment.
        BadRequest: it drips, or it is not framed as HTTP says.
    """
    _refuse_compressed(request)
    if (request.content_length or 0) > most:
        raise _too_large(most)
    if request.content.is_eof():
        # It is here already, as small bodies are: nothing needs a clock.
        whole = request.content.read_nowait()
        if len(whole) > most:
            raise _too_large(most)
        return whole
    held = request.app[HELD]
    data = bytearray()
    taken = 0
    try:
        async for piece in body_pieces(request):
            held.take(len(piece))
            taken += len(piece)
            data += piece
            if len(data) > most:
                raise _too_large(most)
        return bytes(data)
    finally:
        held.give(taken)


async def body_pieces(request: web.Request) -> AsyncIterator[bytes]:
    """The body as it comes, of any size; only its sender's time is counted.

    Raises:
        TooLarge: it is compressed, which could hide any size.
        BadRequest: it drips, or it is not framed as HTTP says.
    """
    _refuse_compressed(request)
    loop = asyncio.get_running_loop()
    came = 0
    waited_s = 0.0
    try:
        while True:
            begun = loop.time()
            async with asyncio.timeout(BODY_GRACE_S + came / BODY_BYTES_PER_S - waited_s):
                piece = await request.content.readany()
            if not piece:
                return
            waited_s += loop.time() - begun
            came += len(piece)
            yield piece
    except TimeoutError:
        raise BadRequest("The body did not arrive in time.", "Send it in one go.") from None
    except web.RequestPayloadError:
        raise BadRequest("The body is not framed as HTTP says.", "Use an HTTP client.") from None


def _refuse_compressed(request: web.Request) -> None:
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise TooLarge("Compressed bodies are not taken.", "Send it as it is.")


def _too_large(most: int) -> TooLarge:
    return TooLarge(
        f"The body is over {most:,} bytes.",
        f"A program may have {messages.MAX_CODE_BYTES:,} bytes.",
        limit=most,
    )
