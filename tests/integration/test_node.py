"""One process of the grid: how it starts, what ends it, and what it leaves of the terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and terminals of POSIX")


class Terminal:
    """A node with a real terminal of its own, as over SSH."""

    def __init__(self, environ: dict[str, str], *args: str, program: tuple[str, ...]) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.before = termios.tcgetattr(slave)
        self.slave = os.dup(slave)
        self.seen = b""
        self.process = subprocess.Popen(
            [sys.executable, *program, *args],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**environ, "TERM": "xterm-256color"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)

    def read(self) -> bytes:
        """Everything it has written so far; its own end is no error."""
        while self.master >= 0 and select.select([self.master], [], [], 0)[0]:
            try:
                data = os.read(self.master, 1 << 16)
            except OSError:
                break
            if not data:
                break
            self.seen += data
        return self.seen

    def says(self, pattern: bytes, until_s: float = 60) -> re.Match[bytes]:
        end = time.monotonic() + until_s
        while not (found := re.search(pattern, self.read())):
            assert self.process.poll() is None, self.seen.decode(errors="replace")
            assert time.monotonic() < end, self.seen.decode(errors="replace")
            time.sleep(0.05)
        return found

    def until(self, condition) -> None:
        """Wait until something is so, while reading."""
        end = time.monotonic() + 60
        while not condition():
            self.read()
            assert self.process.poll() is None, self.seen.decode(errors="replace")
            assert time.monotonic() < end, self.seen.decode(errors="replace")
            time.sleep(0.05)

    def ends(self) -> int:
        """Wait for the end while reading: a full terminal must not hold it up."""
        end = time.monotonic() + 60
        while self.process.poll() is None:
            self.read()
            assert time.monotonic() < end, "it did not end"
            time.sleep(0.05)
        self.read()
        return self.process.returncode

    def hang_up(self) -> None:
        """The window is closed."""
        for fd in (self.slave, self.master):
            os.close(fd)
        self.master = self.slave = -1

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for fd in (self.slave, self.master):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def terminal(processes):
    """Starts nodes with a screen; ends what is left of them."""
    opened: list[Terminal] = []

    def start(*args: str, program: tuple[str, ...] = ("-m", "gridx.cli"), **environ: str) -> Terminal:
        local = ("--http-port", "0", "--ws-port", "0", "--host", "127.0.0.1")
        folder = ("--data-dir", str(processes.folder / f"data-{len(opened)}"))
        whole = processes.shell_environ(GRIDX_COORDINATOR="", GRIDX_WORKER_SANDBOX="process", **environ)
        args = (*args, *(() if "viewer" in args else local), *folder)
        opened.append(Terminal(whole, *args, program=program))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


ALTERNATE_SCREEN = rb"\x1b\[\?1049h"


def healthy(url: str) -> bool:
    with contextlib.suppress(OSError):
        return json.load(urllib.request.urlopen(f"{url}/health", timeout=5))["status"] == "ok"
    return False


def address(node: Terminal, log: Path) -> str:
    """Where the coordinator answers; with a screen the log says it, since the terminal is the screen's."""
    node.until(lambda: log.exists() and "HTTP API: " in log.read_text())
    return re.search(r"HTTP API: (http://\S+)", log.read_text())[1]


def test_the_first_password_is_told_on_the_screen_and_left_on_the_terminal(terminal):
    node = terminal()
    node.says(rb"The administrator of this grid is admin")
    node.process.send_signal(signal.SIGTERM)
    assert node.ends() == 0
    left = node.seen[node.seen.rindex(b"\x1b[?1049l") :]
    assert re.search(rb"First start: the administrator is admin, password: \S{8}", left)
    assert b"gridx admin password admin" in left


def test_a_screen_that_is_left_before_the_grid_has_started_ends_it(terminal):
    node = terminal()
    node.says(rb"starting \.\.\.")
    os.write(node.master, b"\x11")
    assert node.ends() == 0
    assert termios.tcgetattr(node.slave) == node.before
    assert b"Traceback" not in node.seen


