"""Podman, spoken to in its own language: the native API that answers at the same socket.

Its Docker-like API adds writable folders to a read-only root, takes no seccomp profile as text, and leaves
things out when asked about a container; the native one makes exactly what it is told. What even that does
not tell (the seccomp profile, hidden paths, in older versions whether the IPC namespace is the machine's) is
looked at inside, before any job: ``witness.py`` looks, ``testimony.py`` judges.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import docker
import docker.errors

from gridx.errors import SandboxBroken
from gridx.services.worker.sandbox.container import HOSTNAME, Limits, seccomp
from gridx.services.worker.sandbox.dialect import get, post
from gridx.services.worker.sandbox.engine import PODMAN_API, EngineFacts
from gridx.services.worker.sandbox.frames import Witnessed
from gridx.services.worker.sandbox.inspection import differences
from gridx.services.worker.sandbox.supervisor import looking_greeting
from gridx.services.worker.sandbox.testimony import doubts

SECRETS: Final = "/run/secrets"
"""Where Podman on Fedora and the like puts the machine's subscription; an empty folder keeps it out."""
SECRETS_OPTIONS: Final = "ro,nosuid,nodev,noexec,size=4k,nr_inodes=2,mode=0555"
PROCESSES: Final = 32768
"""Podman sets a limit of processes for the user, of all containers together, by itself; ours is as wide as
usual kernels count. What holds a job is the limit of its control group."""
CPU_PERIOD_US: Final = 100_000
SIGKILL: Final = 9
REMOVE_AGAIN_S: Final = (0.02, 0.1, 0.5, 1.0, 0)

# Of Docker's words, those that mean nothing here: stdin always ends with the connection, attaching is free.
_UNSPOKEN: Final = ("AttachStdin", "AttachStdout", "AttachStderr", "StdinOnce")


