"""Sandboxes for real: a module shares one, which is opened before its first test and leaves nothing."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gridx.config import WorkerSettings
from gridx.services.worker.sandbox.base import RunOutcome, RunRequest, Sandbox
from gridx.services.worker.sandbox.docker import DockerSandbox
from gridx.services.worker.sandbox.process import ProcessSandbox


@dataclass
class Result:
    """How a program ended and what it wrote."""

    outcome: RunOutcome
    stdout: bytes
    stderr: bytes

    @property
    def how(self) -> str:
        return self.outcome.outcome

    @property
    def lines(self) -> list[str]:
        return self.stdout.decode().splitlines()

    def ok(self) -> Result:
        assert self.how == "succeeded", (self.outcome, self.stderr.decode(errors="replace"))
        return self


@dataclass
class Box:
    """A sandbox and short words to run programs in it."""

    sandbox: Sandbox
    runtime: str
    number: int = 0
    started: asyncio.Event = field(default_factory=asyncio.Event)

    def request(self, code: str, **fields: Any) -> RunRequest:
        self.number += 1
        defaults: dict[str, Any] = {
            "attempt_id": self.number,
            "job_id": self.number,
            "owner": "ann",
            "code": code,
            "language": "python",
            "args": (),
            "env": {},
            "cpu_millis": 1000,
            "memory_mb": 128,
            "gpus": (),
            "timeout_s": 60,
            "runtime": self.runtime,
            "output_cap_bytes": 1 << 20,
        }
        return RunRequest(**{**defaults, **fields})

    async def run(self, code: str, *, cancel: asyncio.Event | None = None, **fields: Any) -> Result:
        """Run a program to its end, keeping its output."""
        kept: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}

        async def sink(stream: str, data: bytes) -> None:
            assert 0 < len(data) <= 1 << 16
            kept[stream] += data

        self.started.clear()

        async def started() -> None:
            self.started.set()

        request = self.request(code, **fields)
        outcome = await self.sandbox.run(request, sink, started, cancel or asyncio.Event())
        return Result(outcome, bytes(kept["stdout"]), bytes(kept["stderr"]))


@pytest.fixture(scope="session")
def make_docker(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Container sandboxes, each with an identity of its own, so that nothing of another is touched."""

    def make(**settings: Any) -> DockerSandbox:
        folder: Path = tmp_path_factory.mktemp("worker")
        identity = f"test-{secrets.token_hex(8)}"
        return DockerSandbox(WorkerSettings(**settings), identity=identity, data_path=folder)

    return make


def containers(sandbox: DockerSandbox) -> list[dict[str, Any]]:
    """What the engine has of this sandbox's worker."""
    import docker

    address = sandbox._settings.engine
    client = docker.DockerClient(address) if "podman" in address else docker.from_env()
    try:
        return client.api.containers(all=True, filters={"label": f"gridx.worker={sandbox._identity}"})
    finally:
        client.close()


@pytest.fixture(scope="session")
def containers_of() -> Any:
    return containers


@pytest.fixture(scope="session")
def make_box() -> type[Box]:
    return Box


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box(make_docker: Any) -> AsyncIterator[Box]:
    """Containers as they are by default: warm places and reuse."""
    sandbox = make_docker()
    await sandbox.open()
    yield Box(sandbox, "default")
    await sandbox.close()
    assert containers(sandbox) == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def process_box(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Box]:
    """Processes of this machine, without bubblewrap, which not every machine has."""
    folder: Path = tmp_path_factory.mktemp("worker")
    sandbox = ProcessSandbox(folder)
    await sandbox.open()
    sandbox._bwrap = ""
    yield Box(sandbox, "python")
    await sandbox.close()
    assert list((folder / "sandbox").iterdir()) == []
