"""``gridx doctor``: what this machine can do for a grid, and what to type where something is missing.

Each check looks at the real thing and yields findings. A *problem* keeps something from working that was
asked for; a *note* is good to know and fails nothing. The last check runs a job, because that is the only
proof that jobs run.
"""

from __future__ import annotations

import asyncio
import locale
import os
import platform
import shutil
import socket
import stat
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec

from gridx import credentials
from gridx.address import private
from gridx.client import Client
from gridx.config import Settings
from gridx.errors import EngineMissing, GridError, ImageMissing
from gridx.messages import JobSpec, JobState

Verdict = Literal["ok", "note", "problem"]

NEEDED_PYTHON: Final = (3, 11)
LOW_DISK_BYTES: Final = 2 << 30
NO_DISK_BYTES: Final = 200 << 20
SMALLEST_SCREEN: Final = (60, 16)
PROBE_S: Final = 5.0
LOAD_S: Final = 1.0
"""Over how long other programs' load is looked at."""
JOB_S: Final = 60.0


class Finding(msgspec.Struct, frozen=True):
    """What one check found, and what to type when it is not well."""

    what: str
    verdict: Verdict
    found: str
    hint: str = ""


def well(findings: list[Finding]) -> bool:
    """Whether nothing is wrong."""
    return all(finding.verdict != "problem" for finding in findings)


async def collect(settings: Settings, *, job: bool) -> list[Finding]:
    """All findings at once."""
    return [finding async for finding in examine(settings, job=job)]


async def examine(settings: Settings, *, job: bool) -> AsyncIterator[Finding]:
    """Look at everything, one thing after another.

    Args:
        job: run one job at the end.
    """
    looks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
        _python,
        _terminal,
        _modes,
        _disk,
    )
    for look in looks:
        for finding in await asyncio.to_thread(_all, look, settings):
            yield finding
    for ask in (_gpus, _owner, _engine, _ports, _coordinator):
        async for finding in ask(settings):
            yield finding
    if job:
        yield await _job(settings)


def _all(look: Callable[[Settings], Iterator[Finding]], settings: Settings) -> list[Finding]:
    return list(look(settings))


def _python(settings: Settings) -> Iterator[Finding]:
    version = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info >= NEEDED_PYTHON:
        yield Finding("Python", "ok", version)
    else:
        wanted = ".".join(map(str, NEEDED_PYTHON))
        yield Finding("Python", "problem", version, f"Install Python {wanted} or newer and Grid-X into it.")


def _terminal(settings: Settings) -> Iterator[Finding]:
    encoding = locale.getpreferredencoding(False)
    if encoding.lower().replace("-", "") != "utf8":
        yield Finding(
            "locale", "note", f"the encoding is {encoding}", "Set LANG=C.UTF-8, or use gridx-tui --ascii."
        )
    if not sys.stdout.isatty():
        yield Finding("terminal", "note", "none here", "The dashboard needs one; without it use --no-ui.")
        return
    columns, rows = shutil.get_terminal_size()
    if (columns, rows) < SMALLEST_SCREEN or rows < SMALLEST_SCREEN[1]:
        least = "{}x{}".format(*SMALLEST_SCREEN)
        yield Finding(
            "terminal", "note", f"{columns}x{rows} characters", f"Make it at least {least} for the dashboard."
        )
    else:
        name = os.environ.get("TERM", "unknown")
        yield Finding("terminal", "ok", f"{name}, {columns}x{rows} characters, {encoding}")


def _modes(settings: Settings) -> Iterator[Finding]:
    """Passwords' hashes and tokens lie in these files: nobody else on the machine may read them."""
    if os.name == "nt":
        yield Finding("file modes", "note", "not checked on Windows", "Keep the folders in your own profile.")
        return
    home = credentials.home()
    paths = [home, *sorted(home.glob("*.json")), settings.data_path, settings.db_path]
    open_ones = [path for path in paths if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077]
    for path in open_ones:
        mode = stat.S_IMODE(path.stat().st_mode)
        yield Finding("file modes", "problem", f"others can use {path} ({mode:04o})", f"chmod go= {path}")
    if not open_ones:
        yield Finding("file modes", "ok", f"{home} and {settings.data_path} are yours alone")


