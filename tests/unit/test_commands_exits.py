"""How programs end: a sentence, a hint, an exit code; never a traceback."""

from __future__ import annotations

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
