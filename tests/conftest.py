"""What all tests share: a grid of real processes, waiting for conditions, and what is skipped and why."""

from __future__ import annotations

import asyncio
import functools
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

DEADLINE_S = 60.0
"""How long a condition may take before a test calls it a failure; generous, since machines are slow."""


# Whoever runs the tests in the background of a script may ignore these; the processes of the tests must not.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

REQUIRED = os.environ.get("GRIDX_REQUIRE_ENGINE") == "1"
"""Set where an engine belongs to the surroundings: its tests then fail, and are not skipped, without one."""


@functools.cache
def engine_missing() -> str:
    """Why engine tests cannot run here, as a worker would say it; empty when they can."""
    from gridx.config import WorkerSettings
    from gridx.errors import GridError
    from gridx.services.worker.sandbox import open_sandbox

    async def look() -> None:
        with tempfile.TemporaryDirectory(prefix="gridx-engine-") as folder:
            settings = WorkerSettings(sandbox="docker", warm=0)
            sandbox = await open_sandbox(settings, identity=os.urandom(16).hex(), data_path=Path(folder))
            await sandbox.close()

    try:
        asyncio.run(look())
    except GridError as error:
        return error.message
    return ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("engine") is None:
        return
    if reason := engine_missing():
        if REQUIRED:
            pytest.fail(f"GRIDX_REQUIRE_ENGINE=1, but {reason}", pytrace=False)
        pytest.skip(reason)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """The last line of a run says what it did not show."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(config, "workerinput"):
        return
    skipped = reporter.stats.get("skipped", [])
    if skipped:
        reasons = sorted({str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped})
        reporter.write_line(f"{len(skipped)} tests were skipped: {'; '.join(reasons)}")


def wait_for(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> object:
    """Poll a condition until it is true; fail by its name when it does not become so."""
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        if time.monotonic() > end:
            pytest.fail(f"waited {deadline_s:.0f} s in vain: {what}")
        time.sleep(0.05)
    return value


@pytest.fixture
def until() -> Callable[..., Awaitable[object]]:
    """``await until(condition, what)``: the same in a test that runs on an event loop."""

    async def wait(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> object:
        end = asyncio.get_running_loop().time() + deadline_s
        while True:
            value = condition()
            if isinstance(value, Awaitable):
                value = await value
            if value:
                return value
            if asyncio.get_running_loop().time() > end:
                pytest.fail(f"waited {deadline_s:.0f} s in vain: {what}")
            await asyncio.sleep(0.05)

    return wait


@dataclass
class Node:
    """One real ``gridx-tui --no-ui`` process and what it printed."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def says(self, pattern: str) -> re.Match[str]:
        """Wait until the output matches; the process ending first is a failure that shows the output."""

        def look() -> re.Match[str] | None:
            found = re.search(pattern, self.text)
            if not found and self.process.poll() is not None:
                pytest.fail(f"the process ended ({self.process.returncode}) before /{pattern}/:\n{self.text}")
            return found

        found = wait_for(look, f"/{pattern}/ in {self.text[-2000:]}")
        assert isinstance(found, re.Match)
        return found

    def kill(self) -> None:
        """As a power cut: no clean-up."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """As a person would: SIGTERM, then its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"did not stop on SIGTERM:\n{self.text[-4000:]}")


