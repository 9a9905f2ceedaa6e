"""A real terminal: type a job, run it, resize, quit, and find the shell as it was."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid

import pytest

from tests.conftest import wait_for

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


class Terminal:
    """A shell in a tmux of its own."""

    def __init__(self, folder, columns: int, lines: int) -> None:
        self.socket = f"gridx-{uuid.uuid4().hex[:12]}"
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith(("GRIDX_", "COORDINATOR_", "TMUX"))
        }
        self.environ = {
            **inherited,
            "COLUMNS": "80",  # as some shells export them; the terminal knows better
            "LINES": "24",
            "GRIDX_CONFIG": os.devnull,
            "GRIDX_HOME": str(folder / "home"),
            "GRIDX_DATA_DIR": str(folder / "data"),
            "GRIDX_HTTP_PORT": "0",
            "GRIDX_WS_PORT": "0",
            "GRIDX_WORKER_SANDBOX": "process",
            "GRIDX_USER": "ann",
        }
        size = ("-x", str(columns), "-y", str(lines))
        self.tmux("-f", os.devnull, "new-session", "-d", *size, "/bin/sh")

    def tmux(self, *args: str) -> str:
        done = subprocess.run(
            ["tmux", "-L", self.socket, *args], env=self.environ, capture_output=True, text=True, timeout=30
        )
        return done.stdout

    def type(self, text: str, *keys: str) -> None:
        if text:
            self.tmux("send-keys", "-l", text)
        for key in keys:
            self.tmux("send-keys", key)

    def sees(self, text: str) -> None:
        try:
            wait_for(lambda: text in self.tmux("capture-pane", "-p"), text, 40)
        except BaseException:
            print(self.tmux("capture-pane", "-p"))  # what it saw instead
            raise

    def resize(self, columns: int, lines: int) -> None:
        self.tmux("resize-window", "-x", str(columns), "-y", str(lines))


@pytest.fixture
def terminal(tmp_path):
    made = Terminal(tmp_path, 200, 60)
    yield made
    made.tmux("kill-server")


def test_a_job_is_typed_run_and_left_with_the_shell_as_it_was(terminal, tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    terminal.type(f"stty -a | tail -n +2 > {before}", "Enter")
    terminal.type(f"{sys.executable} -m gridx.cli; echo ended with $?", "Enter")
    terminal.sees("A sample job")
    terminal.sees("1 worker")
    terminal.type("", "F7", "Delete")
    terminal.type("for n in range(3): print('typed by hand', n * 7)", "F5")
    terminal.sees("typed by hand 14")
    terminal.sees("succeeded")
    terminal.resize(59, 15)
    terminal.sees("60 columns and 16 lines")
    terminal.resize(80, 24)
    terminal.sees("F5 Run")
    terminal.resize(200, 60)
    terminal.sees("typed by hand 14")
    terminal.type("", "C-c")
    terminal.sees("typed by hand 14")
    terminal.type("", "C-q")
    terminal.sees("ended with 0")
    terminal.type(f"stty -a | tail -n +2 > {after}", "Enter")
    wait_for(lambda: after.exists() and after.stat().st_size, "stty", 20)
    assert after.read_text() == before.read_text()
