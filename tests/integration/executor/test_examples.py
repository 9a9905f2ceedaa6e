"""The examples as a person types them, on the default runtime: data in, results out, models loaded."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

pytestmark = pytest.mark.parametrize(
    "ann", [pytest.param("containers", marks=pytest.mark.engine)], indirect=True, scope="module"
)

ROWS = 1_000_000


@pytest.fixture
def here(ann, repository, tmp_path) -> Callable[..., str]:
    """Runs a program of the examples here, in a folder of the test's own, as somebody who is signed in."""

    def run(name: str, *args: str, stdin: str = "") -> str:
        done = subprocess.run(
            [sys.executable, str(repository / "examples" / name), *args],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=200,
            cwd=tmp_path,
            env={**os.environ, "GRIDX_COORDINATOR": ann.url, "GRIDX_TOKEN": ann.token},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def gridx(ann, repository, tmp_path, monkeypatch) -> Callable[..., str]:
    """Types a command in the test's folder; paths of examples are the repository's."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> str:
        there = [str(repository / arg) if arg.startswith("examples/") else arg for arg in args]
        return ann.processes.gridx(*there, GRIDX_TOKEN=ann.token).stdout

    return run


def number_in(text: str) -> str:
    found = re.search(r"\d+", text)
    assert found, text
    return found[0]


def test_a_linear_system(gridx):
    pytest.importorskip("numpy")
    output = gridx("run", "examples/linear_system.py", "--memory", "1G", "--cpus", "1")
    assert "500 equations with 500 unknowns" in output
    error = re.search(r"largest error: (\S+)", output)
    assert float(error[1]) < 1e-9


def test_a_group_by_over_a_million_rows_split_over_an_array(gridx, here, tmp_path):
    pandas = pytest.importorskip("pandas")
    here("make_data.py", str(ROWS))
    assert sum(1 for _ in (tmp_path / "sales.csv").open()) == ROWS + 1
    array = number_in(
        gridx(
            *("map", "examples/group_by_part.py", "--range", "0-3", "--input", "sales.csv"),
            *("--memory", "1G", "--cpus", "0.5", "--timeout", "5m"),
        )
    )
    gridx("wait", array)
    total = here("group_by_total.py", stdin=gridx("output", array, "--all"))
    sales = pandas.read_csv(tmp_path / "sales.csv")
    assert total.startswith(f"{ROWS:,} sales\n")
    for shop, revenue in sales.groupby("shop")["revenue"].sum().items():
        assert re.search(rf"^{shop} +{re.escape(f'{revenue:,.2f}')}$", total, re.MULTILINE)
    best = sales.groupby("month")["revenue"].sum().idxmax()
    assert f"best month: {best}," in total


def test_a_random_forest_whose_model_comes_back(gridx, here, tmp_path):
    pytest.importorskip("sklearn")
    here("make_data.py", "10")
    job = number_in(
        gridx(
            *("submit", "examples/forest_train.py", "--input", "flowers.csv", "--memory", "1G"),
            *("--timeout", "5m"),
        )
    )
    gridx("wait", job)
    assert float(re.search(r"accuracy: (\S+)", gridx("output", job))[1]) > 0.8
    gridx("fetch", job, "-d", "results")
    used = here("forest_use.py", "results/forest.pickle", "5.0", "3.4", "1.5", "0.2")
    assert used.endswith(": setosa\n")


def test_functions_on_the_grid(here):
    assert here("executor.py").endswith("in all: 4203\n")


def test_a_search_on_the_grid(here):
    pytest.importorskip("sklearn")
    pytest.importorskip("joblib")
    assert re.fullmatch(r"best of 2: \{.*\}, accuracy 0\.\d+\n", here("search.py"))


def test_what_a_job_sees(gridx):
    assert gridx("run", "examples/hello.py", "--", "you").startswith("Hello, you!\n")


@pytest.mark.parametrize("name", ["monte_carlo_pi.py", "group_by.py", "random_forest.py"])
def test_the_other_programs(gridx, name):
    pytest.importorskip("sklearn")
    assert gridx("run", f"examples/{name}", "--memory", "1G")


def test_every_example_is_run_by_a_test(ann, repository):
    tests = "".join(path.read_text() for path in (repository / "tests" / "integration").rglob("test_*.py"))
    assert [path.name for path in (repository / "examples").glob("*.*") if path.name not in tests] == []
