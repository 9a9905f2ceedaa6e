"""The whole grid as real processes: many jobs at once, a worker killed, output followed over a restart."""

from __future__ import annotations

import asyncio
import collections
import re

import pytest

from gridx.client import Client
from gridx.messages import AttemptState, JobSpec, JobState

SPARE = {"timeout_s": 120, "memory_mb": 128, "cpus": 0.1}


async def sign_in(url: str, user: str, password: str = "correct horse") -> Client:
    client = Client(url)
    session = await client.login(user, password)
    await client.close()
    return Client(url, session.token)


def spec(code: str, **fields: object) -> JobSpec:
    return JobSpec(**{"code": code, **SPARE, **fields})


async def ended(client: Client, job_ids: list[int], until, deadline_s: float = 120) -> dict[int, JobState]:
    async def look():
        found = {id: (await client.job(id)).state for id in job_ids}
        return found if all(state.ended for state in found.values()) else None

    return await until(look, f"{len(job_ids)} jobs to end", deadline_s)


@pytest.fixture
async def people(processes):
    """Signs users in against the grid; closes what it opened."""
    opened: list[Client] = []

    async def enter(user: str, password: str = "correct horse") -> Client:
        opened.append(await sign_in(processes.http_url, user, password))
        return opened[-1]

    yield enter
    for client in opened:
        await client.close()


async def test_a_hundred_jobs_of_three_users_on_five_workers(processes, people, until):
    processes.coordinator()
    names = {"ann": ["ann-1", "ann-2"], "bob": ["bob-1", "bob-2"], "cid": ["cid-1"]}
    workers = {name: processes.worker(user, name) for user, machines in names.items() for name in machines}
    clients = {user: await people(user) for user in names}

    async def submit(number: int) -> tuple[str, int]:
        user = list(names)[number % 3]
        job = await clients[user].submit(spec(f"print({number} * {number})"))
        return user, job.id

    submitted = await asyncio.gather(*(submit(n) for n in range(100)))
    for user, client in clients.items():
        states = await ended(client, [id for owner, id in submitted if owner == user], until)
        assert collections.Counter(states.values()) == {JobState.SUCCEEDED: len(states)}

    for number, (user, id) in enumerate(submitted):
        assert await clients[user].output(id, "stdout") == f"{number * number}\n".encode()
        receipt = await clients[user].receipt(id)
        paid = [attempt for attempt in receipt.attempts if attempt.state is AttemptState.SUCCEEDED]
        assert len(paid) == 1
        assert receipt.hold == receipt.charge + receipt.released
        # The machine that the receipt names says itself that it ran this attempt.
        log = workers[paid[0].worker_name].text
        assert re.search(rf"attempt {paid[0].attempt_id}\b", log), paid[0].worker_name

    admin = await people("admin", processes.admin_password)
    report = await admin.audit()
    assert report.ok, report.findings
    assert report.held == 0


async def test_a_worker_killed_mid_job_its_job_finishes_elsewhere_and_is_paid_once(processes, people, until):
    processes.coordinator(GRIDX_COORDINATOR_LEASE_S="3", GRIDX_COORDINATOR_HEARTBEAT_S="0.5")
    workers = {name: processes.worker("ann", name) for name in ("one", "two")}
    ann = await people("ann")
    # The first attempt would never end by itself; the second one does.
    job = await ann.submit(
        spec("import os, time\nwhile os.environ['GRIDX_ATTEMPT'] == '1': time.sleep(0.1)\nprint('moved')")
    )

    async def running():
        found = await ann.job(job.id)
        return found if found.state is JobState.RUNNING else None

    first = await until(running, "the job to run")
    workers.pop(first.worker_name).kill()

    done = await ann.wait(job.id)
    assert done.state is JobState.SUCCEEDED
    assert done.worker_name in workers
    assert await ann.output(job.id, "stdout") == b"moved\n"
    receipt = await ann.receipt(job.id)
    assert [attempt.state for attempt in receipt.attempts] == [AttemptState.LOST, AttemptState.SUCCEEDED]
    assert [attempt.charge > 0 for attempt in receipt.attempts] == [False, True]
    admin = await people("admin", processes.admin_password)
    assert (await admin.audit()).ok


async def test_followed_output_is_whole_over_a_restart_of_the_coordinator(processes, people, until):
    coordinator = processes.coordinator()
    processes.worker("ann", "one")
    ann = await people("ann")
    job = await ann.submit(
        spec("import time\nfor n in range(40):\n    print('line', n, flush=True)\n    time.sleep(0.1)")
    )
    got = b""

    async def follow() -> None:
        nonlocal got
        async for data in ann.follow(job.id):
            got += data

    following = asyncio.create_task(follow())
    await until(lambda: b"line 5\n" in got, "the first lines")
    await asyncio.to_thread(coordinator.kill)
    await asyncio.to_thread(processes.coordinator)
    await asyncio.wait_for(following, 90)
    assert got == b"".join(b"line %d\n" % n for n in range(40))
    assert (await ann.job(job.id)).attempt == 1


def test_a_second_coordinator_on_the_same_database_refuses_to_start(processes):
    processes.coordinator()
    second = processes.start(
        "second",
        *("--role", "coordinator", "--host", "127.0.0.1", "--http-port", "0", "--ws-port", "0"),
        *("--data-dir", str(processes.folder / "coordinator")),
    )
    assert second.process.wait(30) == 2
    assert "in use" in second.text
    assert "Traceback" not in second.text


def test_a_port_in_use_is_one_sentence(processes):
    processes.coordinator()
    port = processes.http_url.rpartition(":")[2]
    second = processes.start(
        "second",
        *("--role", "coordinator", "--host", "127.0.0.1", "--http-port", port, "--ws-port", "0"),
        *("--data-dir", str(processes.folder / "other")),
    )
    assert second.process.wait(30) == 2
    assert f"Port {port}" in second.text
    assert "--http-port" in second.text
    assert "Traceback" not in second.text


def test_a_wrong_password_for_a_known_user_says_which_and_what_to_do(processes):
    processes.coordinator()
    processes.worker("ann", "one").stop()
    other = processes.worker("ann", "two", password="another password", wait=False)
    assert other.process.wait(30) == 3
    assert "ann" in other.text
    assert "password" in other.text
    assert "Traceback" not in other.text


def test_both_stop_when_they_are_told_to(processes):
    coordinator = processes.coordinator()
    worker = processes.worker("ann", "one")
    assert worker.stop() == 0
    assert coordinator.stop() == 0
