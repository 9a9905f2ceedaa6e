"""Open sockets are closed with the token or the user that opened them, and no others."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest

from gridx.errors import TooMany
from gridx.services.coordinator import sockets as module
from gridx.services.coordinator.sockets import CHANGED, SIGNED_OUT, Caller, Sockets
from gridx.services.coordinator.store.records import TokenRecord, UserRecord

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def caller(user_id: int, token_id: int | None = None, days: int = 1) -> Caller:
    user = UserRecord(user_id, f"user{user_id}", "user", "!", False, NOW)
    if token_id is None:
        return Caller(user)
    return Caller(user, TokenRecord(token_id, user_id, "", NOW, NOW + timedelta(days=days), None))


class Opened:
    """Sockets of several callers, and what each was closed with."""

    def __init__(self, stack: ExitStack, *callers: Caller) -> None:
        self.sockets = Sockets()
        self.closed: list[list] = [[] for _ in callers]
        for one, closed in zip(callers, self.closed, strict=True):
            stack.enter_context(self.sockets.opened(one, closed.append))


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


def test_a_token_closes_its_own(stack):
    opened = Opened(stack, caller(1, 10), caller(1, 11), caller(1), caller(2, 12))
    opened.sockets.close_token(1, 10)
    assert opened.closed == [[SIGNED_OUT], [], [], []]


def test_who_was_shown_out_between_asking_and_opening_is_closed_at_once(stack):
    sockets, closed = Sockets(), []
    early = caller(1, 10)
    sockets.close_token(1, 11)
    stack.enter_context(sockets.opened(early, closed.append))
    assert closed == [CHANGED]
    late = Caller(early.user, early.token, sockets.moment(1))
    stack.enter_context(sockets.opened(late, lambda code: closed.append("late")))
    assert closed == [CHANGED]


def test_a_user_closes_all_of_theirs(stack):
    opened = Opened(stack, caller(1, 10), caller(1), caller(2, 12))
    opened.sockets.close_user(1, CHANGED)
    assert opened.closed == [[CHANGED], [CHANGED], []]


def test_what_has_expired_is_closed(stack):
    opened = Opened(stack, caller(1, 10, days=1), caller(1, 11, days=3), caller(1))
    opened.sockets.close_expired(NOW + timedelta(days=2))
    assert opened.closed == [[SIGNED_OUT], [], []]


def test_what_has_ended_is_forgotten(stack):
    opened = Opened(stack, caller(1, 10))
    stack.close()
    opened.sockets.close_user(1)
    assert opened.closed == [[]]
    assert not opened.sockets._open


def test_a_user_has_a_largest_number_of_sockets(stack, monkeypatch):
    monkeypatch.setattr(module, "MAX_PER_USER", 2)
    opened = Opened(stack, caller(1), caller(1))
    with pytest.raises(TooMany), opened.sockets.opened(caller(1), lambda _: None):
        pass
    with opened.sockets.opened(caller(2), lambda _: None):
        pass
