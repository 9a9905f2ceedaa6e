"""Files from a supervisor that may lie: the worker's caps hold whatever it says."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridx.errors import SandboxBroken
from gridx.messages import FileCaps, OutputFile
from gridx.services.worker.sandbox.base import RunRequest
from gridx.services.worker.sandbox.collection import Collection
from gridx.services.worker.sandbox.frames import FileBegins, FileData, FileEnds, FrameError, FrameParser, Left

CAPS = FileCaps(total_bytes=100, files=3, depth=2)


class Sink:
    def __init__(self):
        self.kept: dict[str, bytes] = {}
        self.path, self.data = "", b""

    async def begin(self, path, size):
        self.path, self.data = path, b""

    async def write(self, data):
        self.data += data

    async def end(self):
        self.kept[self.path] = self.data
        return OutputFile(path=self.path, sha256="0" * 64, size=len(self.data))

    async def drop(self):
        self.path = ""


def request(sink, **fields) -> RunRequest:
    usual = {
        "attempt_id": 1,
        "job_id": 1,
        "owner": "ann",
        "code": "",
        "language": "python",
        "args": (),
        "env": {},
        "cpu_millis": 1000,
        "memory_mb": 128,
        "gpus": (),
        "timeout_s": 60,
        "runtime": "default",
        "output_cap_bytes": 100,
        "outputs": ("*",),
        "out_files": CAPS,
        "files": sink,
    }
    return RunRequest(**{**usual, **fields})


async def taken(*frames, **fields):
    sink = Sink()
    collection = Collection(request(sink, **fields))
    for frame in frames:
        await collection.take(frame)
    return collection, sink


def file(path: str, data: bytes = b"", why: str = ""):
    parts = [FileData(data)] if data else []
    return [FileBegins(path=path, size=len(data)), *parts, FileEnds(why=why)]


async def test_files_within_the_caps_reach_the_sink():
    collection, sink = await taken(*file("a", b"x" * 50), *file("b/c", b"y" * 50), Left(path="l", why="w"))
    assert sink.kept == {"a": b"x" * 50, "b/c": b"y" * 50}
    assert [one.path for one in collection.files] == ["a", "b/c"]
    assert [(one.path, one.why) for one in collection.left] == [("l", "w")]


@pytest.mark.parametrize(
    "frames",
    [
        [*file("a", b"x" * 60), *file("b", b"x" * 60)],
        [FileBegins(path="a", size=101)],
        [*file("a"), *file("b"), *file("c"), *file("d")],
        [*file("a/b/c/d")],
        [*file("a"), *file("a")],
        [*file("a"), *file("a/b")],
        [*file("a/b"), *file("a")],
        [FileBegins(path="a", size=3), FileData(b"four")],
        [FileBegins(path="a", size=3), FileData(b"2"), FileEnds(why="")],
    ],
    ids=[
        *("too much", "too large", "too many", "too deep", "twice", "below a file", "above a file"),
        *("longer", "shorter"),
    ],
)
async def test_a_supervisor_that_passes_a_cap_or_contradicts_itself_is_broken(frames):
    with pytest.raises(SandboxBroken):
        await taken(*frames)


async def test_files_that_nobody_wants_are_refused():
    for fields in ({"files": None}, {"outputs": ()}):
        with pytest.raises(SandboxBroken, match="nobody wants"):
            await taken(*file("a"), **fields)


async def test_a_file_that_is_not_whole_is_dropped_and_gives_its_room_back():
    collection, sink = await taken(*file("a", b"x" * 90, why="it changed"), *file("a", b"y" * 90))
    assert sink.kept == {"a": b"y" * 90}
    collection, sink = await taken(FileBegins(path="a", size=3), FileData(b"2"))
    await collection.give_up()
    assert (sink.kept, collection.files) == ({}, ())
    assert collection.left[0].why == "the sandbox ended before it was whole"


async def test_what_is_left_is_bounded_and_safe_to_show():
    collection, _ = await taken(*[Left(path="\x1b[2J\u202ex" * 50, why="\n" * 900)] * 500)
    assert len(collection.left) == 100
    assert len(collection.left[0].path) <= 200
    assert "\x1b" not in collection.left[0].path
    assert "\u202e" not in collection.left[0].path


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40) | st.sampled_from(["../x", "/etc/passwd", "a/../b", "a\\b", "C:x", "x" * 300]))
def test_no_name_that_is_none_gets_past_the_parser(path):
    import json
    import struct

    def frame(kind, payload):
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return kind + struct.pack(">I", len(data)) + data

    parser = FrameParser()
    parser.feed(
        frame(b"R", {"protocol": 1, "python": "3.12", "pid": 1}) + frame(b"S", b"") + frame(b"C", b"")
    )
    try:
        [begun] = parser.feed(frame(b"F", {"path": path, "size": 0}))
    except FrameError:
        return
    parts = begun.path.split("/")
    assert not {"", ".", ".."} & set(parts)
    assert not any(ord(char) < 32 or char in "\\:\u202e" for char in begun.path)
