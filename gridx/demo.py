"""``make demo``: a grid of real processes on this machine, the examples run on it, and what they cost.

A coordinator and two workers of two owners start on loopback at free ports, in a folder that is removed at
the end. Everything that is done is a command that anybody can type; it is shown before it runs. Exits with 1
when anything went wrong, and ends what it started in any case.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Final

from gridx.errors import EXIT_INTERRUPTED, EXIT_JOB_FAILED, EXIT_OK, GridError
from gridx.exits import ending

EXAMPLES: Final = Path(__file__).resolve().parents[1] / "examples"
OWNERS: Final = ("alice", "bob")
PROGRAMS: Final = (
    ("alice", "hello.py"),
    ("bob", "monte_carlo_pi.py"),
    ("alice", "linear_system.py"),
    ("bob", "group_by.py"),
    ("alice", "random_forest.py"),
)
ASKED: Final = ("--cpus", "0.5", "--memory", "1G", "--timeout", "2m")
START_S: Final = 60.0
STOP_S: Final = 20.0
COMMAND_S: Final = 180.0


class Demo:
    """One demonstration: its folder, its processes, and whether all went well so far."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._nodes: list[tuple[str, subprocess.Popen[bytes], Path]] = []
        self._url = ""
        self._passwords = {owner: secrets.token_urlsafe(12) for owner in OWNERS}
        self._failed: list[str] = []

    def run(self) -> int:
        """Everything, from the first process to the audit; the exit code."""
        self._start_grid()
        self._title("The machines")
        self._gridx("alice", "workers")
        jobs: list[tuple[str, str]] = []
        self._title("Submit")
        for owner, program in PROGRAMS:
            jobs.append((owner, self._submit(owner, program)))
        for owner, job in jobs:
            self._title(f"Job {job}: its output, and what it cost")
            self._gridx(owner, "output", "-f", job)
            self._gridx(owner, "wait", job)
            self._gridx(owner, "show", job)
        self._title("The ledger")
        for owner in OWNERS:
            self._gridx(owner, "credits", "--entries", "--limit", "8")
            self._gridx(owner, "credits")
        self._gridx("admin", "admin", "audit")
        self._title("Done")
        self._say_which_sandbox()
        for failure in self._failed:
            print(f"FAILED: {failure}")
        return EXIT_JOB_FAILED if self._failed else EXIT_OK

    def stop(self) -> None:
        """End what was started: workers first, so that they can hand in what they have."""
        for _, process, _ in reversed(self._nodes):
            if process.poll() is None:
                process.terminate()
        end = time.monotonic() + STOP_S
        for name, process, _ in reversed(self._nodes):
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                print(f"{name} did not stop in time and is killed", file=sys.stderr)
                process.kill()
                process.wait()

    # -- the grid ----------------------------------------------------------------------------------------

    def _start_grid(self) -> None:
        self._title("A coordinator and two workers, of alice and of bob, on this machine alone")
        local = ("--host", "127.0.0.1", "--http-port", "0", "--ws-port", "0")
        coordinator = self._node("coordinator", *local)
        self._url = self._says(coordinator, r"HTTP API: (http://\S+)")
        ws_url = self._says(coordinator, r"WebSocket: (ws://\S+)")
        self._passwords["admin"] = self._says(coordinator, r"password: (\S+)")
        ports = ("--http-port", self._url.rpartition(":")[2], "--ws-port", re.split("[:/]", ws_url)[4])
        workers = [
            self._node(
                "worker",
                *("--user", owner, "--coordinator-ip", "127.0.0.1", *ports),
                name=owner,
                GRIDX_WORKER_NAME=f"{owner}-pc",
                GRIDX_PASSWORD=self._passwords[owner],
            )
            for owner in OWNERS
        ]
        for worker in workers:
            self._says(worker, r"(connected to) ")
        for user in (*OWNERS, "admin"):
            self._gridx(user, "login", user, GRIDX_PASSWORD=self._passwords[user])

    def _node(self, role: str, *flags: str, name: str = "", **environ: str) -> int:
        name = f"{role} of {name}" if name else role
        folder = self._folder / name.replace(" ", "-")
        log = folder.with_suffix(".log")
        print(f"$ gridx-tui --role {role} --no-ui {' '.join(flags)}", flush=True)
        with log.open("wb") as file:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "gridx.cli",
                    "--role",
                    role,
                    "--no-ui",
                    "--data-dir",
                    str(folder),
                    *flags,
                ],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=self._environ(name.replace(" ", "-"), environ),
                start_new_session=True,
            )
        self._nodes.append((name, process, log))
        return len(self._nodes) - 1

    def _says(self, node: int, pattern: str) -> str:
        """Wait for a line of a node; its end before that is a failure that shows its log."""
        name, process, log = self._nodes[node]
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            text = log.read_text(errors="replace")
            if found := re.search(pattern, text):
                return found[1]
            if process.poll() is not None:
                raise GridError(f"The {name} ended before it was ready:\n{text}", "Type: gridx doctor")
            time.sleep(0.05)
        raise GridError(f"The {name} was not ready in {START_S:.0f} s:\n{text}", "Type: gridx doctor")

    # -- the commands ------------------------------------------------------------------------------------

    def _submit(self, owner: str, program: str) -> str:
        shown = ("submit", f"examples/{program}", *ASKED)
        print(f"{owner}$ gridx {' '.join(shown)}", flush=True)
        done = self._run(owner, ("submit", str(EXAMPLES / program), *ASKED, "--json"), capture=True)
        if done.returncode:
            print(done.stderr, end="")
            raise GridError(f"{program} could not be submitted.", "Type: gridx doctor")
        job = str(json.loads(done.stdout)["id"])
        print(f"job {job}")
        return job

    def _gridx(self, user: str, *arguments: str, **environ: str) -> None:
        print(f"{user}$ gridx {' '.join(arguments)}", flush=True)
        done = self._run(user, arguments, environ)
        if done.returncode:
            self._failed.append(f"{user}: gridx {' '.join(arguments)} ended with {done.returncode}")

    def _run(
        self,
        user: str,
        arguments: tuple[str, ...],
        environ: dict[str, str] | None = None,
        *,
        capture: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gridx", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=capture,
            text=True,
            timeout=COMMAND_S,
            env=self._environ(f"home-{user}", {"GRIDX_COORDINATOR": self._url, **(environ or {})}),
            check=False,
        )

    def _environ(self, home: str, more: dict[str, str]) -> dict[str, str]:
        """This process's environment without settings of another grid; what a worker may use is kept."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("GRIDX_", "COORDINATOR_")) or name.startswith("GRIDX_WORKER_")
        }
        return {**inherited, "GRIDX_CONFIG": os.devnull, "GRIDX_HOME": str(self._folder / home), **more}

    def _say_which_sandbox(self) -> None:
        done = self._run("alice", ("workers", "--json"), capture=True)
        workers = json.loads(done.stdout)["workers"] if done.returncode == 0 else []
        kinds = {worker["offer"]["sandbox"] for worker in workers if worker["offer"]}
        if kinds == {"docker"}:
            print("The jobs ran in containers, on whichever machine was free.")
        else:
            print(
                "No container engine with the runtime image was found: each job ran in a limited process on"
            )
            print(
                "its own owner's machine. For containers install Docker or Podman, then: gridx runtime build"
            )

    @staticmethod
    def _title(text: str) -> None:
        print(f"\n== {text}", flush=True)


def main() -> int:
    """Run the demonstration; its exit code."""
    if not EXAMPLES.is_dir():
        raise GridError(f"The examples are not at {EXAMPLES}.", "Run the demo from a clone: make demo")
    signal.signal(signal.SIGTERM, _interrupted)
    folder = Path(tempfile.mkdtemp(prefix="gridx-demo-"))
    demo = Demo(folder)
    try:
        return demo.run()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    finally:
        demo.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(ending(main))
