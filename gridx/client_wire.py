"""Requests and answers of the HTTP API: typed values in and out, and the network's moods as errors.

What may be sent twice is sent again a few times when the connection breaks. An error of the coordinator is
raised here as what it was there.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterable, AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import Any, Final, TypeVar

import aiohttp

from gridx import messages
from gridx.address import http_url
from gridx.errors import GridError, InvalidField, ProtocolMismatch, TooLarge, Unreachable, from_code
from gridx.messages import MAX_BODY_BYTES
from gridx.trust import Check, Trust, changed, not_vouched_for

T = TypeVar("T")

AT_ONCE: Final = 64
"""Requests under way at the same time; what waits for a change or follows output does not count."""
RETRY_DELAYS_S: Final = (0.1, 0.3, 0.9)
"""Pauses between the tries of a request that may be sent again."""
SILENCE_S: Final = 60.0
"""A followed response is asked for anew after such a silence: a dead connection looks like a quiet job."""

_CODE_OF_STATUS: Final[Mapping[int, str]] = {
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    413: "too_large",
    429: "too_many",
    503: "unavailable",
}


class Wire:
    """The HTTP side of a client: one coordinator, one token, a pool of connections.

    Attributes:
        url: ``http://HOST:PORT``, normalised; of a bare ``HOST:PORT`` it is found out with the first request
            whether it is ``https://``.
        token: sent as Bearer while it is set; it may be set at any time.
        timeout_s: for one whole request, where nothing else is said.
    """

    def __init__(self, url: str, token: str | None, timeout_s: float, certificate: str = "") -> None:
        self.url = http_url(url)
        self._bare = "" if "://" in url else url
        self._trust = Trust(certificate=certificate)
        self.token = token
        self.timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._places = asyncio.Semaphore(AT_ONCE)

    async def close(self) -> None:
        """Close the connections; a later request opens new ones."""
        session, self._session = self._session, None
        self._places = asyncio.Semaphore(AT_ONCE)
        if session is not None:
            await session.close()

    async def get(
        self, path: str, kind: type[T], query: Mapping[str, Any] | None = None, *, timeout_s: float = 0
    ) -> T:
        """Read one value."""
        return self._decode(await self._answer("GET", path, query=query, timeout_s=timeout_s), kind)

    async def send(
        self, method: str, path: str, kind: type[T], body: Any = None, *, key: str = "", safe: bool = True
    ) -> T:
        """Change something and read what it is now.

        Args:
            key: the ``Idempotency-Key``, which makes a resend safe.
            safe: False where doing it twice is not the same as once, and there is no key.
        """
        return self._decode(await self._answer(method, path, body, key=key, safe=safe), kind)

    async def tell(self, method: str, path: str) -> None:
        """Change something that answers with nothing."""
        await self._answer(method, path)

    @asynccontextmanager
    async def stream(
        self, path: str, query: Mapping[str, Any], *, part: str = ""
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A response of any length; silence raises Unreachable with ``details["silent"]``.

        ``part`` is the value of the header ``Range``.
        """
        timeout = aiohttp.ClientTimeout(total=None, connect=self.timeout_s, sock_read=SILENCE_S)
        async with self._open("GET", path, query=query, part=part, timeout=timeout) as response:
            yield response

    @asynccontextmanager
    async def read(self, path: str, query: Mapping[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
        """A response whose headers matter beside its bytes."""
        timeout = aiohttp.ClientTimeout(total=self.timeout_s)
        async with self._open("GET", path, query=query, timeout=timeout) as response:
            yield response

    async def head(self, path: str) -> tuple[bool, Mapping[str, str]]:
        """Whether something is there, and the headers of the answer either way."""
        timeout = aiohttp.ClientTimeout(total=self.timeout_s)
        async with self._places, self._open("HEAD", path, timeout=timeout, accept={404}) as answer:
            return answer.status == 200, answer.headers

    async def put(
        self, path: str, kind: type[T], query: Mapping[str, Any], pieces: AsyncIterable[bytes], length: int
    ) -> T:
        """Send bytes, once. Slow lines may take as long as they need; a standstill is ``Unreachable``."""
        loop = asyncio.get_running_loop()
        timeout = aiohttp.ClientTimeout(total=None, connect=self.timeout_s)
        try:
            async with asyncio.timeout(SILENCE_S) as limit:

                async def moving() -> AsyncIterator[bytes]:
                    async for piece in pieces:
                        limit.reschedule(loop.time() + SILENCE_S)
                        yield piece

                async with self._open(
                    "PUT", path, query=query, data=moving(), length=length, timeout=timeout
                ) as answer:
                    return self._decode(await answer.read(), kind)
        except TimeoutError:
            raise Unreachable(f"{self.url} fell silent.", "Try again.", silent=True) from None

    def headers(self) -> dict[str, str]:
        """What authenticates a request."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    async def secure(self) -> Check:
        """How the coordinator's certificate is checked, for each request; nothing is sent before it is.

        Raises:
            Untrusted: it is not the one that is known.
            Unreachable: nothing answers.
        """
        if self._bare:
            self.url = await self._trust.locate(self._bare)
            self._bare = ""
        return await self._trust.check(self.url)

    def met(self) -> str:
        """The fingerprint of the certificate if it was met for the first time; it is told once."""
        met, self._trust.met = self._trust.met, ""
        return met

    def http(self) -> aiohttp.ClientSession:
        """The pool of connections, made at the first use, on the running loop."""
        if self._session is None or self._session.closed:
            # The places are ours: aiohttp gives a free connection to whoever asks next, so that one who waits
            # for it can wait for ever, and a long poll keeps one from everybody else.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session

    async def _answer(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        key: str = "",
        safe: bool = True,
        timeout_s: float = 0,
    ) -> bytes:
        data = _encode(body)
        timeout = aiohttp.ClientTimeout(total=timeout_s or self.timeout_s)
        for delay_s in (*RETRY_DELAYS_S, None):
            try:
                async with (
                    nullcontext() if timeout_s else self._places,
                    self._open(method, path, query=query, data=data, key=key, timeout=timeout) as answer,
                ):
                    return await answer.read()
            except Unreachable as error:
                again = safe or error.details.get("never_sent")
                if delay_s is None or error.details.get("late") or not again:
                    raise
                await asyncio.sleep(delay_s * random.uniform(0.5, 1.5))  # noqa: S311
        raise AssertionError("the last try returns or raises")

    def _decode(self, answer: bytes, kind: type[T]) -> T:
        try:
            return messages.decode(answer, kind)
        except GridError as error:
            raise ProtocolMismatch(
                f"The answer of {self.url} is not one that this version understands: {error.message}",
                "Install the same version of Grid-X here and on the coordinator.",
            ) from None

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        data: bytes | AsyncIterator[bytes] | None = None,
        length: int | None = None,
        key: str = "",
        part: str = "",
        accept: Collection[int] = (),
        timeout: aiohttp.ClientTimeout,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = self.headers()
        if length is not None:
            headers |= {"Content-Type": "application/octet-stream", "Content-Length": str(length)}
        elif data is not None:
            headers["Content-Type"] = "application/json"
        if part:
            headers["Range"] = part
        if key:
            headers["Idempotency-Key"] = key
        check = await self.secure()
        params = {name: str(value) for name, value in (query or {}).items() if value not in (None, "")}
        try:
            async with self.http().request(
                method,
                self.url + path,
                params=params,
                data=data,
                headers=headers,
                timeout=timeout,
                ssl=check,
                allow_redirects=False,  # a token goes to the address it was given for, and nowhere else
            ) as response:
                if response.status >= 300 and response.status not in accept:
                    raise await self._refusal(response)
                yield response
        except aiohttp.ServerFingerprintMismatch as error:
            self._trust.forget(self.url)
            raise changed(self.url, error) from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise not_vouched_for(self.url, error) from None
        except aiohttp.ClientConnectorError as error:
            raise nothing_answers(self.url, _reason(error.os_error)) from None
        except aiohttp.SocketTimeoutError:
            raise Unreachable(f"{self.url} fell silent.", "Try again.", silent=True) from None
        except TimeoutError:
            raise Unreachable(
                f"{self.url} did not answer in time.",
                f"See whether it is overloaded or a firewall is between: curl {self.url}/health",
                late=True,
            ) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            reason = str(error).rstrip(".") or type(error).__name__
            hint = "Is a Grid-X coordinator there? Try again."
            if isinstance(error, aiohttp.ServerDisconnectedError) and self.url.startswith("http://"):
                hint = f"{hint} If it speaks TLS, the address is https{self.url.removeprefix('http')}"
            raise Unreachable(f"The connection to {self.url} broke: {reason}.", hint) from None

    async def _refusal(self, response: aiohttp.ClientResponse) -> GridError:
        """The error that the coordinator sent, or what a server that is none gave instead."""
        try:
            error = messages.decode(await response.content.read(1 << 16), messages.ErrorReply).error
        except GridError:
            return not_a_coordinator(self.url, response.status)
        details = dict(error.details)
        if "Retry-After" in response.headers:
            details.setdefault("retry_after_s", response.headers["Retry-After"])
        return from_code(error.code, error.message, error.hint, details)


def _reason(error: OSError) -> str:
    """The system's own words: asyncio's tell of calls and tuples."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)


def nothing_answers(url: str, reason: str = "") -> Unreachable:
    """The error of a port at which nobody listens."""
    return Unreachable(
        f"Nothing answers at {url}{f' ({reason})' if reason else ''}.",
        f"Is the coordinator running there? On that machine: curl {url}/health; then see whether a firewall "
        "is between.",
        never_sent=True,
    )


def not_a_coordinator(url: str, status: int) -> GridError:
    """The error of a server that answers in another language: a proxy, or something else on the port."""
    return from_code(
        _CODE_OF_STATUS.get(status, "unreachable"),
        f"{url} answered {status}, and not as a coordinator does.",
        "Check the address: it is the HTTP port of a Grid-X coordinator (8081).",
    )


def _encode(body: Any) -> bytes | None:
    if body is None:
        return None
    try:
        data = messages.encode(body)
    except UnicodeEncodeError:
        raise InvalidField(
            "The text holds lone surrogates, which are no characters.", "Save it as UTF-8.", field="body"
        ) from None
    if len(data) > MAX_BODY_BYTES:
        raise TooLarge(
            f"The request has {len(data):,} bytes; at most {MAX_BODY_BYTES:,} are taken.",
            "Send a smaller program, and let it make its data itself.",
        )
    return data
