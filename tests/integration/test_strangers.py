"""What a grid is for: a program runs in a container on a stranger's machine, and the stranger earns."""

from __future__ import annotations

from pathlib import Path

import docker
import pytest

from gridx.client import Client
from gridx.errors import NotFound
from gridx.messages import AttemptState, JobSpec, JobState
from gridx.services.worker import identity

pytestmark = pytest.mark.engine

IN_CONTAINERS = {"GRIDX_WORKER_SANDBOX": "docker", "GRIDX_WORKER_WARM": "0"}


async def sign_up(url: str, user: str) -> Client:
    async with Client(url) as stranger:
        session = await stranger.register(user, "correct horse")
    return Client(url, session.token)


def containers_of(worker_folder: Path) -> set[str]:
    """Ids of the containers that carry the label of the worker with this data folder, running or not."""
    engine = docker.from_env()
    try:
        label = f"gridx.worker={identity.load(worker_folder)}"
        return {found.id for found in engine.containers.list(all=True, filters={"label": label})}
    finally:
        engine.close()


async def test_a_strangers_machine_runs_the_job_and_its_owner_is_paid(processes):
    processes.coordinator()
    processes.worker("owner", "lab", **IN_CONTAINERS)
    async with await sign_up(processes.http_url, "guest") as guest:
        job = await guest.submit(
            JobSpec(code="import os, numpy\nprint(os.getuid(), numpy.arange(4).sum())", cpus=0.5)
        )
        done = await guest.wait(job.id)
        assert done.state is JobState.SUCCEEDED, done.reason
        user, total = map(int, (await guest.output(job.id, "stdout")).split())
        # A number that nothing else on the machine has.
        assert (user >= 60_000, total) == (True, 6)
        receipt = await guest.receipt(job.id)
        (attempt,) = receipt.attempts
        assert (attempt.worker_name, attempt.worker_owner) == ("lab", "owner")
        assert attempt.charge == receipt.charge > 0
        assert (await guest.balance()).spent == receipt.charge
        with pytest.raises(NotFound):
            await guest.balance("owner")
    async with Client(processes.http_url) as client:
        token = (await client.login("owner", "correct horse")).token
    async with Client(processes.http_url, token) as owner:
        assert (await owner.balance()).earned == receipt.charge
        with pytest.raises(NotFound):
            await owner.output(job.id, "stdout")


async def test_a_killed_workers_containers_are_removed_when_it_comes_back(processes, until):
    processes.coordinator(GRIDX_COORDINATOR_LEASE_S="30")
    worker = processes.worker("owner", "lab", **IN_CONTAINERS)
    async with await sign_up(processes.http_url, "guest") as guest:
        # The first attempt never ends by itself; the second one does.
        job = await guest.submit(
            JobSpec(
                code="import os, time\nprint('begun', flush=True)\n"
                "while os.environ['GRIDX_ATTEMPT'] == '1': time.sleep(0.1)",
                cpus=0.5,
            )
        )

        async def begun():
            return await guest.output(job.id, "stdout") == b"begun\n"

        await until(begun, "the job to begin")
        folder = processes.folder / "worker-lab"
        orphans = containers_of(folder)
        assert orphans
        worker.kill()
        back = processes.worker("owner", "lab", **IN_CONTAINERS)
        done = await guest.wait(job.id)
        assert done.state is JobState.SUCCEEDED, done.reason
        receipt = await guest.receipt(job.id)
        assert [attempt.state for attempt in receipt.attempts] == [AttemptState.LOST, AttemptState.SUCCEEDED]
        assert not orphans & containers_of(folder)
    assert back.stop() == 0
    assert not containers_of(folder)
