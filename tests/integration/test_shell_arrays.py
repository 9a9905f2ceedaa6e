"""``gridx map`` and what follows it, as people type it: real processes, a real worker."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = ("--cpus", "0.1", "--memory", "64M", "--timeout", "60s")
TELL = "import os, sys; print(os.environ['GRIDX_INDEX'], os.environ['GRIDX_COUNT'], *sys.argv[1:])"


def mapped(grid, *args: str, code: str = TELL, check: bool = True) -> subprocess.CompletedProcess[str]:
    return grid.gridx("map", "-c", code, *SMALL, *args, user="ann", check=check)


def array_of(done: subprocess.CompletedProcess[str]) -> str:
    found = re.search(r"Array (\d+)", done.stdout)
    assert found, done.stdout
    return found[1]


def lines(grid, array: str) -> list[str]:
    return grid.gridx("output", array, "--all", user="ann").stdout.splitlines()


def test_a_range_runs_once_for_each_number_and_is_gathered_in_order(standing):
    done = mapped(standing, "--range", "3-12")
    array = array_of(done)
    assert "10 succeeded" in done.stdout
    assert f"gridx output {array} --all" in done.stdout
    assert lines(standing, array) == [f"{n} 10 {n}" for n in range(3, 13)]
    found = standing.gridx("output", array, "--all", "--json", user="ann").stdout.splitlines()
    objects = [json.loads(line) for line in found]
    assert [one["index"] for one in objects] == list(range(3, 13))
    assert objects[0] == {
        "index": 3,
        "job": int(array) + 1,
        "state": "succeeded",
        "exit_code": 0,
        "stdout": "3 10 3\n",
        "stderr": "",
    }
    for name in (f"{array}[5]", f"{array}.5", str(int(array) + 3)):
        assert standing.gridx("output", name, user="ann").stdout == "5 10 5\n"
    assert "5 of array" in standing.gridx("show", f"{array}[5]", user="ann").stdout
    shown = standing.gridx("show", array, user="ann").stdout
    assert "10 elements: 10 succeeded" in shown
    listed = json.loads(standing.gridx("jobs", "--json", user="ann").stdout)["jobs"]
    assert [job["id"] for job in listed][:1] == [int(array)]
    assert not any(job.get("array_id") for job in listed)
    page = standing.gridx("jobs", "--array", array, "--limit", "4", user="ann")
    assert f"gridx jobs --array {array} --after {int(array) + 4}" in page.stderr
    page = standing.gridx("jobs", "--array", array, "--state", "succeeded", "--limit", "4", user="ann")
    assert f"gridx jobs --array {array} --state succeeded --after {int(array) + 4}" in page.stderr


def test_each_line_of_a_file_is_the_arguments_of_one_element(standing, tmp_path):
    (tmp_path / "args.txt").write_text("one 'two words'\n\n--deep 7\n")
    array = array_of(mapped(standing, "--args", str(tmp_path / "args.txt"), "--", "first"))
    assert lines(standing, array) == ["0 2 first one two words", "1 2 first --deep 7"]


def test_each_file_is_the_input_and_the_argument_of_one_element(standing, tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.csv").write_text(name * 3)
    array = array_of(
        mapped(
            standing,
            *("--each", str(tmp_path / "*.csv")),
            code="import sys; print(sys.argv[1], open(sys.argv[1]).read())",
        )
    )
    assert lines(standing, array) == ["a.csv aaa", "b.csv bbb", "c.csv ccc"]


def test_files_of_an_array_are_named_by_element_and_by_name(standing, tmp_path):
    code = "import os; i = os.environ['GRIDX_INDEX']; open(f'out/{i}.txt', 'w').write(i)"
    array = array_of(mapped(standing, "--range", "0-2", code=code))
    into = ("-d", str(tmp_path / "all"))
    assert standing.gridx("fetch", array, "1.txt", *into, user="ann").stdout.split() == [
        str(tmp_path / "all/1/1.txt")
    ]
    none = standing.gridx("fetch", array, "1.txt", "7.txt", *into, user="ann", check=False)
    assert none.returncode == 3
    assert f"No element of array {array} gave back 7.txt." in none.stderr
    one = standing.gridx("fetch", f"{array}.2", "-d", str(tmp_path / "one"), user="ann").stdout
    assert one.split() == [str(tmp_path / "one/2.txt")]
    assert "2.txt" in standing.gridx("files", f"{array}[2]", user="ann").stdout
    assert standing.gridx("files", "delete", f"{array}.2", user="ann").stdout.startswith("1 file")
    standing.gridx("files", "delete", array, user="ann")
    assert f"no files of array {array}" in standing.gridx("files", array, user="ann").stderr


def test_what_elements_left_behind_is_told_of_the_array(standing):
    code = "import os; os.symlink('/etc/passwd', 'out/link') if os.environ['GRIDX_INDEX'] == '4' else None"
    done = mapped(standing, "--range", "3-5", code=code)
    array = array_of(done)
    assert f"gridx files {array} says which and why" in done.stderr
    for command in ("show", "files"):
        assert "4/link" in standing.gridx(command, array, user="ann").stdout
    receipt = json.loads(standing.gridx("show", array, "--json", user="ann").stdout)["receipt"]
    assert [one["path"] for one in receipt["left"]] == ["4/link"]


def test_what_takes_room_is_told_by_array(standing):
    code = "import os; open('out/a', 'w').write('x' * 10)"
    array = array_of(mapped(standing, "--range", "0-2", code=code))
    usage = json.loads(standing.gridx("files", "--json", user="ann").stdout)
    assert {"job_id": int(array), "name": "", "files": 3, "bytes": 30} in usage["largest"]
    standing.gridx("files", "delete", array, user="ann")


def test_what_failed_without_its_inputs_is_not_tried_again(standing, tmp_path):
    given = tmp_path / "a.txt"
    given.write_text("gone tomorrow")
    failed = mapped(standing, "--each", str(given), code="raise SystemExit(1)", check=False)
    standing.gridx("files", "prune", user="ann")
    again = standing.gridx("retry", array_of(failed), user="ann", check=False)
    assert again.returncode != 0
    assert "no longer kept" in again.stderr
    assert "gridx map" in again.stderr


def test_what_failed_is_told_by_the_exit_code_and_tried_again_alone(standing):
    code = f"{TELL}\nsys.exit(int(os.environ['GRIDX_INDEX']) in (1, 4))"
    done = mapped(standing, "--count", "6", code=code, check=False)
    array = array_of(done)
    assert done.returncode == 1
    assert "4 succeeded, 2 failed" in done.stdout
    assert f"gridx retry {array}" in done.stdout
    again = array_of(standing.gridx("retry", array, user="ann"))
    standing.gridx("wait", again, user="ann", check=False)
    assert lines(standing, again) == ["1 6", "4 6"]


def test_elements_are_retried_and_a_child_waits_for_the_array(standing):
    code = f"{TELL}\nsys.exit(os.environ['GRIDX_ATTEMPT'] == '1')"
    array = mapped(
        standing, "--count", "2", "--retries", "1", "--retry-delay", "0", "--detach", "-q", code=code
    ).stdout.strip()
    child = standing.gridx(
        "submit", "-c", "print('now')", *SMALL, "--after", array, "-q", user="ann"
    ).stdout.strip()
    shown = standing.gridx("show", child, user="ann").stdout
    assert f"{array} (success)" in shown
    assert standing.gridx("wait", array, child, user="ann").returncode == 0
    element = json.loads(standing.gridx("show", f"{array}[0]", "--json", user="ann").stdout)
    assert (element["failures"], element["attempt"]) == (1, 2)
    assert [part["state"] for part in element["receipt"]["attempts"]] == ["failed", "succeeded"]


def test_ctrl_c_cancels_the_rest(standing):
    run = subprocess.Popen(
        [sys.executable, "-m", "gridx", "map", "-c", "import time; time.sleep(600)", *SMALL, "--count", "50"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=standing.shell_environ("ann", PYTHONUNBUFFERED="1"),
    )
    first = run.stdout.readline()
    array = re.search(r"Array (\d+)", first)[1]
    run.send_signal(signal.SIGINT)
    stdout, stderr = run.communicate(timeout=120)
    assert run.returncode == 130
    assert f"Cancelling array {array}" in stderr
    assert "50 cancelled" in stdout
    assert "Traceback" not in stderr


def test_a_note_says_when_no_worker_could_ever_run_it(standing):
    done = standing.gridx("submit", "-c", "1", "--memory", "900G", "--timeout", "1s", "-q", user="ann")
    job = done.stdout.strip()
    assert f"no worker could run job {job}: needs 900 GiB of memory" in done.stderr
    shown = standing.gridx("show", job, user="ann").stdout
    assert "waits since" in shown
    standing.gridx("cancel", job, user="ann")


def test_a_quote_knows_of_arrays_retries_and_budgets(standing):
    whole = standing.gridx("quote", "-c", "1", *SMALL, "--count", "10", "--retries", "1", user="ann").stdout
    assert "FOR 20 X 1 MIN" in whole.upper()
    held = json.loads(
        standing.gridx("quote", "-c", "1", *SMALL, "--range", "0-9", "--json", user="ann").stdout
    )
    one = json.loads(standing.gridx("quote", "-c", "1", *SMALL, "--json", user="ann").stdout)
    assert held["hold"] == 10 * one["hold"]
    small = standing.gridx(
        "quote", "-c", "1", *SMALL, "--count", "1000", "--max-credits", "0.5", user="ann"
    ).stdout
    assert "0.5 credits, at most its budget" in small


def test_what_makes_no_array_is_wrong_usage(standing):
    done = mapped(standing, "--range", "9-1", check=False)
    assert done.returncode == 2
    assert "'9-1' is no range" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_examples_of_arrays_and_of_dependencies_run_as_they_stand(standing, tmp_path):
    done = standing.gridx("map", str(EXAMPLES / "primes.py"), "--range", "0-9", *SMALL, user="ann")
    counted = lines(standing, array_of(done))
    assert sum(int(line.split()[-1]) for line in counted) == 9592
    command = tmp_path / "gridx"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gridx "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    environ = standing.shell_environ("ann")
    environ["PATH"] = f"{tmp_path}{os.pathsep}{environ.get('PATH', os.defpath)}"
    ran = subprocess.run(
        ["sh", str(EXAMPLES / "pipeline.sh")],
        env=environ,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "9592 primes"
