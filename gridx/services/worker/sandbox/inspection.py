"""Compares what the engine made of a container with what it was asked for: any difference refuses it.

Fail closed: an engine, a proxy in front of it or a future version may drop or change an option and still say
that all is well. Every option of ``container`` is compared, and what was not asked for must not be there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gridx import safetext
from gridx.services.worker.sandbox.container import Limits, update_of
from gridx.services.worker.sandbox.engine import EngineFacts

# What opens a way out, of which nothing was asked for.
_MUST_BE_EMPTY: Final = (
    "Binds",
    "CapAdd",
    "Cgroup",
    "CgroupParent",
    "ContainerIDFile",
    "DeviceCgroupRules",
    "DeviceRequests",
    "Devices",
    "ExtraHosts",
    "GroupAdd",
    "Links",
    "Mounts",
    "PortBindings",
    "StorageOpt",
    "Sysctls",
    "VolumeDriver",
    "VolumesFrom",
)


def differences(asked: Mapping[str, Any], found: Mapping[str, Any], facts: EngineFacts) -> list[str]:
    """Names of the fields that are not as they were asked for, with what they are; empty: the container may
    start."""
    config, host = found.get("Config") or {}, found.get("HostConfig") or {}
    bad: list[str] = []

    def check(name: str, wanted: Any, there: Any) -> None:
        try:
            same = _same(name, wanted, there)
        except (AttributeError, TypeError, ValueError):
            # Not even of the kind that was asked for.
            same = False
        if not same:
            bad.append(f"{name} is {_short(there)}")

    for name, wanted in asked.items():
        if name == "HostConfig":
            continue
        if name == "Image":
            check("Image", wanted, found.get("Image"))
        else:
            check(f"Config.{name}", wanted, config.get(name))
    for name, wanted in asked["HostConfig"].items():
        check(f"HostConfig.{name}", wanted, host.get(name))
    for name in _MUST_BE_EMPTY:
        if name not in asked["HostConfig"]:
            check(f"HostConfig.{name}", None, host.get(name))
    check("Config.Volumes", None, config.get("Volumes"))
    check("Mounts", [], [mount for mount in found.get("Mounts") or [] if mount.get("Type") != "tmpfs"])
    if (
        facts.has("apparmor")
        and found.get("AppArmorProfile") in ("", "unconfined", None)
        and not facts.rootless
    ):
        bad.append("AppArmorProfile is unconfined")
    if "Runtime" not in asked["HostConfig"] and host.get("Runtime") not in ("", None, facts.default_runtime):
        bad.append(f"HostConfig.Runtime is {_short(host.get('Runtime'))}")
    return bad


def changed_limits(limits: Limits, found: Mapping[str, Any], facts: EngineFacts) -> list[str]:
    """The same for the limits of a container that waits and was given new ones."""
    host = found.get("HostConfig") or {}
    return [
        f"HostConfig.{name} is {_short(host.get(name))}"
        for name, wanted in update_of(limits, facts).items()
        if host.get(name) != wanted
    ]


def _same(name: str, wanted: Any, there: Any) -> bool:
    if name == "HostConfig.Ulimits":
        return _by_name(wanted) == _by_name(there or [])
    if name == "Config.Labels":
        # An image's own labels come along.
        return bool(wanted.items() <= (there or {}).items())
    if name == "Config.Env":
        return sorted(wanted) == sorted(there or [])
    if name == "HostConfig.DeviceRequests":
        return [request.get("DeviceIDs") for request in wanted or []] == [
            request.get("DeviceIDs") for request in there or []
        ]
    if name == "HostConfig.SecurityOpt":
        return sorted(map(_option, wanted)) == sorted(map(_option, there or []))
    if _nothing(wanted):
        return _nothing(there)
    return bool(wanted == there) and type(wanted) is type(there)


def _nothing(value: Any) -> bool:
    """What an engine echoes for an option that is off; a number is none of it, since 0 may mean no limit."""
    return value is None or value is False or value in ("", [], {})


def _option(text: Any) -> str:
    return str(text).removesuffix(":true").removesuffix("=true")


def _by_name(limits: list[dict[str, Any]]) -> dict[Any, tuple[Any, Any]]:
    return {limit.get("Name"): (limit.get("Soft"), limit.get("Hard")) for limit in limits}


def _short(value: Any) -> str:
    return safetext.line(repr(value), limit=80)
