"""Users who want what is others', who guess, who were shown out, who steal the disk: they get nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sqlite3
import stat
import time

import aiohttp
import psutil
import pytest
from kit.attack import error_of, others_are_served, session_from

from gridx.client import Client
from gridx.errors import Forbidden, NotFound, TooMany, Unauthenticated
from gridx.messages import JobSpec, JobState, UserUpdate

QUEUE = 300
WORKER = {"GRIDX_WORKER_REUSE": "true", "GRIDX_WORKER_CPUS": "2"}
COORDINATOR = {
    # As in real life: a hash that takes its time is what is attacked here.
    "GRIDX_AUTH_HASH_MEMORY_MB": "32",
    "GRIDX_COORDINATOR_MAX_QUEUED_PER_USER": str(QUEUE),
}
KEPT = 4
PASSWORD = "correct horse"
ALL_DAY = "import time\nprint('begun', flush=True)\ntime.sleep(600)"


async def log_in(
    session: aiohttp.ClientSession, url: str, user: str, password: str
) -> tuple[int, dict, dict]:
    async with session.post(f"{url}/auth/login", json={"username": user, "password": password}) as answer:
        return answer.status, dict(answer.headers), json.loads(await answer.read())


async def test_what_is_anothers_is_as_if_it_were_not_there(grid):
    job, _, _ = await grid.run("print('mine')")
    own = {f"/jobs/{job.id}{end}": f"/jobs/99999999{end}" for end in ("", "/output", "/receipt", "/files")}
    own |= {"/credits/ann": "/credits/nobody", "/credits/ann/entries": "/credits/nobody/entries"}
    async with session_from("127.4.0.1") as session:
        headers = {"Authorization": f"Bearer {grid.bob.token}"}
        for there, missing in own.items():
            answers = []
            for path in (there, missing):
                async with session.get(grid.url + path, headers=headers) as answer:
                    answers.append((answer.status, await answer.read()))
            (status, body), (nowhere, nothing) = answers
            assert status == nowhere == 404, there
            assert _same(body) == _same(nothing), there
        for action in ("cancel", "retry"):
            async with session.post(f"{grid.url}/jobs/{job.id}/{action}", headers=headers) as answer:
                assert answer.status == 404
    page = await grid.bob.jobs(limit=500)
    assert job.id not in {each.id for each in page.jobs}
    with pytest.raises(Forbidden):
        await grid.bob.jobs(owner="ann")
    with pytest.raises(NotFound):
        await grid.bob.update_user("ann", UserUpdate(password="another horse"))
    with pytest.raises(NotFound):
        await grid.bob.submit(_after(job.id))


def _same(body: bytes) -> bytes:
    """An answer without the name or number that was asked for."""
    return re.sub(rb"\b(ann|nobody|\d+)\b", b"it", body)


def _after(job_id: int) -> JobSpec:
    from gridx.messages import Dependency

    return JobSpec(code="print(1)", memory_mb=64, cpus=0.1, after=[Dependency(job_id=job_id)])


async def test_a_known_and_an_unknown_name_get_one_answer_in_the_same_time(grid):
    took: dict[str, list[float]] = {"ann": [], "nobody": []}
    answers = set()
    async with session_from("127.4.0.2") as session:
        for number in range(8):
            for name, times in took.items():
                begun = time.perf_counter()
                status, headers, body = await log_in(session, grid.url, name, f"wrong horse {number}")
                times.append(time.perf_counter() - begun)
                headers.pop("Date")
                answers.add((status, json.dumps(headers), json.dumps(body)))
    assert len(answers) == 1, answers
    assert next(iter(answers))[0] == 401
    known, unknown = took.values()
    assert min(known) < max(unknown)
    assert min(unknown) < max(known)
    # A hash was computed for both: nothing near the time of an answer that needs none.
    assert sorted(unknown)[4] > sorted(known)[4] / 3


async def test_who_guesses_has_to_wait_and_the_true_user_comes_in_from_elsewhere(grid):
    async with session_from("127.4.0.3") as session:
        answers = [await log_in(session, grid.url, "bob", f"wrong horse {n}") for n in range(20)]
    statuses = [status for status, _, _ in answers]
    assert statuses == [401] * 10 + [429] * 10
    _, headers, body = answers[-1]
    assert int(headers["Retry-After"]) > 0
    assert body["error"]["code"] == "too_many"
    async with session_from("127.4.0.3") as session:
        # Not even the right password helps there; and other accounts are not touched by it.
        assert (await log_in(session, grid.url, "bob", PASSWORD))[0] == 429
        assert (await log_in(session, grid.url, "ann", PASSWORD))[0] == 200
    async with session_from("127.4.0.4") as session:
        assert (await log_in(session, grid.url, "bob", PASSWORD))[0] == 200


async def test_an_address_that_tries_many_names_has_to_wait_too(grid):
    async with session_from("127.4.0.5") as session:
        answers = await asyncio.gather(
            *(log_in(session, grid.url, f"user{n}", "wrong horse") for n in range(130))
        )
        statuses = {status for status, _, _ in answers}
        assert statuses <= {401, 429}
        assert 429 in statuses


async def test_a_hundred_log_ins_at_once_are_hashed_in_few_threads_while_others_are_served(grid):
    threads = psutil.Process(grid.coordinator.process.pid).num_threads
    before, most = threads(), 0

    async def one(number: int) -> int:
        async with session_from(f"127.5.0.{number + 1}") as session:
            return (await log_in(session, grid.url, f"user{number}", f"wrong horse {number}"))[0]

    async with others_are_served(grid.url, grid.bob.token) as others:
        served = others.answered
        log_ins = [asyncio.create_task(one(n)) for n in range(100)]
        while not all(log_in.done() for log_in in log_ins):
            most = max(most, threads())
            await asyncio.sleep(0.02)
        assert {log_in.result() for log_in in log_ins} <= {401, 429}
        # While a hundred wait for their hashes, others had their answers many times over.
        assert others.answered - served > 50
    assert most - before <= 4


async def watching(client: Client, opened: asyncio.Event) -> None:
    """Read events until the sign-in ends."""
    async with client.events() as events:
        opened.set()
        async for _ in events:
            pass


async def following(client: Client, job_id: int, opened: asyncio.Event) -> None:
    """Follow a job's output until the sign-in ends."""
    headers = {"Authorization": f"Bearer {client.token}"}
    async with (
        session_from("127.4.0.6") as session,
        session.get(f"{client.url}/jobs/{job_id}/output?follow=1", headers=headers) as answer,
    ):
        async for _ in answer.content.iter_any():
            opened.set()


