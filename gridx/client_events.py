"""The event stream of a coordinator: what changed, as it changes, over a WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Final, Self

import aiohttp

from gridx import messages
from gridx.client_wire import Wire, not_a_coordinator, nothing_answers
from gridx.errors import Forbidden, GridError, ProtocolMismatch, Unauthenticated, Unavailable, Unreachable
from gridx.messages import Event, Watch
from gridx.trust import changed

HEARTBEAT_S: Final = 20.0
"""A ping this often; a peer that answers none is gone."""
CONNECT_S: Final = 15.0
MAX_EVENT_BYTES: Final = 8 << 20


class EventStream:
    """An open stream: iterate over it for events; it never ends but by an error.

    Raises (while iterated):
        Unreachable: the connection is gone. What changed meanwhile is read over HTTP.
        Unauthenticated: the sign-in was revoked.
    """

    def __init__(self, url: str, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._url = url
        self._socket = socket

    async def watch(self, job_ids: Collection[int]) -> None:
        """Have the output of these jobs sent, and of no others."""
        try:
            await self._socket.send_str(messages.encode(Watch(jobs=sorted(job_ids))).decode())
        except (aiohttp.ClientError, ConnectionError):
            raise self._broken() from None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        message = await self._socket.receive()
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise self._broken()
        try:
            return messages.decode_event(message.data)
        except GridError as error:
            raise ProtocolMismatch(
                f"{self._url} sent an event that this version does not understand: {error.message}",
                "Install the same version of Grid-X here and on the coordinator.",
            ) from None

    def _broken(self) -> GridError:
        if self._socket.close_code == aiohttp.WSCloseCode.POLICY_VIOLATION:
            return Unauthenticated("The sign-in has ended: it was revoked or has expired.", "Sign in again.")
        return Unreachable(f"The event stream of {self._url} broke.", "Open it again.")


@asynccontextmanager
async def open_events(wire: Wire) -> AsyncIterator[EventStream]:
    """Connect to ``/events``. Raises Unreachable, Unauthenticated, Forbidden, Unavailable."""
    try:
        async with asyncio.timeout(CONNECT_S):
            check = await wire.secure()
            socket = await wire.http().ws_connect(
                wire.url + "/events",
                headers=wire.headers(),
                heartbeat=HEARTBEAT_S,
                ssl=check,
                max_msg_size=MAX_EVENT_BYTES,
                timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
            )
    except aiohttp.WSServerHandshakeError as error:
        raise _refusal(wire.url, error.status) from None
    except aiohttp.ServerFingerprintMismatch as error:
        raise changed(wire.url, error) from None
    except (aiohttp.ClientError, ConnectionError, TimeoutError):
        raise nothing_answers(wire.url) from None
    try:
        yield EventStream(wire.url, socket)
    finally:
        await socket.close()


def _refusal(url: str, status: int) -> GridError:
    """The handshake's answer has a status alone: its body is not read."""
    if status == 401:
        return Unauthenticated("The coordinator does not know this sign-in.", "Sign in again.")
    if status == 403:
        return Forbidden("The coordinator refuses this connection.", "Sign in as another user.")
    if status == 503:
        return Unavailable("The coordinator takes no connections now.", "Try again in a moment.")
    return not_a_coordinator(url, status)
