"""``gridx.connect()``: a client that is signed in, as the shell is, for programs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

from gridx import config, credentials
from gridx.address import named
from gridx.client import Client
from gridx.config import Settings
from gridx.errors import GridError, Unauthenticated

OpenGrid = Callable[[], AbstractAsyncContextManager[Client]]


def connect(
    coordinator: str | None = None, *, user: str | None = None, token: str | None = None
) -> AbstractAsyncContextManager[Client]:
    """A client of the grid: ``async with gridx.connect() as grid: ...``.

    Args:
        coordinator: its URL; else ``GRIDX_COORDINATOR``, the configuration, or where one signed in last.
        user: whose saved sign-in is used; else ``GRIDX_USER``, or whoever signed in last.
        token: of a sign-in; else ``GRIDX_TOKEN``, the saved one, or one that ``GRIDX_PASSWORD`` gives.

    Raises:
        ConfigError: it is not known where the grid is, at once.
        Unauthenticated: there is nothing to sign in with, when it is entered.
    """
    return opener(coordinator, user=user, token=token)()


def opener(coordinator: str | None = None, *, user: str | None = None, token: str | None = None) -> OpenGrid:
    """As :func:`connect`, for who opens the grid more than once."""
    settings = config.load(
        None,
        flags={
            ("client", "coordinator"): named(coordinator) if coordinator else None,
            ("client", "user"): user,
        },
    )
    credentials.resolve(settings)
    return lambda: signed_in(settings, token)


@asynccontextmanager
async def signed_in(settings: Settings, token: str | None = None) -> AsyncIterator[Client]:
    """A client with ``token``, GRIDX_TOKEN, the saved sign-in, or GRIDX_USER and GRIDX_PASSWORD.

    Raises:
        ConfigError: it is not known where the grid is.
        Unauthenticated: there is nothing to sign in with.
    """
    url, found = credentials.resolve(settings)
    async with Client(url, token or found, timeout_s=settings.client.timeout_s) as grid:
        if grid.token is not None:
            yield grid
            return
        user, password = settings.client.user, os.environ.get("GRIDX_PASSWORD")
        if not user or password is None:
            who = user or "USER"
            raise Unauthenticated(f"Nobody is signed in at {grid.url}.", f"Type: gridx login {who}")
        grid.token = (await grid.login(user, password, label="gridx")).token
        try:
            yield grid
        finally:
            # Nobody is there any more to be told that it could not be revoked.
            with suppress(GridError):
                await grid.logout()
