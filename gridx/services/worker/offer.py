"""What this machine can offer: processors and memory as far as this process may use them, GPUs, runtimes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import psutil

from gridx import safetext
from gridx.config import WorkerSettings
from gridx.messages import Gpu, Offer
from gridx.services.worker import owner
from gridx.services.worker.policy import Caps
from gridx.services.worker.sandbox.base import SandboxStatus

RESERVE_MB: Final = 512
RESERVE_PART: Final = 0.1
"""The machine itself keeps the larger of the two."""
CGROUPS: Final = Path("/sys/fs/cgroup")
OWN_CGROUP: Final = Path("/proc/self/cgroup")
UNLIMITED_BYTES: Final = 1 << 60
"""Version 1 of the control groups writes a number near 2**63 for no limit."""


def caps(settings: WorkerSettings) -> Caps:
    """What the owner allows at most."""
    return Caps(
        cpu_millis=None if settings.cpus is None else round(settings.cpus * 1000),
        memory_mb=settings.memory_mb,
        gpus=None if settings.gpus is None else tuple(settings.gpus),
    )


def build(settings: WorkerSettings, status: SandboxStatus, gpus: Iterable[Gpu]) -> Offer:
    """Put the offer together. Reads the system, so it belongs in a thread."""
    most = caps(settings)
    return Offer(
        cpu_millis=most.of_cpu(cpu_millis(most_millis=status.cpu_millis)),
        memory_mb=most.of_memory(memory_mb(most_bytes=status.memory_bytes)),
        gpus=most.of_gpus(gpus if status.gpus else ()),
        runtimes=list(status.runtimes)[:64],
        sandbox=status.kind,
        isolated=status.isolated,
        own_jobs_only=settings.own_jobs_only,
        only_users=list(settings.only_users),
        rules=owner.lines(settings),
        warnings=[safetext.line(text, limit=190) for text in status.warnings][:32],
    )


def cpu_millis(cgroups: Sequence[Path] | None = None, *, most_millis: int | None = None) -> int:
    """Thousandths of a core that this process may use: its affinity, less what its control groups allow.

    Args:
        most_millis: what the machine of the container engine has, if that may be another.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows
        cores = psutil.cpu_count() or 1
    limits = [cores * 1000, *([most_millis] if most_millis else [])]
    for folder in own_cgroups() if cgroups is None else cgroups:
        quota, period = _quota(folder)
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            limits.append(int(quota) * 1000 // int(period))
    return max(100, min(limits))


def memory_mb(cgroups: Sequence[Path] | None = None, *, most_bytes: int | None = None) -> int:
    """MiB that may be given to jobs: what this process may use, less the reserve.

    Args:
        most_bytes: what the machine of the container engine has, if that may be another.
    """
    limits = [psutil.virtual_memory().total, *([most_bytes] if most_bytes else [])]
    for folder in own_cgroups() if cgroups is None else cgroups:
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            words = _words(folder / name, 1)
            if words and words[0].isdigit() and 0 < int(words[0]) < UNLIMITED_BYTES:
                limits.append(int(words[0]))
    total = min(limits) >> 20
    return max(0, total - max(RESERVE_MB, round(total * RESERVE_PART)))


def own_cgroups(own: Path = OWN_CGROUP, root: Path = CGROUPS) -> list[Path]:
    """The folders of this process's control groups and of those above them, of both versions."""
    try:
        lines = own.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found: list[Path] = []
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        names = [name for name in controllers.split(",") if name in ("cpu", "memory")]
        if controllers and not names:
            continue
        for top in [root / name for name in names] or [root]:
            folder = top / path.lstrip("/")
            while folder != top and top in folder.parents:
                found.append(folder)
                folder = folder.parent
            found.append(top)
    return list(dict.fromkeys(found))


def _quota(folder: Path) -> tuple[str, str]:
    """Time that a control group may run, and in which time, as version 2 or 1 writes it."""
    both = _words(folder / "cpu.max", 2)
    if both:
        return both[0], both[1]
    quota, period = _words(folder / "cpu.cfs_quota_us", 1), _words(folder / "cpu.cfs_period_us", 1)
    return (quota[0], period[0]) if quota and period else ("max", "0")


def _words(path: Path, count: int) -> tuple[str, ...]:
    """The words of a small file of the kernel; none when it is not there or has another number of them."""
    try:
        words = path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return ()
    return tuple(words) if len(words) == count else ()
