"""What is looked at for an owner's rules: only what they need, jobs left out, nothing that hangs for ever."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridx.config import WorkerSettings
from gridx.services.worker import sightings
from gridx.services.worker.owner import Allowed
from gridx.services.worker.presence import Presence
from gridx.services.worker.sightings import Load, Sensors, Sightings

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


def never(*_: object):
    raise AssertionError("this is not to be looked at")


def sensors(**given) -> Sensors:
    return Sensors(
        **{
            "local_time": lambda: NOW,
            "busy_s": never,
            "presence": never,
            "on_mains": never,
            "monotonic": never,
            **given,
        }
    )


def watching(jobs_s=lambda: 0.0, *, sees: Sensors, **settings) -> Sightings:
    return Sightings(Allowed.by(WorkerSettings(**settings)), jobs_s, sees)


async def test_only_what_the_rules_need_is_looked_at():
    seen = await watching(sees=sensors(), hours="mon").look()
    assert (seen.local, seen.load, seen.idle_s, seen.on_mains) == (NOW, None, None, None)
    seen = await watching(sees=sensors(on_mains=lambda: False), on_battery=False).look()
    assert seen.on_mains is False
    seen = await watching(sees=sensors(presence=lambda: Presence(None, "dark")), only_when_idle_s=1.0).look()
    assert (seen.idle_s, seen.idle_unknown) == (None, "dark")


async def test_a_system_that_fails_or_hangs_is_one_of_which_nothing_is_known(monkeypatch, caplog):
    def broken():
        raise OSError("no such sensor")

    watch = watching(sees=sensors(on_mains=broken), on_battery=False)
    assert (await watch.look()).on_mains is None
    assert "OSError" in (await watch.look()).idle_unknown
    assert len([record for record in caplog.records if "cannot be looked at" in record.message]) == 1

    release = threading.Event()
    monkeypatch.setattr(sightings, "LOOK_WITHIN_S", 0.01)
    watch = watching(sees=sensors(presence=release.wait), only_when_idle_s=1.0)
    assert (await watch.look()).idle_unknown == "the system does not answer"
    release.set()
    watch.close()


async def test_the_load_is_that_of_other_programs():
    at, busy, jobs = 100.0, 50.0, 10.0
    watch = watching(lambda: jobs, sees=sensors(busy_s=lambda: busy, monotonic=lambda: at), max_load=1.0)
    assert (await watch.look()).load is None
    # Ten seconds: 3.5 processors busy, jobs had 2 of them.
    at, busy, jobs = 110.0, 85.0, 30.0
    assert (await watch.look()).load == pytest.approx(1.5)


def test_a_short_burst_is_no_load_and_a_long_one_is():
    load = Load()
    at = busy = 0.0
    for _ in range(60):
        at += 2
        load.read(at, busy, 0)
    for _ in range(3):
        at, busy = at + 2, busy + 8
        load.read(at, busy, 0)
    assert load.value < 0.5
    for _ in range(90):
        at, busy = at + 2, busy + 8
        load.read(at, busy, 0)
    assert load.value == pytest.approx(4, rel=0.1)


def test_two_readings_at_one_moment_say_nothing():
    load = Load()
    load.read(5, 10, 0)
    load.read(5, 20, 0)
    assert load.value is None


@given(st.lists(st.tuples(st.floats(0.1, 30), st.floats(0, 100), st.floats(0, 120)), min_size=2, max_size=30))
def test_a_load_is_never_negative_and_never_above_what_was_busy(steps):
    load = Load()
    at = busy = jobs = 0.0
    load.read(at, busy, jobs)
    most = 0.0
    for elapsed, busy_more, jobs_more in steps:
        at, busy, jobs = at + elapsed, busy + busy_more, jobs + jobs_more
        load.read(at, busy, jobs)
        most = max(most, busy_more / elapsed)
        assert 0 <= load.value <= most + 1e-6


def test_this_machine_can_be_looked_at():
    first = sightings.busy_s()
    assert sightings.busy_s() >= first - 1
    assert sightings.on_mains() in (True, False, None)
    assert sightings.local_time().tzinfo is not None
