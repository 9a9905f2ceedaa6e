"""Input files kept at a worker: within the budget, the oldest out first, and never one that is used."""

from __future__ import annotations

import hashlib
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridx.messages import InputFile
from gridx.services.worker.cache import Cache
from gridx.services.worker.disk import DiskBudget

KIB = 1 << 10


def content(number: int, size: int) -> bytes:
    return bytes([number % 256]) * size


def announced(number: int, size: int = KIB) -> InputFile:
    sha256 = hashlib.sha256(content(number, size)).hexdigest()
    return InputFile(path=str(number), sha256=sha256, size=size)


class Kept:
    """A cache in a folder, and what a worker does with it."""

    def __init__(self, folder, kib: int) -> None:
        self.folder = folder
        self.budget = DiskBudget(kib * KIB, folder)
        self.cache = Cache.open(folder / "cache", self.budget)

    def fetch(self, number: int, size: int = KIB) -> InputFile:
        file = announced(number, size)
        if not self.cache.whole(file):
            self.cache.partial(file.sha256).write(content(number, size))
            self.cache.complete(file.sha256)
        return file

    def job(self, *numbers: int) -> str:
        """One attempt with these inputs from beginning to end; why it could not be."""
        files = [announced(number) for number in numbers]
        if why := self.cache.hold(files):
            return why
        for number in numbers:
            self.fetch(number)
        self.cache.release(files)
        return ""

    @property
    def names(self) -> set[str]:
        return {path.name for path in (self.folder / "cache").iterdir()}


@pytest.fixture
def kept(tmp_path):
    made = []

    def make(kib: int) -> Kept:
        made.append(Kept(tmp_path, kib))
        return made[-1]

    yield make
    for one in made:
        one.cache.close()


def sha256s(*numbers: int) -> set[str]:
    return {announced(number).sha256 for number in numbers}


def test_what_was_used_longest_ago_goes_first(kept):
    one = kept(3)
    for number in (1, 2, 3):
        assert one.job(number) == ""
    assert one.job(1) == ""
    assert one.job(4) == ""
    assert one.names == sha256s(1, 3, 4)


def test_the_time_of_use_outlives_the_process(kept):
    one = kept(3)
    for number, seconds in ((1, 30), (2, 10), (3, 20)):
        one.job(number)
        os.utime(one.cache.path(announced(number).sha256), (seconds, seconds))
    again = kept(3)
    assert again.job(4) == ""
    assert again.names == sha256s(1, 3, 4)


def test_what_a_live_attempt_uses_is_never_given_up(kept):
    one = kept(3)
    held = [announced(1), announced(2)]
    assert one.cache.hold(held) == ""
    one.fetch(1)
    one.fetch(2)
    assert one.job(3) == ""
    assert one.job(4) == ""
    assert one.names == sha256s(1, 2, 4)
    assert "lets jobs use" in one.cache.hold([announced(5), announced(6)])
    one.cache.release(held)
    assert one.job(5, 6) == ""


def test_room_is_set_aside_before_anything_comes(kept):
    one = kept(4)
    first = [announced(1, 3 * KIB)]
    assert one.cache.hold(first) == ""
    assert one.budget.left_bytes() == KIB
    assert one.cache.hold([announced(2, 2 * KIB)]) != ""
    # The same file costs a second attempt nothing.
    assert one.cache.hold(first) == ""
    one.cache.release(first)
    assert one.budget.left_bytes() == KIB
    one.cache.release(first)
    assert one.budget.left_bytes() == 4 * KIB


def test_a_part_of_a_file_is_kept_counted_and_given_up_first(kept):
    one = kept(4)
    assert one.job(1) == ""
    file = announced(2, 2 * KIB)
    one.cache.hold([file])
    one.cache.partial(file.sha256).write(content(2, KIB))
    one.cache.release([file])
    assert one.budget.left_bytes() == 2 * KIB
    again = kept(4)
    assert again.cache.partial(file.sha256).size == KIB
    assert again.job(3, 4, 5) == ""
    assert again.names == sha256s(1, 3, 4, 5)


def test_a_budget_that_became_smaller_is_kept_at_once(kept):
    one = kept(4)
    for number in range(4):
        one.job(number)
    assert len(kept(2).names) == 2


def test_what_is_none_of_its_files_is_left_alone(kept, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "notes.txt").write_text("mine")
    (tmp_path / "cache" / ("0" * 64)).symlink_to("/etc/passwd")
    one = kept(1)
    assert not one.cache.whole(InputFile(path="x", sha256="0" * 64, size=4))
    assert (tmp_path / "cache" / "notes.txt").read_text() == "mine"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True), max_size=30))
def test_whatever_comes_the_budget_holds_and_nothing_is_counted_twice(tmp_path_factory, jobs):
    one = Kept(tmp_path_factory.mktemp("kept"), 5)
    try:
        for numbers in jobs:
            assert one.job(*numbers) == ""
            assert sha256s(*numbers) <= one.names
            on_disk = sum(path.stat().st_size for path in (one.folder / "cache").iterdir())
            assert on_disk == 5 * KIB - one.budget.left_bytes() <= 5 * KIB
    finally:
        one.cache.close()
