"""A Podman of the tests' own: a service at a socket in a folder, with storage, locks and settings of its own.

Nothing of a Podman that the machine has is used or changed. Its image comes from Docker, which has built it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import docker
import docker.errors

IMAGE = "gridx-runtime:default"
READY_WITHIN_S = 30.0
HYBRID = Path("/sys/fs/cgroup/unified")

SETTINGS = """
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
runtime = "{runtime}"
static_dir = "{folder}/static"
tmp_dir = "{folder}/tmp"
volume_path = "{folder}/volumes"

[containers]
{more}
"""
STORAGE = """
[storage]
driver = "overlay"
graphroot = "{folder}/storage"
runroot = "{folder}/run"
"""


def cannot() -> str:
    """Why there can be no such service here; empty when there can."""
    if sys.platform != "linux" or os.getuid() != 0:
        return "only root can start a Podman whose limits are in force"
    if shutil.which("podman") is None:
        return "podman is not installed"
    if HYBRID.is_dir() and shutil.which("runc") is None:
        return "control groups of both versions need runc"
    return ""


class OwnPodman:
    """The service, from start to stop.

    Args:
        folder: a short path, since a socket's may have a hundred characters only.
        more: lines for the ``[containers]`` of its settings.
    """

    def __init__(self, folder: Path, *, more: str = "") -> None:
        self.folder, self.socket = folder, folder / "podman.sock"
        runtime = "runc" if HYBRID.is_dir() or shutil.which("crun") is None else "crun"
        (folder / "containers.conf").write_text(SETTINGS.format(runtime=runtime, folder=folder, more=more))
        (folder / "storage.conf").write_text(STORAGE.format(folder=folder))
        environment = {
            **os.environ,
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        }
        self._log = (folder / "service.log").open("wb")
        self._service = subprocess.Popen(
            ["podman", "system", "service", "--time", "0", f"unix://{self.socket}"],
            env=environment,
            # Its monitors leave a file where they are when a job is out of memory.
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    @property
    def address(self) -> str:
        return f"unix://{self.socket}"

    def load_image(self) -> None:
        """Wait until it answers, and give it the image."""
        end = time.monotonic() + READY_WITHIN_S
        while True:
            try:
                podman = docker.APIClient(self.address, version="1.41", timeout=120)
                podman.ping()
                break
            except (docker.errors.DockerException, OSError):
                said = (self.folder / "service.log").read_text(errors="replace")
                assert self._service.poll() is None, said
                assert time.monotonic() < end, said
                time.sleep(0.05)
        engine = docker.from_env()
        try:
            podman.load_image(engine.api.get_image(IMAGE))
        finally:
            engine.close()
            podman.close()

    def stop(self) -> None:
        """End it with what a failed test has left, and take its storage away."""
        with contextlib.suppress(docker.errors.DockerException, OSError):
            podman = docker.APIClient(self.address, version="1.41", timeout=60)
            # Newest first: a slot cannot go before what stands on it.
            for left in sorted(podman.containers(all=True), key=lambda one: -one["Created"]):
                podman.remove_container(left["Id"], force=True, v=True)
            podman.close()
        self._service.terminate()
        try:
            self._service.wait(20)
        except subprocess.TimeoutExpired:
            self._service.kill()
            self._service.wait()
        self._log.close()
        mounts = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for place in reversed([place for place in mounts if place.startswith(f"{self.folder}/")]):
            subprocess.run(["umount", place], check=True)
        shutil.rmtree(self.folder)
        for parent in Path("/sys/fs/cgroup").glob("*/libpod_parent"):
            # Another Podman's containers may be in it.
            with contextlib.suppress(OSError):
                parent.rmdir()
