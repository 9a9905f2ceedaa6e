"""What the sandbox's own side does with files: as plain functions, against folders of a stranger."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gridx.messages.files import MAX_PATH, PATH_PATTERN
from gridx.services.worker.sandbox import porter

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sandboxes run on POSIX systems")


def wanted(**changes):
    usual = {
        "patterns": ["*"],
        "name": PATH_PATTERN,
        "longest": MAX_PATH,
        "bytes": 1 << 20,
        "files": 100,
        "depth": 5,
        "within_s": 60,
    }
    return {**usual, **changes}


class Sent:
    """Takes the frames apart again."""

    def __init__(self, on_data=lambda: None):
        self.files: dict[str, bytes] = {}
        self.left: dict[str, str] = {}
        self.broken: dict[str, str] = {}
        self.on_data = on_data
        self._path, self._data = "", b""

    def __call__(self, kind, payload):
        if kind == b"F":
            self._path, self._data = payload["path"], b""
        elif kind == b"D":
            self._data += payload
            self.on_data()
        elif kind == b"G":
            (self.broken if payload["why"] else self.files)[self._path] = payload["why"] or self._data
        else:
            self.left[payload["path"]] = payload["why"]


def collect(folder, **changes) -> Sent:
    sent = Sent()
    porter.collect(str(folder), wanted(**changes), sent)
    return sent


def test_it_needs_nothing_but_the_standard_library():
    code = "import sys; __name__ = 'porter'; exec(open(sys.argv[1]).read())"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, porter.__file__], capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"y" * 300_000),
        lambda path: os.truncate(path, 10),
        lambda path: path.open("ab").write(b"more"),
    ],
    ids=["another content", "shorter", "longer"],
)
def test_a_file_that_changes_while_it_is_read_does_not_come(tmp_path, change):
    path = tmp_path / "moving"
    path.write_bytes(b"x" * 200_000)
    os.utime(path, (1, 1))
    sent = Sent(on_data=lambda: change(path))
    porter.collect(str(tmp_path), wanted(), sent)
    assert (sent.files, sent.left) == ({}, {"moving": "it changed while it was read"})


def test_a_name_that_becomes_another_thing_is_looked_at_again(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("harmless")
    (tmp_path / "secret").write_text("secret")
    found = porter.Collection.unfit
    swapped = []

    def unfit(self, path, status):
        why = found(self, path, status)
        if not swapped:
            swapped.append(path)
            (tmp_path / "file").unlink()
            (tmp_path / "file").symlink_to(tmp_path / "secret")
        return why

    monkeypatch.setattr(porter.Collection, "unfit", unfit)
    sent = collect(tmp_path, patterns=["file"])
    assert sent.files == {}
    assert "cannot be read" in sent.left["file"]


def test_a_file_of_a_pebibyte_costs_nothing(tmp_path):
    with (tmp_path / "huge").open("wb") as file:
        try:
            file.truncate(1 << 50)
        except OSError:
            file.truncate(1 << 43)
    (tmp_path / "small").write_text("comes")
    sent = collect(tmp_path)
    assert sent.files == {"small": b"comes"}
    assert "1,048,576 may come in all" in sent.left["huge"]


def test_thousands_of_files_are_named_up_to_a_bound_and_counted(tmp_path):
    for number in range(30):
        folder = tmp_path / f"{number:03}"
        folder.mkdir()
        for name in range(500):
            os.close(os.open(folder / f"{name:03}", os.O_CREAT | os.O_WRONLY))
    sent = collect(tmp_path, files=10)
    assert len(sent.files) == 10
    assert len(sent.left) == 100
    assert sent.left["…"] == f"and {15_000 - 10 - 99:,} more; these are not named"


def test_of_a_folder_with_very_many_names_the_rest_is_not_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(porter, "MAX_LISTED", 20)
    for number in range(30):
        (tmp_path / f"{number:02}").touch()
    sent = collect(tmp_path)
    assert len(sent.files) == 20
    assert sent.left == {"out": "it holds more than 20 names"}


def test_folders_below_each_other_are_left_by_their_first_few(tmp_path):
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(tmp_path)
        for _ in range(300):
            Path("d").mkdir()
            os.chdir("d")
    finally:
        os.fchdir(here)
        os.close(here)
    sent = collect(tmp_path)
    assert sent.left == {"d/d/d/d/d/d/": "it lies below 5 folders, and more are not taken"}
    subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


def test_when_the_time_is_over_the_rest_stays(tmp_path):
    for name in "abc":
        (tmp_path / name).write_text(name)
    assert collect(tmp_path, within_s=-1).left == {"a": "the time to collect files was over"}

    def late():
        deadline = time.monotonic() + 0.05
        while time.monotonic() < deadline:
            time.sleep(0.01)

    (tmp_path / "0").write_bytes(b"x" * 200_000)
    sent = Sent(on_data=late)
    porter.collect(str(tmp_path), wanted(within_s=0.04), sent)
    assert sent.broken == {"0": "the time to collect files was over"}
    assert sent.files == {}


def test_names_are_shown_with_what_is_no_plain_character_as_its_escape():
    assert porter.shown("plain/\u00e9") == "plain/\u00e9"
    assert porter.shown("a\nb\x1b[2J\u202ec") == "a\\nb\\x1b[2J\\u202ec"
    assert porter.shown(os.fsdecode(b"\xff")) == "\\xff"
    assert len(porter.shown("x" * 1000)) == porter.SHOWN_CHARS


def test_a_path_that_is_too_long_stays(tmp_path):
    folder = tmp_path
    for _ in range(5):
        folder = folder / ("d" * 240)
        folder.mkdir()
    (folder / "file").touch()
    [why] = collect(tmp_path).left.values()
    assert why == "its name has more than 1,000 characters"


# -- in ----------------------------------------------------------------------------------------------------


def given(path, size, executable=False):
    return {"path": path, "size": size, "executable": executable}


def test_what_does_not_fit_is_read_to_its_end_all_the_same(tmp_path, monkeypatch):
    data = io.BytesIO(b"one" + b"two!" + b"three" + b"next")
    written = porter._write

    def write(descriptor, part):
        if part == b"two!":
            raise OSError(28, "No space left on device")
        written(descriptor, part)

    monkeypatch.setattr(porter, "_write", write)
    files = [given("a", 3), given("b", 4), given("c", 5)]
    assert porter.receive(str(tmp_path), files, data.read) == "b: No space left on device"
    assert data.read() == b"next"


@pytest.mark.parametrize("path", ["link/x", "there", "folder"])
def test_nothing_that_is_there_is_written_through_or_over(tmp_path, path):
    outside = tmp_path / "outside"
    outside.mkdir()
    job = tmp_path / "job"
    job.mkdir()
    (job / "link").symlink_to(outside)
    (job / "there").write_text("stays")
    (job / "folder").mkdir()
    assert porter.receive(str(job), [given(path, 1)], io.BytesIO(b"x").read) != ""
    assert list(outside.iterdir()) == []
    assert (job / "there").read_text() == "stays"


def test_an_end_in_the_middle_of_a_file_is_no_file(tmp_path):
    with pytest.raises(EOFError):
        porter.receive(str(tmp_path), [given("a", 5)], io.BytesIO(b"xx").read)
