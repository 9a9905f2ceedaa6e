"""Waiting between tries: it doubles to a cap, differs between workers, and complains once for each reason."""

from __future__ import annotations

import logging
import random

from gridx.services.worker.backoff import CAP_S, FIRST_S, Backoff, Complaint


def test_it_doubles_from_short_to_the_cap_and_starts_over():
    backoff = Backoff(random.Random(1))
    waits = [backoff.next() for _ in range(2000)]
    for number, wait in enumerate(waits):
        whole = min(CAP_S, FIRST_S * 2.0 ** min(number, 30))
        assert whole / 2 <= wait <= whole
    backoff.reset()
    assert backoff.next() <= FIRST_S


def test_two_workers_do_not_wait_alike():
    one, other = Backoff(random.Random(1)), Backoff(random.Random(2))
    assert [one.next() for _ in range(5)] != [other.next() for _ in range(5)]


def test_it_waits_as_long_as_it_was_told():
    assert Backoff(random.Random(1)).next(at_least_s=40.0) == 40.0


def test_each_reason_is_told_once_and_then_now_and_again(caplog):
    complaint = Complaint(logging.getLogger("gridx.worker"))
    for _ in range(complaint.EVERY + 1):
        complaint.say("no route", 1.0)
    assert caplog.text.count("no route") == 1
    complaint.say("no route", 1.0)
    assert caplog.text.count("no route") == 2
    complaint.say("refused", 1.0)
    assert caplog.text.count("refused") == 1
    complaint.over()
    complaint.say("refused", 1.0)
    assert caplog.text.count("refused") == 2
