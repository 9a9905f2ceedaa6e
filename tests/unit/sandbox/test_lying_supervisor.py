"""A supervisor that a job has taken over says anything: no bound is passed, and there is an end."""

from __future__ import annotations

import asyncio
import itertools
import json
import struct
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridx.errors import SandboxBroken
from gridx.messages import FileCaps, OutputFile
from gridx.services.worker.sandbox import dialogue
from gridx.services.worker.sandbox.base import RunRequest
from gridx.services.worker.sandbox.dialogue import Dialogue, Line
from gridx.services.worker.sandbox.frames import CHUNK, FrameError, FrameParser
from gridx.services.worker.sandbox.judgement import Ending, judge

CAP = 500
FILES = FileCaps(total_bytes=300, files=3, depth=2)
READY = {"protocol": 1, "python": "3.12", "pid": 1}
USAGE = {"cpu_ms": 5, "peak": 1000}
END = {
    "exit_code": 0,
    "signal": None,
    "flooded": "",
    "broke": "",
    "memory_error": False,
    "clean": True,
    "dirt": "",
    "cpu_ms": 5,
    "peak": 1000,
    "oom_kills": 0,
}


def frame(kind: bytes, payload: bytes | dict[str, Any] = b"") -> bytes:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return kind + struct.pack(">I", len(data)) + data


HELLO = frame(b"R", READY)
WHOLE = (
    frame(b"S")
    + frame(b"O", b"one")
    + frame(b"E", b"two\xff")
    + frame(b"U", USAGE)
    + frame(b"C")
    + frame(b"F", {"path": "a/b", "size": 3})
    + frame(b"D", b"abc")
    + frame(b"G", {"why": ""})
    + frame(b"L", {"path": "link", "why": "it is a link"})
    + frame(b"X", END)
)


class Kept:
    """Takes files and remembers what would lie on the disk."""

    def __init__(self) -> None:
        self.size, self.most, self.whole, self.open = 0, 0, [], b""
        self.path = ""

    async def begin(self, path: str, size: int) -> None:
        self.path, self.open = path, b""

    async def write(self, data: bytes) -> None:
        self.open += data
        self.most = max(self.most, self.size + len(self.open))

    async def end(self) -> OutputFile:
        self.size += len(self.open)
        self.whole.append(self.path)
        return OutputFile(path=self.path, size=len(self.open), sha256="0" * 64)

    async def drop(self) -> None:
        self.open = b""


class Liar:
    """A channel that says chunks, and then either nothing more or the end."""

    def __init__(self, chunks: Any, *, ends: bool = True) -> None:
        self._chunks, self._ends = iter(chunks), ends
        self._over = asyncio.Event()
        self.received = 0

    async def send(self, data: bytes) -> None:
        return

    async def receive(self) -> bytes:
        await asyncio.sleep(0)
        for chunk in self._chunks:
            if chunk:
                self.received += len(chunk)
                return chunk
        if not self._ends:
            await self._over.wait()
        return b""

    async def end_input(self) -> None:
        return

    def last_words(self) -> str:
        return ""

    async def kill(self) -> None:
        self._over.set()


def request(files: Kept, timeout_s: int = 60) -> RunRequest:
    return RunRequest(
        attempt_id=1,
        job_id=1,
        owner="ann",
        code="",
        language="python",
        args=(),
        env={},
        cpu_millis=1000,
        memory_mb=128,
        gpus=(),
        timeout_s=timeout_s,
        runtime="default",
        output_cap_bytes=CAP,
        outputs=("*",),
        out_files=FILES,
        files=files,
    )


async def listen(
    channel: Liar, *, timeout_s: int = 60, clock=None
) -> tuple[Ending | None, dict[str, int], Kept]:
    """Follow it to the end; None for what the worker calls broken."""
    lengths, files = {"stdout": 0, "stderr": 0}, Kept()

    async def sink(stream: str, data: bytes) -> None:
        lengths[stream] += len(data)

    async def nothing() -> None:
        return

    line = Line(channel)
    asked = request(files, timeout_s)
    ending = None
    try:
        await line.ready()
        extra = {"monotonic": clock} if clock else {}
        talk = Dialogue(line, asked, sink, nothing, kill=channel.kill, check=nothing, **extra)
        ending = await talk.run(b"", asyncio.Event())
        if ending.how != "vanished":
            judge(asked, ending)
    except SandboxBroken:
        ending = None
    assert line._parser.buffered <= CHUNK + 5
    return ending, lengths, files


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[one:two] for one, two in itertools.pairwise(ends)]


async def test_a_conversation_is_the_same_cut_at_every_byte():
    whole = await listen(Liar([HELLO, WHOLE]))
    assert whole[0] is not None
    assert (whole[0].how, [one.path for one in whole[0].files], [one.path for one in whole[0].left]) == (
        "ended",
        ["a/b"],
        ["link"],
    )
    for place in range(1, len(WHOLE)):
        ending, lengths, _ = await listen(Liar([HELLO, WHOLE[:place], WHOLE[place:]]))
        assert ending is not None, place
        assert (replace(ending, wall_ms=0), lengths) == (replace(whole[0], wall_ms=0), whole[1]), place
    ending, lengths, _ = await listen(Liar([HELLO, *(WHOLE[at : at + 1] for at in range(len(WHOLE)))]))
    assert ending is not None
    assert (replace(ending, wall_ms=0), lengths) == (replace(whole[0], wall_ms=0), whole[1])


@pytest.mark.parametrize("early", [frame(b"S"), b"S", frame(b"S") + frame(b"X", END)])
async def test_a_supervisor_that_speaks_before_it_is_asked_is_none(early):
    with pytest.raises(SandboxBroken, match="before it was asked"):
        await Line(Liar([HELLO + early])).ready()


