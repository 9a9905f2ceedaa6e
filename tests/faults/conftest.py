"""Grids of real processes, points at which they kill themselves, and small disks."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from pathlib import Path

import kit.failing
import pytest
from kit.faults import PASSWORD, Grid

from gridx.client import Client


async def _signed_in(url: str, user: str, password: str, register: bool = False) -> Client:
    async with Client(url) as client:
        session = await (client.register if register else client.login)(user, password)
    return Client(url, session.token)


@pytest.fixture
async def start(processes, until) -> AsyncIterator[Callable[..., Awaitable[Grid]]]:
    """``await start(LEASE_S="3")``: a coordinator with these settings; ann and the admin are signed in."""
    clients: list[Client] = []

    async def begin(*, workers: Collection[str] = (), **settings: str) -> Grid:
        processes.environ |= {"GRIDX_AUTH_HASH_MEMORY_MB": "8", "GRIDX_CREDITS_SIGNUP_GRANT": "100000"}
        processes.environ |= {f"GRIDX_COORDINATOR_{name}": value for name, value in settings.items()}
        coordinator = await asyncio.to_thread(processes.coordinator)
        clients.append(await _signed_in(processes.http_url, "ann", PASSWORD, register=True))
        clients.append(await _signed_in(processes.http_url, "admin", processes.admin_password))
        for name in workers:
            await asyncio.to_thread(processes.worker, "ann", name)
        return Grid(processes, until, coordinator, *clients)

    yield begin
    for client in clients:
        await client.close()


@pytest.fixture
def failpoint(processes, tmp_path: Path) -> Callable[[str], None]:
    """``failpoint("finish after commit")``: the process that comes there next is killed there."""
    control = tmp_path / "failpoint"
    processes.program = (kit.failing.__file__,)
    processes.environ["GRIDX_TEST_FAILPOINT"] = str(control)

    def wish(point: str) -> None:
        written = control.with_suffix(".new")
        written.write_text(point)
        written.replace(control)

    wish.control = control
    return wish


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str, int], Path]]:
    """``small_disk("coordinator", 8 << 20)``: a folder that is a disk of this size."""
    mounted: list[Path] = []

    def mount(name: str, size: int) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "gridx-test", str(folder)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            pytest.skip(f"a small disk cannot be made here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    if os.geteuid() != 0:
        pytest.skip("only root can make a small disk")
    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
