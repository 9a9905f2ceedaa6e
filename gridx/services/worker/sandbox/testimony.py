"""Judges what a witness has seen inside a container: what is not as it was asked for keeps the job out.

The engine's word is compared by ``inspection``; this is what the kernel says. It stands for what an engine
does not tell, and it also finds limits that a machine cannot enforce.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from gridx import safetext
from gridx.services.worker.sandbox.engine import EngineFacts
from gridx.services.worker.sandbox.frames import Witnessed

# The kernel's own numbers of the namespaces that the machine has started with.
_FIRST: Final = {
    "cgroup": "cgroup:[4026531835]",
    "ipc": "ipc:[4026531839]",
    "pid": "pid:[4026531836]",
    "uts": "uts:[4026531838]",
}
_OWN: Final = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
_REFUSED: Final = ("io_uring_setup", "pidfd_getfd", "process_madvise", "ptrace", "socket", "unshare")
_NO_CAPABILITIES: Final = "0" * 16
_FROM_THE_KERNEL: Final = ("/proc", "/sys")
_DEVICES: Final = {
    f"/dev{name}"
    for name in ("", "/pts", "/mqueue", "/shm", "/null", "/zero", "/full", "/random", "/urandom", "/tty")
}
_FILES_OF_THE_ENGINE: Final = {
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/run/.containerenv",
}

_READ_ONLY: Final = {"/", "/sys", "/proc/sys"} | _FILES_OF_THE_ENGINE


def doubts(asked: Mapping[str, Any], seen: Witnessed | None, facts: EngineFacts) -> list[str]:
    """Everything that speaks against a container, in words; empty: it is as it was asked for.

    Args:
        asked: the container's description, in Docker's words.
    """
    if seen is None:
        return ["nobody could look inside"]
    return [
        safetext.line(doubt, limit=120)
        for part in (
            _process(asked, seen),
            _namespaces(asked, seen),
            _mounts(asked, seen),
            _limits(asked, seen, facts),
        )
        for doubt in part
    ]


def _process(asked: Mapping[str, Any], seen: Witnessed) -> Iterator[str]:
    user, _, group = asked["User"].partition(":")
    wanted = {
        "Uid": {" ".join([user] * 4)},
        "Gid": {" ".join([group] * 4)},
        "Groups": {"", group},
        **{f"Cap{kind}": {_NO_CAPABILITIES} for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")},
        "NoNewPrivs": {"1"},
        "Seccomp": {"2"},
    }
    for name, values in wanted.items():
        if seen.status.get(name) not in values:
            yield f"{name} of the process is {seen.status.get(name)}"
    for call in _REFUSED:
        if seen.refused.get(call) != errno.EPERM:
            yield f"the seccomp profile is not in force: {call} is not refused"


def _namespaces(asked: Mapping[str, Any], seen: Witnessed) -> Iterator[str]:
    if seen.pid != 1:
        yield f"the supervisor is process {seen.pid}"
    for kind in _OWN:
        there = seen.namespaces.get(kind, "")
        if not there.startswith(f"{kind}:[") or there in (_FIRST.get(kind), _of_this_process(kind)):
            yield f"the {kind} namespace is the machine's"
    if seen.interfaces != ["lo"]:
        yield f"there is a network: {', '.join(seen.interfaces)}"
    if seen.hostname != asked["Hostname"]:
        yield f"its host name is {seen.hostname}"


def _of_this_process(kind: str) -> str:
    try:
        return str(Path("/proc/self/ns", kind).readlink())
    except OSError:
        # No Linux: the engine is in a virtual machine.
        return ""


def _mounts(asked: Mapping[str, Any], seen: Witnessed) -> Iterator[str]:
    tmpfs = asked["HostConfig"]["Tmpfs"]
    found = {place: (set(how.split(",")), kind, options) for place, how, kind, options in seen.mounts}
    if len(found) != len(seen.mounts):
        yield "something is mounted over something else"
    for place in ("/", "/proc", "/sys", "/proc/sys", *seen.hidden, *tmpfs):
        if place not in found:
            yield f"{place} is no mount of its own"
    for place, (how, kind, options) in found.items():
        kernel = any(place == top or place.startswith(f"{top}/") for top in _FROM_THE_KERNEL)
        if place in tmpfs:
            yield from _memory_folder(place, tmpfs[place], how, kind, options)
        elif not (kernel or place == "/" or place in _DEVICES or place in _FILES_OF_THE_ENGINE):
            yield f"{place} is mounted, which nobody asked for"
        elif (place in _READ_ONLY or kind in ("cgroup", "cgroup2")) and "ro" not in how:
            yield f"{place} is writable"


def _memory_folder(place: str, asked: str, how: set[str], kind: str, options: str) -> Iterator[str]:
    words = dict(word.partition("=")[::2] for word in asked.split(","))
    there = dict(word.partition("=")[::2] for word in options.split(","))
    flags = {word for word, value in words.items() if not value}
    if kind != "tmpfs" or not flags <= how:
        yield f"{place} is {kind} {','.join(sorted(how))}"
    if _bytes(there.get("size", "")) != _bytes(words["size"]) or there.get("nr_inodes") != words["nr_inodes"]:
        yield f"{place} has other sizes: {options}"


def _bytes(text: str) -> int:
    units = {"k": 10, "m": 20, "g": 30}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "")
    return int(number) << units.get(unit, 0) if number.isdigit() else -1


def _limits(asked: Mapping[str, Any], seen: Witnessed, facts: EngineFacts) -> Iterator[str]:
    host = asked["HostConfig"]
    wanted = {"memory": str(host["Memory"]), "processes": str(host["PidsLimit"])}
    if facts.limits_swap and facts.cgroup == 1:
        wanted["memory and swap"] = str(host["MemorySwap"])
    elif facts.limits_swap:
        wanted["swap"] = "0"
    for name, value in wanted.items():
        if seen.limits.get(name) != value:
            yield f"the limit of {name} is not in force: it is {seen.limits.get(name) or 'not there'}"
    quota, _, period = seen.limits.get("processor", "").partition(" ")
    if not (quota.isdigit() and period.isdigit() and int(period)) or (
        int(quota) * 1_000_000_000 != host["NanoCpus"] * int(period)
    ):
        yield "the limit of processors is not in force"