def _disk(settings: Settings) -> Iterator[Finding]:
    folder = settings.data_path
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        yield Finding("disk", "problem", f"{folder} is not writable", "Name another folder: --data-dir.")
        return
    free = shutil.disk_usage(folder).free
    found = f"{free / (1 << 30):.1f} GiB free at {folder}"
    if free < NO_DISK_BYTES:
        yield Finding("disk", "problem", found, "Make room, or name another folder: GRIDX_DATA_DIR.")
    elif free < LOW_DISK_BYTES:
        yield Finding("disk", "note", found, "Results and images need room.")
    else:
        yield Finding("disk", "ok", found)


async def _gpus(settings: Settings) -> AsyncIterator[Finding]:
    from gridx.services.monitor import Monitor

    monitor = Monitor(settings.data_path)
    try:
        found = await monitor.gpus()
    finally:
        monitor.close()
    if not found:
        yield Finding("GPU", "ok", "none that a driver shows; jobs that ask for one run elsewhere")
    for gpu in found:
        yield Finding("GPU", "ok", f"{gpu.name}, {gpu.memory_mb} MiB, {gpu.uuid}")


async def _owner(settings: Settings) -> AsyncIterator[Finding]:
    """What this machine's owner allows, and whether a worker would take jobs by it now."""
    from gridx.services.worker.owner import Allowed, judge, lines
    from gridx.services.worker.sightings import Sightings

    allowed = Allowed.by(settings.worker)
    said = "; ".join(lines(settings.worker)) or "a worker here may work at any time, for everybody"
    yield Finding("owner's rules", "ok", said)
    if allowed.always:
        return
    sightings = Sightings(allowed, lambda: 0.0)
    try:
        seen = await sightings.look()
        if allowed.max_load is not None:
            await asyncio.sleep(LOAD_S)
            seen = await sightings.look()
    finally:
        sightings.close()
    if closed := judge(allowed, seen).closed:
        hint = "Until that changes a worker here takes nothing. The rules are in [worker] of the settings."
        yield Finding("owner's rules", "note", f"closed now: {closed}", hint)
    else:
        yield Finding("owner's rules", "ok", "they hold now: a worker here takes jobs")


async def _engine(settings: Settings) -> AsyncIterator[Finding]:
    """The container engine and the runtime image, as the worker would find them."""
    from gridx.services.worker.sandbox import open_sandbox

    wanted = settings.worker.sandbox
    if wanted == "process":
        yield Finding(
            "sandbox",
            "note",
            "set to process, which is no wall: this worker gets its owner's jobs only",
            'For jobs of others set sandbox = "auto" under [worker].',
        )
        return
    serious: Verdict = "problem" if wanted == "docker" else "note"
    docker = msgspec.structs.replace(settings.worker, sandbox="docker", warm=0)
    with tempfile.TemporaryDirectory(prefix="gridx-doctor-") as folder:
        try:
            sandbox = await open_sandbox(docker, identity=os.urandom(16).hex(), data_path=Path(folder))
        except ImageMissing as error:
            yield Finding("engine", "ok", "a container engine answers")
            yield Finding("image", serious, error.message, error.hint)
            return
        except EngineMissing as error:
            yield Finding("engine", serious, error.message, error.hint)
            if shutil.which("bwrap") is None and sys.platform == "linux":
                yield Finding(
                    "bubblewrap",
                    "note",
                    "not installed; it would put the process sandbox into namespaces",
                    "sudo apt install bubblewrap, or your system's way",
                )
            return
        except GridError as error:
            yield Finding("engine", "problem", error.message, error.hint)
            return
        try:
            status = await sandbox.status()
        finally:
            await sandbox.close()
    told = [value if key == "engine" else f"{key} {value}" for key, value in status.details.items()]
    yield Finding("engine", "ok", ", ".join(text for text in told if not text.startswith("places")))
    for runtime in status.runtimes:
        yield Finding("image", "ok", f"{runtime.image or runtime.name}, Python {runtime.python}")
    for warning in status.warnings:
        yield Finding("engine", "note", warning)
    if status.unready:
        yield Finding("engine", "problem", status.unready, "See the engine's own log.")


