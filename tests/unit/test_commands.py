"""What commands print and read: aligned, harmless, exact."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta

import click
import pytest

from gridx.commands import command, printing, streaming
from gridx.commands.quantities import CREDITS, DURATION, JOB_ID, MEMORY, VARIABLE
from gridx.commands.spec import spec_of
from gridx.errors import InvalidField, TooLarge
from gridx.messages import MAX_CODE_BYTES


def test_a_table_is_aligned_also_with_wide_characters(capsys):
    printing.table(("ID", "NAME", "X"), [("1", "漢字", "a"), ("20", "ab", "b")], right=("ID",))
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["ID  NAME  X", " 1  漢字  a", "20  ab    b"]


def test_no_summary_of_a_command_is_cut_at_80_columns():
    def cut(group: click.Group) -> list[str]:
        context = click.Context(group)
        below = {name: group.get_command(context, name) for name in group.list_commands(context)}
        room = 80 - 4 - max(map(len, below))
        return [
            *(name for name, one in below.items() if one.get_short_help_str(room).endswith("...")),
            *(each for one in below.values() if isinstance(one, click.Group) for each in cut(one)),
        ]

    assert cut(command) == []


def test_a_table_and_fields_let_nothing_through(capsys):
    printing.table(("NAME", "NOTE"), [("\x1b[2Jx\ny", "\x9b1mz")])
    printing.fields([("name", "\x1b]0;t\x07a\nb"), ("empty", "")])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x9b" not in out
    assert out.splitlines() == ["NAME  NOTE", "x y   z", "name  a b"]


def test_json_is_ascii(capsys):
    printing.as_json({"name": "\x9b\u202e\x7f漢"})
    out = capsys.readouterr().out
    assert out.isascii()
    assert "\x7f" not in out
    assert json.loads(out) == {"name": "\x9b\u202e\x7f漢"}


@pytest.mark.parametrize(
    ("duration_s", "words"),
    [
        (0, "0.00 s"),
        (0.424, "0.42 s"),
        (12.4, "12 s"),
        (200, "3 min 20 s"),
        (300, "5 min"),
        (7500, "2 h 5 min"),
        (400_000, "4 d 15 h"),
    ],
)
def test_a_duration_in_words(duration_s, words):
    assert printing.seconds(duration_s) == words
    began = datetime(2026, 1, 1, tzinfo=UTC)
    assert printing.took(began, began + timedelta(seconds=duration_s)) == words


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB")]
)
def test_bytes_in_words(count, words):
    assert printing.size(count) == words


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (DURATION, "90", 90),
        (DURATION, "1h30m", 5400),
        (MEMORY, "1G", 1024),
        (MEMORY, "1.5GiB", 1536),
        (MEMORY, "300", 300),
        (CREDITS, "0.000001", 1),
        (CREDITS, "1,000.5", 1_000_500_000),
        (VARIABLE, "A=b=c", ("A", "b=c")),
        (VARIABLE, "A=", ("A", "")),
    ],
)
def test_quantities_are_read_as_people_write_them(kind, text, value):
    assert kind.convert(text, None, None) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (DURATION, "soon"),
        (DURATION, "-5s"),
        (MEMORY, "lots"),
        (MEMORY, "-1G"),
        (CREDITS, "0"),
        (CREDITS, "1e400"),
        (CREDITS, "0.0000001"),
        (CREDITS, "nan"),
        (VARIABLE, "A"),
        (VARIABLE, "1A=x"),
    ],
)
def test_what_is_no_quantity_is_wrong_usage(kind, text):
    with pytest.raises(click.UsageError):
        kind.convert(text, None, None)


def described(*words: str, code: str | None = None, **fields: object):
    return spec_of(words, **{"code": code, "name": None, "env": (), **fields})


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("job.py", "python"),
        ("job.sh", "bash"),
        ("Job.BASH", "bash"),
        ("job.js", "javascript"),
        ("job.cjs", "javascript"),
        ("job", "python"),
        ("job.txt", "python"),
    ],
)
def test_the_file_s_name_says_the_language_unless_one_is_named(tmp_path, name, language):
    (tmp_path / name).write_text("x")
    assert described(str(tmp_path / name), code=None).language == language
    assert described(str(tmp_path / name), code=None, language="ruby").language == "ruby"


def test_a_job_from_a_file_is_named_after_it(tmp_path):
    path = tmp_path / "work.py"
    path.write_bytes(b"\xef\xbb\xbfprint('\xc3\xa9')\n")
    spec = described(str(path), "one", "--two", memory_mb=100, cpus=None)
    assert (spec.name, spec.code, spec.args) == ("work.py", "print('é')\n", ["one", "--two"])
    assert (spec.memory_mb, spec.cpus) == (100, 1.0)


def test_with_code_every_word_is_an_argument():
    assert described("a", "b", code="pass").args == ["a", "b"]


@pytest.mark.parametrize(
    ("words", "fields", "error"),
    [
        ((), {}, click.UsageError),
        (("/does/not/exist.py",), {}, InvalidField),
        (("/",), {}, InvalidField),
        ((), {"code": "x" * (MAX_CODE_BYTES + 1)}, TooLarge),
        ((), {"code": "pass", "cpus": -1.0}, InvalidField),
        ((), {"code": "pass", "name": "a\nb"}, InvalidField),
        ((), {"code": "pass", "runtime": "UPPER"}, InvalidField),
        ((), {"code": "\udcff"}, InvalidField),
    ],
)
def test_what_makes_no_job_is_refused_before_it_is_sent(words, fields, error):
    with pytest.raises(error):
        described(*words, **fields)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "binary.py"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidField, match="UTF-8"):
        described(str(path))


def test_output_is_cleaned_over_the_borders_of_chunks(capfdbinary):
    writer = streaming.Writer("stdout", raw=False)
    for part in (b"a\x1b", b"[2", b"Jb\xc3", b"\xa9\xff\n", b"\x1b]52;c;", b"eA==\x07end"):
        writer.write(part)
    writer.end()
    assert capfdbinary.readouterr().out.decode() == "abé\ufffd\nend"


def test_raw_output_is_the_bytes_as_they_are(capfdbinary):
    data = bytes(range(256))
    writer = streaming.Writer("stderr", raw=True)
    writer.write(data)
    writer.end()
    assert capfdbinary.readouterr().err == data


def test_no_colours_where_they_are_not_wanted(monkeypatch):
    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert printing.coloured(Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not printing.coloured(Terminal())
    monkeypatch.delenv("NO_COLOR")
    assert not printing.coloured(sys.__stdout__) or sys.__stdout__.isatty()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"cpus": -1.0}, "--cpus must be at least 0.1."),
        ({"memory_mb": 1}, "--memory must be at least 32 MiB."),
        ({"timeout_s": 10**9}, "--timeout must be at most 2592000 seconds."),
        ({"max_attempts": 0}, "--max-attempts must be at least 1."),
        ({"python": "2.7"}, "--python must be a version like 3.11."),
    ],
)
def test_a_refused_value_is_told_by_the_name_of_its_option(asked, words):
    with pytest.raises(InvalidField) as refused:
        spec_of((), code="print()", name=None, env=(), **asked)
    assert refused.value.message == words


@pytest.mark.parametrize("text", ["abc", "0", "-1", "1.5", str(2**60)])
def test_what_is_no_id_is_said_plainly(text):
    with pytest.raises(click.BadParameter, match="is not an id: a whole number, like 12"):
        JOB_ID.convert(text, None, None)


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [(1, "core", "1 core"), (0.5, "core", "0.5 cores"), (2, "GPU", "2 GPUs"), (2, "GiB", "2 GiB")],
)
def test_a_number_with_its_unit(value, unit, words):
    assert printing.counted(value, unit) == words
