"""A grid inside this process, for one job: what ``gridx run`` and ``gridx doctor`` use where there is none.

Coordinator and worker on loopback at free ports. The ledger lives in a folder that is removed at the end; the
worker's folder is kept, so that what a killed run left in the container engine is found and removed by the
next one.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from gridx import logs
from gridx.client import Client
from gridx.config import Settings
from gridx.errors import GridError, SetupError
from gridx.messages import Worker
from gridx.roles import LOOPBACK, Services

SLOTS: Final = 64
"""Runs on one machine at the same time."""
JOIN_S: Final = 30.0
"""How long the worker may take to find its sandbox and join."""


@asynccontextmanager
async def local_grid(settings: Settings) -> AsyncIterator[tuple[Client, Worker]]:
    """A client of a fresh grid of this process, and its one worker, which is online.

    Raises:
        GridError: it could not start.
    """
    home = settings.data_path / "local"
    hurry = asyncio.Event()
    ledger = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="gridx-run-"))
    try:
        _log(settings, home / "gridx.log")
        services = await _started(settings, home, ledger)
        try:
            assert services.coordinator is not None
            async with Client(services.coordinator.http_url, services.token) as grid:
                yield grid, await _online(grid)
        except BaseException:
            hurry.set()
            raise
        finally:
            await services.stop(hurry)
    finally:
        await asyncio.to_thread(logs.close)
        await asyncio.to_thread(shutil.rmtree, ledger, ignore_errors=True)


def _log(settings: Settings, path: Path) -> None:
    try:
        logs.to_file(settings.log, path)
    except OSError as error:
        raise SetupError(
            f"The log {path} cannot be written: {error.strerror}.",
            "Name another folder: GRIDX_DATA_DIR=FOLDER.",
        ) from None


async def _started(settings: Settings, home: Path, ledger: Path) -> Services:
    """Start in the first folder that no other run holds."""
    for slot in range(1, SLOTS + 1):
        services = Services(_settings(settings, home / f"worker-{slot}", ledger), lambda new: None)
        try:
            await services.start(lambda coordinator: None)
            return services
        except BaseException as error:
            hurry = asyncio.Event()
            hurry.set()
            await services.stop(hurry)
            if not (isinstance(error, SetupError) and error.details.get("in_use")):
                raise
    raise SetupError(f"{SLOTS} runs are under way on this machine.", "Wait until one has ended.")


def _settings(settings: Settings, folder: Path, ledger: Path) -> Settings:
    replace = msgspec.structs.replace
    return replace(
        settings,
        role="standalone",
        data_dir=str(folder),
        coordinator=replace(
            settings.coordinator,
            host=LOOPBACK,
            http_port=0,
            ws_port=0,
            tls="off",
            db_path=str(ledger / "grid.db"),
        ),
        # Nobody can guess at passwords here, and nobody waits for a slow hash.
        auth=replace(settings.auth, registration="closed", hash_memory_mb=8),
        # Who types `gridx run` wants it now: what the owner allows others is no matter here.
        worker=replace(
            settings.worker,
            warm=0,
            hours="",
            max_load=None,
            only_when_idle_s=None,
            on_battery=True,
            only_users=[],
        ),
    )


async def _online(grid: Client) -> Worker:
    loop = asyncio.get_running_loop()
    end = loop.time() + JOIN_S
    while True:
        fleet = await grid.workers()
        if fleet and fleet[0].state == "online":
            return fleet[0]
        if loop.time() > end:
            reason = fleet[0].state_reason if fleet else ""
            raise GridError(
                f"The worker of this machine did not get ready{f': {reason}' if reason else ''}.",
                "Type: gridx doctor",
            )
        await asyncio.sleep(0.02)