async def _ports(settings: Settings) -> AsyncIterator[Finding]:
    """Whether a coordinator could listen here, or does already."""
    host = settings.coordinator.host or "127.0.0.1"
    for flag, port in (
        ("--http-port", settings.coordinator.http_port),
        ("--ws-port", settings.coordinator.ws_port),
    ):
        if port == 0:
            continue
        if await asyncio.to_thread(_is_free, host, port):
            yield Finding("port", "ok", f"{port} is free")
        elif await _is_coordinator(host, port):
            yield Finding("port", "ok", f"a coordinator listens on {port}")
        else:
            yield Finding(
                "port", "note", f"{port} is used by another program", f"A coordinator here needs {flag} N."
            )


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


async def _is_coordinator(host: str, port: int) -> bool:
    shown = f"[{host}]" if ":" in host else host
    try:
        async with Client(f"{shown}:{port}", timeout_s=PROBE_S) as grid:
            await grid.health()
    except GridError:
        return False
    return True


async def _coordinator(settings: Settings) -> AsyncIterator[Finding]:
    """Whether the grid that is configured answers, and knows us."""
    what = "coordinator"
    try:
        url, token = credentials.resolve(settings)
    except GridError:
        hint = "To join one: export GRIDX_COORDINATOR=http://HOST:8081, then gridx login NAME"
        yield Finding(what, "ok", "none is configured; gridx run works without", hint)
        return
    async with Client(url, token, timeout_s=PROBE_S) as grid:
        try:
            began = time.monotonic()
            health = await grid.health()
            took_ms = (time.monotonic() - began) * 1000
            yield Finding(what, "ok", f"{grid.url} answers in {took_ms:.0f} ms (version {health.version})")
            if not private(grid.url):
                yield Finding(
                    "encryption",
                    "note",
                    f"none: passwords, tokens and output cross the network to {grid.url} in the clear",
                    "Start the coordinator with --tls auto, or stay inside a VPN or a trusted network.",
                )
            if token is None:
                yield Finding("sign-in", "note", f"nobody is signed in at {grid.url}", "gridx login NAME")
            else:
                yield Finding("sign-in", "ok", f"signed in as {(await grid.me()).username}")
        except GridError as error:
            yield Finding(what, "problem", error.message, error.hint)


async def _job(settings: Settings) -> Finding:
    """One job in a grid of this process, in the sandbox that a worker here would use."""
    from gridx.local import local_grid

    began = time.monotonic()
    try:
        async with local_grid(settings) as (grid, worker), asyncio.timeout(JOB_S):
            job = await grid.submit(JobSpec(code="print(6 * 7)", cpus=0.1, memory_mb=128, timeout_s=30))
            ended = await grid.wait(job.id)
            printed = await grid.output(job.id)
    except TimeoutError:
        return Finding(
            "job", "problem", f"a small job did not end within {JOB_S:.0f} s", "See the findings above."
        )
    except GridError as error:
        return Finding("job", "problem", error.message, error.hint)
    took = f"{time.monotonic() - began:.1f} s with the start of the grid"
    if ended.state is not JobState.SUCCEEDED or printed.strip() != b"42":
        reason = ended.reason or "its output was not the right one"
        return Finding(
            "job", "problem", f"a small job ended as {ended.state}: {reason}", "See the findings above."
        )
    kind = worker.offer.sandbox if worker.offer else "unknown"
    return Finding("job", "ok", f"a small job ran in the {kind} sandbox; {took}")
