"""What a command line says about an array: how many elements, what each is given, or why it is none."""

from __future__ import annotations

import io

import click
import pytest

from gridx.commands.array_options import elements_of
from gridx.commands.array_progress import Rate, bar, words
from gridx.commands.naming import JOB, JobRef
from gridx.errors import InvalidField
from gridx.messages import ArrayProgress

NOTHING = {"lines": None, "span": None, "each": (), "count": None, "max_fails": None, "max_credits": None}


def made(**given):
    return elements_of(**{**NOTHING, **given})


def test_a_range_gives_each_number_as_argument_and_index():
    spec = made(span="7-9", max_fails=2).spec
    assert (spec.first, spec.args, spec.max_fails) == (7, [["7"], ["8"], ["9"]], 2)


def test_lines_are_split_as_a_shell_does_and_empty_ones_are_none(tmp_path, monkeypatch):
    (tmp_path / "args.txt").write_text("\ufeffa 'b c'\n\n  \n\"d\"\\ e # f\n", encoding="utf-8")
    assert made(lines=str(tmp_path / "args.txt")).spec.args == [["a", "b c"], ["d e", "#", "f"]]
    monkeypatch.setattr("sys.stdin", io.StringIO("x y\n"))
    assert made(lines="-").spec.args == [["x", "y"]]


def test_files_are_found_once_each_in_order_and_folders_are_none(tmp_path):
    for name in ("b.csv", "a.csv", "deep/c.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "folder.csv").mkdir()
    found = made(each=(f"{tmp_path}/**/*.csv", f"{tmp_path}/a.csv"))
    assert found.files == [f"{tmp_path}/{name}" for name in ("a.csv", "b.csv", "deep/c.csv")]
    assert found.spec.count == 3


def test_without_any_option_there_is_no_array():
    assert made().spec is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"span": "9-1"}, "'9-1' is no range"),
        ({"span": "x"}, "'x' is no range"),
        ({"span": "0-\N{ARABIC-INDIC DIGIT NINE}"}, "is no range"),
        ({"span": "0-999999"}, "1,000,000 elements"),
        ({"lines": "/nowhere"}, "/nowhere cannot be read"),
        ({"each": ("/nowhere/*.csv",)}, "No file is named like"),
    ],
)
def test_what_makes_no_array_is_said(given, words):
    with pytest.raises(InvalidField, match=words):
        made(**given)


def test_a_line_that_is_none_is_named(tmp_path):
    (tmp_path / "args.txt").write_text("fine\n'not\n")
    with pytest.raises(InvalidField, match="line 2: No closing quotation"):
        made(lines=str(tmp_path / "args.txt"))
    (tmp_path / "args.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidField, match="not UTF-8"):
        made(lines=str(tmp_path / "args.txt"))
    (tmp_path / "args.txt").write_text("\n\n")
    with pytest.raises(InvalidField, match="names no element"):
        made(lines=str(tmp_path / "args.txt"))


def test_two_ways_to_say_how_many_and_bounds_of_nothing_are_wrong_usage():
    with pytest.raises(click.UsageError, match="--range and --count both say"):
        made(span="0-1", count=2)
    with pytest.raises(click.UsageError, match="are for arrays"):
        made(max_fails=1)


@pytest.mark.parametrize(
    ("text", "named"),
    [("17", JobRef(17)), ("17[3]", JobRef(17, 3)), ("17.3", JobRef(17, 3)), ("17[0]", JobRef(17, 0))],
)
def test_elements_are_named_by_their_array_and_index(text, named):
    assert JOB.convert(text, None, None) == named


@pytest.mark.parametrize("text", ["", "0", "x", "17[", "17[x]", "17[-1]", "17..3", "-1", "9" * 17, "17[3].4"])
def test_other_names_are_wrong_usage(text):
    with pytest.raises(click.BadParameter, match="is not an id"):
        JOB.convert(text, None, None)


def progress(**counts: int) -> ArrayProgress:
    none = dict.fromkeys(("queued", "running", "succeeded", "failed", "cancelled"), 0)
    return ArrayProgress(count=sum(counts.values()), **{**none, **counts})


def test_the_time_left_is_told_by_the_rate_of_late():
    rate = Rate()
    assert "left" not in words(progress(queued=10), rate)
    rate.saw(0.0, 0)
    rate.saw(1000.0, 10)
    rate.saw(1010.0, 510)
    # The slow beginning is long past.
    assert rate.per_s == 50
    text = words(progress(queued=480, running=10, succeeded=507, failed=3), rate)
    assert text == "510 of 1,000 ended, 10 running, 3 failed, 50/s, 9.80 s left"


def test_nothing_ended_lately_tells_no_time():
    rate = Rate()
    rate.saw(0.0, 5)
    rate.saw(10.0, 5)
    assert rate.left_s(5) is None


@pytest.mark.parametrize("width", [10, 40, 80, 300])
def test_the_bar_fits_its_line(width):
    for done in (0, 1, 500, 1000):
        some = progress(succeeded=done, queued=1000 - done)
        assert len(bar(some, words(some, Rate()), width)) <= width
