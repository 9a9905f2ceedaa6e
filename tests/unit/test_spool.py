"""The spool: what an attempt wrote is kept to the cap, survives the process, and never half."""

from __future__ import annotations

import os
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridx.errors import SetupError
from gridx.messages import Finished
from gridx.services.worker.disk import MIN_FREE_BYTES, DiskBudget
from gridx.services.worker.spool import End, Spool, marker


@pytest.fixture
def spool(tmp_path):
    opened = Spool.open(tmp_path / "spool")
    yield opened
    opened.close()


def end_of(entry, **changes):
    finished = Finished(
        attempt_id=entry.attempt_id,
        outcome="succeeded",
        stdout_bytes=entry.lengths["stdout"],
        stderr_bytes=entry.lengths["stderr"],
    )
    plain = End(attempt_id=entry.attempt_id, started=True, runtime="default", finished=finished)
    return msgspec.structs.replace(plain, **changes)


def reopened(spool):
    spool.close()
    again = Spool.open(spool.folder)
    again.close()
    return again


def test_what_was_written_is_read_from_any_offset(spool):
    entry = spool.entry(1, 100)
    entry.write("stdout", b"hello ")
    entry.write("stderr", b"oops")
    entry.write("stdout", b"world")
    assert entry.read("stdout", 0, 100) == b"hello world"
    assert entry.read("stdout", 6, 3) == b"wor"
    assert entry.read("stdout", 11, 5) == b""
    assert entry.read("stderr", 1, 100) == b"ops"
    assert entry.lengths == {"stdout": 11, "stderr": 4}


def test_the_files_are_their_owners_alone(spool):
    entry = spool.entry(1, 100)
    entry.write("stdout", b"x")
    entry.end(end_of(entry))
    modes = {path.name: path.stat().st_mode & 0o777 for path in spool.folder.iterdir()}
    assert modes == {"1.stdout": 0o600, "1.end": 0o600}
    assert spool.folder.stat().st_mode & 0o777 == 0o700


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=20),
    cap=st.integers(0, 200),
    piece=st.integers(1, 50),
)
def test_the_head_is_kept_to_the_byte_and_one_marker_says_that_more_came(
    tmp_path_factory, chunks, cap, piece
):
    spool = Spool.open(tmp_path_factory.mktemp("spool"))
    entry = spool.entry(1, cap)
    for chunk in chunks:
        entry.write("stdout", chunk)
    whole = b"".join(chunks)
    kept = whole if len(whole) <= cap else whole[:cap] + marker(cap)
    read = b"".join(
        entry.read("stdout", offset, piece) for offset in range(0, entry.lengths["stdout"], piece)
    )
    assert read == kept
    assert entry.lengths["stdout"] == len(kept)
    entry.drop()
    spool.close()


def test_the_marker_names_the_cap():
    assert marker(1 << 20) == b"\n[output cut at 1,048,576 bytes]\n"


def test_an_end_survives_the_process_with_its_output(spool):
    entry = spool.entry(7, 100)
    entry.write("stdout", b"result")
    entry.write("stderr", b"note")
    end = end_of(entry)
    entry.end(end)
    assert entry.read("stdout", 0, 100) == b"result"
    [(found, found_end)] = reopened(spool).recovered
    assert found_end == end
    assert found.attempt_id == 7
    assert found.read("stdout", 0, 100) == b"result"
    assert found.read("stderr", 0, 100) == b"note"
    found.drop()
    assert list(spool.folder.iterdir()) == []


def test_what_did_not_end_is_removed_at_the_next_start(spool):
    entry = spool.entry(7, 100)
    entry.write("stdout", b"half")
    (spool.folder / ".8.end.abc").write_bytes(b"{")
    assert reopened(spool).recovered == []
    assert list(spool.folder.iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b'{"attempt_id": 7', b"\xff\xfe", b"[" * 100_000, b"{}"])
def test_a_damaged_end_is_dropped_with_its_output(spool, damage):
    entry = spool.entry(7, 100)
    entry.write("stdout", b"result")
    entry.end(end_of(entry))
    (spool.folder / "7.end").write_bytes(damage)
    assert reopened(spool).recovered == []
    assert list(spool.folder.iterdir()) == []


def test_an_end_whose_output_is_gone_is_dropped(spool):
    entry = spool.entry(7, 100)
    entry.write("stdout", b"result")
    entry.end(end_of(entry))
    os.truncate(spool.folder / "7.stdout", 3)
    assert reopened(spool).recovered == []


def test_an_end_of_another_version_or_name_is_dropped(spool):
    for number, changes in ((1, {"format": 99}), (2, {"attempt_id": 3})):
        entry = spool.entry(number, 100)
        entry.end(end_of(entry, **changes))
    assert reopened(spool).recovered == []


def test_what_was_dropped_stays_dropped(spool):
    entry = spool.entry(1, 100)
    entry.write("stdout", b"x")
    entry.drop()
    entry.write("stdout", b"y")
    entry.end(end_of(entry))
    entry.drop()
    assert entry.read("stdout", 0, 10) == b""
    assert list(spool.folder.iterdir()) == []


def test_room_is_counted_for_both_streams_and_a_reserve(spool, monkeypatch):
    entry = spool.entry(1, 1000)
    usage = SimpleNamespace(free=2 * (1000 + len(marker(1000))) + MIN_FREE_BYTES)
    monkeypatch.setattr("gridx.services.worker.disk.shutil.disk_usage", lambda path: usage)
    assert spool.no_room(entry) == ""
    usage.free -= 5
    assert spool.no_room(spool.entry(2, 1000)).startswith("the worker's disk is full: 1 MiB more")


def test_what_an_attempt_may_still_write_is_set_aside_until_it_ends(tmp_path):
    budget = DiskBudget(64 << 20, tmp_path)
    spool = Spool.open(tmp_path / "spool", budget)
    before = budget.left_bytes()
    entry = spool.entry(1, 1 << 20)
    assert spool.no_room(entry) == ""
    assert budget.left_bytes() == before - entry.most_bytes
    entry.write("stdout", b"x" * 1000)
    assert budget.left_bytes() == before - entry.most_bytes
    entry.end(end_of(entry))
    assert budget.left_bytes() == before - 1000
    entry.drop()
    assert budget.left_bytes() == before
    spool.close()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="cannot be made"):
        Spool.open(tmp_path / "file" / "spool")
