"""Programs in other languages from the shell: the name of the file says which one."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def alone(processes, tmp_path):
    """Runs commands without a grid, jobs as processes."""

    def run(*args: str, check: bool = True):
        return processes.gridx(*args, check=check, GRIDX_COORDINATOR="", GRIDX_WORKER_SANDBOX="process")

    return run


def common_words() -> list[list[str]]:
    text = "".join(path.read_text() for path in sorted((EXAMPLES / "texts").glob("*.txt"))).lower()
    words = Counter("".join(char if char.isascii() and char.isalpha() else " " for char in text).split())
    return [[str(count), word] for word, count in sorted(words.items(), key=lambda one: (-one[1], one[0]))]


@pytest.mark.parametrize(
    ("name", "program"),
    [("common_words.sh", "bash"), ("common_words.js", "node")],
    ids=["bash", "javascript"],
)
def test_the_examples_in_other_languages_run_as_they_stand(alone, tmp_path, name, program):
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed here")
    done = alone(
        *("run", "--input", f"texts={EXAMPLES / 'texts'}", "-d", str(tmp_path / "results")),
        str(EXAMPLES / name),
    )
    wanted = common_words()
    assert [line.split() for line in done.stdout.splitlines()] == wanted[:10]
    [result] = (tmp_path / "results").iterdir()
    if result.suffix == ".json":
        assert len(json.loads(result.read_text())) == len(wanted)
    else:
        assert len(result.read_text().splitlines()) == len(wanted)


def test_a_program_s_exit_code_is_the_command_s_in_every_language(alone, tmp_path):
    (tmp_path / "job.sh").write_text('echo "$1" >&2; exit 7')
    done = alone("run", str(tmp_path / "job.sh"), "--", "an argument", check=False)
    assert done.returncode == 7
    assert "an argument" in done.stderr
    assert alone("run", "--language", "bash", "-c", "echo $((6 * 7))").stdout == "42\n"


def test_a_language_that_nobody_speaks_is_refused_with_what_is_offered(alone):
    done = alone("run", "--language", "cobol", "-c", "DISPLAY 1", check=False)
    assert done.returncode == 2
    assert "language" in done.stderr
    assert "bash" in done.stderr
    assert "python" in done.stderr
