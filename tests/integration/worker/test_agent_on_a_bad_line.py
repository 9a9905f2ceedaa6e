"""The worker and the real coordinator with a line between them that cuts, crawls, or swallows everything."""

from __future__ import annotations

import asyncio
import random
import shutil

import pytest
from kit.line import Line

from gridx.errors import Conflict
from gridx.services.worker.sandbox.base import RunOutcome

SIZES = (0, 1, 100, 5_000, 70_000, 300_000)


@pytest.fixture
async def real(start_grid):
    """A real coordinator, one user with work to do, and its admin."""
    return await start_grid(coordinator={"heartbeat_s": 0.5}, credits={"signup_grant": 100_000})


@pytest.fixture
async def line(real):
    line = Line(int(real.coordinator.ws_url.split(":")[2].split("/")[0]))
    await line.start()
    yield line
    await line.stop()


@pytest.fixture
def enter(join, real, line):
    """A worker of ann's that reaches the coordinator over the line."""
    return lambda **changes: join(
        password="correct horse",
        coordinator_http=real.url,
        coordinator_ws=line.url,
        **{"cpus": 4.0, "memory_mb": 1024, **changes},
    )


def text(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


async def writes(request, sink, cancel):
    """The job's program says how much to write; what it writes follows from its id."""
    size = int(request.code)
    data = text(request.job_id, size)
    for start in range(0, size, 7_000):
        await sink("stdout", data[start : start + 7_000])
        await sink("stderr", b".")
    return RunOutcome("succeeded", exit_code=0, wall_ms=3)


async def finished(person, ids, until):
    async def look():
        jobs = [(await person.get(f"/jobs/{id}")).json for id in ids]
        return all(job["ended_at"] for job in jobs) and jobs

    return await until(look, f"{len(ids)} jobs to end", 120)


async def outputs_are_exact(person, jobs):
    for job in jobs:
        size = int(job["spec"]["code"])
        assert job["state"] == "succeeded", job
        answer = await person.get(f"/jobs/{job['id']}/output", params={"limit": "400000"})
        assert answer.content == text(job["id"], size)
        assert job["stdout_bytes"] == size
        assert job["stderr_bytes"] == -(-size // 7_000)


async def test_many_jobs_run_and_every_byte_arrives(real, enter, sandbox, until):
    sandbox.script = writes
    await enter()
    ann = await sign_in(real)
    ids = [await ann.submit(str(SIZES[n % len(SIZES)]), cpus=0.5) for n in range(36)]
    await outputs_are_exact(ann, await finished(ann, ids, until))
    assert 1 < sandbox.most_inside <= 8
    assert (await real.admin.get("/admin/audit")).json["ok"]


@pytest.mark.parametrize("seed", range(3))
async def test_a_line_that_keeps_breaking_doubles_nothing_and_loses_nothing(
    real, enter, line, sandbox, until, seed, monkeypatch
):
    rng = random.Random(seed)
    monkeypatch.setattr("gridx.services.worker.backoff.CAP_S", 0.2)
    sandbox.script = writes
    line.cut_after = lambda: rng.randrange(3_000, 250_000)
    await enter()
    ann = await sign_in(real)
    ids = [await ann.submit(str(SIZES[n % len(SIZES)]), cpus=0.5) for n in range(18)]
    jobs = await finished(ann, ids, until)
    await outputs_are_exact(ann, jobs)
    assert line.connections > 3
    for job in jobs:
        attempts = (await ann.get(f"/jobs/{job['id']}/receipt")).json["attempts"]
        assert [attempt["state"] for attempt in attempts].count("succeeded") == 1
    assert (await real.admin.get("/admin/audit")).json["ok"]


async def test_a_slow_line_is_no_dead_line(real, enter, line, sandbox, until):
    """64 kB/s and 100 ms each way: output waits its turn, signs of life do not, and nothing is cut."""
    rng = random.Random(5)
    sandbox.script = writes
    line.bytes_per_s = 64_000
    line.delay_s = lambda: rng.uniform(0.05, 0.15)
    await enter()
    ann = await sign_in(real)
    ids = [await ann.submit(str(size), cpus=0.5) for size in (200_000, 100, 100)]
    jobs = await finished(ann, ids, until)
    await outputs_are_exact(ann, jobs)
    assert line.connections == 1
    # The small ones did not wait for the large one.
    assert max(jobs[1]["ended_at"], jobs[2]["ended_at"]) < jobs[0]["ended_at"]


async def test_a_line_that_swallows_everything_is_noticed(real, enter, line, sandbox, until):
    sandbox.script = writes
    agent = await enter()
    await until(lambda: agent.connected, "the worker to join")
    line.swallows = True
    await until(lambda: not agent.connected, "the worker to notice")
    line.swallows = False
    ann = await sign_in(real)
    id = await ann.submit("100")
    await outputs_are_exact(ann, await finished(ann, [id], until))


async def test_a_copied_data_folder_ends_the_older_worker_and_says_why(real, enter, settings, until):
    older = await enter(data="original")
    folder = settings(data="original").data_path
    copy = folder.with_name("copy")
    copy.mkdir()
    shutil.copy(folder / "worker.id", copy)
    newer = await enter(data="copy")
    error = await asyncio.wait_for(older.wait_failed(), 60)
    assert isinstance(error, Conflict)
    assert "Another connection of worker" in error.message
    assert newer.connected
    assert newer.worker_id == older.worker_id


async def test_the_owner_pauses_resumes_and_drains_it(real, enter, sandbox, until):
    sandbox.script = writes
    agent = await enter()
    ann = await sign_in(real)

    async def state():
        return (await ann.get(f"/workers/{agent.worker_id}")).json["state"]

    async def says(wanted):
        return await state() == wanted

    assert (await ann.post(f"/workers/{agent.worker_id}/pause")).status == 200
    await until(lambda: agent.standing.paused, "the pause to arrive")
    await until(lambda: says("paused"), "the pause to show")
    id = await ann.submit("10")
    assert (await ann.post(f"/workers/{agent.worker_id}/resume")).status == 200
    await finished(ann, [id], until)
    assert (await ann.post(f"/workers/{agent.worker_id}/drain")).status == 200
    await asyncio.wait_for(agent.wait_left(), 60)
    await until(lambda: says("offline"), "the worker to be gone")


async def sign_in(real):
    """Ann, who registered when her worker joined."""
    answer = await real.stranger.post("/auth/login", {"username": "ann", "password": "correct horse"})
    assert answer.status == 200, answer.content
    stranger = real.stranger
    return type(stranger)(stranger.url, stranger.session, "ann", answer.json["token"])