def test_what_keeps_a_grid_from_starting_is_said_when_the_screen_has_gone(terminal):
    node = terminal("--role", "coordinator", "--db", "/proc/nothing/grid.db")
    assert node.ends() != 0
    assert b"/proc/nothing" in node.seen[node.seen.rindex(b"\x1b[?1049l") :]
    assert b"Traceback" not in node.seen
    assert termios.tcgetattr(node.slave) == node.before


def test_sigterm_gives_the_terminal_back_as_it_was(terminal):
    node = terminal()
    node.says(ALTERNATE_SCREEN)
    node.process.send_signal(signal.SIGTERM)
    assert node.ends() == 0
    assert termios.tcgetattr(node.slave) == node.before
    assert node.seen.rindex(b"\x1b[?1049l") > node.seen.rindex(b"\x1b[?1049h")
    assert b"Traceback" not in node.seen


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("role", ["coordinator", "worker", "viewer"])
def test_every_role_gives_the_terminal_back_as_it_was(terminal, processes, role, number):
    args, where = ["--role", role, "--user", "ann"], {}
    if role != "coordinator":
        processes.coordinator()
    if role == "worker":
        where = {"COORDINATOR_HTTP": processes.http_url, "COORDINATOR_WS": processes.ws_url}
    if role == "viewer":
        args += ["--coordinator", processes.http_url]
    node = terminal(*args, GRIDX_PASSWORD="correct horse", **where)
    node.says(ALTERNATE_SCREEN)
    # A viewer without a saved sign-in asks for one.
    node.says(rb"Sign in" if role == "viewer" else rb"Jobs")
    node.process.send_signal(number)
    if number == signal.SIGHUP and role != "viewer":
        log = processes.folder / "data-0" / "gridx.log"
        node.until(lambda: "go on without" in log.read_text())
        node.process.send_signal(signal.SIGTERM)
    assert node.ends() == (130 if number == signal.SIGINT else 0)
    assert termios.tcgetattr(node.slave) == node.before
    assert node.seen.rindex(b"\x1b[?1049l") > node.seen.rindex(b"\x1b[?1049h")
    assert b"Traceback" not in node.seen


def test_a_standalone_grid_whose_screen_crashes_goes_on_and_says_so(terminal, processes):
    program = processes.folder / "crashing.py"
    program.write_text(CRASHING)
    node = terminal(program=(str(program),))
    node.says(rb"The dashboard crashed; the standalone goes on")
    node.process.send_signal(signal.SIGTERM)
    assert node.ends() == 0
    assert termios.tcgetattr(node.slave) == node.before


def test_nothing_is_logged_over_the_screen(terminal, processes):
    node = terminal("--log-level", "debug")
    node.says(ALTERNATE_SCREEN)
    url = address(node, processes.folder / "data-0" / "gridx.log")
    assert healthy(url)
    node.says(rb"1 worker")
    node.process.send_signal(signal.SIGTERM)
    assert node.ends() == 0
    # What the log pane shows is drawn; a line of the log as such never goes to the terminal.
    assert not re.search(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (info|debug) gridx", node.seen)
    assert "authenticated (owner: " in (processes.folder / "data-0" / "gridx.log").read_text()


def test_a_coordinator_whose_terminal_goes_away_goes_on(terminal, processes):
    node = terminal("--role", "coordinator")
    log = processes.folder / "data-0" / "gridx.log"
    url = address(node, log)
    node.says(ALTERNATE_SCREEN)
    node.hang_up()
    end = time.monotonic() + 60
    while "go on without" not in log.read_text():
        assert node.process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)
    assert healthy(url)
    node.process.send_signal(signal.SIGTERM)
    assert node.process.wait(30) == 0


CRASHING = """
from gridx.cli import main
from gridx.tui.app import GridApp

GridApp.on_mount = lambda self: 1 / 0
main()
"""


