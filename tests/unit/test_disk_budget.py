"""The disk that an owner lets jobs use: one budget, and who gives way to whom."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridx.services.worker import disk
from gridx.services.worker.disk import MIN_FREE_BYTES, DiskBudget

MB = 1 << 20


@pytest.fixture
def free(monkeypatch):
    """What the disk has free beyond the reserve; a test changes it."""
    usage = SimpleNamespace(free=(1000 * MB) + MIN_FREE_BYTES)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda folder: usage)
    return usage


class Cache:
    """Keeps what can be had again."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.asked: list[int] = []

    def give_up(self, lacking: int) -> None:
        self.asked.append(lacking)
        self.size = max(0, self.size - lacking)


def test_all_keepers_share_one_budget(tmp_path, free):
    budget = DiskBudget(100 * MB, tmp_path)
    budget.count(lambda: 30 * MB)
    budget.count(lambda: 50 * MB)
    assert budget.left_bytes() == 20 * MB
    assert budget.lacking_bytes(20 * MB) == 0
    assert budget.lacking_bytes(25 * MB) == 5 * MB
    assert budget.shortage(5 * MB, "the input") == (
        "the worker's owner lets jobs use 100 MiB of the disk: 5 MiB more are needed for the input"
    )


def test_a_disk_that_has_less_than_the_budget_is_the_limit(tmp_path, free):
    budget = DiskBudget(100 * MB, tmp_path)
    free.free = 3 * MB + MIN_FREE_BYTES
    assert budget.left_bytes() == 3 * MB
    assert budget.shortage(2 * MB, "the output") == (
        "the worker's disk is full: 2 MiB more are needed for the output"
    )


def test_what_can_be_had_again_gives_way_and_no_more_of_it_than_is_lacking(tmp_path, free):
    budget = DiskBudget(100 * MB, tmp_path)
    cache = Cache(90 * MB)
    budget.count(lambda: cache.size, cache.give_up)
    assert budget.lacking_bytes(10 * MB) == 0
    assert cache.asked == []
    assert budget.lacking_bytes(30 * MB) == 0
    assert cache.asked == [20 * MB]
    assert budget.lacking_bytes(200 * MB) == 100 * MB
    assert cache.size == 0


def test_room_is_set_aside_only_when_there_is_enough(tmp_path, free):
    budget = DiskBudget(10 * MB, tmp_path)
    taken: list[int] = []
    budget.count(lambda: sum(taken))
    assert budget.lacking_bytes(6 * MB, lambda: taken.append(6 * MB)) == 0
    assert budget.lacking_bytes(6 * MB, lambda: taken.append(6 * MB)) == 2 * MB
    assert taken == [6 * MB]


@given(st.lists(st.integers(1, 40 * MB), max_size=20), st.integers(0, 60 * MB))
def test_what_was_set_aside_never_exceeds_the_budget(tmp_path_factory, wanted, cached):
    budget = DiskBudget(60 * MB, tmp_path_factory.getbasetemp())
    taken: list[int] = []
    cache = Cache(cached)
    budget.count(lambda: sum(taken))
    budget.count(lambda: cache.size, cache.give_up)
    for size in wanted:
        budget.lacking_bytes(size, lambda size=size: taken.append(size))
        assert sum(taken) + cache.size <= 60 * MB
