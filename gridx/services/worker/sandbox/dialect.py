"""What differs between Docker and Podman: how a container is made, what is said of it, what is looked at.

A container is described once, in the words of Docker's API (``container.py``), and compared once, in the same
words (``inspection.py``). A dialect says these words to its engine and hears them from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import docker
import docker.errors
import requests.exceptions

from gridx.services.worker.sandbox.container import Limits, update_of
from gridx.services.worker.sandbox.engine import Engine, EngineFacts
from gridx.services.worker.sandbox.frames import Witnessed
from gridx.services.worker.sandbox.inspection import differences
from gridx.services.worker.sandbox.supervisor import greeting


class Dialect(Protocol):
    """One engine's way. Its calls block and raise the SDK's errors: they belong into ``Engine.call``.

    Attributes:
        resizes: a container that waits can be given other limits, and it can be seen that it has them.
        gpus: whole GPUs can be handed to a container.
        notes: what to know about this engine, by name, for ``gridx doctor``.
    """

    resizes: bool
    gpus: bool
    notes: Mapping[str, str]

    def create(self, asked: Mapping[str, Any], name: str) -> str:
        """Make a container as it is described; its id."""

    def inspect(self, id: str) -> dict[str, Any]:
        """What the engine says of a container, in Docker's words."""

    def differences(self, asked: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
        """Fields that are not as they were asked for; empty: the container may start."""

    def remove(self, id: str) -> None:
        """Remove a container with its volumes, whatever it does."""

    def update(self, id: str, limits: Limits) -> None:
        """Give a container other limits; see ``resizes``."""

    def greeting(self) -> bytes:
        """What goes first into a new container's stdin."""

    def doubts(self, asked: Mapping[str, Any], witnessed: Witnessed | None) -> list[str]:
        """What speaks against a container that has started; empty: it may have a job."""


class DockerDialect:
    """Docker's API is taken at its word: what it says of a container is whole."""

    resizes = True
    gpus = True
    notes: Mapping[str, str] = {}

    def __init__(self, client: docker.APIClient, facts: EngineFacts) -> None:
        self._client, self._facts = client, facts

    def create(self, asked: Mapping[str, Any], name: str) -> str:
        create: Callable[..., dict[str, Any]] = self._client.create_container_from_config
        return str(create(asked, name)["Id"])

    def inspect(self, id: str) -> dict[str, Any]:
        found: dict[str, Any] = self._client.inspect_container(id)
        return found

    def differences(self, asked: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
        return differences(asked, found, self._facts)

    def remove(self, id: str) -> None:
        self._client.remove_container(id, v=True, force=True)

    def update(self, id: str, limits: Limits) -> None:
        # The SDK's own method knows neither NanoCpus nor PidsLimit.
        path = f"/v{self._client.api_version}/containers/{id}/update"
        post(self._client, path, update_of(limits, self._facts))

    def greeting(self) -> bytes:
        return greeting()

    def doubts(self, asked: Mapping[str, Any], witnessed: Witnessed | None) -> list[str]:
        return []


def post(client: docker.APIClient, path: str, body: Mapping[str, Any]) -> Any:
    """Say something that the SDK has no word for, over its own connections.

    Raises:
        docker.errors.APIError: the engine said no.
    """
    return _answer(client.post(f"{client.base_url}{path}", json=body, timeout=client.timeout))


def get(client: docker.APIClient, path: str) -> Any:
    """The same for asking."""
    return _answer(client.get(f"{client.base_url}{path}", timeout=client.timeout))


def _answer(answer: Any) -> Any:
    try:
        answer.raise_for_status()
    except requests.exceptions.HTTPError as error:
        docker.errors.create_api_error_from_http_exception(error)
    return answer.json()


def dialect_of(engine: Engine, data_path: Path) -> Dialect:
    """The way of this engine.

    Args:
        data_path: the worker's data folder, for what an engine takes as a file only.

    Raises:
        OSError: the folder cannot be written.
    """
    if engine.facts.podman:
        from gridx.services.worker.sandbox.podman import PodmanDialect

        return PodmanDialect(engine.client, engine.facts, data_path)
    return DockerDialect(engine.client, engine.facts)
