"""A grid of real processes that is attacked, and what must be true of it after each attack."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException

from gridx.client import Client
from gridx.errors import Unauthenticated
from gridx.messages import Job, JobSpec, JobState
from gridx.services.worker import identity

PASSWORD = "correct horse"
COORDINATOR = {
    "GRIDX_AUTH_HASH_MEMORY_MB": "8",
    "GRIDX_CREDITS_SIGNUP_GRANT": "1000",
    "GRIDX_COORDINATOR_LEASE_S": "20",
}
WORKER = {"GRIDX_WORKER_WARM": "0", "GRIDX_WORKER_REUSE": "false"}
FOLDERS_THAT_MAY_BE = frozenset({"sandbox", "spool", "grid.db-blobs", "inputs", "files", "cache"})
"""Of a data folder; what is inside of them has to be gone."""


@dataclass
class Standing:
    """A coordinator, a worker of ann's and the people, for all tests of a module.

    Attributes:
        kept: containers for jobs that may stay after a job, for the owner's next one.
    """

    processes: Any
    coordinator_settings: Mapping[str, str]
    worker_settings: Mapping[str, str]
    kept: int = 0
    coordinator: Any = None
    worker: Any = None
    tokens: dict[str, str] = field(default_factory=dict)
    volumes: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        return self.processes.http_url

    @property
    def ws_url(self) -> str:
        return self.processes.ws_url

    @property
    def port(self) -> int:
        """Of the HTTP API."""
        return int(self.url.rpartition(":")[2])

    @property
    def ws_port(self) -> int:
        """Of the workers' WebSocket."""
        return int(self.ws_url.split("/")[2].rpartition(":")[2])

    @property
    def coordinator_folder(self) -> Path:
        return self.processes.folder / "coordinator"

    @property
    def worker_folder(self) -> Path:
        return self.processes.folder / "worker-desk"

    @property
    def alive(self) -> bool:
        nodes = (self.coordinator, self.worker)
        return all(node is not None and node.process.poll() is None for node in nodes)

    def rise(self) -> None:
        """Start what does not run; a test that killed something does not spoil those after it."""
        for node in (self.coordinator, self.worker):
            if node is not None and node.process.poll() is not None:
                self.processes.nodes.remove(node)
        if self.coordinator is None or self.coordinator.process.poll() is not None:
            self.coordinator = self.processes.coordinator(**{**COORDINATOR, **self.coordinator_settings})
        if self.worker is None or self.worker.process.poll() is not None:
            self.worker = self.processes.worker(
                "ann", "desk", **{"GRIDX_WORKER_SANDBOX": "auto", **WORKER, **self.worker_settings}
            )
        if not self.tokens:
            asyncio.run(self._sign_in())

    async def _sign_in(self) -> None:
        async with Client(self.url) as client:
            self.tokens["ann"] = (await client.login("ann", PASSWORD)).token
            self.tokens["bob"] = (await client.register("bob", PASSWORD)).token
            self.tokens["admin"] = (await client.login("admin", self.processes.admin_password)).token

    def containers(self) -> dict[str, list[str]]:
        """Ids of this worker's containers by their kind, ``job`` and ``pause``, whether they run or not."""
        found: dict[str, list[str]] = {"job": [], "pause": []}
        if not self.worker_folder.exists():
            return found
        with _engine() as engine:
            if engine is not None:
                label = f"gridx.worker={identity.load(self.worker_folder)}"
                for each in engine.containers.list(
                    all=True, filters={"label": label}, sparse=True, ignore_removed=True
                ):
                    found[each.attrs["Labels"]["gridx.kind"]].append(each.id)
        return found

    def new_volumes(self) -> set[str]:
        """Volumes of the engine that were not there when the test began."""
        with _engine() as engine:
            there = {volume.name for volume in engine.volumes.list()} if engine is not None else set()
        return there - self.volumes

    def leftovers(self) -> list[str]:
        """Files and folders in the data folders that belong to nothing that lives."""
        left = [str(path) for path in self.worker_folder.glob("sandbox/*")]
        left += [str(path) for path in self.worker_folder.glob("spool/*.json")]
        left += [str(path) for path in self.coordinator_folder.glob(".backup-*")]
        for folder in (self.coordinator_folder, self.worker_folder):
            left += [
                str(path)
                for path in folder.iterdir()
                if path.is_dir() and path.name not in FOLDERS_THAT_MAY_BE
            ]
        return left


