"""A real grid in the process of the test, and dashboards on it that are driven by keys."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from textual.pilot import Pilot

from gridx.client import Client
from gridx.config import AuthSettings, CoordinatorSettings, Settings, WorkerSettings
from gridx.messages import JobSpec
from gridx.services.coordinator.app import Coordinator
from gridx.services.worker.agent import Agent
from gridx.tui.app import GridApp
from gridx.tui.here import Here
from gridx.tui.logbook import Logbook


def picture(app: GridApp) -> str:
    """What the terminal shows, line by line."""
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


async def shown(app: GridApp, until: Callable[..., Awaitable[object]], what: str) -> None:
    """Wait until the terminal shows a text."""
    await until(lambda: what in picture(app), what, 20)


@dataclass
class Grid:
    """A coordinator and its workers, and who is signed in where."""

    settings: Settings
    coordinator: Coordinator
    agents: list[Agent] = field(default_factory=list)
    logbook: Logbook = field(default_factory=Logbook)

    tokens: dict[str, str] = field(default_factory=dict)

    async def token(self, user: str) -> str:
        """A user's sign-in; one for all of the test, since another one ends the first."""
        if user not in self.tokens:
            self.tokens[user] = await self.coordinator.local_session(user)
        return self.tokens[user]

    async def worker(self, owner: str = "ann", name: str = "lab") -> Agent:
        """Start a worker that runs jobs as processes, and wait until it is there."""
        worker = msgspec.structs.replace(
            self.settings.worker,
            user=owner,
            name=name,
            coordinator_http=self.coordinator.http_url,
            coordinator_ws=self.coordinator.ws_url,
        )
        settings = msgspec.structs.replace(
            self.settings, worker=worker, data_dir=str(Path(self.settings.data_dir) / name)
        )
        agent = Agent(settings, token=await self.token(owner))
        await agent.start()
        self.agents.append(agent)
        return agent

    async def client(self, user: str = "ann") -> Client:
        """A client of a user; close it."""
        return Client(self.coordinator.http_url, await self.token(user))

    @asynccontextmanager
    async def dashboard(
        self,
        user: str | None = "ann",
        *,
        size: tuple[int, int] = (120, 40),
        role: Any = "standalone",
        settings: Settings | None = None,
        **more: Any,
    ) -> AsyncIterator[tuple[GridApp, Pilot[None]]]:
        """A dashboard, signed in and with everything read; nobody is signed in when ``user`` is None."""
        token = await self.token(user) if user else None
        client = Client(self.coordinator.http_url, token)
        app = GridApp(client, settings or self.settings, role=role, logbook=self.logbook, **more)
        async with app.run_test(size=size, notifications=True) as pilot:
            yield app, pilot
        await client.close()


def settings_in(folder: Path) -> Settings:
    """Settings of a grid on free ports, quick where quickness costs nothing."""
    return Settings(
        data_dir=str(folder),
        coordinator=CoordinatorSettings(host="127.0.0.1", http_port=0, ws_port=0, heartbeat_s=0.5),
        auth=AuthSettings(hash_memory_mb=8, hash_threads=1),
        worker=WorkerSettings(sandbox="process", warm=0, drain_s=1.0),
    )


@pytest.fixture
async def grid(tmp_path: Path) -> AsyncIterator[Grid]:
    """A coordinator without workers."""
    settings = settings_in(tmp_path)
    coordinator = Coordinator(settings)
    await coordinator.start()
    grid = Grid(settings, coordinator)
    root = logging.getLogger("gridx")
    root.addHandler(grid.logbook)
    try:
        yield grid
    finally:
        for agent in grid.agents:
            await agent.stop(drain=False)
        await grid.coordinator.stop()
        root.removeHandler(grid.logbook)


@pytest.fixture
async def ann(grid: Grid) -> AsyncIterator[Client]:
    """A client of the user ann."""
    client = await grid.client("ann")
    yield client
    await client.close()


def program(code: str, **more: Any) -> JobSpec:
    """A small job."""
    return JobSpec(code=code, **{"name": "test", "memory_mb": 64, "cpus": 0.5, "timeout_s": 60, **more})


__all__ = ["Grid", "Here", "picture", "program"]
