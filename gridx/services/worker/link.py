"""The worker's connection to its coordinator: made, watched, and made again for ever.

Each connection begins with a hello that says everything, so that neither side has to remember the one before.
The receive loop always runs; silence of two heartbeats means that the line is dead, however alive it looks.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Final, NoReturn, Protocol
from urllib.parse import urlsplit

import aiohttp

from gridx import __version__, safetext
from gridx.address import WS_PATH
from gridx.clock import Clock
from gridx.errors import (
    ConfigError,
    Conflict,
    Forbidden,
    GridError,
    ProtocolMismatch,
    TooMany,
    Unauthenticated,
    Unavailable,
    Unreachable,
    Untrusted,
    from_code,
)
from gridx.messages import (
    PROTOCOL_VERSION,
    CoordinatorFrame,
    Health,
    Hello,
    Rejected,
    Renewed,
    Welcome,
    WorkerFrame,
    decode,
    decode_coordinator_frames,
    encode,
)
from gridx.services.worker.backoff import Backoff, Complaint
from gridx.services.worker.outbox import Outbox
from gridx.services.worker.signin import TIMEOUT, UNTRUSTED_RETRY_S, SignIn, TokenRefused, unreachable

log = logging.getLogger("gridx.worker")

WELCOME_S: Final = 10.0
"""How long the answer to a hello may take."""
PING_S: Final = 20.0
"""The socket's own heartbeat; ours is quicker once the coordinator said how often it wants one."""
GRACE_S: Final = 1.0
MISMATCH_RETRY_S: Final = 60.0
MAX_MESSAGE_BYTES: Final = 16 << 20
"""Of one message from the coordinator: a program of 1 MiB grows when it is written as JSON."""


class Peer(Protocol):
    """The worker behind the link."""

    def hello(self) -> Hello:
        """Everything about the worker, now."""

    def joined(self, hello: Hello, sent_at: float, welcome: Welcome) -> Outbox:
        """A connection stands; what is to be told over it."""

    def received(self, frame: CoordinatorFrame) -> None:
        """A frame came. Quick: the receive loop waits for it."""

    async def beat(self, heartbeat_s: float) -> None:
        """Put a sign of life into the outbox at every heartbeat, for ever."""

    def parted(self) -> None:
        """The connection is gone; its outbox is of no use any more."""


class Broken(Exception):
    """The connection ended; the reason, in words. Nothing but connecting again follows from it."""


