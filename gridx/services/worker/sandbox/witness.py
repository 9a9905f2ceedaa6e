"""Looks around inside a container before the supervisor starts, and tells the worker what is really there.

For engines that do not say everything of a container they made: which system calls are refused, for one,
Podman keeps to itself. Sent in ahead of ``boot.py``, standard library only; ``testimony.py`` judges what it
says. It looks in a fork, so that nothing of it remains in the process that becomes the supervisor.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

CGROUP = "/sys/fs/cgroup/"
# The kernel's numbers, the same on every architecture that we know.
IO_URING_SETUP, PIDFD_GETFD, PROCESS_MADVISE = 425, 438, 440
AF_VSOCK, PTRACE_PEEKDATA = 40, 2
# What an engine hides, where the kernel has it.
HIDDEN = (
    *(
        "acpi",
        "asound",
        "cmdline",
        "interrupts",
        "kcore",
        "keys",
        "latency_stats",
        "pressure",
        "sched_debug",
        "scsi",
    ),
    *("timer_list", "timer_stats"),
)


def read(path: str) -> str:
    """A small file of the kernel; empty when it is not there."""
    try:
        return Path(path).read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def refusals() -> dict[str, int]:
    """What calls answer that our profile refuses: an error number each, 0 when one went through.

    Their arguments are harmless or wrong on purpose: where nothing refuses them, that is another answer.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = libc.ptrace.restype = ctypes.c_long
    calls: dict[str, Callable[[], int]] = {
        "io_uring_setup": lambda: libc.syscall(IO_URING_SETUP, 0, None),
        "pidfd_getfd": lambda: libc.syscall(PIDFD_GETFD, -1, -1, 0),
        "process_madvise": lambda: libc.syscall(PROCESS_MADVISE, -1, None, 0, 0, 0),
        "ptrace": lambda: libc.ptrace(PTRACE_PEEKDATA, 1 << 22, None, None),
        "unshare": lambda: libc.unshare(0),
    }
    answers = {}
    for name, call in calls.items():
        ctypes.set_errno(0)
        answers[name] = ctypes.get_errno() if call() < 0 else 0
    try:
        socket.socket(AF_VSOCK, socket.SOCK_DGRAM).close()
        answers["socket"] = 0
    except OSError as error:
        answers["socket"] = error.errno or errno.EIO
    return answers


def mounts() -> list[list[str]]:
    """Where, how, what kind, and for memory the options of the file system: one row for each mount."""
    rows = []
    for line in read("/proc/self/mountinfo").splitlines():
        words = line.split(" ")
        kind = words.index("-") + 1
        rows.append([words[4], words[5], words[kind], words[kind + 2] if words[kind] == "tmpfs" else ""])
    return rows


def limits() -> dict[str, str]:
    """What the control group really allows, in the words of version 2."""
    if not Path(CGROUP, "cgroup.controllers").exists():
        quota = read(CGROUP + "cpu/cpu.cfs_quota_us")
        return {
            "memory": read(CGROUP + "memory/memory.limit_in_bytes"),
            "memory and swap": read(CGROUP + "memory/memory.memsw.limit_in_bytes"),
            "processes": read(CGROUP + "pids/pids.max"),
            "processor": f"{quota} {read(CGROUP + 'cpu/cpu.cfs_period_us')}",
        }
    return {
        "memory": read(CGROUP + "memory.max"),
        "swap": read(CGROUP + "memory.swap.max"),
        "processes": read(CGROUP + "pids.max"),
        "processor": read(CGROUP + "cpu.max"),
    }


def testimony(pid: int) -> dict[str, object]:
    """Everything, as it is."""
    status = dict(line.split(":\t", 1) for line in read("/proc/self/status").splitlines() if ":\t" in line)
    names = (
        "Uid",
        "Gid",
        "Groups",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
    )
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
    return {
        "pid": pid,
        "status": {name: " ".join(status.get(name, "").split()) for name in names},
        "namespaces": {kind: str(Path("/proc/self/ns", kind).readlink()) for kind in kinds},
        "mounts": mounts(),
        "hidden": [f"/proc/{name}" for name in HIDDEN if Path("/proc", name).exists()],
        "interfaces": sorted(path.name for path in Path("/sys/class/net").iterdir()),
        "refused": refusals(),
        "limits": limits(),
        "hostname": socket.gethostname(),
    }


def tell() -> None:
    """Look in a fork, and write one frame."""
    pid = os.getpid()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        said = json.dumps(testimony(pid)).encode()
        frame = memoryview(b"W" + len(said).to_bytes(4, "big") + said)
        while frame:
            frame = frame[os.write(1, frame) :]
    finally:
        # Without a frame the worker starts no job here.
        os._exit(0)


if __name__ == "__main__":
    tell()
