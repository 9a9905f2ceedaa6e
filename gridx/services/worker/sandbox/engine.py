"""A container engine, spoken to from threads: few of them, each call bounded in time, errors in our words."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import docker
import docker.errors
import requests.exceptions
from docker.tls import TLSConfig

from gridx import safetext
from gridx.errors import SandboxBroken
from gridx.services.worker.sandbox.discovery import Candidate, Tried, absent, candidates, missing
from gridx.services.worker.sandbox.known_holes import known_holes

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("gridx.worker")

THREADS: Final = 8
CALL_WITHIN_S: Final = 60.0
"""For one call; an engine under load takes seconds to start a container."""
PING_WITHIN_S: Final = 5.0
CONNECT_WITHIN_S: Final = 5.0
PODMAN_API: Final = "/v4.0.0/libpod"
"""Podman's own API, at the socket at which it answers as Docker does."""
PODMAN_SINCE: Final = (4, 3)
"""Older ones cannot leave an image's environment out."""


class EngineAway(SandboxBroken):
    """The engine does not answer: stopped, hung, or out of reach."""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What an engine is and can do, as it says itself."""

    name: str
    version: str
    api: str
    cgroup: int
    security: tuple[str, ...]
    runtimes: tuple[str, ...]
    default_runtime: str
    limits_memory: bool
    limits_swap: bool
    limits_cpu: bool
    limits_pids: bool
    system: str
    rootless: bool
    components: tuple[tuple[str, str], ...] = ()
    """Its parts, such as ``runc``, and their versions."""
    cpus: int = 0
    memory_bytes: int = 0
    """Of the machine that it runs on, which may be a small virtual one; 0: it does not say."""

    @property
    def podman(self) -> bool:
        """Whether this is Podman behind Docker's interface."""
        return "podman" in self.name.lower()

    def has(self, module: str) -> bool:
        """Whether a security module, such as ``apparmor``, is on."""
        return module in self.security

    def behind(self, oci_runtime: str) -> tuple[tuple[str, str], ...]:
        """The parts that a container of this runtime passes through; empty: the engine's own choice."""
        runtime = oci_runtime or self.default_runtime
        return tuple(
            (name, version) for name, version in self.components if "runc" not in name or "runc" in runtime
        )


def _facts(version: dict[str, Any], info: dict[str, Any]) -> EngineFacts:
    options = [str(option) for option in info.get("SecurityOptions") or []]
    names = tuple(option.removeprefix("name=").split(",")[0] for option in options)
    components = version.get("Components") or [{}]
    return EngineFacts(
        name=str(components[0].get("Name") or "Engine"),
        version=str(version.get("Version") or ""),
        api=str(version.get("ApiVersion") or ""),
        cgroup=2 if str(info.get("CgroupVersion")) == "2" else 1,
        security=names,
        runtimes=tuple(sorted(info.get("Runtimes") or {})),
        default_runtime=str(info.get("DefaultRuntime") or ""),
        limits_memory=bool(info.get("MemoryLimit")),
        limits_swap=bool(info.get("SwapLimit")),
        limits_cpu=bool(info.get("CpuCfsQuota")) or bool(info.get("CPUCfsQuota")),
        limits_pids=bool(info.get("PidsLimit")),
        system=str(info.get("OSType") or "linux"),
        rootless="rootless" in names,
        components=tuple(
            (_short(part.get("Name")), _short(part.get("Version")))
            for part in components
            if isinstance(part, dict)
        ),
        cpus=_count(info.get("NCPU")),
        memory_bytes=_count(info.get("MemTotal")),
    )


def _short(value: Any) -> str:
    return safetext.line(str(value), limit=60)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _delegated(facts: EngineFacts, info: dict[str, Any]) -> EngineFacts:
    """Podman's facts with what its native API says: limits need control groups that are given to its user."""
    host = info.get("host") or {}
    controllers = set(host.get("cgroupControllers") or [])
    return dataclasses.replace(
        facts,
        limits_memory=facts.limits_memory and "memory" in controllers,
        limits_cpu=facts.limits_cpu and "cpu" in controllers,
        limits_pids=facts.limits_pids and "pids" in controllers,
        rootless=facts.rootless or bool((host.get("security") or {}).get("rootless")),
    )


class Engine:
    """One engine. Every call runs in one of a few threads and ends within its time.

    Only containers with this worker's label are ever touched; who calls sees to that.
    """

    def __init__(self, client: docker.APIClient, candidate: Candidate, facts: EngineFacts) -> None:
        self.client, self.candidate, self.facts = client, candidate, facts
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="engine")
        self._pings = ThreadPoolExecutor(1, thread_name_prefix="engine-ping")

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one blocking call of the SDK in a thread.

        Raises:
            EngineAway: no answer.
            SandboxBroken: the engine said no. ``docker.errors.NotFound`` passes as it is.
        """
        return await self._within(self._threads, CALL_WITHIN_S, functools.partial(function, *args, **kwargs))

    async def ping(self) -> str:
        """Why the engine does not answer now; empty when it does."""
        try:
            # A call that hangs keeps its thread longer than this waits, so pings have one of their own.
            await self._within(self._pings, PING_WITHIN_S, self.client.ping)
        except SandboxBroken as error:
            return error.message
        return ""

    async def _within(self, threads: ThreadPoolExecutor, seconds: float, work: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.get_running_loop().run_in_executor(threads, work)
        except docker.errors.NotFound:
            raise
        except docker.errors.APIError as error:
            said = safetext.line(str(error.explanation or error), limit=300)
            raise SandboxBroken(f"The container engine refused: {said}") from None
        except TimeoutError:
            raise EngineAway(f"The container engine did not answer within {seconds:.0f} s.") from None
        except (requests.exceptions.RequestException, docker.errors.DockerException, OSError) as error:
            raise EngineAway(f"The container engine does not answer: {_reason(error)}.") from None

    async def close(self) -> None:
        """Let go of the connections and threads; a thread that hangs is left to its timeout."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._pings.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self.client.close)