class Link:
    """One connection at a time, for ever.

    Args:
        url: of the workers' WebSocket; without a scheme it is encrypted as the sign-in is.
        signing: gives the token.
        peer: the worker.
        rng: for the jitter of the waiting.
    """

    def __init__(self, url: str, signing: SignIn, peer: Peer, *, clock: Clock, rng: random.Random) -> None:
        self.url = channel_url(url)
        self._bare = "" if "://" in url else url
        self.tried = asyncio.Event()
        """Set when the first try is over, unless it ended the link."""
        self._signing = signing
        self._peer = peer
        self._clock = clock
        self._backoff = Backoff(rng)
        self._complaint = Complaint(log)
        self._http: aiohttp.ClientSession | None = None
        self._ws: aiohttp.ClientWebSocketResponse | None = None
        self._leaving = False

    async def run(self) -> None:
        """Keep connected until told to leave.

        Raises:
            Unauthenticated, Forbidden: the coordinator does not want this user or its password.
            Conflict: another process with the same identity has taken over.
        """
        async with aiohttp.ClientSession(timeout=TIMEOUT) as self._http:
            while not self._leaving:
                wait_s = await self._once()
                self.tried.set()
                if not self._leaving:
                    await asyncio.sleep(wait_s)

    async def leave(self) -> None:
        """Close the connection and make no other."""
        self._leaving = True
        if self._ws is not None:
            await self._ws.close()

    async def _once(self) -> float:
        """One connection from beginning to end; how long to wait before the next."""
        assert self._http is not None
        try:
            token = await self._signing.token(self._http)
            if self._bare and self._signing.url.startswith("https://"):
                self.url = channel_url(self._bare, "wss")
            await self._connect(token)
        except TokenRefused:
            await self._signing.refused()
            return self._backoff.next()
        except (Unauthenticated, Forbidden, Conflict):
            raise
        except ProtocolMismatch as error:
            self._complaint.say(f"{error.message} {error.hint}", MISMATCH_RETRY_S)
            return MISMATCH_RETRY_S
        except Untrusted as error:
            self._complaint.say(f"{error.message} {error.hint}", UNTRUSTED_RETRY_S)
            return UNTRUSTED_RETRY_S
        except (Unreachable, Unavailable, TooMany) as error:
            wait_s = self._backoff.next(at_least_s=float(error.details.get("retry_after_s", 0)))
            self._complaint.say(error.message, wait_s)
            return wait_s
        except Broken as error:
            wait_s = self._backoff.next()
            if not self._leaving:
                log.warning("disconnected from %s: %s. Connecting again in %.1f s.", self.url, error, wait_s)
            return wait_s
        return self._backoff.next()

    async def _connect(self, token: str) -> None:
        assert self._http is not None
        check = await self._signing.trust.check(self.url, like=self._signing.url)
        try:
            async with self._http.ws_connect(
                self.url,
                headers={"Authorization": f"Bearer {token}"},
                heartbeat=PING_S,
                ssl=check,
                max_msg_size=MAX_MESSAGE_BYTES,
                timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
            ) as ws:
                self._ws = ws
                try:
                    await self._converse(ws)
                finally:
                    self._ws = None
        except aiohttp.WSServerHandshakeError as error:
            raise await self._turned_away(error.status) from None
        except aiohttp.ServerFingerprintMismatch as error:
            self._signing.trust.forget(self.url)
            raise await self._signing.trust.changed(self.url, error, like=self._signing.url) from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._signing.trust.forget(self.url)
            raise unreachable(self.url, error) from None

    async def _converse(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        hello, sent_at = self._peer.hello(), self._clock.monotonic()
        await _send(ws, [hello])
        first, *rest = await self._receive(ws, WELCOME_S, "the coordinator did not answer the hello")
        if not isinstance(first, Welcome):
            if isinstance(first, Rejected):
                raise await self._rejected(first)
            raise Broken("the coordinator's first word was no welcome")
        outbox = self._peer.joined(hello, sent_at, first)
        self._signing.accepted()
        self._complaint.over()
        log.info(
            "connected to %s as worker %d (owner: %s)",
            safetext.line(self.url),
            first.worker_id,
            safetext.line(first.owner),
        )
        self.tried.set()
        tasks = [
            asyncio.create_task(self._listen(ws, rest, first.heartbeat_s), name="link receive"),
            asyncio.create_task(outbox.run(lambda frames: _send(ws, frames)), name="link send"),
            asyncio.create_task(self._peer.beat(first.heartbeat_s), name="link heartbeat"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except (aiohttp.ClientError, ConnectionError) as error:
            raise Broken(safetext.line(str(error) or type(error).__name__)) from None
        finally:
            self._peer.parted()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(
        self, ws: aiohttp.ClientWebSocketResponse, frames: list[CoordinatorFrame], heartbeat_s: float
    ) -> NoReturn:
        silence_s = 2 * heartbeat_s + GRACE_S
        refusal: Rejected | None = None
        while True:
            for frame in frames:
                # Some refusals are followed by a close, and then they are its reason.
                refusal = frame if isinstance(frame, Rejected) else None
                if refusal is not None:
                    log.warning("the coordinator refused something: %s", safetext.line(refusal.message))
                elif isinstance(frame, Renewed):
                    self._backoff.reset()
                self._peer.received(frame)
            try:
                frames = await self._receive(ws, silence_s, f"nothing was heard for {silence_s:.1f} s")
            except Broken:
                if refusal is not None:
                    raise await self._rejected(refusal) from None
                raise

    async def _receive(
        self, ws: aiohttp.ClientWebSocketResponse, timeout_s: float, silence: str
    ) -> list[CoordinatorFrame]:
        try:
            message = await ws.receive(timeout_s)
        except TimeoutError:
            raise Broken(silence) from None
        if message.type is aiohttp.WSMsgType.TEXT:
            try:
                return decode_coordinator_frames(message.data)
            except GridError as error:
                raise Broken(f"a frame of the coordinator is not understood: {error.message}") from None
        if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED):
            if ws.close_code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE:
                raise Broken("the connection broke")
            reason = safetext.line(str(message.extra or ""))
            raise Broken(f"the coordinator closed the connection ({ws.close_code}) {reason}".rstrip())
        if message.type is aiohttp.WSMsgType.ERROR:
            raise Broken(safetext.line(str(ws.exception() or message.data)))
        raise Broken(f"the coordinator sent a message of type {message.type.name}")

    async def _turned_away(self, status: int) -> GridError:
        """What an answer means that was no upgrade."""
        if status == 401:
            return TokenRefused("The coordinator does not accept the token.")
        if status == 403:
            return Forbidden(
                f"{self._signing.user} may not offer a machine to {self.url}.",
                "Ask the coordinator's administrator.",
            )
        if status == 426:
            return await self._mismatch("The coordinator speaks another version of the protocol.", "")
        if status == 404:
            return Unreachable(
                f"There is no workers' channel at {self.url} (404).",
                "Check the address; workers connect to port 8080, unless it was changed.",
            )
        return Unreachable(f"The coordinator at {self.url} answered {status} to the connection.")

    async def _rejected(self, frame: Rejected) -> GridError:
        message, hint = safetext.line(frame.message, limit=500), safetext.line(frame.hint, limit=500)
        error = from_code(frame.code, message, hint)
        if isinstance(error, ProtocolMismatch):
            return await self._mismatch(message, hint)
        if isinstance(error, Unauthenticated):
            return TokenRefused(message, hint)
        if isinstance(error, Conflict | Forbidden | Unavailable | TooMany):
            return error
        return Unreachable(f"The coordinator refused what this worker said: {message}", hint)

    async def _mismatch(self, message: str, hint: str) -> ProtocolMismatch:
        """Say which version to install, as the coordinator's health tells it."""
        assert self._http is not None
        try:
            check = await self._signing.trust.check(self._signing.url)
            async with self._http.get(f"{self._signing.url}/health", ssl=check) as response:
                health = decode(await response.content.read(65536), Health)
        except (aiohttp.ClientError, OSError, TimeoutError, GridError):
            return ProtocolMismatch(message, hint or "Install the coordinator's version of Grid-X here.")
        version = safetext.line(health.version, limit=40)
        return ProtocolMismatch(
            f"The coordinator is Grid-X {version} and speaks protocol {health.protocol}; "
            f"this worker is {__version__} and speaks {PROTOCOL_VERSION}.",
            f"Install Grid-X {version} here.",
        )


def channel_url(text: str, scheme: str = "ws") -> str:
    """The address of the workers' WebSocket: the scheme and the usual path are added where they are missing.

    Raises:
        ConfigError: it is no such address.
    """
    url = text.strip() if "://" in text else f"{scheme}://{text.strip()}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigError(
            f"{text!r} is not the address of a coordinator's WebSocket.",
            "It is like ws://192.168.1.10:8080, or wss://HOST:8080 where the coordinator speaks TLS.",
        )
    return url.rstrip("/") + WS_PATH if parts.path in ("", "/") else url


async def _send(ws: aiohttp.ClientWebSocketResponse, frames: list[WorkerFrame]) -> None:
    await ws.send_frame(encode(frames), aiohttp.WSMsgType.TEXT)