def test_a_coordinator_whose_screen_crashes_goes_on_and_says_so(terminal, processes):
    program = processes.folder / "crashing.py"
    program.write_text(CRASHING)
    node = terminal("--role", "coordinator", program=(str(program),))
    url = node.says(rb"HTTP API: (http://\S+)")[1].decode()
    node.says(rb"The dashboard crashed; the coordinator goes on")
    assert healthy(url)
    node.process.send_signal(signal.SIGINT)
    assert node.ends() == 130
    assert termios.tcgetattr(node.slave) == node.before
    assert b"ZeroDivisionError" not in node.seen
    assert "ZeroDivisionError" in (processes.folder / "data-0" / "gridx.log").read_text()


def test_a_viewer_whose_screen_crashes_ends_with_1(terminal, processes):
    program = processes.folder / "crashing.py"
    program.write_text(CRASHING)
    node = terminal("--role", "viewer", "--coordinator-ip", "127.0.0.1:1", program=(str(program),))
    assert node.ends() == 1
    assert b"ZeroDivisionError" not in node.seen
    assert b"gridx.log" in node.seen


def test_a_viewer_that_knows_no_coordinator_says_what_to_type(terminal):
    node = terminal("--role", "viewer")
    assert node.ends() == 2
    assert b"GRIDX_COORDINATOR" in node.seen


def test_a_standalone_grid_ends_with_its_terminal(terminal):
    node = terminal()
    node.says(ALTERNATE_SCREEN)
    node.hang_up()
    assert node.process.wait(60) == 0


def test_without_a_terminal_it_says_what_to_type(processes):
    done = subprocess.run(
        [sys.executable, "-m", "gridx.cli"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=processes.shell_environ(),
        check=False,
    )
    assert done.returncode == 2
    assert "--no-ui" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_is_130_and_clean(processes):
    node = processes.coordinator()
    node.process.send_signal(signal.SIGINT)
    assert node.process.wait(30) == 130
    assert "Traceback" not in node.text


def test_what_was_started_with_nohup_does_not_hang_up(processes):
    log = processes.folder / "nohup.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gridx.cli", "--role", "coordinator", "--no-ui"),
                *("--host", "127.0.0.1", "--http-port", "0", "--ws-port", "0"),
                *("--data-dir", str(processes.folder / "nohup")),
            ],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=processes.shell_environ(),
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
        )
    try:
        end = time.monotonic() + 60
        while not (found := re.search(r"HTTP API: (http://\S+)[\s\S]*ready", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(signal.SIGHUP)
        assert healthy(found[1])
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_a_second_signal_gives_running_jobs_back_at_once(processes):
    processes.coordinator()
    worker = processes.worker("ann", "one", GRIDX_WORKER_DRAIN_S="600")
    processes.gridx("login", "ann", user="ann", GRIDX_PASSWORD="correct horse")
    code = "import time\nprint('begun', flush=True)\ntime.sleep(600)"
    job = processes.gridx("submit", "-q", "-c", code, "--cpus", "0.1", user="ann").stdout.strip()
    worker.says(r"attempt \d+ of job \d+ started")
    worker.process.send_signal(signal.SIGTERM)
    worker.says("SIGTERM received")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(30) == 0
    shown = json.loads(processes.gridx("show", job, "--json", user="ann").stdout)
    assert shown["state"] == "queued"
    assert [attempt["state"] for attempt in shown["attempts"]] == ["released"]
    assert shown["receipt"]["charge"] == 0


def test_a_worker_that_its_owner_drains_leaves_and_ends(processes):
    processes.coordinator()
    worker = processes.worker("ann", "one")
    processes.gridx("login", "ann", user="ann", GRIDX_PASSWORD="correct horse")
    fleet = json.loads(processes.gridx("workers", "--json", user="ann").stdout)["workers"]
    processes.gridx("workers", "drain", str(fleet[0]["id"]), user="ann")
    assert worker.process.wait(60) == 0


def test_json_logs_are_one_object_a_line(processes):
    node = processes.coordinator(GRIDX_LOG_FORMAT="json")
    processes.worker("ann", "one", GRIDX_LOG_FORMAT="json")
    node.says("authenticated")
    assert node.stop() == 0
    lines = [line for line in node.text.splitlines() if line.startswith("{")]
    found = [json.loads(line) for line in lines]
    assert any(line["message"] == "worker 1 authenticated (owner: ann)" for line in found)
    assert all({"time", "level", "logger", "message"} <= set(line) for line in found)


def test_a_password_on_the_command_line_works_and_warns(processes):
    processes.coordinator()
    node = processes.worker("ann", "one", password="", wait=False)
    assert node.process.wait(30) == 3
    worker = processes.start(
        "two",
        *("--role", "worker", "--user", "ann", "--password", "correct horse"),
        *("--data-dir", str(processes.folder / "worker-two")),
        COORDINATOR_HTTP=processes.http_url,
        COORDINATOR_WS=processes.ws_url,
        GRIDX_WORKER_SANDBOX="process",
    )
    worker.says("connected to")
    assert "others on this machine can read --password" in worker.text
    assert worker.stop() == 0


def test_a_password_file_works(processes):
    processes.coordinator()
    secret = processes.folder / "secret"
    secret.write_text("correct horse\n")
    worker = processes.start(
        "one",
        *("--role", "worker", "--user", "ann", "--password-file", str(secret)),
        *("--data-dir", str(processes.folder / "worker-one")),
        COORDINATOR_HTTP=processes.http_url,
        COORDINATOR_WS=processes.ws_url,
        GRIDX_WORKER_SANDBOX="process",
    )
    worker.says("connected to")
    home = processes.folder / "home-one"
    assert (home / "worker_ann.json").stat().st_mode & 0o777 == 0o600
    assert worker.stop() == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--role", "worker", "--coordinator-ip", "127.0.0.1"), "--user"),
        (("--role", "worker", "--user", "ann"), "--coordinator-ip"),
        (("--config", "/does/not/exist.toml"), "There is no configuration file"),
        (("--role", "coordinator", "--data-dir", "/proc/gridx"), "/proc/gridx"),
        (("--role", "coordinator", "--host", "203.0.113.1", "--http-port", "0"), "203.0.113.1"),
    ],
)
def test_what_keeps_it_from_starting_is_a_sentence(processes, args, words):
    node = processes.start("bad", *args)
    assert node.process.wait(60) == 2, node.text
    assert words in node.text
    assert "Traceback" not in node.text


