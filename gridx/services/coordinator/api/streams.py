"""The WebSockets: ``/events`` for dashboards, ``/ws/worker`` for workers."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from gridx import __version__, messages
from gridx.clock import Clock, SystemClock
from gridx.errors import BadRequest, GridError
from gridx.messages import Ready, Rejected, Watch
from gridx.services.coordinator.accounts import public
from gridx.services.coordinator.api.call import Call, Route
from gridx.services.coordinator.events import Hub, Subscriber

HEARTBEAT_S: Final = 20.0
MAX_WATCH_BYTES: Final = 64 << 10
CLOSE_S: Final = 2.0
STALLED_S: Final = 30.0
"""A reader that takes nothing for so long is dropped."""
PACE_S: Final = 0.02
"""Between two rounds of sending: what changes faster is sent as its newest state."""
AT_ONCE: Final = 64
"""Events that are sent before others have their turn on the event loop."""
MAX_MISTAKES: Final = 3
BURST: Final = 100
PER_S: Final = 10.0
"""Messages that a reader may send at once, and a second after that."""


async def events(call: Call) -> web.StreamResponse:
    _must_upgrade(call.request)
    hub, caller = call.parts.hub, call.caller
    socket = web.WebSocketResponse(
        heartbeat=HEARTBEAT_S, max_msg_size=MAX_WATCH_BYTES, compress=False, timeout=CLOSE_S
    )
    closing = _Closing(call.request, socket)
    with (
        call.parts.sockets.opened(caller, closing.close),
        hub.subscribed(caller.user.id, caller.admin, closing.close) as reader,
    ):
        await socket.prepare(call.request)
        ready = Ready(user=public(caller.user), version=__version__)
        await socket.send_frame(messages.encode(ready), WSMsgType.TEXT)
        sender = asyncio.create_task(_send(socket, reader, closing))
        try:
            await _receive(socket, hub, reader)
        finally:
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sender
            await closing.done()
    return socket


async def worker(call: Call) -> web.StreamResponse:
    request = call.request
    _must_upgrade(request)

    def close(_: WSCloseCode) -> None:
        # The worker learns why when it comes back and its token is refused.
        if request.transport is not None:
            request.transport.close()

    with call.parts.sockets.opened(call.caller, close):
        return await call.parts.channel.handle(request, call.caller.user)


def _must_upgrade(request: web.Request) -> None:
    """Raises BadRequest, in words, for what asks for no WebSocket."""
    if request.headers.get("Upgrade", "").lower() != "websocket":
        raise BadRequest("This address is a WebSocket.", "Use gridx, or a WebSocket client.")


class _Closing:
    """Closes a reader's socket from outside of its handler."""

    def __init__(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        self._request = request
        self._socket = socket
        self._task: asyncio.Task[None] | None = None

    def close(self, code: WSCloseCode) -> None:
        """Begin to close. One that does not keep up is cut off: it would not read the farewell either."""
        if code is WSCloseCode.TRY_AGAIN_LATER or not self._socket.prepared:
            self.cut()
        elif self._task is None:
            self._task = asyncio.create_task(self._close(code))

    def cut(self) -> None:
        """End the connection at once."""
        if self._request.transport is not None:
            self._request.transport.abort()

    async def done(self) -> None:
        """Wait until a close that has begun is through."""
        if self._task is not None:
            await self._task

    async def _close(self, code: WSCloseCode) -> None:
        try:
            async with asyncio.timeout(CLOSE_S * 2):
                await self._socket.close(code=code)
        except (TimeoutError, ConnectionError):
            self.cut()


async def _send(socket: web.WebSocketResponse, reader: Subscriber, closing: _Closing) -> None:
    try:
        while True:
            for number, event in enumerate(await reader.take(), 1):
                async with asyncio.timeout(STALLED_S):
                    await socket.send_frame(event, WSMsgType.TEXT)
                if number % AT_ONCE == 0:
                    await asyncio.sleep(0)
            await asyncio.sleep(PACE_S)
    except (ConnectionError, TimeoutError):
        closing.cut()


async def _receive(socket: web.WebSocketResponse, hub: Hub, reader: Subscriber) -> None:
    """Take what the reader asks for, until the connection ends."""
    allowance = _Allowance(SystemClock())
    mistakes = 0
    async for message in socket:
        if not allowance.one_more():
            await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"too many messages")
            return
        try:
            hub.watch(reader, _watch(message).jobs)
        except GridError as error:
            mistakes += 1
            refusal = Rejected(code=error.code, message=error.message, hint=error.hint)
            if mistakes < MAX_MISTAKES:
                reader.offer(None, messages.encode(refusal))
            else:
                # The last word goes out at once: what waits for the sender is not sent any more.
                with contextlib.suppress(TimeoutError, ConnectionError):
                    async with asyncio.timeout(CLOSE_S):
                        await socket.send_frame(messages.encode(refusal), WSMsgType.TEXT)
                await socket.close(code=WSCloseCode.UNSUPPORTED_DATA, message=b"too many mistakes")
                return


def _watch(message: WSMessage) -> Watch:
    if message.type is not WSMsgType.TEXT:
        raise BadRequest("Only text messages are taken.", "Send a watch frame as JSON.")
    return messages.decode(message.data, Watch)


class _Allowance:
    """A bucket of messages that refills with time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left = float(BURST)
        self._at = clock.monotonic()

    def one_more(self) -> bool:
        """Whether another message may come; it is counted."""
        now = self._clock.monotonic()
        self._left = min(float(BURST), self._left + (now - self._at) * PER_S) - 1
        self._at = now
        return self._left >= 0


ROUTES = (
    Route(
        *("GET", "/events", events),
        says="A WebSocket that tells what changed: one's own things, everybody's to an administrator.",
        status=(101,),
    ),
)
WORKER_ROUTES = (Route("GET", "/ws/worker", worker, says="The workers' WebSocket.", status=(101,)),)
