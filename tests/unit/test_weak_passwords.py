"""Which passwords are refused because everybody tries them first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridx.errors import InvalidField
from gridx.services.coordinator.weak import RUNS, WORDS, check, weakness


@pytest.mark.parametrize(
    "password",
    [
        *("password", "Password123!", "P@ssw0rd", "passwordpassword", "pa55word1", "iloveyou", "trustno1"),
        *("12345678", "87654321", "qwertyui", "1qaz2wsx", "1q2w3e4r", "789456123", "19871224", "zaq12wsx"),
        *("aaaaaaaa", "abababab", "abcabcabc", "abc12345", "abcd1234", "asdf1234", "letmein!", "!!welcome!!"),
        *("ann12345", "1990.ann", "annannann", "nna2024!", "ANN_ANN_"),
    ],
)
def test_what_everybody_tries_first_is_refused(password):
    with pytest.raises(InvalidField) as caught:
        check("Ann", password)
    assert caught.value.details["field"] == "password"
    assert caught.value.hint
    assert password == "password" or password not in str(caught.value)


@pytest.mark.parametrize(
    "password",
    [
        "correct horse",
        "battery staple",
        "another password",
        "mK3vQx9TzRw2",
        "Ann Anderson 1990",
        "пароль для меня",
    ],
)
def test_what_nobody_tries_first_is_taken(password):
    check("ann", password)


def test_a_password_has_at_most_1024_bytes():
    check("ann", "äöü x" * 128)
    with pytest.raises(InvalidField):
        check("ann", "äöü x" * 128 + "y")


@given(st.text(min_size=1, max_size=64), st.text(min_size=8, max_size=100))
def test_any_text_is_judged(name, password):
    assert isinstance(weakness(name, password), str)


def test_the_list_is_a_few_hundred_words_of_small_letters():
    assert 200 < len(WORDS) < 500
    assert all(word == word.casefold() for word in (*WORDS, *RUNS))
