"""The container that runs a stranger's job: every option, in one place, each for a reason.

What is built here is the body that the engine's API takes; ``inspection`` compares what the engine made of it
with the same values. The reasons are in docs/security.md.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gridx.messages import InputFile
from gridx.services.worker.sandbox.engine import EngineFacts
from gridx.services.worker.sandbox.inflow import names, room_bytes
from gridx.services.worker.sandbox.labels import LABEL_KIND
from gridx.services.worker.sandbox.runtimes import RuntimeImage
from gridx.services.worker.sandbox.supervisor import DEFAULT_PATH, LOADER

GROUP: Final = 65534
USER: Final = f"65534:{GROUP}"
USERS: Final = range(60578, 61184)
"""Numbers of users that Linux leaves free; jobs at the same time have one each. What the kernel counts for a
user (inotify, pipes, descriptors under way, pending signals) one job could else use up for all others."""
JOB_FOLDER: Final = "/job"
TMP: Final = "/tmp"  # noqa: S108
WORKING_DIR: Final = "/"
HOSTNAME: Final = "sandbox"
MIB: Final = 1 << 20
SHM_BYTES: Final = 32 * MIB
OOM_SCORE: Final = 500
"""When the machine itself runs out of memory, jobs go before anything of its owner's."""
CPU_SHARES: Final = 128
"""An eighth of the usual weight: the machine's owner comes first."""
FILES: Final = 256
NO_CORE: Final = 1
"""One byte: no core file is written, and none is handed to the machine's own program for crashes, which runs
as root and outside of the container's limits. At 0 the kernel writes none but still runs that program."""
SPARE_NAMES: Final = 64
"""Files and folders that a job can make in its folder however many it was given."""
PAUSE_MEMORY: Final = 64 * MIB
PAUSE_PIDS: Final = 8
# A closed connection within a slot would be remembered for a minute, and be seen by the slot's next job.
PAUSE_SYSCTLS: Final = {"net.ipv4.tcp_max_tw_buckets": "0"}

# What engines hide of the kernel, the newer ones' too: no engine's own list is shorter for being old. And how
# this machine was started, who made it, and its pressure, which a job could wait for.
MASKED: Final = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/cmdline",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/pressure",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/dmi",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READ_ONLY: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

# Sleeps for ever; holds a network namespace without any network that the containers of one slot join. The
# engine needs 100 ms to make one, and 0 to join it.
PAUSE: Final = "import signal\nwhile True: signal.pause()"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a container may use.

    Attributes:
        bucket_mb: memory that its temporary file systems are sized by; see :func:`bucket`.
        job_mb: the size of the job's folder.
    """

    memory_mb: int
    cpu_millis: int
    pids: int
    bucket_mb: int
    job_mb: int


def bucket(memory_mb: int) -> int:
    """The power of two at or below a memory limit: what temporary file systems are sized by.

    A container that was started ahead can have its memory limit changed, not the size of its file systems.
    Sized by this, a job finds the same room whichever way it got its container.
    """
    return 1 << (memory_mb.bit_length() - 1)


def limits_of(memory_mb: int, cpu_millis: int, pids: int, inputs: Sequence[InputFile] = ()) -> Limits:
    """Limits with the bucket that belongs to them, and a folder for the job that its input files fit into.

    Where they would take more than half of the usual folder it is made larger, up to the whole memory but
    what a program needs. Such a container is not one of those that wait.
    """
    usual = max(4, bucket(memory_mb) * 3 // 8)
    if 2 * room_bytes(inputs) > usual * MIB:
        return Limits(memory_mb, cpu_millis, pids, bucket(memory_mb), memory_mb - _program_mb(memory_mb) // 2)
    return Limits(memory_mb, cpu_millis, pids, bucket(memory_mb), usual)


def _program_mb(memory_mb: int) -> int:
    """What is kept free of input files: for the program, its supervisor, and what it writes."""
    return max(20, memory_mb // 8)


def unfit(inputs: Sequence[InputFile], memory_mb: int) -> str:
    """Why files like these do not go into the folder of a job with so much memory; empty when they do.

    Files lie in memory, which is all the room there is in a container.
    """
    needed = room_bytes(inputs)
    room_mb = memory_mb - _program_mb(memory_mb)
    if needed > room_mb * MIB:
        needed_mb = -(-needed // MIB)
        ask = max(needed_mb + 20, needed_mb * 8 // 7 + 1)
        return (
            f"The inputs take {needed_mb:,} MiB and the job has {memory_mb:,} MiB of memory, in which they "
            f"lie; ask for more memory_mb: at least {ask:,}, and what the program itself needs."
        )
    count, most = names(inputs), _inodes(bucket(memory_mb))
    if count > most - SPARE_NAMES:
        return (
            f"The inputs are {count:,} files and folders; with {memory_mb:,} MiB of memory a job can have "
            f"{most - SPARE_NAMES:,}. Ask for more memory_mb, or put them into an archive."
        )
    return ""


def _inodes(bucket_mb: int) -> int:
    return max(1024, min(65536, bucket_mb * 32))


def tmpfs(limits: Limits) -> dict[str, str]:
    """The only writable places. They count into the memory limit. The usual ones together fit into half of
    it: a job that fills them is told that the disk is full, and not killed for its memory."""
    options = "rw,nosuid,nodev,noexec,size={}m,nr_inodes={},mode=1777"
    inodes = _inodes(limits.bucket_mb)
    return {
        TMP: options.format(max(4, limits.bucket_mb // 8), inodes),
        JOB_FOLDER: options.format(limits.job_mb, inodes),
    }


@functools.cache
def seccomp() -> str:
    """Our profile, as the JSON text that the API takes."""
    profile = json.loads(Path(__file__).with_name("seccomp.json").read_bytes())
    return json.dumps(profile, separators=(",", ":"))


def update_of(limits: Limits, facts: EngineFacts) -> dict[str, Any]:
    """The limits that can be changed while a container waits for its job, in the API's words."""
    memory = limits.memory_mb * MIB
    return {
        "Memory": memory,
        **({"MemorySwap": memory} if facts.limits_swap else {}),
        "NanoCpus": limits.cpu_millis * 1_000_000,
        "PidsLimit": limits.pids,
    }


