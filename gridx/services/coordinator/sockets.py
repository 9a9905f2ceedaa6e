"""Open sockets by who opened them, so that a revoked token or a disabled user is out at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from aiohttp import WSCloseCode

from gridx.errors import TooMany
from gridx.services.coordinator.store.records import TokenRecord, UserRecord

MAX_PER_USER: Final = 512
"""Sockets that one user may hold: some hundreds of workers and some dashboards."""

Closer = Callable[[WSCloseCode], None]
"""Closes one socket; cheap, never raises."""
SIGNED_OUT: Final = WSCloseCode.POLICY_VIOLATION
CHANGED: Final = WSCloseCode.SERVICE_RESTART
"""What the user may see has changed: connect again."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and by which token; none: by a password.

    ``moment`` is the :meth:`Sockets.moment` in which that was true.
    """

    user: UserRecord
    token: TokenRecord | None = None
    moment: int = 0

    @property
    def admin(self) -> bool:
        """Whether the caller may do everything."""
        return self.user.role == "admin"


class Sockets:
    """The open sockets. Closing one is left to a function that it brings along."""

    def __init__(self) -> None:
        self._open: dict[int, dict[Closer, Caller]] = {}
        self._closings: dict[int, int] = {}

    def moment(self, user_id: int) -> int:
        """How often something of a user was closed up to now."""
        return self._closings.get(user_id, 0)

    @contextmanager
    def opened(self, caller: Caller, close: Closer) -> Iterator[None]:
        """Keep a socket known while the block runs; closed at once if the caller was shown out meanwhile.

        Raises:
            TooMany: the user has ``MAX_PER_USER`` open already.
        """
        mine = self._open.setdefault(caller.user.id, {})
        if len(mine) >= MAX_PER_USER:
            raise TooMany(
                f"{caller.user.username} has {MAX_PER_USER} connections open already.",
                "Close some of them.",
            )
        mine[close] = caller
        if caller.moment != self.moment(caller.user.id):
            # Perhaps another token was meant. Whoever still has one connects again.
            close(CHANGED)
        try:
            yield
        finally:
            del mine[close]
            if not mine and self._open.get(caller.user.id) is mine:
                del self._open[caller.user.id]

    def close_user(self, user_id: int, code: WSCloseCode = SIGNED_OUT) -> None:
        """Close everything of a user."""
        self._close(user_id, lambda _: True, code)

    def close_token(self, user_id: int, token_id: int) -> None:
        """Close what was opened with a token."""
        self._close(user_id, lambda caller: caller.token is not None and caller.token.id == token_id)

    def close_expired(self, now: datetime) -> None:
        """Close what was opened with a token that is over."""

        def over(caller: Caller) -> bool:
            return caller.token is not None and caller.token.expires_at <= now

        for user_id, mine in list(self._open.items()):
            if any(over(caller) for caller in mine.values()):
                self._close(user_id, over)

    def _close(self, user_id: int, chosen: Callable[[Caller], bool], code: WSCloseCode = SIGNED_OUT) -> None:
        self._closings[user_id] = self.moment(user_id) + 1
        for close in [close for close, caller in self._open.get(user_id, {}).items() if chosen(caller)]:
            close(code)
