"""The workers' WebSocket: hello, then frames in both directions, each message a JSON array of them.

A connection costs a bounded amount of everything: its first frame must come soon, a message has a largest
size, messages have a largest rate, mistakes are few, and what waits to be sent to a worker that does not read
is dropped together with the connection. A worker comes back by itself and goes on by offset, so closing is
always safe.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final

from aiohttp import WSCloseCode, WSMsgType, web

from gridx import __version__, safetext
from gridx.clock import Clock
from gridx.config import Settings
from gridx.errors import BadRequest, Forbidden, GridError, InvalidField, ProtocolMismatch, TooMany
from gridx.messages import (
    MAX_BATCH,
    MAX_FRAME_BYTES,
    PROTOCOL_VERSION,
    CoordinatorFrame,
    Hello,
    Rejected,
    WorkerFrame,
    decode_worker_frames,
    encode,
)
from gridx.services.coordinator.fleet import Fleet
from gridx.services.coordinator.jobs import Jobs
from gridx.services.coordinator.store import Store
from gridx.services.coordinator.store.records import UserRecord, WorkerRecord
from gridx.services.coordinator.turns import Turns

log = logging.getLogger("gridx.coordinator")

HELLO_S: Final = 10.0
"""In which the first message must have come."""
MAX_MISTAKES: Final = 3
BURST: Final = 4000
PER_S: Final = 1000.0
"""Messages that a worker may send at once, and a second after that."""
AT_ONCE: Final = 32
"""Messages of one worker that are taken before others have their turn on the event loop."""
MAX_PENDING_FRAMES: Final = 20_000
MAX_PENDING_BYTES: Final = 32 << 20
"""What may wait to be sent to one worker."""
MESSAGE_BYTES: Final = 1 << 20
"""Frames are put together into messages of about this size at most."""
STALLED_S: Final = 30.0
"""A worker that takes nothing for so long is dropped."""
CLOSE_S: Final = 1.0
"""How long a worker may take to answer a close."""


class Channel:
    """Serves the connections of all workers."""

    def __init__(self, jobs: Jobs, fleet: Fleet, store: Store, settings: Settings, clock: Clock) -> None:
        # Not those of the users' requests: a worker's output does not wait behind them.
        self._turns = Turns()
        self._jobs = jobs
        self._fleet = fleet
        self._store = store
        self._clock = clock
        # A worker speaks every heartbeat. One that is late is asked, and has half as long again to answer:
        # a line that is dead is noticed within two heartbeats.
        self._ping_s = max(2.0, settings.coordinator.heartbeat_s * 4 / 3)
        self._open: set[Connection] = set()
        self._closing = False

    async def handle(self, request: web.Request, user: UserRecord) -> web.WebSocketResponse:
        """Serve one connection of a user's worker until it ends.

        Raises:
            Forbidden: it comes from a web page.
        """
        if "Origin" in request.headers:
            raise Forbidden("Workers do not come from web pages.", "Connect without an Origin header.")
        socket = web.WebSocketResponse(
            heartbeat=self._ping_s,
            max_msg_size=MAX_FRAME_BYTES,
            compress=False,
            timeout=CLOSE_S,
            decode_text=False,
        )
        await socket.prepare(request)
        connection = Connection(socket, request, self._clock, self._turns)
        self._open.add(connection)
        try:
            if self._closing:
                connection.close(WSCloseCode.GOING_AWAY, "the coordinator is stopping")
            await self._serve(connection, user)
        finally:
            self._open.discard(connection)
            await connection.finish()
        return socket

    async def close(self) -> None:
        """Send all workers away: the coordinator stops. They come back when it does."""
        self._closing = True
        for connection in self._open:
            connection.close(WSCloseCode.GOING_AWAY, "the coordinator is stopping")
        await asyncio.gather(*(connection.closed() for connection in self._open))

    async def _serve(self, connection: Connection, user: UserRecord) -> None:
        try:
            async with asyncio.timeout(HELLO_S):
                hello, rest = await _greeting(connection)
        except TimeoutError:
            connection.close(WSCloseCode.POLICY_VIOLATION, "no hello came")
            return
        except GridError as error:
            connection.reject(error)
            return
        if hello is None:
            return
        try:
            self._fleet.admit(user.id, hello.identity)
            record = await self._store.join_worker(
                user.id, hello.identity, name=hello.name, version=hello.version
            )
        except GridError as error:
            connection.reject(error)
            return
        self._jobs.attach(record, hello, connection)
        log.info("worker %d authenticated (owner: %s)", record.id, safetext.line(user.username))
        try:
            self._jobs.received(record.id, connection, rest)
            await self._receive(connection, record)
        finally:
            self._jobs.detach(record.id, connection)
            log.info("worker %d disconnected", record.id)

    async def _receive(self, connection: Connection, record: WorkerRecord) -> None:
        taken = 0
        async for frames in connection:
            if any(isinstance(frame, Hello) for frame in frames):
                connection.mistake(BadRequest("There is one hello in a connection.", "Connect anew."))
                continue
            self._jobs.received(record.id, connection, frames)
            await self._jobs.room(record.id)
            taken += 1
            if taken % AT_ONCE == 0:
                await asyncio.sleep(0)


async def _greeting(connection: Connection) -> tuple[Hello | None, list[WorkerFrame]]:
    """The hello, and what came in the same message; no hello: the connection ended before it.

    Raises:
        BadRequest: something else came first.
        ProtocolMismatch: the worker speaks another version.
    """
    async for frames in connection:
        hello = frames[0]
        if not isinstance(hello, Hello):
            raise BadRequest("The first frame must be a hello.", "See gridx/messages/frames.py.")
        if hello.protocol != PROTOCOL_VERSION:
            raise ProtocolMismatch(
                f"This worker speaks protocol {hello.protocol}, the coordinator {PROTOCOL_VERSION}.",
                f"Install Grid-X {__version__} on the worker's machine; it has {hello.version or 'another'}.",
                protocol=PROTOCOL_VERSION,
                version=__version__,
            )
        return hello, frames[1:]
    return None, []


class Connection:
    """One worker's connection: messages in, frames out. It is the ``fleet.Link`` of its worker."""

    def __init__(
        self, socket: web.WebSocketResponse, request: web.Request, clock: Clock, turns: Turns
    ) -> None:
        self._turns = turns
        self._socket = socket
        self._request = request
        self._clock = clock
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._some = asyncio.Event()
        self._mistakes = 0
        self._left = float(BURST)
        self._counted_at = clock.monotonic()
        self._last_word: tuple[WSCloseCode, str] | None = None
        self._sender = asyncio.create_task(self._send())

    # -- in ----------------------------------------------------------------------------------------------

    def __aiter__(self) -> Connection:
        return self

    async def __anext__(self) -> list[WorkerFrame]:
        """The next message's frames; anything else is refused, and too much of it ends the connection."""
        while True:
            message = await self._socket.receive()
            if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                raise StopAsyncIteration
            if self._last_word is not None:
                # What comes after it is read only so that the close can be answered.
                continue
            if not self._one_more():
                self.reject(TooMany("Too many messages.", f"Send at most {PER_S:.0f} a second."))
                continue
            if message.type is not WSMsgType.TEXT:
                self.mistake(BadRequest("Only text messages are taken.", "Send a JSON array of frames."))
                continue
            try:
                return await self._turns.read(message.data, decode_worker_frames)
            except GridError as error:
                self.mistake(error)

    def mistake(self, error: GridError) -> None:
        """Refuse one message; after a few the connection."""
        self._mistakes += 1
        if self._mistakes >= MAX_MISTAKES:
            self.reject(error)
        else:
            self.send(Rejected(code=error.code, message=error.message, hint=error.hint))

    def _one_more(self) -> bool:
        """Whether one more message may come now; the allowance refills with time."""
        now = self._clock.monotonic()
        self._left = min(float(BURST), self._left + (now - self._counted_at) * PER_S) - 1
        self._counted_at = now
        return self._left >= 0

    # -- out ---------------------------------------------------------------------------------------------

    def send(self, *frames: CoordinatorFrame) -> None:
        """Let frames go out, in order."""
        if self._last_word is not None:
            return
        for frame in frames:
            data = encode(frame)
            self._frames.append(data)
            self._bytes += len(data)
        if len(self._frames) > MAX_PENDING_FRAMES or self._bytes > MAX_PENDING_BYTES:
            self.hang_up("it does not read what it is sent")
            self._cut()
        self._some.set()

    def reject(self, error: GridError) -> None:
        """Say why, as the last word, and close."""
        self.send(Rejected(code=error.code, message=error.message, hint=error.hint))
        malformed = isinstance(error, BadRequest | InvalidField)
        self.close(WSCloseCode.UNSUPPORTED_DATA if malformed else WSCloseCode.POLICY_VIOLATION, error.code)

    def hang_up(self, why: str) -> None:
        """Close; the worker comes back by itself."""
        self.close(WSCloseCode.TRY_AGAIN_LATER, why)

    def close(self, code: WSCloseCode, why: str) -> None:
        """Close once everything is sent that waits; nothing that comes meanwhile is taken."""
        if self._last_word is None:
            self._last_word = (code, why)
            self._some.set()

    async def closed(self) -> None:
        """Wait until everything is sent and the close is answered, or was given up."""
        await asyncio.wait([self._sender])

    async def finish(self) -> None:
        """Leave nothing behind, however the connection ended."""
        if self._socket.closed or self._last_word is None:
            self._sender.cancel()
        await asyncio.wait([self._sender])

    async def _send(self) -> None:
        try:
            while self._frames or self._last_word is None:
                await self._some.wait()
                self._some.clear()
                while self._frames:
                    async with asyncio.timeout(STALLED_S):
                        await self._socket.send_frame(self._message(), WSMsgType.TEXT)
            code, why = self._last_word
            async with asyncio.timeout(2 * CLOSE_S):
                await self._socket.close(code=code, message=why.encode()[:120])
        except (TimeoutError, ConnectionError):
            self._cut()

    def _message(self) -> bytes:
        """As many of the waiting frames as go into one message."""
        frames: list[bytes] = []
        size = 0
        while self._frames and len(frames) < MAX_BATCH and (not frames or size < MESSAGE_BYTES):
            frame = self._frames.popleft()
            frames.append(frame)
            size += len(frame)
        self._bytes -= size
        return b"[" + b",".join(frames) + b"]"

    def _cut(self) -> None:
        """End it at once: it would not read a farewell either."""
        self._frames.clear()
        self._bytes = 0
        if self._request.transport is not None:
            self._request.transport.abort()
