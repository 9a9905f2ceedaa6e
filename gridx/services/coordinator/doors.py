"""How many connections one address may have: counted where they are accepted, before they cost anything."""

from __future__ import annotations

import logging
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from gridx.services.coordinator.guessing import network

log = logging.getLogger("gridx.coordinator")

SAY_EVERY_S: Final = 60.0
UNREAD_MS: Final = 60_000
"""A peer that takes nothing of what is sent to it for so long is gone, or might as well be."""


class Doors:
    """Counts the connections of each address over all listeners.

    Args:
        most: of one address at the same time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()
        self._said_at = -SAY_EVERY_S

    def enter(self, address: str) -> Callable[[], None] | None:
        """Count a connection in; what is called when it ends. None: it is one too many."""
        where = network(address)
        if self._open[where] >= self._most:
            if time.monotonic() - self._said_at >= SAY_EVERY_S:
                self._said_at = time.monotonic()
                log.warning("%s has %d connections open; further ones are closed", where, self._most)
            return None
        self._open[where] += 1

        def leave() -> None:
            self._open[where] -= 1
            if not self._open[where]:
                del self._open[where]

        return leave


class Door(socket.socket):
    """A listening socket that closes connections beyond what one address may have.

    asyncio's selector loops accept through it; one that does it by other means, as on Windows, counts none.
    """

    doors: Doors | None = None

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection. Raises ConnectionAbortedError for one too many, which asyncio passes over."""
        connection, address = super().accept()
        if self.doors is None:
            return connection, address
        leave = self.doors.enter(str(address[0]))
        if leave is None:
            connection.close()
            raise ConnectionAbortedError("too many connections of one address")
        counted = _Counted(fileno=connection.detach())
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            counted.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS)
        counted.leave = leave
        return counted, address


class _Counted(socket.socket):
    """A connection that is counted out when it is closed."""

    leave: Callable[[], None] | None = None

    def close(self) -> None:
        leave, self.leave = self.leave, None
        super().close()
        if leave is not None:
            leave()
