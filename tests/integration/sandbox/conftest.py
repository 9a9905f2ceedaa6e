"""Sandboxes for real: a module shares one, which is opened before its first test and leaves nothing."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gridx.config import WorkerSettings
from gridx.messages import FileCaps, InputFile, OutputFile
from gridx.services.worker.sandbox.base import RunOutcome, RunRequest, Sandbox
from gridx.services.worker.sandbox.docker import DockerSandbox
from gridx.services.worker.sandbox.process import ProcessSandbox


@dataclass
class Result:
    """How a program ended and what it wrote."""

    outcome: RunOutcome
    stdout: bytes
    stderr: bytes
    files: dict[str, bytes] = field(default_factory=dict)
    """What came back of ``out/``, where it was small enough to keep."""

    @property
    def left(self) -> dict[str, str]:
        return {left.path: left.why for left in self.outcome.left}

    @property
    def how(self) -> str:
        return self.outcome.outcome

    @property
    def lines(self) -> list[str]:
        return self.stdout.decode().splitlines()

    def ok(self) -> Result:
        assert self.how == "succeeded", (self.outcome, self.stderr.decode(errors="replace"))
        return self


class Kept:
    """Takes a job's files; keeps the first MiB of each."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self._path, self._data, self._size, self._hash = "", bytearray(), 0, hashlib.sha256()

    async def begin(self, path: str, size: int) -> None:
        self._path, self._data, self._size, self._hash = path, bytearray(), 0, hashlib.sha256()

    async def write(self, data: bytes) -> None:
        assert 0 < len(data) <= 1 << 16
        self._size += len(data)
        self._hash.update(data)
        self._data += data[: max(0, (1 << 20) - len(self._data))]

    async def end(self) -> OutputFile:
        self.files[self._path] = bytes(self._data)
        return OutputFile(path=self._path, sha256=self._hash.hexdigest(), size=self._size)

    async def drop(self) -> None:
        self._path = ""


OUT = FileCaps(total_bytes=256 << 20, files=1000, depth=16)


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

    async def run(
        self,
        code: str,
        *,
        cancel: asyncio.Event | None = None,
        inputs: dict[str, Path] | None = None,
        **fields: Any,
    ) -> Result:
        """Run a program to its end, keeping its output and what it leaves in ``out/``."""
        kept_files = Kept()
        given = tuple((_input(path, place), place) for path, place in (inputs or {}).items())
        fields = {
            "inputs": given,
            "outputs": ("*",),
            "out_files": OUT,
            "files": kept_files,
            **fields,
        }
        kept: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}

        async def sink(stream: str, data: bytes) -> None:
            assert 0 < len(data) <= 1 << 16
            kept[stream] += data

        self.started.clear()

        async def started() -> None:
            self.started.set()

        request = self.request(code, **fields)
        outcome = await self.sandbox.run(request, sink, started, cancel or asyncio.Event())
        return Result(outcome, bytes(kept["stdout"]), bytes(kept["stderr"]), kept_files.files)


def _input(path: str, place: Path) -> InputFile:
    """What would be announced of a file; nobody looks at its digest any more here."""
    return InputFile(
        path=path,
        sha256="0" * 64,
        size=place.stat().st_size,
        executable=bool(place.stat().st_mode & 0o100),
    )


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
