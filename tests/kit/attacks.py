"""Hostile programs put to a grid side by side, and what is left in its containers after them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import docker
from docker.errors import APIError, NotFound

from gridx.client import Client
from gridx.messages import Job, JobSpec, JobState
from kit.hostile import Attacked, Standing

CONTAINERS = {"GRIDX_WORKER_SANDBOX": "docker", "GRIDX_WORKER_WARM": "1", "GRIDX_WORKER_REUSE": "true"}
"""A worker with places started ahead and used again, as it is by default."""

# What a job can see of jobs before it in the same place, as one line of JSON.
LOOK = """
import json, os
FOLDERS = ("/tmp", "/job", "/dev/shm", "/dev/mqueue", "/dev/pts")
print(json.dumps({
    "folders": {f: sorted(set(os.listdir(f)) - {"out"}) for f in FOLDERS},
    "sysv": [len(open(f"/proc/sysvipc/{kind}").readlines()) - 1 for kind in ("shm", "sem", "msg")],
    "processes": sorted(int(p) for p in os.listdir("/proc") if p.isdigit() and int(p) != os.getpid()),
    "sockets": [len(open(f"/proc/net/{kind}").readlines()) - 1 for kind in ("unix", "tcp", "tcp6", "udp")],
    # Those that belong to an open file and to no process have no namespace: the kernel shows the machine's.
    "locks": [line for line in open("/proc/locks") if "OFDLCK" not in line],
    "modes": [oct(os.stat(f).st_mode & 0o7777) for f in ("/tmp", "/job", "/dev/shm")],
}))
"""
NOTHING = {
    "folders": {"/tmp": [], "/job": ["job.py"], "/dev/shm": [], "/dev/mqueue": [], "/dev/pts": ["ptmx"]},
    "sysv": [0, 0, 0],
    "processes": [1],
    "sockets": [0, 0, 0, 0],
    "locks": [],
    "modes": ["0o1777"] * 3,
}


@dataclass(frozen=True)
class Ended:
    """A job that has ended and what it wrote."""

    job: Job
    stdout: bytes
    stderr: bytes

    @property
    def lines(self) -> list[str]:
        return self.stdout.decode(errors="backslashreplace").splitlines()

    def ok(self) -> Ended:
        assert self.job.state is JobState.SUCCEEDED, (self.job.reason, self.stdout, self.stderr)
        return self


async def ended(client: Client, job_id: int) -> Ended:
    """Wait for a job and fetch its output."""
    job = await client.wait(job_id)
    return Ended(job, await client.output(job_id, "stdout"), await client.output(job_id, "stderr"))


async def at_once(
    grid: Attacked, programs: Mapping[str, str], *, who: Client | None = None, **fields: Any
) -> dict[str, Ended]:
    """Run programs side by side, as a stranger's unless somebody is named."""
    client = who or grid.bob
    usual = {"cpus": 0.2, "memory_mb": 64, "timeout_s": 60}
    specs = [JobSpec(**{"code": code, "name": name, **usual, **fields}) for name, code in programs.items()]
    jobs = await client.submit_batch(specs)
    found = await asyncio.gather(*(ended(client, job.id) for job in jobs))
    return dict(zip(programs, found, strict=True))


def running(standing: Standing) -> dict[str, list[str]]:
    """Commands of the processes in each of the worker's containers for jobs, as the machine sees them."""
    engine = docker.from_env()
    try:
        found = {}
        for id in standing.containers()["job"]:
            try:
                found[id] = [row[-1] for row in engine.api.top(id)["Processes"]]
            except (NotFound, APIError):
                # Removed, or not started yet.
                continue
        return found
    finally:
        engine.close()


async def only_supervisors(grid: Attacked) -> None:
    """Wait until nothing but a supervisor runs in any container: no job left a process behind."""

    async def alone() -> bool:
        found = await asyncio.to_thread(running, grid.standing)
        return all(len(commands) == 1 for commands in found.values())

    await grid.until(alone, "only supervisors to run")