@contextlib.contextmanager
def _engine() -> Iterator[docker.DockerClient | None]:
    """The container engine; None where there is none."""
    try:
        engine = docker.from_env()
    except DockerException:
        yield None
        return
    try:
        yield engine
    finally:
        engine.close()


@dataclass
class Attacked:
    """The standing grid in one test, with a client of each of its people."""

    standing: Standing
    until: Any
    ann: Client
    bob: Client
    admin: Client

    @property
    def url(self) -> str:
        return self.standing.url

    @property
    def ws_url(self) -> str:
        return self.standing.ws_url

    @property
    def coordinator(self) -> Any:
        return self.standing.coordinator

    @property
    def worker(self) -> Any:
        return self.standing.worker

    async def submit(self, code: str, *, who: Client | None = None, **fields: Any) -> Job:
        """Submit a small job, of ann if nobody is named."""
        spec = JobSpec(**{"code": code, "cpus": 0.5, "memory_mb": 64, "timeout_s": 60, **fields})
        return await (who or self.ann).submit(spec)

    async def run(self, code: str, *, who: Client | None = None, **fields: Any) -> tuple[Job, bytes, bytes]:
        """Run a job to its end: how it ended, what it wrote to stdout and to stderr."""
        grid = who or self.ann
        job = await grid.wait((await self.submit(code, who=who, **fields)).id)
        return job, await grid.output(job.id, "stdout"), await grid.output(job.id, "stderr")

    async def sound(self) -> None:
        """What must be true after whatever happened; fails by the name of what is not."""
        standing = self.standing
        for node in (standing.coordinator, standing.worker):
            assert node.process.poll() is None, f"it has ended:\n{node.text[-4000:]}"
        await self.sign_in()
        job, stdout, stderr = await self.run("print('alive')")
        assert (job.state, stdout) == (JobState.SUCCEEDED, b"alive\n"), (job.reason, stderr)
        await self.until(self._clean, f"nothing to be left: {await asyncio.to_thread(self._left)}")
        report = await self.admin.audit()
        assert report.ok, report.findings
        for node in (standing.coordinator, standing.worker):
            assert "Traceback" not in node.text, node.text[-4000:]

    async def sign_in(self) -> None:
        """Sign the people in anew whose tokens were ended."""
        for name, person in (("ann", self.ann), ("bob", self.bob), ("admin", self.admin)):
            await signed_in(self.standing, name, person)

    async def _clean(self) -> bool:
        return not await asyncio.to_thread(self._left)

    def _left(self) -> list[str]:
        standing = self.standing
        jobs = standing.containers()["job"]
        return [
            *(f"container {id}" for id in (jobs if len(jobs) > standing.kept else [])),
            *(f"volume {name}" for name in standing.new_volumes()),
            *standing.leftovers(),
        ]


async def signed_in(standing: Standing, name: str, client: Client) -> Client:
    """The client of one of the people with a token that holds; where a test ended it, with a new one."""
    try:
        await client.me()
    except Unauthenticated:
        password = standing.processes.admin_password if name == "admin" else PASSWORD
        client.token = standing.tokens[name] = (await client.login(name, password)).token
    return client


def settings_of(module: Any, name: str) -> Mapping[str, str]:
    """What a module of tests wants to be set otherwise."""
    given = getattr(module, name, {})
    assert all(key in os.environ or key.startswith(("GRIDX_", "HTTP")) for key in given), given
    return given