OUT = ("revoked", "logged out", "disabled", "a new password")


@pytest.mark.parametrize("how", OUT)
async def test_who_is_shown_out_is_out_at_once_with_all_that_is_open(grid, until, how):
    async with Client(grid.url) as stranger:
        session = await stranger.register("mallory" + how.replace(" ", "-"), PASSWORD)
    name = session.user.username
    job = await grid.submit(ALL_DAY)
    await until(lambda: _begun(grid.ann, job.id), "the job to begin")
    async with Client(grid.url, session.token) as mallory:
        own = await mallory.submit(JobSpec(code=ALL_DAY, cpus=0.1, memory_mb=64))
        seen = [asyncio.Event(), asyncio.Event()]
        reading = [asyncio.create_task(watching(mallory, seen[0]))]
        worker_url, headers = grid.ws_url, {"Authorization": f"Bearer {session.token}"}
        async with aiohttp.ClientSession() as http, http.ws_connect(worker_url, headers=headers) as socket:
            await seen[0].wait()
            # Ann's worker runs nobody else's without an engine: then nothing is written to be followed.
            waiting = asyncio.create_task(mallory.wait(own.id, 50))
            match how:
                case "revoked":
                    token = next(token for token in await mallory.tokens() if token.current)
                    await mallory.revoke_token(token.id)
                case "logged out":
                    await mallory.logout()
                case "disabled":
                    await grid.admin.update_user(name, UserUpdate(disabled=True))
                case _:
                    await mallory.update_user(name, UserUpdate(password="another horse"))
            with pytest.raises(Unauthenticated):
                await mallory.me()
            assert (await socket.receive(30)).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSE)
            with pytest.raises(Unauthenticated):
                await asyncio.wait_for(reading[0], 30)
            with contextlib.suppress(Unauthenticated):
                await asyncio.wait_for(waiting, 30)
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await http.ws_connect(worker_url, headers=headers)
            assert refused.value.status == 401
    async with Client(grid.url) as again:
        if how == "disabled":
            with pytest.raises(Unauthenticated):
                await again.login(name, PASSWORD)
        else:
            await again.login(name, "another horse" if how == "a new password" else PASSWORD)
    await grid.admin.cancel(own.id)
    await grid.ann.cancel(job.id)
    await grid.ann.wait(job.id)


