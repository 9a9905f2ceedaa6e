"""How programs end: a sentence, a hint, an exit code; never a traceback."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import click
import pytest

from gridx.errors import InsufficientCredits, NotFound, SetupError, Unreachable
from gridx.exits import ending


def raising(error: BaseException):
    def run() -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SetupError("No.", "Do."), 2),
        (NotFound("No.", "Do."), 3),
        (InsufficientCredits("No.", "Do."), 3),
        (Unreachable("No.", "Do."), 4),
    ],
)
def test_an_error_is_its_sentence_its_hint_and_its_code(capsys, error, code):
    assert ending(raising(error)) == code
    assert capsys.readouterr().err == "No.\nDo.\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interruption_is_130_without_a_word(capsys, error):
    assert ending(raising(error)) == 130
    assert capsys.readouterr() == ("", "")


def test_words_of_others_in_an_error_do_nothing_to_the_terminal(capsys):
    ending(raising(NotFound("\x1b[2Jno\x9b", "\x1b]0;x\x07hint")))
    assert capsys.readouterr().err == "no\nhint\n"


def test_a_defect_is_a_sentence_and_its_traceback_is_in_a_file(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDX_HOME", str(tmp_path / "home"))
    assert ending(raising(KeyError("boom"))) == 1
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert "boom" in err
    kept = tmp_path / "home" / "errors.log"
    assert str(kept) in err
    assert "Traceback" in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600


def test_a_defect_is_told_also_where_nothing_can_be_written(capsys, tmp_path, monkeypatch):
    (tmp_path / "home").write_text("a file in the way")
    monkeypatch.setenv("GRIDX_HOME", str(tmp_path / "home"))
    assert ending(raising(KeyError("boom"))) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_wrong_usage_is_2(capsys):
    assert ending(raising(click.UsageError("Which?"))) == 2
    assert "Which?" in capsys.readouterr().err


def test_a_full_disk_is_no_defect(capsys):
    assert ending(raising(OSError(errno.ENOSPC, "No space left on device"))) == 1
    assert (
        capsys.readouterr().err
        == "Something could not be written: No space left on device.\nMake room for it.\n"
    )


def _gridx(*args: str, **streams) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "gridx", *args]
    return subprocess.run(words, stderr=subprocess.PIPE, text=True, check=False, **streams)


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_what_cannot_be_written_is_told_at_the_end_too():
    with Path("/dev/full").open("w") as full:
        done = _gridx("--help", stdout=full)
    assert done.returncode == 1
    assert done.stderr == "Something could not be written: No space left on device.\nMake room for it.\n"


@pytest.mark.skipif(sys.platform == "win32", reason="a shell closes the stream")
def test_a_program_without_a_stdout_runs_all_the_same():
    done = subprocess.run(
        ["sh", "-c", f"exec '{sys.executable}' -m gridx --help >&-"],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
