"""What an image that does not say it speaks: looked for in a container that is never started."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Final

import docker.errors

from gridx.errors import SandboxBroken
from gridx.services.worker.sandbox.engine import Engine
from gridx.services.worker.sandbox.labels import LABEL_KIND, LABEL_WORKER
from gridx.services.worker.sandbox.languages import spoken
from gridx.services.worker.sandbox.supervisor import DEFAULT_PATH

# An image's contents never change under its id.
_seen: Final[dict[str, list[str]]] = {}


async def languages_of(engine: Engine, image_id: str, interpreter: str, identity: str) -> list[str]:
    """Languages whose programs are in an image; Python alone when it cannot be looked into.

    Args:
        identity: the worker's, with which the container is labelled.
    """
    if image_id not in _seen:
        try:
            _seen[image_id] = await engine.call(_look, engine, image_id, interpreter, identity)
        except (SandboxBroken, docker.errors.NotFound):
            return spoken(lambda program: False)
    return _seen[image_id]


def _look(engine: Engine, image_id: str, interpreter: str, identity: str) -> list[str]:
    client = engine.client
    create: Callable[..., dict[str, Any]] = client.create_container_from_config
    made = create(
        {
            "Image": image_id,
            "Entrypoint": [interpreter],
            "Cmd": [],
            "Labels": {LABEL_WORKER: identity, LABEL_KIND: "look"},
            "HostConfig": {"NetworkMode": "none"},
        },
        f"gridx-look-{secrets.token_hex(8)}",
    )["Id"]
    address = f"{client.base_url}/v{client.api_version}/containers/{made}/archive"

    def has(program: str) -> bool:
        return any(
            client.head(address, params={"path": f"{folder}/{program}"}, timeout=client.timeout).ok
            for folder in DEFAULT_PATH.split(":")
        )

    try:
        found = spoken(has)
        # A container that somebody removed meanwhile has none of them, and says nothing.
        client.inspect_container(made)
        return found
    finally:
        client.remove_container(made, v=True, force=True)