async def _begun(client: Client, job_id: int) -> bool:
    return bool(await client.output(job_id))


async def test_a_followed_output_ends_with_the_token(grid, until):
    async with Client(grid.url) as second:
        second.token = (await second.login("ann", PASSWORD)).token
        job = await grid.submit(ALL_DAY)
        seen = asyncio.Event()
        reading = asyncio.create_task(following(second, job.id, seen))
        await seen.wait()
        await second.logout()
        with contextlib.suppress(aiohttp.ClientError):
            await asyncio.wait_for(reading, 30)
        await grid.ann.cancel(job.id)
        await grid.ann.wait(job.id)


@pytest.mark.parametrize("name", ["token", "access_token", "Token", "api_key", "auth", "password"])
async def test_a_token_in_an_address_is_refused_and_stands_in_no_log(grid, name):
    secret = grid.bob.token
    async with session_from("127.4.0.7") as session:
        headers = {"Authorization": f"Bearer {secret}"}
        for more in ({}, headers):
            for path in ("/auth/me", "/health", "/events"):
                async with session.get(f"{grid.url}{path}?{name}={secret}", headers=more) as answer:
                    assert answer.status == 400, path
                    body = await answer.read()
                    assert secret.encode() not in body
                    error_of(body)
    assert secret not in grid.coordinator.text


async def test_a_thief_of_the_disk_has_no_token_and_no_password(grid):
    """Every file of the coordinator and of the worker, its database read as SQLite does, and its bytes."""
    secrets = [*grid.standing.tokens.values(), PASSWORD, grid.standing.processes.admin_password]
    folder = grid.standing.coordinator_folder
    for path in [folder, *folder.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), (path, oct(mode))
        if path.is_file():
            content = path.read_bytes()
            assert not [secret for secret in secrets if secret.encode() in content], path
    for path in [grid.standing.worker_folder, *grid.standing.worker_folder.rglob("*")]:
        with contextlib.suppress(FileNotFoundError):  # a place that was used a moment ago
            assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    database = sqlite3.connect(f"file:{folder / 'grid.db'}?mode=ro", uri=True)
    with contextlib.closing(database):
        hashes = [row[0] for row in database.execute("SELECT password_hash FROM users")]
        digests = [row[0] for row in database.execute("SELECT digest FROM tokens")]
    assert all(re.match(r"\$argon2id\$v=19\$m=\d+,t=\d+,p=\d+\$", text) for text in hashes)
    assert len(set(hashes)) == len(hashes)
    async with Client(grid.url) as thief:
        for stolen in (*hashes, *(digest.hex() for digest in digests)):
            thief.token = stolen
            with pytest.raises(Unauthenticated):
                await thief.me()
    async with session_from("127.4.0.8") as session:
        for user, stolen in zip(("admin", "ann", "bob"), hashes, strict=False):
            assert (await log_in(session, grid.url, user, stolen))[0] == 401
    # The saved sign-in of the worker's user is for that user alone.
    for path in (grid.standing.processes.folder / "home-desk").rglob("*"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


async def test_one_who_queues_without_end_meets_a_quota_and_holds_nobody_up(grid):
    async with Client(grid.url) as stranger:
        session = await stranger.register("greedy", PASSWORD)
    async with Client(grid.url, session.token) as greedy:
        spec = JobSpec(code=ALL_DAY, cpus=1, memory_mb=64, timeout_s=2)
        accepted = await greedy.submit_batch([spec] * 250)
        with pytest.raises(TooMany):
            await greedy.submit_batch([spec] * 100)
        refused = 0
        for _ in range(60):
            try:
                accepted.append(await greedy.submit(spec))
            except TooMany:
                refused += 1
        assert refused
        assert len(accepted) <= QUEUE + 10
        job, stdout, _ = await grid.run("print('ann is served')")
        assert (job.state, stdout) == (JobState.SUCCEEDED, b"ann is served\n")
        assert (await greedy.jobs(states=(JobState.QUEUED,), limit=1)).jobs
        # An administrator clears up.
        await asyncio.gather(*(grid.admin.cancel(each.id) for each in accepted))
        await asyncio.gather(*(grid.admin.wait(each.id) for each in accepted))
