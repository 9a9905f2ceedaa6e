"""Outside text reaches a terminal without a control sequence, a turned line or a tower of marks."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridx import safetext

# Characters that a terminal obeys instead of showing.
CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)

nasty = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from("\x1b\x07\x08\r\x9b\x9d\x90\x9c\x7f[]();?0123456789mhJKHABC\\\u202e\u200b\u0301"),
    ),
    max_size=400,
)


@given(nasty)
def test_nothing_that_a_terminal_obeys_is_left(text):
    assert not CONTROL.search(safetext.clean(text))
    assert not re.search(r"[\n\t]", safetext.line(text))


@given(nasty)
def test_cleaning_twice_changes_nothing(text):
    once = safetext.clean(text)
    assert safetext.clean(once) == once


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)))
def test_plain_text_stays_as_it_is(text):
    assert safetext.clean(text) == text


@given(nasty, st.data())
def test_a_stream_is_as_clean_however_it_is_cut(text, data):
    raw = text.encode("utf-8", "surrogatepass")
    cleaner = safetext.StreamCleaner()
    shown = ""
    while raw:
        size = data.draw(st.integers(1, len(raw)))
        shown += cleaner.feed(raw[:size])
        raw = raw[size:]
    shown += cleaner.feed(b"", final=True)
    assert not CONTROL.search(shown)


@given(st.binary(max_size=300))
def test_any_bytes_can_be_shown(data):
    assert not CONTROL.search(safetext.decode(data))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("a\x1b]52;c;c2VjcmV0\x07b", "ab"),
        ("a\x1b]0;title\x1b\\b", "ab"),
        ("a\x1b[2J\x1b[6nb", "ab"),
        ("a\x1bP1;2|payload\x1b\\b", "ab"),
        ("a\x9b2Jb", "ab"),
        ("a\x9d0;t\x9cb", "ab"),
        ("\u202etxt.exe", "txt.exe"),
        ("pay\u200bpal", "paypal"),
        ("one\ntwo\tthree\r\n", "one\ntwo\tthree\n"),
        ("\ud800", ""),
        ("[red]not markup[/]", "[red]not markup[/]"),
        ("日本語 ñ 👍", "日本語 ñ 👍"),
    ],
)
def test_known_tricks(text, shown):
    assert safetext.clean(text) == shown


def test_a_stack_of_marks_is_cut():
    shown = safetext.clean("e" + "\u0301" * 10_000)
    assert sum(unicodedata.category(c) == "Mn" for c in shown) == safetext.MAX_COMBINING


def test_long_text_says_that_it_was_cut():
    assert safetext.clean("x" * 50, limit=10) == "x" * 10 + "…"
    assert safetext.line("x" * 500, limit=10) == "x" * 10 + "…"


def test_a_line_is_one_line():
    assert safetext.line("  a\n\n b\t c ") == "a b c"


def test_characters_split_between_chunks_come_out_whole():
    cleaner = safetext.StreamCleaner()
    assert "".join([cleaner.feed(b"\xc3"), cleaner.feed(b"\xa9"), cleaner.feed(b"", final=True)]) == "é"


def test_an_escape_that_never_ends_does_not_hold_the_stream_back():
    cleaner = safetext.StreamCleaner()
    held = "".join(cleaner.feed(b"\x1b]" + b"x" * 1000) for _ in range(10))
    assert "after" in held + cleaner.feed(b"\x07after\n", final=True)


def test_a_mark_that_comes_a_chunk_later_stays_on_its_character():
    cleaner = safetext.StreamCleaner()
    assert [cleaner.feed(part) for part in (b"e", b"\xcc\x81", b"\xcc\x81" * 9, b"x")] == [
        "e",
        "\u0301",
        "\u0301" * 3,
        "x",
    ]
    assert safetext.StreamCleaner().feed(b"\xcc\x81") == ""
