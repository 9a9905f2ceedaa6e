"""Real worker processes that are frozen, killed and told to stop while they run something."""

from __future__ import annotations

import os
import re
import signal

import pytest

from gridx.client import Client
from gridx.messages import AttemptState, JobSpec, JobState

# The first attempt writes its process's id and goes on for ever; any later one ends at once.
STUBBORN = """
import os, time
print(os.getpid(), flush=True)
while os.environ["GRIDX_ATTEMPT"] == "1":
    time.sleep(0.1)
print("moved")
"""


@pytest.fixture
async def ann(processes):
    """A user with two workers on a grid with short leases."""
    processes.coordinator(GRIDX_COORDINATOR_LEASE_S="3", GRIDX_COORDINATOR_HEARTBEAT_S="0.3")
    for name in ("one", "two"):
        processes.worker("ann", name, GRIDX_WORKER_DRAIN_S="1")
    async with Client(processes.http_url) as client:
        session = await client.login("ann", "correct horse")
    client = Client(processes.http_url, session.token)
    yield client
    await client.close()


async def running(client, job_id, until):
    async def look():
        job = await client.job(job_id)
        return job.state is JobState.RUNNING and await client.output(job_id) and job

    return await until(look, "the job to run")


def node_of(processes, name):
    return next(node for node in processes.nodes if node.log.name.startswith(f"{name}-"))


def spec():
    return JobSpec(code=STUBBORN, cpus=0.1, memory_mb=128, timeout_s=120)


async def states_of(client, job_id):
    return [attempt.state for attempt in (await client.job(job_id)).attempts]


async def test_a_worker_frozen_past_its_lease_kills_what_it_ran_and_is_not_paid(processes, ann, until):
    job = await ann.submit(spec())
    first = await running(ann, job.id, until)
    frozen = node_of(processes, first.worker_name)
    os.kill(frozen.process.pid, signal.SIGSTOP)
    try:
        done = await ann.wait(job.id)
    finally:
        os.kill(frozen.process.pid, signal.SIGCONT)
    assert done.state is JobState.SUCCEEDED
    assert done.worker_name != first.worker_name
    attempt = (await ann.job(job.id)).attempts[0].id
    await until(lambda: re.search(rf"attempt {attempt} is killed", frozen.text), "the frozen one to kill it")
    receipt = await ann.receipt(job.id)
    assert [one.state for one in receipt.attempts] == [AttemptState.LOST, AttemptState.SUCCEEDED]
    assert receipt.attempts[0].charge == 0
    # It is a worker like any other again.
    assert node_of(processes, first.worker_name).process.poll() is None


async def test_told_to_stop_it_gives_back_and_the_job_goes_on_elsewhere(processes, ann, until):
    job = await ann.submit(spec())
    first = await running(ann, job.id, until)
    assert node_of(processes, first.worker_name).stop() == 0
    done = await ann.wait(job.id)
    assert done.state is JobState.SUCCEEDED
    assert await states_of(ann, job.id) == [AttemptState.RELEASED, AttemptState.SUCCEEDED]


async def test_killed_and_started_again_it_frees_its_jobs_before_the_lease_ends(processes, ann, until):
    job = await ann.submit(spec())
    first = await running(ann, job.id, until)
    node = node_of(processes, first.worker_name)
    node.kill()
    processes.nodes.remove(node)
    processes.worker("ann", first.worker_name)
    done = await ann.wait(job.id)
    assert done.state is JobState.SUCCEEDED
    assert await states_of(ann, job.id) == [AttemptState.LOST, AttemptState.SUCCEEDED]
    spool = processes.folder / f"worker-{first.worker_name}" / "spool"
    await until(lambda: list(spool.iterdir()) == [], "the spool to be empty")
