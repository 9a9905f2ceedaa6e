"""``gridx run`` and ``gridx doctor`` on a machine that belongs to no grid."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from gridx.hours import DAYS

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def alone(processes):
    """Runs commands where no grid is configured; jobs run in the process sandbox."""
    (processes.folder / "tmp").mkdir()
    environ = {
        "GRIDX_COORDINATOR": "",
        "GRIDX_WORKER_SANDBOX": "process",
        "TMPDIR": str(processes.folder / "tmp"),
    }

    def run(*args: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
        return processes.gridx(*args, check=check, **{**environ, **more})

    run.environ = processes.shell_environ(**environ)
    run.folder = processes.folder
    return run


def test_run_needs_no_grid(alone):
    done = alone("run", str(EXAMPLES / "hello.py"), "--", "you")
    assert done.stdout.startswith("Hello, you!\n")
    assert not list((alone.folder / "tmp").iterdir())


def test_run_exits_as_the_program_does(alone):
    assert alone("run", "-c", "raise SystemExit(5)", check=False).returncode == 5


def test_runs_at_the_same_time_do_not_meet(alone):
    command = [sys.executable, "-m", "gridx", "run", "-c", "import time; time.sleep(1); print('done')"]
    both = [
        subprocess.Popen(
            command, env=alone.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in both:
        stdout, stderr = process.communicate(timeout=120)
        assert (process.returncode, stdout) == (0, "done\n"), stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_behind(alone, number):
    code = "import time\nprint('begun', flush=True)\ntime.sleep(600)"
    run = subprocess.Popen(
        [sys.executable, "-m", "gridx", "run", "-c", code],
        env=alone.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout.readline() == "begun\n"
    run.send_signal(number)
    _, stderr = run.communicate(timeout=60)
    assert run.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert not list((alone.folder / "tmp").iterdir())
    assert not list(Path(alone.environ["GRIDX_DATA_DIR"]).glob("local/*/sandbox/*"))


def test_a_reader_that_goes_away_ends_a_flood_quietly(alone):
    code = "for i in range(200000): print(i)"
    run = subprocess.Popen(
        [sys.executable, "-m", "gridx", "run", "-c", code],
        env=alone.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout.readline() == "0\n"
    run.stdout.close()
    stderr = run.stderr.read()
    run.stderr.close()
    assert run.wait(60) == 141, stderr
    assert "Traceback" not in stderr
    assert "Exception ignored" not in stderr


def test_a_folder_that_cannot_be_made_is_named(alone):
    (alone.folder / "file").write_text("")
    done = alone("run", "-c", "print(1)", check=False, GRIDX_DATA_DIR=str(alone.folder / "file"))
    assert done.returncode == 2
    assert str(alone.folder / "file") in done.stderr
    assert "GRIDX_DATA_DIR" in done.stderr
    assert "defect" not in done.stderr


def test_doctor_runs_a_job_and_says_what_it_found(alone):
    done = alone("doctor", "--json", check=False)
    report = json.loads(done.stdout)
    assert done.returncode == (0 if report["ok"] else 1)
    by_name = {finding["what"]: finding for finding in report["findings"]}
    assert {"Python", "disk", "GPU", "sandbox", "coordinator", "job", "file modes"} <= set(by_name)
    assert by_name["job"]["verdict"] == "ok", by_name["job"]
    assert all(finding["hint"] for finding in report["findings"] if finding["verdict"] == "problem")


def test_what_an_owner_allows_others_keeps_nobody_from_running_a_job_here(alone):
    closed = DAYS[(datetime.now().astimezone().weekday() + 3) % 7]
    done = alone("doctor", "--no-job", check=False, GRIDX_WORKER_HOURS=closed)
    assert f"owner's rules: hours: {closed}" in done.stdout
    assert f"closed now: outside its hours; it opens on {closed} at 00:00" in done.stdout
    assert alone("run", "-c", "print(6 * 7)", GRIDX_WORKER_HOURS=closed).stdout == "42\n"


def test_doctor_finds_files_that_others_can_read(alone):
    home = Path(alone.environ["GRIDX_HOME"])
    home.mkdir(mode=0o700)
    (home / "session.json").write_text("{}")
    (home / "session.json").chmod(0o644)
    done = alone("doctor", "--no-job", check=False)
    assert done.returncode == 1
    assert "PROBLEM" in done.stdout
    assert f"chmod go= {home / 'session.json'}" in done.stdout


def test_doctor_says_when_the_coordinator_is_out_of_reach(alone):
    done = alone("doctor", "--no-job", check=False, GRIDX_COORDINATOR="http://127.0.0.1:1")
    assert done.returncode == 1
    assert "Nothing answers at http://127.0.0.1:1" in done.stdout


def test_runtimes_are_listed_without_an_engine(alone):
    rows = json.loads(alone("runtime", "list", "--json").stdout)["runtimes"]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert [(row["python"], row["sandbox"]) for row in rows] == [(version, "process")]


@pytest.mark.engine
@pytest.mark.parametrize(
    "example", ["hello.py", "monte_carlo_pi.py", "linear_system.py", "group_by.py", "random_forest.py"]
)
def test_a_program_that_needs_no_files_runs_in_a_container(alone, example):
    done = alone("run", str(EXAMPLES / example), "--memory", "1G", GRIDX_WORKER_SANDBOX="docker")
    assert done.stdout
    # On a busy machine it says why the job waits.
    assert [line for line in done.stderr.splitlines() if " waits: " not in line] == []


def test_what_this_machine_can_never_run_is_refused_at_once(alone):
    done = alone("run", "-c", "print(1)", "--cpus", "999", check=False)
    assert done.returncode == 3
    assert "needs 999 cores" in done.stderr
    assert "Ask for less" in done.stderr
