"""Which grid a command speaks to, and as whom."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

import click

if TYPE_CHECKING:
    from gridx.client import Client
    from gridx.config import Settings

P = ParamSpec("P")


@dataclass(frozen=True)
class Place:
    """What ``gridx`` was told before the command's name."""

    coordinator: str | None = None
    user: str | None = None
    config: Path | None = None

    def settings(self) -> Settings:
        """File, environment and these flags put together."""
        from gridx import config
        from gridx.address import named

        return config.load(
            self.config,
            flags={
                ("client", "coordinator"): named(self.coordinator) if self.coordinator else None,
                ("client", "user"): self.user,
            },
        )

    @asynccontextmanager
    async def signed_in(self) -> AsyncIterator[Client]:
        """A client of the grid: with GRIDX_TOKEN, the saved sign-in, or GRIDX_USER and GRIDX_PASSWORD.

        Raises:
            ConfigError: it is not known where the grid is.
            Unauthenticated: there is nothing to sign in with.
        """
        from gridx.connecting import signed_in

        async with signed_in(self.settings()) as grid:
            yield grid


def with_grid(function: Callable[Concatenate[Client, P], Awaitable[int]]) -> Callable[P, int]:
    """Give a command a signed-in client and an event loop; its result is the exit code."""

    @functools.wraps(function)
    def call(*args: P.args, **params: P.kwargs) -> int:
        place: Place = click.get_current_context().obj

        async def main() -> int:
            async with place.signed_in() as grid:
                return await function(grid, *args, **params)

        return asyncio.run(main())

    return call


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--json``: the result for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)
