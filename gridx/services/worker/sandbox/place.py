"""A place: one container with its supervisor, waiting for a job or running one, and the slot it stands on."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import docker.errors

from gridx.errors import SandboxBroken
from gridx.services.worker.sandbox.attach import AttachedChannel
from gridx.services.worker.sandbox.container import (
    GROUP,
    USERS,
    Limits,
    job_container,
    pause_container,
)
from gridx.services.worker.sandbox.dialect import Dialect
from gridx.services.worker.sandbox.dialogue import Line
from gridx.services.worker.sandbox.engine import Engine, EngineAway
from gridx.services.worker.sandbox.inspection import changed_limits
from gridx.services.worker.sandbox.labels import LABEL_ATTEMPT, LABEL_JOB, LABEL_KIND, LABEL_WORKER
from gridx.services.worker.sandbox.runtimes import RuntimeImage

log = logging.getLogger("gridx.worker")


@dataclass(eq=False, slots=True)
class Slot:
    """A pause container: the network namespace that one place at a time stands in, and whose user's number it
    runs under."""

    id: str
    user: int


@dataclass(eq=False, slots=True)
class Place:
    """A started container whose supervisor is ready.

    Attributes:
        owner: whose job has been in it; it is used again for the same owner only.
        idle_since: monotonic time at which it was given back.
    """

    id: str
    slot: Slot
    image: RuntimeImage
    limits: Limits
    channel: AttachedChannel
    line: Line
    gpus: tuple[str, ...] = ()
    owner: str = ""
    jobs: int = 0
    idle_since: float = field(default_factory=time.monotonic)


class Builder:
    """Makes and removes containers: each labelled, inspected before it starts, gone when making it failed.

    What this worker uses now is remembered; the sweep removes everything else with its label.

    Args:
        dialect: how this engine is spoken to.
    """

    def __init__(self, engine: Engine, dialect: Dialect, identity: str, oci_runtime: str) -> None:
        self.engine, self._dialect = engine, dialect
        self.identity, self._oci_runtime = identity, oci_runtime
        # In the order they were made, so that what stands on a slot is removed before it.
        self._live: dict[str, None] = {}
        self._being_made: set[str] = set()
        self._users: dict[str, int] = {}

    async def make_slot(self, image: RuntimeImage) -> Slot:
        """Start a pause container.

        Raises:
            SandboxBroken: the engine cannot, or made something else.
        """
        asked = pause_container(
            image, self.engine.facts, labels=self._labels({}), oci_runtime=self._oci_runtime
        )
        id = await self._create(asked, "pause")
        try:
            await self._inspect(id, asked)
            await self.engine.call(self.engine.client.start, id)
        except BaseException as error:
            await self.remove(id)
            if isinstance(error, docker.errors.NotFound):
                raise SandboxBroken("The slot's container has vanished.") from None
            raise
        # By lot, so that two workers of one machine hardly ever take the same.
        free = set(USERS).difference(self._users.values()) or set(USERS)
        self._users[id] = secrets.choice(sorted(free))
        return Slot(id, self._users[id])

    async def make_place(
        self,
        image: RuntimeImage,
        limits: Limits,
        slot: Slot,
        *,
        gpus: tuple[str, ...] = (),
        labels: Mapping[str, str],
    ) -> Place:
        """Create, inspect, attach, start, and wait until the supervisor is ready.

        Raises:
            SandboxBroken: the engine cannot, or made something else than it was asked for.
        """
        asked = job_container(
            image,
            limits,
            self.engine.facts,
            pause_id=slot.id,
            labels=self._labels(labels),
            user=f"{slot.user}:{GROUP}",
            gpus=gpus,
            oci_runtime=self._oci_runtime,
        )
        id = await self._create(asked, "job")
        channel: AttachedChannel | None = None
        try:
            await self._inspect(id, asked)
            # Before the start, so that nothing it says is missed.
            channel = AttachedChannel(
                await self.engine.call(
                    self.engine.client.attach_socket,
                    id,
                    {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1},
                )
            )
            await self.engine.call(self.engine.client.start, id)
            await channel.send(self._dialect.greeting())
            line = Line(channel)
            await line.ready()
            if bad := self._dialect.doubts(asked, line.witnessed):
                raise another(bad)
        except BaseException as error:
            if channel is not None:
                channel.close()
            await self.remove(id)
            if isinstance(error, (OSError, docker.errors.NotFound)):
                raise SandboxBroken(f"The sandbox could not be started: {error}.") from None
            raise
        return Place(id, slot, image, limits, channel, line, gpus)

    def fits(self, place: Place, limits: Limits) -> bool:
        """Whether a place that waits has these limits or can be given them."""
        return place.limits == limits or (
            self._dialect.resizes
            and place.limits.bucket_mb == limits.bucket_mb
            and place.limits.job_mb == limits.job_mb
        )

    async def resize(self, place: Place, limits: Limits) -> None:
        """Give a place that waits other limits, and see that the engine did it.

        Raises:
            SandboxBroken: it did not.
        """
        try:
            await self.engine.call(self._dialect.update, place.id, limits)
        except docker.errors.NotFound:
            raise SandboxBroken("The sandbox's container has vanished.") from None
        bad = changed_limits(limits, await self.inspect(place.id), self.engine.facts)
        if bad:
            raise SandboxBroken(f"The engine did not change the limits as asked: {'; '.join(bad)}.")
        place.limits = limits

    async def inspect(self, id: str) -> dict[str, Any]:
        """What the engine says of a container.

        Raises:
            SandboxBroken: it does not know it.
        """
        try:
            return await self.engine.call(self._dialect.inspect, id)
        except docker.errors.NotFound:
            raise SandboxBroken("The sandbox's container has vanished.") from None

    async def kill(self, place: Place) -> None:
        """End everything in a place now. Never raises for one that has ended."""
        try:
            await self.engine.call(self.engine.client.kill, place.id)
        except docker.errors.NotFound:
            return
        except EngineAway:
            raise
        except SandboxBroken as error:
            # It had ended by itself in the meantime.
            log.debug("kill of %s: %s", place.id[:12], error.message)

    async def remove(self, id: str) -> bool:
        """Remove a container with its volumes, whatever it does. False: the engine did not; a sweep will."""
        self.forget(id)
        try:
            await self.engine.call(self._dialect.remove, id)
        except docker.errors.NotFound:
            return True
        except SandboxBroken as error:
            if "already in progress" in error.message:
                return True
            log.warning("container %s could not be removed now: %s", id[:12], error.message)
            return False
        return True

    async def sweep(self) -> int:
        """Remove every container with this worker's label that it does not use; how many.

        Raises:
            EngineAway: the engine does not answer.
        """
        found = await self.engine.call(
            self.engine.client.containers, all=True, filters={"label": f"{LABEL_WORKER}={self.identity}"}
        )
        orphans = [
            str(container["Id"])
            for container in sorted(found, key=_is_slot)
            if container["Id"] not in self._live
            and not self._being_made.intersection(name.removeprefix("/") for name in container["Names"] or [])
        ]
        return sum([await self.remove(id) for id in orphans])

    async def remove_all(self) -> None:
        """Remove everything that this worker uses, whatever it does."""
        for id in reversed(list(self._live)):
            await self.remove(id)

    def forget(self, *ids: str) -> None:
        """Use these containers no more, without a word to the engine; a sweep removes them. None: all."""
        for id in ids or list(self._live):
            self._live.pop(id, None)
            self._users.pop(id, None)

    def _labels(self, labels: Mapping[str, str]) -> dict[str, str]:
        return {LABEL_WORKER: self.identity, LABEL_JOB: "", LABEL_ATTEMPT: "", **labels}

    async def _create(self, asked: dict[str, Any], kind: str) -> str:
        # Known by its name before it has an id, so that a sweep in between leaves it alone.
        name = f"gridx-{kind}-{secrets.token_hex(8)}"
        self._being_made.add(name)
        try:
            made = await self.engine.call(self._dialect.create, asked, name)
            self._live[made] = None
        except docker.errors.NotFound:
            raise SandboxBroken("The runtime's image, or the slot's container, has vanished.") from None
        finally:
            self._being_made.discard(name)
        return made

    async def _inspect(self, id: str, asked: dict[str, Any]) -> None:
        if bad := self._dialect.differences(asked, await self.inspect(id)):
            raise another(bad)


def _is_slot(container: Mapping[str, Any]) -> bool:
    """Sorts slots last: an engine may refuse to remove what another container stands on."""
    return (container.get("Labels") or {}).get(LABEL_KIND) == "pause"


def another(bad: list[str]) -> SandboxBroken:
    """The error for a container that is not as it was asked for."""
    return SandboxBroken(
        f"The engine made another container than it was asked for: {'; '.join(bad)}.",
        "gridx doctor shows what this engine can do.",
    )
