"""The coordinator starts, says where, refuses to start in one sentence, and stops in good order."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from dataclasses import replace

import aiohttp
import pytest

from gridx.errors import SetupError, StoreError
from gridx.services.coordinator import listeners
from gridx.services.coordinator.api import bodies


async def test_both_ports_answer_health_and_that_of_the_workers_nothing_of_users(grid):
    workers = grid.coordinator.ws_url.replace("ws://", "http://").removesuffix("/ws/worker")
    assert workers != grid.url
    for url in (grid.url, workers):
        health = await replace(grid.stranger, url=url).get("/health")
        assert (health.status, health.json["status"]) == (200, "ok")
    ann = await grid.person("ann")
    assert (await replace(ann, url=workers).get("/jobs")).status == 404
    # A proxy has one port: a worker may come through that of the users.
    assert (await grid.stranger.get("/ws/worker")).status == 401


async def test_equal_ports_are_one_listener(start_grid):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    grid = await start_grid(coordinator={"http_port": port, "ws_port": port})
    assert grid.url == f"http://127.0.0.1:{port}"
    assert grid.coordinator.ws_url == f"ws://127.0.0.1:{port}/ws/worker"
    ann = await grid.person("ann")
    await grid.worker(ann)
    assert len((await ann.get("/workers")).json["workers"]) == 1


@pytest.mark.parametrize("flag", ["http_port", "ws_port"])
async def test_a_port_in_use_is_one_sentence_and_leaves_nothing_behind(start_grid, tmp_path, flag):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(SetupError, match=f"Port {port} is in use") as refused:
            await start_grid(coordinator={flag: port})
    assert f"--{flag.replace('_', '-')} {port + 1000}" in refused.value.hint or port > 64535
    assert not (tmp_path / "grid").exists()
    grid = await start_grid()
    assert grid.coordinator.first_admin is not None


@pytest.mark.parametrize(
    ("host", "says"), [("no.such.host.invalid", "cannot be found"), ("192.0.2.1", "not an address")]
)
async def test_an_address_that_is_not_this_machine_is_one_sentence(start_grid, host, says):
    with pytest.raises(SetupError, match=says) as refused:
        await start_grid(coordinator={"host": host})
    assert "--host" in refused.value.hint


async def test_a_second_coordinator_on_the_database_refuses_to_start(start_grid):
    grid = await start_grid()
    with pytest.raises(StoreError, match="in use"):
        await start_grid()
    assert (await grid.stranger.get("/health")).status == 200


async def test_only_the_first_start_makes_an_admin(start_grid):
    grid = await start_grid()
    name, password = grid.coordinator.first_admin
    assert name == "admin"
    assert (await grid.admin.get("/auth/me")).json["role"] == "admin"
    await grid.coordinator.stop()
    again = await start_grid()
    assert again.coordinator.first_admin is None
    answer = await again.stranger.post("/auth/login", {"username": name, "password": password})
    assert answer.status == 200


async def test_tokens_and_jobs_outlive_the_coordinator(start_grid):
    grid = await start_grid()
    ann = await grid.person("ann")
    job = await ann.submit()
    await grid.coordinator.stop()
    again = await start_grid()
    ann = replace(ann, url=again.url, session=again.session)
    assert (await ann.get(f"/jobs/{job}")).json["state"] == "queued"
    (token,) = (await ann.get("/auth/tokens")).json
    assert token["last_used_at"] is not None


async def test_who_waits_for_a_job_is_answered_when_the_coordinator_stops(grid):
    ann = await grid.person("ann")
    job = await ann.submit()
    waiting = asyncio.create_task(ann.get(f"/jobs/{job}?wait_s=60"))
    while not grid.coordinator._parts.hub._state_waiters:
        await asyncio.sleep(0.01)
    await grid.coordinator.stop()
    assert (await waiting).json["state"] == "queued"
    with pytest.raises(aiohttp.ClientConnectionError):
        await ann.get("/health")


async def test_stopping_twice_is_as_stopping_once(grid):
    await grid.coordinator.stop()
    await grid.coordinator.stop()


async def test_while_it_stops_nothing_new_is_taken(grid):
    ann = await grid.person("ann")
    grid.coordinator._parts.stopping = True
    answer = await ann.post("/jobs", {"code": "print(1)"})
    assert (answer.status, answer.error["code"]) == (503, "unavailable")
    assert (await ann.get("/health")).json["status"] == "stopping"


async def test_a_part_that_dies_is_told(grid, monkeypatch):
    ann = await grid.person("ann")
    async with grid.session.ws_connect(grid.url + "/events", headers=ann.headers):

        async def broken(user_id: int):
            raise ZeroDivisionError("gone")

        monkeypatch.setattr(grid.coordinator._parts.store, "balance", broken)
        me = (await ann.get("/auth/me")).json
        grid.coordinator._parts.hub.credits_changed([me["id"]])
        error = await asyncio.wait_for(grid.coordinator.wait_failed(), 30)
    assert isinstance(error, ZeroDivisionError)


async def test_metrics_are_for_this_machine_and_for_admins(grid):
    ann = await grid.person("ann")
    await ann.submit()
    answer = await grid.stranger.get("/metrics")
    assert answer.status == 200
    text = answer.content.decode()
    for line in ("gridx_http_request_seconds_bucket", "gridx_loop_lag_seconds", "gridx_jobs_queued 1.0"):
        assert line in text
    proxied = {"X-Forwarded-For": "10.0.0.1"}
    assert (await grid.stranger.get("/metrics", headers=proxied)).status == 401
    assert (await ann.get("/metrics", headers=proxied)).status == 403
    assert (await grid.admin.get("/metrics", headers=proxied)).status == 200


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_works_as_the_readme_shows(grid):
    ann = await grid.person("ann")

    async def curl(*args: str) -> str:
        done = await asyncio.to_thread(
            subprocess.run,
            ["curl", "-sS", "--noproxy", "*", "-u", "ann:correct horse", *args],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    body = '{"user_id": "ann", "code": "print(6 * 7)", "language": "python"}'
    assert '"id":1' in await curl(f"{grid.url}/jobs", "-d", body)
    followed = asyncio.create_task(curl(f"{grid.url}/jobs/1/output?follow=1"))
    worker = await grid.worker(ann)
    given = await worker.assignment()
    await worker.start(given.attempt_id)
    await worker.write(given.attempt_id, b"42\n")
    await worker.finish(given.attempt_id, stdout_bytes=3)
    assert await followed == "42\n"
    assert '"charge":' in await curl(f"{grid.url}/jobs/1/receipt")


@pytest.mark.parametrize(
    "sent", [b"", b"GET /health HT", b"POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"]
)
async def test_connections_that_send_nothing_whole_are_closed(start_grid, monkeypatch, sent):
    monkeypatch.setattr(listeners, "IDLE_S", 1.0)
    monkeypatch.setattr(bodies, "BODY_GRACE_S", 1.0)
    grid = await start_grid()
    host, port = grid.url.removeprefix("http://").split(":")
    pairs = [await asyncio.open_connection(host, int(port)) for _ in range(50)]
    for _, writer in pairs:
        writer.write(sent)
    assert (await grid.stranger.get("/health")).status == 200
    answers = await asyncio.wait_for(asyncio.gather(*(reader.read() for reader, _ in pairs)), 60)
    assert {answer[:12] for answer in answers} <= {b"", b"HTTP/1.1 400"}
    for _, writer in pairs:
        writer.close()


async def test_with_a_full_disk_it_says_so_goes_on_reading_and_recovers(grid):
    ann = await grid.person("ann")
    first = await ann.submit()
    writer = grid.coordinator._parts.store._writer

    def cap(pages: int):
        return lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchone()

    await writer.run(cap(300))
    big = {"code": "#" * 200_000, "timeout_s": 60, "memory_mb": 64}
    accepted = [first]
    while (answer := await ann.post("/jobs", big)).status == 201:
        accepted.append(answer.json["id"])
    assert (answer.status, answer.error["code"]) == (503, "unavailable")
    assert "full" in answer.error["message"]
    assert [job["id"] for job in (await ann.get("/jobs")).json["jobs"]] == accepted[::-1]
    audit = (await grid.admin.get("/admin/audit")).json
    assert audit["ok"], audit["findings"]
    await writer.run(cap(1_000_000))
    assert (await ann.post("/jobs", big)).status == 201
    assert (await grid.admin.get("/admin/audit")).json["ok"]


async def test_who_will_not_go_does_not_keep_it_from_stopping(grid):
    ann = await grid.person("ann")
    job = await ann.submit()
    host, port = grid.url.removeprefix("http://").split(":")
    head = f"Host: x\r\nAuthorization: Bearer {ann.token}\r\n"
    upgrade = (
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: MTIzNDU2Nzg5MDEyMzQ1Ng==\r\n"
    )
    writers = []
    for request in (
        "",
        "GET /jo",
        f"GET /events HTTP/1.1\r\n{head}{upgrade}\r\n",
        f"GET /jobs/{job}/output?follow=1 HTTP/1.1\r\n{head}\r\n",
        f"GET /jobs/{job}?wait_s=60 HTTP/1.1\r\n{head}\r\n",
        f"POST /jobs HTTP/1.1\r\n{head}Content-Length: 100\r\n\r\n{{",
    ):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.transport.pause_reading()
        writer.write(request.encode())
        writers.append(writer)
    hub = grid.coordinator._parts.hub
    while not (hub._all_readers and hub._output_waiters and hub._state_waiters):
        await asyncio.sleep(0.01)
    await grid.coordinator.stop()
    left = [task for task in asyncio.all_tasks() if "RequestHandler" in repr(task)]
    assert not left
    for writer in writers:
        writer.close()
