"""Passwords and tokens are in no log, list of processes, error or memory image, however much is logged."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import psutil
import pytest
from kit.attack import session_from
from kit.hostile import PASSWORD

from gridx.client import Client
from gridx.errors import GridError

COORDINATOR = {"GRIDX_LOG_LEVEL": "debug", "GRIDX_COORDINATOR_TLS": "off"}
WORKER = {"GRIDX_LOG_LEVEL": "debug", "GRIDX_WORKER_REUSE": "true"}
KEPT = 3


async def test_what_is_secret_is_logged_and_shown_nowhere(grid):
    wrong = "a wrong secret horse"
    secrets = [PASSWORD, wrong, grid.standing.processes.admin_password, *grid.standing.tokens.values()]
    said = []
    async with Client(grid.url) as stranger, session_from("127.9.0.1") as session:
        for user, password in (("ann", wrong), ("nobody", wrong), ("x" * 70, wrong), ("ann", PASSWORD)):
            try:
                secrets.append((await stranger.login(user, password)).token)
            except GridError as error:
                said.append(str(error))
        with contextlib.suppress(GridError):
            await stranger.register("ann", wrong)
        # Requests that fail half way, with what is secret in every place.
        for path in ("/auth/login", "/jobs", f"/jobs/{wrong}", f"/credits/{PASSWORD}"):
            body = f'{{"username": "ann", "password": "{wrong}", "code": "{PASSWORD}"'
            headers = {"Authorization": f"Bearer {grid.ann.token}"}
            async with session.post(grid.url + path, data=body, headers=headers) as answer:
                assert answer.status >= 400
        headers = {"Authorization": f"Bearer {grid.ann.token}x", "Idempotency-Key": wrong}
        async with session.get(grid.url + "/jobs", headers=headers) as answer:
            said.append(await answer.text())
    job, _, _ = await grid.run("print('fine')")
    said += [grid.coordinator.text, grid.worker.text, repr(job)]
    first = f"password: {grid.standing.processes.admin_password}"
    for text in said:
        text = text.replace(first, "")  # shown once, at the first start
        assert not [secret for secret in secrets if secret in text]


async def test_the_list_of_processes_shows_no_secret_and_a_crash_leaves_no_image(grid):
    secrets = [PASSWORD, grid.standing.processes.admin_password, *grid.standing.tokens.values()]
    for node in (grid.coordinator, grid.worker):
        process = psutil.Process(node.process.pid)
        for each in (process, *process.children(recursive=True)):
            shown = " ".join(each.cmdline())
            assert not [secret for secret in secrets if secret in shown]
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert next(line for line in limits.splitlines() if "core file" in line).split()[4] in ("0", "1")


@pytest.mark.parametrize("given", [("--password", "hunter two three")])
async def test_a_password_on_the_command_line_is_warned_of(grid, given):
    processes = grid.standing.processes
    node = processes.start(
        "careless",
        *("--role", "worker", "--user", "carl", "--data-dir", str(processes.folder / "careless"), *given),
        COORDINATOR_HTTP=grid.url,
        COORDINATOR_WS=grid.ws_url,
        GRIDX_WORKER_SANDBOX="process",
    )
    await asyncio.to_thread(node.says, r"Warning: others on this machine can read --password")
    await asyncio.to_thread(node.says, r"connected")
    await asyncio.to_thread(node.stop)
    processes.nodes.remove(node)
    assert given[1] not in node.text
