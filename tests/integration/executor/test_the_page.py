"""``docs/python.md``: each of its blocks runs, and it names what there is."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys

import pytest

import gridx
from gridx import executor as package
from gridx.client import Client
from gridx.executor import JobError, pool


@pytest.fixture
def page(repository):
    return (repository / "docs" / "python.md").read_text()


def test_every_block_of_the_page_runs(ann, page, tmp_path):
    pytest.importorskip("joblib")
    program = "\n\n".join(re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    (tmp_path / "page.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "page.py"],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=tmp_path,
        env={**os.environ, "GRIDX_COORDINATOR": ann.url, "GRIDX_TOKEN": ann.token},
    )
    assert done.returncode == 0, done.stderr
    assert "KeyError: 'missing'" in done.stdout
    assert (tmp_path / "results" / "north.txt").read_text() == "8.0\n"
    assert (tmp_path / "copies" / "copy.csv").read_text() == (tmp_path / "sales.csv").read_text()
    assert b"step 2" in done.stdout.encode()


def test_the_page_names_every_method_of_the_client(page):
    told = set(re.findall(r"`(\w+)`", page[page.index("## Client") :]))
    methods = {
        name
        for name, member in inspect.getmembers(Client)
        if not name.startswith("_") and name != "close" and callable(member)
    }
    assert methods <= told


def test_the_page_names_every_option(page):
    options = set(pool.Options.__annotations__)
    assert options <= set(re.findall(r"`(\w+)`", page))


def test_the_page_names_every_exception_of_a_call(page):
    public = {name: getattr(package, name) for name in package.__all__}
    kinds = {
        name for name, found in public.items() if isinstance(found, type) and issubclass(found, JobError)
    }
    assert kinds <= set(re.findall(r"`(\w+)`", page))


def test_the_package_gives_what_it_names_and_loads_it_late():
    code = "import sys, gridx; print('aiohttp' in sys.modules, 'cloudpickle' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
    for name in gridx.__all__:
        assert getattr(gridx, name) is not None
    with pytest.raises(AttributeError):
        gridx.nothing  # noqa: B018