class PodmanDialect:
    """Makes containers by Podman's own API, and has each looked at from inside.

    Args:
        data_path: the worker's data folder; Podman reads the seccomp profile from a file in it.
    """

    resizes = False
    gpus = False
    notes: Mapping[str, str] = {
        "limits": "fixed: Podman does not show a change, so a waiting place serves jobs of its own size",
        "gpus": "not with Podman",
    }

    def __init__(self, client: docker.APIClient, facts: EngineFacts, data_path: Path) -> None:
        self._client, self._facts = client, facts
        self._folder = data_path.absolute()

    def create(self, asked: Mapping[str, Any], name: str) -> str:
        profile = write_profile(self._folder)
        body = specification(self.wanted(asked), name, profile)
        return str(post(self._client, f"{PODMAN_API}/containers/create", body)["Id"])

    def inspect(self, id: str) -> dict[str, Any]:
        return in_docker_s_words(get(self._client, f"{PODMAN_API}/containers/{id}/json"))

    def differences(self, asked: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
        wanted = self.wanted(asked)
        # Not told; the witness tries what it refuses.
        wanted["HostConfig"]["SecurityOpt"] = ["no-new-privileges"]
        for name in ("MaskedPaths", "ReadonlyPaths", "Sysctls"):
            if name not in found["HostConfig"]:
                wanted["HostConfig"].pop(name, None)
        bad = differences(wanted, found, self._facts)
        bad += [f"{name} is {value!r}" for name, value in found["Podman"].items() if value]
        if self._facts.has("selinux") and not found.get("ProcessLabel"):
            bad.append("ProcessLabel is empty")
        return bad

    def remove(self, id: str) -> None:
        # It refuses to remove what ends by itself just then.
        for wait in REMOVE_AGAIN_S:
            try:
                self._client.remove_container(id, v=True, force=True)
                return
            except docker.errors.NotFound:
                raise
            except docker.errors.APIError:
                if not wait:
                    raise
                time.sleep(wait)

    def update(self, id: str, limits: Limits) -> None:
        raise SandboxBroken("Podman does not show whether it has changed a container's limits.")

    def greeting(self) -> bytes:
        return looking_greeting()

    def doubts(self, asked: Mapping[str, Any], witnessed: Witnessed | None) -> list[str]:
        return doubts(self.wanted(asked), witnessed, self._facts)

    def wanted(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """A container's description without what Podman has no notion of, and with what it needs besides."""
        wanted = {name: value for name, value in asked.items() if name not in _UNSPOKEN}
        host = dict(asked["HostConfig"])
        # It joins the network namespace of its slot alone, so it has a name of its own.
        wanted["Hostname"] = HOSTNAME
        # Podman would put it there by itself, sooner or later.
        env = [entry for entry in asked["Env"] if not entry.startswith("HOSTNAME=")]
        wanted["Env"] = [*env, f"HOSTNAME={HOSTNAME}"]
        host["Ulimits"] = [
            *host["Ulimits"],
            {"Name": "nproc", "Soft": PROCESSES, "Hard": PROCESSES},
        ]
        host["Tmpfs"] = {**host.get("Tmpfs", {}), SECRETS: SECRETS_OPTIONS}
        wanted["HostConfig"] = host
        return wanted


def write_profile(folder: Path) -> Path:
    """Our seccomp profile as a file, written when it is not there as it should be; its path.

    Raises:
        SandboxBroken: it cannot be written.
    """
    text = seccomp().encode()
    path = folder / f"seccomp-{hashlib.sha256(text).hexdigest()[:16]}.json"
    try:
        if path.is_file() and path.read_bytes() == text:
            return path
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=".seccomp-")
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
        Path(temporary).replace(path)
    except OSError as error:
        raise SandboxBroken(
            f"The seccomp profile cannot be written to {path}: {error.strerror}.",
            "Make room, or give the worker's folder back to the worker's user.",
        ) from None
    return path


def specification(wanted: Mapping[str, Any], name: str, profile: Path) -> dict[str, Any]:
    """A container's description in the words of the native API.

    Raises:
        SandboxBroken: it asks for what cannot be said there.
    """
    host = wanted["HostConfig"]
    if host.get("DeviceRequests"):
        raise SandboxBroken("GPUs cannot be handed to containers of Podman; Docker is needed.")
    network, _, joined = str(host["NetworkMode"]).partition(":")
    memory: dict[str, Any] = {"limit": host["Memory"], "disableOOMKiller": host["OomKillDisable"]}
    if "MemorySwap" in host:
        memory["swap"] = host["MemorySwap"]
    if "MemorySwappiness" in host:
        memory["swappiness"] = host["MemorySwappiness"]
    return {
        "name": name,
        "image": wanted["Image"],
        "entrypoint": wanted["Entrypoint"],
        "command": wanted["Cmd"],
        "work_dir": wanted["WorkingDir"],
        "user": wanted["User"],
        "env": dict(entry.partition("=")[::2] for entry in wanted["Env"]),
        # Nothing of the image's own, of Podman's configuration, or of the machine's proxy.
        "unsetenvall": True,
        "httpproxy": False,
        "labels": wanted["Labels"],
        "healthconfig": wanted["Healthcheck"],
        "terminal": wanted["Tty"],
        "stdin": wanted["OpenStdin"],
        "hostname": wanted["Hostname"],
        "privileged": host["Privileged"],
        "cap_drop": host["CapDrop"],
        "no_new_privileges": "no-new-privileges" in host["SecurityOpt"],
        "seccomp_profile_path": str(profile),
        "read_only_filesystem": host["ReadonlyRootfs"],
        "read_write_tmpfs": False,
        # Its own list is let go of first, or a path on both would be hidden twice.
        "unmask": host["MaskedPaths"],
        "mask": host["MaskedPaths"],
        "mounts": [_mount(path, options) for path, options in host["Tmpfs"].items()],
        "image_volume_mode": "ignore",
        "shm_size": host["ShmSize"],
        "ipcns": {"nsmode": host["IpcMode"]},
        "cgroupns": {"nsmode": host["CgroupnsMode"]},
        "pidns": {"nsmode": host["PidMode"] or "private"},
        "utsns": {"nsmode": host["UTSMode"] or "private"},
        # The machine's, or for an engine without root the one that all its containers are in.
        "userns": {"nsmode": host["UsernsMode"] or "host"},
        "netns": {"nsmode": network, "value": joined},
        # No file of the machine's: an empty network needs no names.
        "use_image_hosts": True,
        "dns_server": host.get("Dns", []),
        "dns_search": host.get("DnsSearch", []),
        "sysctl": host.get("Sysctls", {}),
        # Else a name for the user's number would be written into a file, and that be mounted.
        "manage_password": False,
        "resource_limits": {
            "memory": memory,
            "cpu": {
                "shares": host["CpuShares"],
                "quota": host["NanoCpus"] * CPU_PERIOD_US // 1_000_000_000,
                "period": CPU_PERIOD_US,
            },
            "pids": {"limit": host["PidsLimit"]},
        },
        "r_limits": [
            {"type": limit["Name"], "soft": limit["Soft"], "hard": limit["Hard"]} for limit in host["Ulimits"]
        ],
        "oom_score_adj": host["OomScoreAdj"],
        "log_configuration": {"driver": host["LogConfig"]["Type"]},
        "restart_policy": host["RestartPolicy"]["Name"],
        "remove": host["AutoRemove"],
        "init": host["Init"],
        "publish_image_ports": host["PublishAllPorts"],
        "systemd": "false",
        "sdnotifyMode": "ignore",
        **({"oci_runtime": host["Runtime"]} if "Runtime" in host else {}),
        # PID 1 hears no signal but this one: removing would wait ten seconds for it.
        "stop_signal": SIGKILL,
        "stop_timeout": 0,
        # What a container wrote does not outlive it, so it need not reach the disk.
        "volatile": True,
    }


def _mount(path: str, options: str) -> dict[str, Any]:
    # Podman knows no cap of inodes, and passes a size on to the kernel as it is: the two go as one option.
    joined = options.replace(",nr_inodes=", "\0nr_inodes=")
    words = [word.replace("\0", ",") for word in joined.split(",")]
    return {
        "destination": path,
        "type": "tmpfs",
        "source": "tmpfs",
        # Empty at first, whatever the image has there.
        "options": [*words, "notmpcopyup"],
    }


def in_docker_s_words(native: Mapping[str, Any]) -> dict[str, Any]:
    """What the native API says of a container, in the words of Docker's.

    Under ``Podman`` stands what Docker has no word for: anything in it is one thing too many.
    """
    config, host = dict(native.get("Config") or {}), dict(native.get("HostConfig") or {})
    config["Entrypoint"] = [native.get("Path"), *(native.get("Args") or [])]
    # The arguments of the process are the whole command.
    config["Cmd"] = []
    host["CgroupnsMode"] = host.get("CgroupMode")
    for mode in ("PidMode", "UTSMode"):
        host[mode] = "" if host.get(mode) == "private" else host.get(mode) or "not told"
    if host.get("IpcMode") == "shareable":
        # All that versions before 4.6 ever say. The witness sees to it that it is not the machine's.
        host["IpcMode"] = "private"
    if {"EffectiveCaps", "BoundingCaps"} <= native.keys():
        kept = [*(native["EffectiveCaps"] or []), *(native["BoundingCaps"] or [])]
        host["CapDrop"] = ["ALL"] if not kept else [f"all but {', '.join(sorted(set(kept)))}"]
    host["Tmpfs"] = {
        path: str(options).removesuffix(",rprivate") for path, options in (host.get("Tmpfs") or {}).items()
    }
    host["Ulimits"] = [
        {**limit, "Name": str(limit.get("Name")).removeprefix("RLIMIT_").lower()}
        for limit in host.get("Ulimits") or []
    ]
    log = host.get("LogConfig") or {}
    host["LogConfig"] = {"Type": log.get("Type"), "Config": log.get("Config") or {}}
    host["Runtime"] = native.get("OCIRuntime") or "not told"
    return {
        **native,
        "Image": f"sha256:{native.get('Image')}",
        "Config": config,
        "HostConfig": host,
        "Podman": {
            "Cgroups": "" if host.get("Cgroups") == "default" else str(host.get("Cgroups")),
            "CgroupConf": host.get("CgroupConf"),
            "LogConfig.Path": log.get("Path"),
            "Pod": native.get("Pod"),
            "Rootfs": native.get("Rootfs"),
            "Secrets": config.get("Secrets"),
            "SystemdMode": config.get("SystemdMode"),
        },
    }
