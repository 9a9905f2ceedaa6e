"""What an owner allows: which rule closes the machine, in which words, and what it means for running jobs."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridx.config import WorkerSettings
from gridx.errors import ConfigError
from gridx.hours import parse
from gridx.services.worker.owner import Allowed, Seen, Verdict, judge, lines

MONDAY_NOON = datetime(2026, 1, 5, 12)


def allowed(**settings) -> Allowed:
    return Allowed.by(WorkerSettings(**settings))


def verdict(seen: dict, **settings) -> Verdict:
    return judge(allowed(**settings), Seen(**{"local": MONDAY_NOON, **seen}))


def test_without_rules_nothing_is_looked_at_and_all_is_open():
    assert allowed().always
    assert allowed(own_jobs_only=True, only_users=["bob"]).always
    assert verdict({}) == Verdict()


@pytest.mark.parametrize(
    "rule", [{"hours": "sat"}, {"max_load": 1.0}, {"only_when_idle_s": 60.0}, {"on_battery": False}]
)
def test_each_rule_has_to_be_looked_at(rule):
    assert not allowed(**rule).always


@pytest.mark.parametrize(
    ("settings", "seen", "closed", "ends"),
    [
        ({"hours": "18:00-08:00"}, {}, "outside its hours; it opens at 18:00", True),
        ({"hours": "wed 10:00-11:00"}, {}, "outside its hours; it opens on wed at 10:00", True),
        ({"hours": "tue"}, {}, "outside its hours; it opens tomorrow at 00:00", True),
        ({"hours": "mon-fri"}, {}, "", False),
        (
            {"only_when_idle_s": 600.0},
            {"idle_s": 599.0},
            "somebody is at the machine; it opens after 10 min without input",
            True,
        ),
        ({"only_when_idle_s": 600.0}, {"idle_s": 600.0}, "", False),
        ({"only_when_idle_s": 600.0}, {"idle_s": float("inf")}, "", False),
        (
            {"only_when_idle_s": 90.0},
            {"idle_unknown": "nobody can be seen"},
            "it cannot be told whether somebody is at the machine: nobody can be seen",
            True,
        ),
        ({"on_battery": False}, {"on_mains": False}, "the machine runs on battery", True),
        ({"on_battery": False}, {}, "it cannot be told whether the machine has mains power", True),
        ({"on_battery": False}, {"on_mains": True}, "", False),
        ({"max_load": 1.5}, {"load": 1.5}, "other programs use 1.5 processors or more", False),
        ({"max_load": 1.5}, {"load": 1.49}, "", False),
        ({"max_load": 1.5}, {}, "it is not known yet how busy the machine is", False),
        # What ends running jobs is said before what only keeps new ones away.
        (
            {"max_load": 1.0, "on_battery": False},
            {"load": 9.0, "on_mains": False},
            "the machine runs on battery",
            True,
        ),
    ],
)
def test_a_rule_that_does_not_hold_closes_the_machine_and_says_which(settings, seen, closed, ends):
    found = verdict(seen, **settings)
    assert (found.closed, found.ends) == (closed, ends)


def test_a_machine_that_was_busy_opens_when_it_is_clearly_calm():
    rules = allowed(max_load=2.0)

    def closed(load: float, was_busy: bool) -> bool:
        return judge(rules, Seen(MONDAY_NOON, load=load), was_busy=was_busy).busy

    assert [closed(load, False) for load in (1.7, 1.99, 2.0)] == [False, False, True]
    assert [closed(load, True) for load in (1.5, 1.61, 1.99)] == [False, True, True]
    # What is not known yet closes it, but is no load that would have to fall.
    assert judge(rules, Seen(MONDAY_NOON)) == Verdict("it is not known yet how busy the machine is")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, []),
        ({"when_closed": "give_back"}, []),
        ({"own_jobs_only": True, "only_users": ["bob"]}, ["jobs of its owner only"]),
        ({"only_users": ["ann", "bob"]}, ["jobs of its owner and of ann, bob only"]),
        (
            {"only_users": ["bob"], "max_load": 2.0, "when_closed": "give_back"},
            [
                "jobs of its owner and of bob only",
                "new jobs only while other programs use fewer than 2 processors",
            ],
        ),
        (
            {
                "hours": "mon-fri 18:00-8:00,sat sun",
                "only_when_idle_s": 7200.0,
                "on_battery": False,
                "when_closed": "give_back",
            },
            [
                "hours: mon-fri 18:00-08:00, sat-sun",
                "only when nobody touched the machine for 2 h",
                "only on mains power",
                "what runs when that ends is given back",
            ],
        ),
        ({"only_when_idle_s": 90.0}, ["only when nobody touched the machine for 90 s"]),
    ],
)
def test_what_is_allowed_is_said_in_words(settings, words):
    assert lines(WorkerSettings(**settings)) == words


def test_words_fit_a_line_whatever_the_settings():
    many = WorkerSettings(only_users=["u" * 64] * 100, hours=",".join(["mon 9:00-10:00"] * 30))
    assert all(len(line) <= 200 for line in lines(many))


def test_hours_that_are_not_understood_are_refused_where_they_are_used():
    with pytest.raises(ConfigError, match="weekend is not a day"):
        allowed(hours="weekend")


seens = st.builds(
    Seen,
    local=st.integers(0, 20_000).map(lambda minutes: MONDAY_NOON + timedelta(minutes=minutes)),
    load=st.none() | st.floats(0, 8),
    idle_s=st.none() | st.floats(0, 1e4),
    on_mains=st.none() | st.booleans(),
)
rules = st.builds(
    Allowed,
    hours=st.sampled_from(["", "18:00-08:00", "mon-fri 9:00-17:00, sat"]).map(parse),
    max_load=st.none() | st.floats(0.1, 8),
    only_when_idle_s=st.none() | st.floats(1, 1e4),
    on_battery=st.booleans(),
    gives_back=st.booleans(),
)


@given(rules, seens)
def test_it_is_open_exactly_while_every_rule_is_known_to_hold(allowed, seen):
    holds = (
        allowed.hours.open_at(seen.local)
        and (
            allowed.only_when_idle_s is None
            or (seen.idle_s is not None and seen.idle_s >= allowed.only_when_idle_s)
        )
        and (allowed.on_battery or seen.on_mains is True)
    )
    calm = allowed.max_load is None or (seen.load is not None and seen.load < allowed.max_load)
    found = judge(allowed, seen)
    assert (not found.closed) == (holds and calm)
    assert found.ends == (not holds)
