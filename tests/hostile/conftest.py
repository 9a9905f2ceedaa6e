"""One grid of real processes for a module of attacks; after each test what must be true is looked up.

A module sets ``COORDINATOR`` and ``WORKER`` (environment variables) where the usual settings do not do, and
``KEPT`` where its worker keeps containers for an owner's next job. A test asks for ``grid``; nothing else is
needed for the invariants to be checked after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from kit.hostile import Attacked, Standing, settings_of, signed_in

from gridx.client import Client


@pytest.fixture(scope="module")
def standing_grid(request: pytest.FixtureRequest, module_processes) -> Iterator[Standing]:
    """A coordinator and a worker of ann's, in containers where an engine answers; nothing of it is left."""
    standing = Standing(
        module_processes,
        settings_of(request.module, "COORDINATOR"),
        settings_of(request.module, "WORKER"),
        kept=getattr(request.module, "KEPT", 0),
    )
    try:
        standing.rise()
        yield standing
    finally:
        codes = [node.stop() for node in reversed(standing.processes.nodes) if node.process.poll() is None]
    assert not any(codes), codes
    assert not any(standing.containers().values()), standing.containers()


@pytest_asyncio.fixture
async def grid(standing_grid: Standing, until) -> AsyncIterator[Attacked]:
    """The grid to attack. After the test everything is as it was: that is what the test is for."""
    if not standing_grid.alive:
        await asyncio.to_thread(standing_grid.rise)
    standing_grid.volumes |= await asyncio.to_thread(standing_grid.new_volumes)
    people = [
        await signed_in(standing_grid, name, Client(standing_grid.url, standing_grid.tokens[name]))
        for name in ("ann", "bob", "admin")
    ]
    attacked = Attacked(standing_grid, until, *people)
    try:
        yield attacked
        await attacked.sound()
    finally:
        for person in people:
            await person.close()
