"""What a process loads is what its role needs: a start is quick, and a worker carries no database."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest


def loaded(text: str) -> set[str]:
    """Top-level packages that ``PYTHONPROFILEIMPORTTIME`` says were imported."""
    return {name.split(".")[0] for name in re.findall(r"^import time:.*\| +([\w.]+)$", text, re.MULTILINE)}


@pytest.mark.parametrize("module", ["gridx.cli", "gridx"])
def test_help_loads_nothing_heavy(module):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", module, "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Usage" in done.stdout
    found = loaded(done.stderr)
    assert "click" in found
    assert not found & {"textual", "tortoise", "aiohttp", "docker", "psutil", "passlib", "rich"}


def test_a_headless_coordinator_loads_no_screen(processes):
    found = loaded(processes.coordinator(PYTHONPROFILEIMPORTTIME="1").text)
    assert "tortoise" in found
    assert not found & {"textual", "rich", "docker"}


def test_a_headless_worker_loads_neither_screen_nor_database(processes):
    processes.coordinator()
    found = loaded(processes.worker("ann", "one", PYTHONPROFILEIMPORTTIME="1").text)
    assert "aiohttp" in found
    assert not found & {"textual", "rich", "tortoise", "passlib"}


@pytest.mark.parametrize("module", ["messages", "errors", "config", "safetext"])
def test_the_foundation_stands_alone(module):
    code = f"import sys, gridx.{module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"aiohttp", "textual", "tortoise", "docker", "psutil", "click"}