@dataclass
class GridProcesses:
    """A grid of real processes on loopback with its own folders; ports are free ones."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = ("-m", "gridx.cli")
    """What Python runs as a node."""
    nodes: list[Node] = field(default_factory=list)
    http_url: str = ""
    ws_url: str = ""
    admin_password: str = ""

    def start(self, name: str, *args: str, **environ: str) -> Node:
        """Start a node of any kind; ``GRIDX_HOME`` is its own unless given."""
        log = self.folder / f"{name}-{len(self.nodes)}.log"
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("GRIDX_", "COORDINATOR_"))}
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, *self.program, *args, "--no-ui"],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={
                    **inherited,
                    "GRIDX_CONFIG": os.devnull,
                    "GRIDX_HOME": str(self.folder / f"home-{name}"),
                    **self.environ,
                    **environ,
                },
                start_new_session=True,
            )
        node = Node(process, log)
        self.nodes.append(node)
        return node

    def coordinator(self, **environ: str) -> Node:
        """Start the coordinator, or start it again on the same database and ports."""
        http_port = self.http_url.rpartition(":")[2] or "0"
        ws_port = self.ws_url.removesuffix("/ws/worker").rpartition(":")[2] or "0"
        node = self.start(
            "coordinator",
            *("--role", "coordinator", "--host", "127.0.0.1"),
            *("--http-port", http_port, "--ws-port", ws_port),
            *("--data-dir", str(self.folder / "coordinator")),
            **environ,
        )
        self.http_url = node.says(r"HTTP API: (https?://\S+)")[1]
        self.ws_url = node.says(r"WebSocket: (wss?://\S+/ws/worker)")[1]
        node.says(r"(?i)ready")
        if first := re.search(r"password[: ]+(\S+)", node.text):
            self.admin_password = first[1]
        return node

    def worker(
        self, user: str, name: str, *, password: str = "correct horse", wait: bool = True, **environ: str
    ) -> Node:
        """Start a worker of a user; it registers a name that is new."""
        node = self.start(
            name,
            *("--role", "worker", "--user", user, "--data-dir", str(self.folder / f"worker-{name}")),
            **{
                "GRIDX_PASSWORD": password,
                "COORDINATOR_HTTP": self.http_url,
                "COORDINATOR_WS": self.ws_url.removesuffix("/ws/worker"),
                "GRIDX_WORKER_NAME": name,
                "GRIDX_WORKER_SANDBOX": "process",
                **environ,
            },
        )
        if wait:
            node.says(r"(?i)connected|joined|online")
        return node

    def shell_environ(self, user: str | None = None, **environ: str) -> dict[str, str]:
        """The environment in which a person of this grid types commands."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("GRIDX_", "COORDINATOR_"))}
        return {
            **inherited,
            "GRIDX_CONFIG": os.devnull,
            "GRIDX_HOME": str(self.folder / f"shell-{user or 'nobody'}"),
            "GRIDX_DATA_DIR": str(self.folder / f"data-{user or 'nobody'}"),
            "GRIDX_COORDINATOR": self.http_url,
            **environ,
        }

    def gridx(
        self,
        *args: str,
        user: str | None = None,
        check: bool = True,
        stdin: str | None = None,
        **environ: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run the shell command against this grid; nobody's signs in nowhere."""
        done = subprocess.run(
            [sys.executable, "-m", "gridx", *args],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=180,
            env=self.shell_environ(user, **environ),
            **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}),
        )
        assert "Traceback" not in done.stderr, done.stderr
        if check:
            assert done.returncode == 0, (
                f"gridx {' '.join(args)} -> {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done


def _until_stopped(grid: GridProcesses) -> Iterator[GridProcesses]:
    yield grid
    for node in reversed(grid.nodes):
        if node.process.poll() is None:
            node.process.terminate()
    for node in grid.nodes:
        try:
            node.process.wait(20)
        except subprocess.TimeoutExpired:
            node.kill()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[GridProcesses]:
    """A grid of real processes; whatever is still running at the end is stopped."""
    yield from _until_stopped(GridProcesses(tmp_path))


@pytest.fixture(scope="module")
def module_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GridProcesses]:
    """A grid of real processes for all tests of a module."""
    yield from _until_stopped(GridProcesses(tmp_path_factory.mktemp("grid")))


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GridProcesses]:
    """A coordinator and a worker of ann for all tests of a module; ann, bob and the admin are signed in."""
    grid = GridProcesses(tmp_path_factory.mktemp("standing"))
    # Removed at the end as in the other fixture, also when it does not come up.
    stopping = _until_stopped(grid)
    next(stopping)
    try:
        grid.coordinator()
        grid.worker("ann", "desk")
        grid.gridx("login", "ann", user="ann", GRIDX_PASSWORD="correct horse")
        grid.gridx("login", "bob", "--register", user="bob", GRIDX_PASSWORD="correct horse")
        grid.gridx("login", "admin", user="admin", GRIDX_PASSWORD=grid.admin_password)
        yield grid
    finally:
        next(stopping, None)