def test_a_worker_asks_for_the_password_on_its_terminal(terminal, processes):
    processes.coordinator()
    where = {"COORDINATOR_HTTP": processes.http_url, "COORDINATOR_WS": processes.ws_url}
    node = terminal("--role", "worker", "--no-ui", "--user", "ann", **where)
    node.says(rb"Password .*: ")
    os.write(node.master, b"correct house\n")
    node.says(rb"The same again registers ann: ")
    os.write(node.master, b"correct horse\n")
    node.says(rb"again registers ann: (?s:.*)again registers ann: ")
    os.write(node.master, b"correct horse\n")
    node.says(rb"connected to ")
    assert b"correct h" not in node.seen
    node.process.send_signal(signal.SIGTERM)
    assert node.ends() == 0


def test_ctrl_c_at_the_password_prompt_gives_the_terminal_back(terminal, processes):
    processes.coordinator()
    where = {"COORDINATOR_HTTP": processes.http_url, "COORDINATOR_WS": processes.ws_url}
    node = terminal("--role", "worker", "--no-ui", "--user", "ann", **where)
    node.says(rb"Password .*: ")
    os.write(node.master, b"\x03")
    assert node.ends() == 130
    assert termios.tcgetattr(node.slave) == node.before
    assert b"Traceback" not in node.seen


def test_a_viewer_shows_a_coordinator_elsewhere(terminal, processes):
    processes.coordinator()
    address = processes.http_url.removeprefix("http://")
    node = terminal("--role", "viewer", "--coordinator-ip", address)
    node.says(ALTERNATE_SCREEN)
    node.process.send_signal(signal.SIGTERM)
    assert node.ends() == 0
    assert healthy(processes.http_url)
