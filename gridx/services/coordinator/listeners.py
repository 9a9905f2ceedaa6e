"""Where the coordinator listens: sockets bound before anything else begins, HTTP spoken on them later.

A port that is taken is found out before the database is opened or a user is made. The connection's own errors
(no HTTP at all, a header that is too long) get the same shape as all others.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from typing import Final

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_request import BaseRequest

from gridx.errors import BadRequest, SetupError
from gridx.services.coordinator.api.errors import SERVER, error_response, internal
from gridx.services.coordinator.doors import Door, Doors

IDLE_S: Final = 12.0
"""A connection that sends no whole request for so long is closed."""
HANDSHAKE_S: Final = 10.0
"""How long the TLS handshake may take."""
LINGER_S: Final = 2.0
"""How long the rest of a body that nobody wants is read before the connection is closed."""
STOP_S: Final = 1.5
"""Requests under way may take so long when the coordinator stops; then they are cancelled."""
BACKLOG: Final = 1024
DESCRIPTORS: Final = 1 << 16
"""Open files and sockets that are asked for; what a system gives at first is often too little for a fleet."""


def allow_descriptors() -> None:
    """Let this process have as many sockets as the system allows it, up to ``DESCRIPTORS``."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # Where it may not be, as on macOS past its own limit, it stays as it is.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def bind(host: str, port: int, flag: str, doors: Doors | None = None) -> socket.socket:
    """Bind and listen; connections wait until :meth:`Listener.serve`.

    Args:
        host: address or name; IPv4 is preferred where a name has both.
        port: 0 means any free port.
        flag: of the command line, for the hint.
        doors: count the connections of each address.

    Raises:
        SetupError: the port is in use or not allowed, or the address is not this machine's.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise SetupError(
            f"The address {host} cannot be found: {error}.", "Give another with --host, like 127.0.0.1."
        ) from None
    family, kind, protocol, _, where = min(found, key=lambda info: info[0] != socket.AF_INET)
    listening = Door(family, kind, protocol)
    listening.doors = doors
    try:
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(where)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise _refusal(error, host, port, flag) from None
    return listening


def _refusal(error: OSError, host: str, port: int, flag: str) -> SetupError:
    other = port + 1000 if port + 1000 <= 65535 else port - 1000
    if error.errno == errno.EADDRINUSE:
        return SetupError(
            f"Port {port} is in use by another program.",
            f"{flag} {other}, or {flag} 0 for any free port.",
            port=port,
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return SetupError(
            f"Port {port} may not be used by this user: {error.strerror}.",
            f"Ports below 1024 are for root alone: {flag} {8081 if port != 8081 else 9081}.",
            port=port,
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return SetupError(
            f"{host} is not an address of this machine.",
            "--host 0.0.0.0 listens on all that it has, --host 127.0.0.1 for itself alone.",
        )
    return SetupError(
        f"{host}:{port} cannot be listened on: {error.strerror}.", "Try another --host or port."
    )


class _Connection(web.RequestHandler):
    """A connection whose errors look like all others."""

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("the answer had begun")
        if isinstance(exc, HttpProcessingError) or status < 500:
            response = error_response(
                BadRequest(
                    "This is not a valid HTTP request.", "Use an HTTP client, and https only if --tls is on."
                )
            )
        elif isinstance(exc, ConnectionError):
            raise exc
        else:
            response = internal(request.method, "-")
        response.headers[hdrs.SERVER] = SERVER
        response.force_close()
        return response


class Listener:
    """An application on a bound socket; with a context it speaks TLS."""

    def __init__(
        self, app: web.Application, listening: socket.socket, tls: ssl.SSLContext | None = None
    ) -> None:
        self._tls = tls
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_S)
        self._socket = listening
        self._server: asyncio.Server | None = None

    async def serve(self) -> None:
        """Begin to answer."""
        await self._runner.setup()
        manager = self._runner.server
        assert manager is not None
        loop = asyncio.get_running_loop()

        def connection() -> web.RequestHandler:
            return _Connection(
                manager,
                loop=loop,
                access_log=None,  # type: ignore[arg-type]  # aiohttp takes None and writes no log
                keepalive_timeout=IDLE_S,
                lingering_time=LINGER_S,
                auto_decompress=False,
            )

        # Accepted one by one: when descriptors run out, asyncio before Python 3.13 fails and logs as often as
        # its backlog says, which stops the loop for seconds. The socket's own queue is as long as before.
        self._server = await loop.create_server(
            connection,
            sock=self._socket,
            backlog=1,
            ssl=self._tls,
            ssl_handshake_timeout=HANDSHAKE_S if self._tls else None,
            ssl_shutdown_timeout=LINGER_S if self._tls else None,
        )
        self._socket.listen(BACKLOG)

    async def stop(self) -> None:
        """Take no more connections, let what is under way end, close the rest."""
        if self._server is not None:
            self._server.close()
        self._socket.close()
        await self._runner.cleanup()


def url(scheme: str, listening: socket.socket) -> str:
    """The address that a socket is bound to, as it is typed."""
    host, port = listening.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