def _host(facts: EngineFacts, oci_runtime: str) -> dict[str, Any]:
    """What the containers of jobs and of slots have in common."""
    return {
        "Privileged": False,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges", f"seccomp={seccomp()}"],
        "ReadonlyRootfs": True,
        "MaskedPaths": list(MASKED),
        "ReadonlyPaths": list(READ_ONLY),
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "PidMode": "",
        "UTSMode": "",
        "UsernsMode": "",
        "ShmSize": SHM_BYTES,
        **({"MemorySwappiness": 0} if facts.cgroup == 1 else {}),
        "OomScoreAdj": OOM_SCORE,
        "OomKillDisable": False,
        "CpuShares": CPU_SHARES,
        "LogConfig": {"Type": "none", "Config": {}},
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "AutoRemove": False,
        "Init": False,
        "PublishAllPorts": False,
        **({"Runtime": oci_runtime} if oci_runtime else {}),
    }


def _ulimits(largest_file: int) -> list[dict[str, Any]]:
    values = {"core": NO_CORE, "fsize": largest_file, "memlock": 0, "msgqueue": 0, "nofile": FILES}
    return [{"Name": name, "Soft": value, "Hard": value} for name, value in values.items()]


def environment(image: RuntimeImage, gpus: tuple[str, ...]) -> list[str]:
    """The container's environment: the image's own with ours over it, and nothing of the worker's."""
    ours = {"PATH": DEFAULT_PATH, "HOME": JOB_FOLDER, "LANG": "C.UTF-8"}
    if not gpus:
        # Where NVIDIA's runtime is the engine's default, an image could ask for every GPU.
        ours["NVIDIA_VISIBLE_DEVICES"] = "void"
    theirs = dict(entry.partition("=")[::2] for entry in image.environment)
    return [f"{name}={value}" for name, value in {**theirs, **ours}.items()]


def job_container(
    image: RuntimeImage,
    limits: Limits,
    facts: EngineFacts,
    *,
    pause_id: str,
    labels: Mapping[str, str],
    user: str = USER,
    gpus: tuple[str, ...] = (),
    oci_runtime: str = "",
) -> dict[str, Any]:
    """A container whose PID 1 is the supervisor; joins the network namespace of a pause container."""
    host = _host(facts, oci_runtime)
    host |= {
        "NetworkMode": f"container:{pause_id}",
        "Tmpfs": tmpfs(limits),
        "Ulimits": _ulimits(limits.job_mb * MIB),
        **update_of(limits, facts),
    }
    if gpus:
        host["DeviceRequests"] = [
            {"Driver": "", "Count": 0, "DeviceIDs": list(gpus), "Capabilities": [["gpu"]], "Options": {}}
        ]
    return {
        "Image": image.id,
        "Entrypoint": [image.interpreter, "-I", "-c", LOADER],
        "Cmd": [],
        "WorkingDir": WORKING_DIR,
        "User": user,
        "Env": environment(image, gpus),
        "Labels": {**labels, LABEL_KIND: "job"},
        "Healthcheck": {"Test": ["NONE"]},
        "Tty": False,
        "OpenStdin": True,
        # When the worker's connection ends, so does stdin, and with it the supervisor and its job.
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": host,
    }


def pause_container(
    image: RuntimeImage, facts: EngineFacts, *, labels: Mapping[str, str], oci_runtime: str = ""
) -> dict[str, Any]:
    """A container that does nothing but hold an empty network namespace and the host name of a slot."""
    host = _host(facts, oci_runtime)
    host |= {
        "NetworkMode": "none",
        # Else the engine copies the machine's own resolver into the file that jobs see.
        "Dns": ["127.0.0.1"],
        "DnsSearch": ["."],
        "Sysctls": PAUSE_SYSCTLS,
        "Ulimits": _ulimits(0),
        **update_of(Limits(PAUSE_MEMORY // MIB, 100, PAUSE_PIDS, 0, 0), facts),
    }
    return {
        "Image": image.id,
        "Entrypoint": [image.interpreter, "-I", "-c", PAUSE],
        "Cmd": [],
        "Hostname": HOSTNAME,
        "WorkingDir": WORKING_DIR,
        "User": USER,
        "Env": environment(image, ()),
        "Labels": {**labels, LABEL_KIND: "pause"},
        "Healthcheck": {"Test": ["NONE"]},
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "HostConfig": host,
    }
