"""Files as people type them: sent with a job, listed, fetched and deleted; also where there is no grid."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = ("--cpus", "0.1", "--memory", "64M", "--timeout", "60s")
PROGRAM = """
import os, pathlib
print(sorted(os.listdir('.')), open('data.csv').read())
pathlib.Path('out/sub').mkdir()
pathlib.Path('out/sum.txt').write_text('42')
pathlib.Path('out/sub/more.bin').write_bytes(bytes(3000))
os.symlink('/etc/passwd', 'out/link')
"""


def as_json(done: subprocess.CompletedProcess[str]):
    return json.loads(done.stdout)


def typed(environ: dict[str, str], folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """A command in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "gridx", *args],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=180,
        stdin=subprocess.DEVNULL,
    )


def written(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data.csv").write_text("1,2,3")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a").write_text("a")
    return tmp_path


def test_a_job_with_files_from_submit_to_delete(standing, folder):
    def gridx(*args: str) -> subprocess.CompletedProcess[str]:
        done = typed(standing.shell_environ("ann"), folder, *args)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    job = gridx("submit", "-c", PROGRAM, *SMALL, "-q", "--input", "data.csv", "--input", "my=notes").stdout
    job = job.strip()
    gridx("wait", job)
    assert gridx("output", job).stdout == "['data.csv', 'job.py', 'my', 'out'] 1,2,3\n"

    listed = gridx("files", job)
    assert [line.split()[-1] for line in listed.stdout.splitlines()[1:3]] == ["sub/more.bin", "sum.txt"]
    assert "link" in listed.stdout
    as_data = as_json(gridx("files", job, "--json"))
    assert [file["path"] for file in as_data["files"]] == ["sub/more.bin", "sum.txt"]
    assert [one["path"] for one in as_data["left"]] == ["link"]
    shown = gridx("show", job).stdout
    assert f"2 files, 2.9 KiB: gridx fetch {job}" in shown
    assert "out/link" in shown
    receipt = as_json(gridx("show", job, "--json"))["receipt"]
    assert [file["path"] for file in receipt["attempts"][0]["files"]] == ["sub/more.bin", "sum.txt"]
    assert [one["path"] for one in receipt["attempts"][0]["left"]] == ["link"]

    gridx("fetch", job)
    assert written(folder / f"job-{job}") == ["sub/more.bin", "sum.txt"]
    gridx("fetch", job, "-d", "one", "sum.txt")
    assert (folder / "one/sum.txt").read_text() == "42"
    (folder / "one/sum.txt").write_text("43")
    again = typed(standing.shell_environ("ann"), folder, "fetch", job, "-d", "one", "sum.txt")
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
    gridx("fetch", job, "-d", "one", "--overwrite")
    assert (folder / "one/sum.txt").read_text() == "42"

    usage = gridx("files").stdout
    assert "5.0 GiB" in usage
    assert as_json(gridx("files", "--json"))["output_bytes"] >= 3002
    assert "2 files were deleted" in gridx("files", "delete", job).stdout
    nothing = gridx("fetch", job, "-d", "none")
    assert "link" in gridx("files", job).stdout
    assert "says why" in nothing.stderr
    assert "2 files were deleted" in gridx("files", "prune").stdout


def test_files_of_others_are_not_there(standing, folder):
    done = standing.gridx("submit", "-c", "open('out/x','w').close()", *SMALL, "-q", user="ann")
    job = done.stdout.strip()
    standing.gridx("wait", job, user="ann")
    for command in (("files", job), ("fetch", job, "-d", str(folder / "x")), ("files", "delete", job)):
        refused = standing.gridx(*command, user="bob", check=False)
        assert refused.returncode == 3
        assert "not yours" in refused.stderr
    assert not (folder / "x").exists()


@pytest.mark.parametrize("command", ["submit", "run"])
def test_a_missing_file_is_said_before_anything_is_sent(processes, folder, command):
    environ = processes.shell_environ(GRIDX_COORDINATOR="http://127.0.0.1:9")
    done = typed(environ, folder, command, "-c", "1", "--input", "dta.csv")
    assert done.returncode == 2
    assert "dta.csv cannot be sent" in done.stderr
    assert "Did you mean data.csv?" in done.stderr


def test_only_what_is_asked_for_comes_back(standing, folder):
    def gridx(*args: str) -> str:
        return standing.gridx(*args, user="ann").stdout.strip()

    code = "for n in ('a.csv', 'b.log', 'c.csv'): open('out/' + n, 'w').close()"
    job = gridx("submit", "-c", code, *SMALL, "-q", "--output", "*.csv")
    gridx("wait", job)
    assert [one["path"] for one in json.loads(gridx("files", job, "--json"))["files"]] == ["a.csv", "c.csv"]


def test_run_without_a_grid_takes_files_along_and_leaves_them_in_out(processes, folder):
    environ = processes.shell_environ(GRIDX_COORDINATOR="", GRIDX_WORKER_SANDBOX="process")
    done = typed(environ, folder, "run", "-c", PROGRAM, "--input", "data.csv")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['data.csv', 'job.py', 'out'] 1,2,3\n"
    assert written(folder / "out") == ["sub/more.bin", "sum.txt"]
    assert "2 files (2.9 KiB) are in out" in done.stderr
    assert "out/link was left behind" in done.stderr
    # As a program does that runs here, the next run writes over it.
    (folder / "out/sum.txt").write_text("old")
    assert typed(environ, folder, "run", "-c", PROGRAM, "--input", "data.csv").returncode == 0
    assert (folder / "out/sum.txt").read_text() == "42"


def test_the_example_counts_the_words_of_a_folder(processes, folder):
    environ = processes.shell_environ(GRIDX_COORDINATOR="", GRIDX_WORKER_SANDBOX="process")
    done = typed(
        environ,
        EXAMPLES.parent,
        *("run", "--input", "examples/texts", "-d", str(folder / "results"), "examples/count_words.py"),
        *("--", "examples/texts"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "idle.txt: 20 words\njobs.txt: 21 words\n"
    assert written(folder / "results") == ["reports/summary.txt", "words.csv"]
    assert (folder / "results/words.csv").read_text().splitlines()[:2] == ["word,count", "the,8"]


def test_files_of_an_array_are_fetched_by_index(standing, folder):
    def gridx(*args: str) -> str:
        done = typed(standing.shell_environ("ann"), folder, *args)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    code = (
        "import os; i = os.environ['GRIDX_INDEX']\n"
        "if i != '1': open('out/r.txt', 'w').write(open('data.csv').read() + ':' + i)"
    )
    gridx("map", "-c", code, *SMALL, "--range", "0-2", "--input", "data.csv")
    array = json.loads(gridx("jobs", "--limit", "1", "--json"))["jobs"][0]
    listed = gridx("files", str(array["id"])).splitlines()[1:]
    assert [line.split()[0] for line in listed] == ["0", "2"]
    gridx("fetch", str(array["id"]), "-d", "all")
    assert written(folder / "all") == ["0/r.txt", "2/r.txt"]
    assert (folder / "all/2/r.txt").read_text() == "1,2,3:2"
    assert "2 files were deleted" in gridx("files", "delete", str(array["id"]))
    again = typed(standing.shell_environ("ann"), folder, "fetch", str(array["id"]))
    assert f"no files of array {array['id']}" in again.stderr
