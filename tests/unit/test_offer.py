"""What a machine offers: what this process may use of it, less what the machine needs, within the caps."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest

from gridx.config import WorkerSettings
from gridx.messages import Gpu, Runtime
from gridx.services.worker import offer
from gridx.services.worker.sandbox.base import SandboxStatus

STATUS = SandboxStatus(
    "docker",
    True,
    (Runtime(name="default", python="3.11", languages=["python"]),),
    warnings=("No \x1b[31mseccomp\nhere",),
)


@pytest.fixture
def machine(monkeypatch):
    """A machine of 8 cores and 16 GiB."""
    monkeypatch.setattr(offer.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=16 << 30))


def group(path, **files):
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (path / name.replace("__", ".")).write_text(text)
    return path


def test_everything_less_a_reserve_without_limits(machine):
    assert offer.cpu_millis([]) == 8000
    assert offer.memory_mb([]) == 16384 - 1638


def test_an_engine_in_a_smaller_machine_of_its_own_is_what_can_be_offered(machine):
    small = SandboxStatus("docker", True, (), cpu_millis=2000, memory_bytes=4 << 30)
    built = offer.build(WorkerSettings(), small, [])
    assert built.cpu_millis <= 2000
    assert built.memory_mb <= 4096 - 512
    assert offer.cpu_millis([], most_millis=2000) == 2000
    assert offer.memory_mb([], most_bytes=4 << 30) == 4096 - 512
    large = SandboxStatus("docker", True, (), cpu_millis=64_000, memory_bytes=1 << 40)
    assert offer.build(WorkerSettings(), large, []).cpu_millis <= 8000
    assert offer.memory_mb([], most_bytes=1 << 40) == offer.memory_mb([])


def test_a_small_machine_keeps_half_a_gib(machine, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=2 << 30))
    assert offer.memory_mb([]) == 1536
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=256 << 20))
    assert offer.memory_mb([]) == 0


def test_control_groups_of_version_2_limit(machine, tmp_path):
    inner = group(tmp_path / "a", cpu__max="250000 100000\n", memory__max="max\n")
    outer = group(tmp_path, cpu__max="max 100000\n", memory__max=f"{4 << 30}\n")
    assert offer.cpu_millis([inner, outer]) == 2500
    assert offer.memory_mb([inner, outer]) == 4096 - 512


def test_control_groups_of_version_1_limit(machine, tmp_path):
    folder = group(
        tmp_path / "g",
        cpu__cfs_quota_us="50000\n",
        cpu__cfs_period_us="100000\n",
        memory__limit_in_bytes=f"{8 << 30}\n",
    )
    free = group(
        tmp_path / "free",
        cpu__cfs_quota_us="-1\n",
        cpu__cfs_period_us="100000\n",
        memory__limit_in_bytes="9223372036854771712\n",
    )
    assert offer.cpu_millis([folder, free]) == 500
    assert offer.memory_mb([folder, free]) == 8192 - 819
    assert offer.cpu_millis([free]) == 8000


@pytest.mark.parametrize("text", ["", "nonsense", "1 2 3", "-5 0", "100000 0"])
def test_files_that_make_no_sense_limit_nothing(machine, tmp_path, text):
    folder = group(tmp_path, cpu__max=text, memory__max=text)
    assert offer.cpu_millis([folder]) == 8000
    assert offer.memory_mb([folder]) == 16384 - 1638


def test_own_control_groups_and_all_above_them_are_looked_at(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("0::/user/one\n")
    root = tmp_path / "fs"
    assert offer.own_cgroups(own, root) == [root / "user" / "one", root / "user", root]
    own.write_text("5:cpu,cpuacct:/a\n4:memory:/b\n3:devices:/c\n1:name=systemd:/d\n")
    assert offer.own_cgroups(own, root) == [
        root / "cpu" / "a",
        root / "cpu",
        root / "memory" / "b",
        root / "memory",
    ]
    assert offer.own_cgroups(tmp_path / "missing", root) == []


def test_this_machine_offers_something():
    assert 100 <= offer.cpu_millis() <= psutil.cpu_count() * 1000
    assert 0 <= offer.memory_mb() < psutil.virtual_memory().total >> 20


def test_the_owners_caps_hold(machine):
    gpus = [Gpu(uuid="GPU-a", name="A", memory_mb=1), Gpu(uuid="GPU-b", name="B", memory_mb=1)]
    settings = WorkerSettings(cpus=1.5, memory_mb=1000, gpus=["GPU-b"], own_jobs_only=True)
    built = offer.build(settings, STATUS, gpus)
    assert (built.cpu_millis, built.memory_mb, built.own_jobs_only) == (1500, 1000, True)
    assert [gpu.uuid for gpu in built.gpus] == ["GPU-b"]
    assert (built.sandbox, built.isolated, built.runtimes) == ("docker", True, list(STATUS.runtimes))
    assert built.warnings == ["No seccomp here"]
    assert offer.build(WorkerSettings(), STATUS, gpus).gpus == gpus
