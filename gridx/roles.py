"""Which services a role means, with which settings, and in what order they start and stop.

Start: coordinator, then worker. Stop: the same backwards, so that a worker can still hand in what it has.
"""

from __future__ import annotations

import asyncio
import getpass
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from gridx.address import ws_url
from gridx.config import Settings
from gridx.errors import SetupError

if TYPE_CHECKING:
    from gridx.services.coordinator.app import Coordinator
    from gridx.services.worker.agent import Agent

LOOPBACK: Final = "127.0.0.1"


def settled(settings: Settings) -> Settings:
    """The settings with what follows from the role: loopback and a user for standalone.

    Raises:
        SetupError: a worker has no owner or no coordinator.
    """
    role = settings.role
    replace = msgspec.structs.replace
    if role == "standalone":
        coordinator = replace(settings.coordinator, host=settings.coordinator.host or LOOPBACK)
        user = settings.worker.user or settings.client.user or _login_name()
        worker = replace(settings.worker, user=user)
        return replace(settings, coordinator=coordinator, worker=worker)
    if role == "worker":
        worker = replace(settings.worker, user=settings.worker.user or settings.client.user)
        if not worker.user:
            raise SetupError(
                "A worker needs an owner: the user that earns with it.",
                "Add --user NAME; a name that is new is registered.",
            )
        if not worker.coordinator_http:
            raise SetupError("It is not known where the coordinator is.", "Add --coordinator-ip HOST.")
        if not worker.coordinator_ws:
            worker = replace(worker, coordinator_ws=ws_url(worker.coordinator_http))
        return replace(settings, worker=worker)
    return settings


class Services:
    """The coordinator and the worker of one process, as its role has them.

    Attributes:
        settings: settled; with the coordinator's real ports once it has started.
        token: of the worker's owner; None where there is no worker.
    """

    def __init__(self, settings: Settings, password: Callable[[bool], str | None]) -> None:
        self.settings = settled(settings)
        self.coordinator: Coordinator | None = None
        self.agent: Agent | None = None
        self.token: str | None = None
        self._password = password

    async def start(self, listening: Callable[[Coordinator], None]) -> None:
        """Start what the role has; ``listening`` is called when the coordinator does. Raises GridError."""
        role = self.settings.role
        if role in ("standalone", "coordinator"):
            from gridx.services.coordinator.app import Coordinator

            coordinator = Coordinator(self.settings)
            await coordinator.start()
            self.coordinator = coordinator
            listening(coordinator)
            if role == "standalone":
                self.token = await coordinator.local_session(self.settings.worker.user)
        if role in ("standalone", "worker"):
            await self._start_worker()

    async def _start_worker(self) -> None:
        from gridx.services.worker.agent import Agent, sign_in

        if self.coordinator is not None:
            worker = msgspec.structs.replace(
                self.settings.worker,
                coordinator_http=self.coordinator.http_url,
                coordinator_ws=self.coordinator.ws_url,
            )
            self.settings = msgspec.structs.replace(self.settings, worker=worker)
        else:
            self.token = await sign_in(self.settings, self._password)
        certificate = self.coordinator.certificate if self.coordinator is not None else ""
        agent = Agent(self.settings, token=self.token, password=self._password, certificate=certificate)
        await agent.start()
        self.agent = agent

    async def stop(self, hurry: asyncio.Event) -> None:
        """Stop what runs: drain the worker, or give its jobs back at once when ``hurry`` is set meanwhile."""
        agent, self.agent = self.agent, None
        coordinator, self.coordinator = self.coordinator, None
        try:
            if agent is not None:
                await _stop_worker(agent, hurry)
        finally:
            if coordinator is not None:
                await coordinator.stop()


async def _stop_worker(agent: Agent, hurry: asyncio.Event) -> None:
    draining = asyncio.create_task(agent.stop(drain=not hurry.is_set()), name="drain")
    hurrying = asyncio.create_task(hurry.wait(), name="hurry")
    try:
        await asyncio.wait((draining, hurrying), return_when=asyncio.FIRST_COMPLETED)
        if not draining.done():
            await agent.stop(drain=False)
        await draining
    finally:
        hurrying.cancel()
        await asyncio.gather(hurrying, return_exceptions=True)


def _login_name() -> str:
    """The name of the person at this machine, in the form that user names have."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError, ImportError):
        name = ""
    kept = re.sub(r"[^A-Za-z0-9_.@-]", "", name)[:64]
    return kept if kept[:1].isalnum() else "me"
