"""Hours as people write them: what is open when, and what is refused with which words."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridx.errors import ConfigError
from gridx.hours import DAY_MINUTES, Hours, Span, parse, when

MONDAY = datetime(2026, 1, 5)


def at(days: int, hour: int, minute: int = 0) -> datetime:
    return MONDAY + timedelta(days=days, hours=hour, minutes=minute)


@pytest.mark.parametrize(
    ("text", "opened", "shut"),
    [
        ("", [at(0, 0), at(6, 23, 59)], []),
        ("9:00-17:00", [at(0, 9), at(6, 16, 59)], [at(0, 8, 59), at(0, 17)]),
        ("18:00-08:00", [at(0, 18), at(1, 7, 59), at(0, 0)], [at(0, 8), at(0, 17, 59)]),
        # A night belongs to the day on which it begins.
        ("mon-fri 18:00-08:00", [at(0, 18), at(5, 7, 59)], [at(0, 7), at(5, 18), at(6, 3)]),
        ("sun 22:00-06:00", [at(6, 23), at(0, 5, 59), at(7, 5)], [at(0, 6), at(6, 21)]),
        ("mon-fri 18:00-08:00, sat-sun", [at(0, 20), at(5, 12), at(6, 23, 59)], [at(0, 8), at(7, 0)]),
        ("mon wed fri-sat", [at(0, 1), at(2, 1), at(4, 1), at(5, 1)], [at(1, 1), at(3, 1), at(6, 1)]),
        ("sat-mon 00:00-24:00", [at(5, 0), at(6, 12), at(0, 23, 59)], [at(1, 0), at(4, 23, 59)]),
        ("  MON   6:30-7:00 ", [at(0, 6, 30)], [at(0, 7), at(1, 6, 45)]),
    ],
)
def test_it_is_open_when_it_says(text, opened, shut):
    hours = parse(text)
    assert [hours.open_at(moment) for moment in opened] == [True] * len(opened)
    assert [hours.open_at(moment) for moment in shut] == [False] * len(shut)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("mon-fri 18:00-08:00,", "nothing stands between two commas"),
        ("monday 9:00-10:00", "monday is not a day; the days are mon, tue"),
        ("mon-", "mon- is not a day"),
        ("18-8", "18-8 is not a time like 18:00-08:00"),
        ("25:00-26:00", "25:00 is no time of day"),
        ("10:60-11:00", "10:60 is no time of day"),
        ("24:00-08:00", "a day begins at 00:00"),
        ("08:00-08:00", "it begins and ends at the same time; for the whole day leave the time out"),
        ("9:00-10:00 mon", "an entry is days, then one time"),
        ("9:00-10:00 12:00-13:00", "an entry is days, then one time"),
        ("weekdays", "weekdays is not a day"),
        ("٩:00-10:00", "is not a time"),
    ],
)
def test_what_is_not_understood_is_refused_with_the_part_and_an_example(text, why):
    with pytest.raises(ConfigError) as refused:
        parse(text)
    assert why in refused.value.message
    assert refused.value.message.startswith("worker.hours: ")
    assert "mon-fri 18:00-08:00" in refused.value.hint


def test_a_text_without_end_is_refused():
    with pytest.raises(ConfigError, match="3,000 characters; 500 are allowed"):
        parse("mon" * 1000)


@pytest.mark.parametrize(
    ("moment", "words"),
    [(at(0, 18), "at 18:00"), (at(1, 8), "tomorrow at 08:00"), (at(5, 0), "on sat at 00:00")],
)
def test_a_coming_time_is_said_in_words(moment, words):
    assert when(moment, at(0, 12)) == words


spans = st.builds(
    lambda days, begin, length: Span(tuple(sorted(days)), begin, begin + length),
    st.sets(st.integers(0, 6), min_size=1),
    st.integers(0, DAY_MINUTES - 1),
    st.integers(1, DAY_MINUTES - 1),
)
weeks = st.lists(spans, max_size=4).map(lambda found: Hours(tuple(found)))
moments = st.integers(0, 20 * DAY_MINUTES).map(lambda minutes: MONDAY + timedelta(minutes=minutes))


@given(weeks, moments)
def test_the_text_of_hours_means_the_same_hours(hours, moment):
    again = parse(str(hours))
    assert again.open_at(moment) == hours.open_at(moment)
    assert again.next_change(moment) == hours.next_change(moment)


@given(weeks, moments)
def test_a_week_later_all_is_the_same(hours, moment):
    assert hours.open_at(moment) == hours.open_at(moment + timedelta(days=7))


@given(weeks, moments)
def test_nothing_changes_before_the_next_change(hours, moment):
    change = hours.next_change(moment)
    now_open = hours.open_at(moment)
    if change is None:
        assert all(
            hours.open_at(MONDAY + timedelta(minutes=m)) == now_open for m in range(0, 7 * DAY_MINUTES, 7)
        )
        return
    assert moment < change <= moment + timedelta(days=8)
    assert hours.open_at(change) != now_open
    minutes = int((change - moment).total_seconds() // 60)
    step = max(1, minutes // 50)
    assert all(hours.open_at(moment + timedelta(minutes=m)) == now_open for m in range(0, minutes, step))


@given(weeks, moments)
def test_it_is_open_exactly_while_one_of_its_spans_is(hours, moment):
    """Against the plainest reading: each day's span, laid out in time."""
    midnight = datetime(moment.year, moment.month, moment.day)

    def covers(span: Span, back: int) -> bool:
        day = midnight - timedelta(days=back)
        begin = day + timedelta(minutes=span.begin)
        end = day + timedelta(minutes=span.end)
        return day.weekday() in span.days and begin <= moment < end

    wanted = not hours.spans or any(covers(span, back) for span in hours.spans for back in (0, 1, 2))
    assert hours.open_at(moment) == wanted


@given(st.text(max_size=60))
def test_any_text_is_understood_or_refused_in_words(text):
    try:
        hours = parse(text)
    except ConfigError as refused:
        assert refused.hint
    else:
        hours.open_at(MONDAY)
