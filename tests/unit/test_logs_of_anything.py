"""Whatever a log line is about, it is one line (or its traceback, indented) and nothing of it is obeyed."""

from __future__ import annotations

import io
import json
import logging
import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.tricks import PIECES, TRICKS

from gridx.logs import JsonFormat, TextFormat

HEAD = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (?:info|error) gridx\.worker ")
anything = st.one_of(
    st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=10)), max_size=8).map("".join),
    st.text(max_size=60),
)


def written(
    formatter: logging.Formatter, message: str, *args: object, error: BaseException | None = None
) -> str:
    """What a stream gets of one record."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    info = (type(error), error, error.__traceback__) if error else None
    level = logging.ERROR if error else logging.INFO
    handler.handle(logging.LogRecord("gridx.worker", level, "", 0, message, args, info))
    return stream.getvalue()


def raised(text: str) -> BaseException:
    try:
        try:
            raise KeyError(text)
        except KeyError as first:
            first.add_note(text)
            raise ValueError(text) from first
    except ValueError as error:
        return error


def obeyed(text: str) -> list[str]:
    bad = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return [ascii(char) for char in text if char != "\n" and unicodedata.category(char) in bad]


@settings(max_examples=150, deadline=None)
@given(anything, anything)
def test_a_text_line_is_one_line_with_its_traceback_indented(one, two):
    for text in (
        written(TextFormat(), "attempt %s said %s", one, two),
        written(TextFormat(), "it met %s", one, error=raised(two)),
    ):
        lines = text.removesuffix("\n").split("\n")
        assert HEAD.match(lines[0])
        for more in lines[1:]:
            assert more.startswith("    ")
        assert obeyed(text) == []
    assert written(TextFormat(), "attempt %s said %s", one, two).count("\n") == 1


@settings(max_examples=150, deadline=None)
@given(anything, anything)
def test_a_json_line_is_one_object(one, two):
    for text in (
        written(JsonFormat(), "attempt %s said %s", one, two),
        written(JsonFormat(), "it met %s", one, error=raised(two)),
    ):
        assert text.count("\n") == 1
        assert obeyed(text) == []
        fields = json.loads(text)
        assert set(fields) - {"traceback"} == {"time", "level", "logger", "message"}
        assert "\n" not in fields["message"]


@pytest.mark.parametrize("trick", TRICKS, ids=range(len(TRICKS)))
def test_no_known_trick_makes_a_second_line(trick):
    for formatter in (TextFormat(), JsonFormat()):
        text = written(formatter, "name: %s", trick)
        assert text.count("\n") == 1
        assert obeyed(text) == []