async def test_a_conversation_that_ends_anywhere_has_an_end():
    for place in range(len(WHOLE)):
        ending, lengths, files = await listen(Liar([HELLO, WHOLE[:place]]))
        assert ending is None or ending.how == "vanished", place
        assert lengths["stdout"] <= 3
        assert files.whole in ([], ["a/b"])


counters = st.one_of(st.integers(-1, 2**54), st.just(2**64), st.none(), st.just(1.5), st.text(max_size=3))
paths = st.one_of(
    st.sampled_from(
        ["a", "a/b", "a/b/c", "a/b/c/d", "../x", "/etc/passwd", ".", "", "a//b", "\0", "e\u202e"]
    ),
    st.text(max_size=20),
)
spoken = st.one_of(
    st.just(frame(b"R", READY)),
    st.just(frame(b"S")),
    st.just(frame(b"C")),
    st.builds(frame, st.sampled_from([b"O", b"E", b"D"]), st.binary(max_size=400)),
    st.builds(lambda a, b: frame(b"U", {"cpu_ms": a, "peak": b}), counters, counters),
    st.builds(lambda path, size: frame(b"F", {"path": path, "size": size}), paths, st.integers(-1, 400)),
    st.builds(lambda why: frame(b"G", {"why": why}), st.sampled_from(["", "it shrank", "\x1b[2J"])),
    st.builds(lambda path, why: frame(b"L", {"path": path, "why": why}), paths, st.text(max_size=20)),
    st.builds(lambda why: frame(b"N", {"why": why}), st.text(max_size=20)),
    st.builds(
        lambda changes: frame(b"X", {**END, **changes}),
        st.dictionaries(st.sampled_from([*END, "more"]), st.one_of(counters, st.booleans()), max_size=2),
    ),
    st.builds(
        lambda kind, length: bytes([kind]) + struct.pack(">I", length),
        st.integers(0, 255),
        st.sampled_from([0, 1, CHUNK, CHUNK + 1, 2**31, 2**32 - 1]),
    ),
    st.binary(max_size=40),
)
told_well = st.just([frame(b"S")])
lies = st.builds(
    lambda start, rest: b"".join([*start, *rest]),
    st.one_of(told_well, told_well, st.just([])),
    st.lists(spoken, max_size=25),
)


@settings(max_examples=300, deadline=None)
@given(
    lies, st.lists(st.integers(0, 1 << 16), max_size=6), st.booleans(), st.sampled_from([True, True, False])
)
def test_whatever_it_says_no_cap_is_passed_and_there_is_an_end(said, places, ends, ready):
    async def follow() -> None:
        channel = Liar([*([HELLO] if ready else []), *cut(said, places)], ends=ends)
        async with asyncio.timeout(30):
            ending, lengths, files = await listen(channel, timeout_s=60 if ends else 0)
        for length in lengths.values():
            assert length <= CAP + len(dialogue.marker(CAP))
        assert files.most <= FILES.total_bytes
        assert len(files.whole) <= FILES.files
        for path in files.whole:
            assert not path.startswith("/")
            assert ".." not in path.split("/")
            assert path.count("/") <= FILES.depth
        if ending is not None:
            assert len(ending.left) <= 100
            for one in ending.left:
                assert one.path.isprintable()
                assert one.why.isprintable()

    silent = pytest.MonkeyPatch()
    if not ends:
        for name in (
            "READY_WITHIN_S",
            "BEGIN_WITHIN_S",
            "YIELD_WITHIN_S",
            "DRAIN_WITHIN_S",
            "COLLECT_GRACE_S",
        ):
            silent.setattr(dialogue, name, 0.002)
        silent.setattr(dialogue, "collect_within_s", lambda request: 0.002)
    try:
        asyncio.run(follow())
    finally:
        silent.undo()


ENDLESS = {
    "usage": (b"", frame(b"U", USAGE) * 500),
    "output of no bytes": (b"", frame(b"O") * 500),
    "output": (b"", frame(b"O", b"x" * 1000) * 60),
    "files that are dropped": (
        frame(b"C"),
        (frame(b"F", {"path": "a", "size": 1}) + frame(b"D", b"x") + frame(b"G", {"why": "no"})) * 500,
    ),
    "files of no bytes": (
        frame(b"C"),
        (frame(b"F", {"path": "a", "size": 0}) + frame(b"G", {"why": "no"})) * 500,
    ),
    "a file of no bytes at a time": (frame(b"C") + frame(b"F", {"path": "a", "size": 1}), frame(b"D") * 500),
    "what is left": (frame(b"C"), frame(b"L", {"path": "a", "why": "b"}) * 500),
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_what_has_no_end_is_broken_off_before_it_costs_time_or_memory(name):
    before, again = ENDLESS[name]
    channel = Liar(itertools.chain([HELLO, frame(b"S") + before], itertools.repeat(again)))
    tracemalloc.start()
    try:
        # The clock stands still: it is what is said that ends it.
        ending, _, _ = await asyncio.wait_for(listen(channel, clock=lambda: 1.0), 60)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ending is None
    assert channel.received < 1 << 20
    assert peak < 4 << 20


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=CHUNK), max_size=8), st.sampled_from([b"O", b"E", b"U", b"D"]))
def test_the_parser_never_holds_more_than_one_frame(chunks, kind):
    parser = FrameParser()
    parser.feed(frame(b"R", READY) + frame(b"S"))
    for chunk in [kind + struct.pack(">I", CHUNK), *chunks]:
        try:
            parser.feed(chunk)
        except FrameError:
            break
        assert parser.buffered <= CHUNK + 5