def _reason(error: BaseException) -> str:
    """The innermost plain reason of an error of the HTTP library."""
    text = str(error)
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            text = seen.strerror
        seen = seen.__cause__ or seen.__context__
    if "Permission denied" in text:
        return "permission denied"
    if "timed out" in text:
        return "no answer"
    return safetext.line(text, limit=160).rstrip(".")


def connect(candidate: Candidate) -> tuple[docker.APIClient, EngineFacts]:
    """Ask one candidate; blocking.

    Raises:
        OSError, DockerException, RequestException: it does not answer as an engine does.
    """
    tls: TLSConfig | bool = False
    if (files := candidate.certificates) is not None:
        tls = TLSConfig(
            client_cert=(str(files.cert), str(files.key)),
            ca_cert=str(files.ca) if files.ca.is_file() else None,
            verify=files.verify,
        )
    client = docker.APIClient(
        candidate.address,
        version="auto",
        timeout=CONNECT_WITHIN_S,  # type: ignore[arg-type]  # the SDK takes fractions as well
        tls=tls,
        use_ssh_client=candidate.address.startswith("ssh://"),
    )
    try:
        facts = _facts(client.version(), client.info())
        if facts.podman:
            answer = client.get(f"{client.base_url}{PODMAN_API}/info", timeout=CONNECT_WITHIN_S)
            facts = _delegated(facts, answer.json())
    except BaseException:
        client.close()
        raise
    client.timeout = int(CALL_WITHIN_S)
    return client, facts


async def find_engine(setting: str) -> Engine:
    """The first engine that answers.

    Raises:
        EngineMissing: none does; the message lists what was tried.
    """
    uid = os.getuid() if hasattr(os, "getuid") else 0
    tried: list[Tried] = []
    for candidate in candidates(setting, os.environ, Path.home(), uid=uid):
        reason = await asyncio.to_thread(absent, candidate)
        if not reason:
            try:
                client, facts = await asyncio.to_thread(connect, candidate)
            except (requests.exceptions.RequestException, docker.errors.DockerException, OSError) as error:
                reason = _reason(error)
            except Exception as error:
                # The address may be of a kind that needs a library which is not here.
                reason = safetext.line(f"{type(error).__name__}: {error}")
            else:
                reason = unfit(facts)
                if not reason:
                    log.info("container engine %s %s at %s", facts.name, facts.version, candidate.address)
                    return Engine(client, candidate, facts)
                client.close()
        tried.append(Tried(candidate, reason))
    raise missing(tried)


def unfit(facts: EngineFacts) -> str:
    """Why an engine that answers is passed over for the next; empty when it is not."""
    if facts.system != "linux":
        return f"it runs {safetext.line(facts.system)} containers"
    if facts.podman:
        numbers = facts.version.split(".")[:2]
        if not all(number.isdigit() for number in numbers) or tuple(map(int, numbers)) < PODMAN_SINCE:
            since = ".".join(map(str, PODMAN_SINCE))
            return f"it is Podman {safetext.line(facts.version)}, and {since} or newer is needed"
    return ""


def lacks(facts: EngineFacts) -> str:
    """Why jobs of strangers cannot run on this engine at all; empty when they can."""
    needs = {
        "memory limits": facts.limits_memory,
        "processor limits": facts.limits_cpu,
        "limits of processes": facts.limits_pids,
        "seccomp": facts.has("seccomp"),
    }
    without = [name for name, there in needs.items() if not there]
    return f"the container engine has no {' and no '.join(without)}" if without else ""


def remedy(facts: EngineFacts) -> str:
    """What to type where an engine lacks something."""
    if facts.rootless and facts.cgroup == 1:
        return "An engine without root can set limits with cgroup version 2 only; use one that runs as root."
    if facts.rootless:
        return (
            "This engine runs without root and was given no control groups. Type: sudo systemctl edit "
            "user@.service, add the two lines [Service] and Delegate=cpu memory pids, and sign in again; "
            "or use an engine that runs as root."
        )
    return "Use an engine that runs as root, on a kernel with seccomp and control groups."


def warnings(facts: EngineFacts, oci_runtime: str = "") -> tuple[str, ...]:
    """Layers that this engine does not have and holes that its parts are known for, in words."""
    found = known_holes(facts.behind(oci_runtime))
    if not facts.has("apparmor") and not facts.has("selinux"):
        found.append("The engine has no AppArmor and no SELinux; seccomp is what is left.")
    if not facts.rootless and not facts.has("userns"):
        found.append(
            "The engine has no user namespaces: a user inside is one of this machine. userns-remap, or an "
            "engine without root, adds them."
        )
    if facts.cgroup == 1:
        found.append("Control groups are of version 1, which engines and systems are giving up.")
    if not facts.limits_swap:
        found.append("The engine cannot limit swap, so a job may use some.")
    return tuple(found)
