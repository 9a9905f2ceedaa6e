"""Where jobs run: the contract (``base``), containers (``docker``), limited processes (``process``)."""

from __future__ import annotations

from pathlib import Path

from gridx.config import WorkerSettings
from gridx.errors import EngineMissing, ImageMissing
from gridx.services.worker.sandbox.base import Sandbox


async def open_sandbox(settings: WorkerSettings, *, identity: str, data_path: Path) -> Sandbox:
    """Open the sandbox that the settings ask for.

    ``auto`` takes containers when an engine answers and has an image, else processes, whose warnings say why.

    Args:
        identity: the worker's own; containers are labelled with it, and only those are ever removed.
        data_path: the worker's data folder.

    Raises:
        EngineMissing, ImageMissing: containers are asked for and cannot be had.
    """
    why = ""
    if settings.sandbox != "process":
        from gridx.services.worker.sandbox.docker import DockerSandbox

        containers = DockerSandbox(settings, identity=identity, data_path=data_path)
        try:
            await containers.open()
        except (EngineMissing, ImageMissing) as error:
            if settings.sandbox == "docker":
                raise
            why = str(error)
        else:
            return containers
    from gridx.services.worker.sandbox.process import ProcessSandbox

    processes = ProcessSandbox(data_path, why=why)
    await processes.open()
    return processes
