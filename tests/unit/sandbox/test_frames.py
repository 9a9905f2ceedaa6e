"""The supervisor's frames: any cut gives the same frames, and no lie confuses the parser or grows it."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridx.services.worker.sandbox.frames import (
    CHUNK,
    Began,
    End,
    FrameError,
    FrameParser,
    Output,
    Ready,
    Usage,
)

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


def frame(kind: bytes, payload: bytes | dict[str, object] = b"") -> bytes:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return kind + struct.pack(">I", len(data)) + data


outputs = st.tuples(st.sampled_from([b"O", b"E"]), st.binary(min_size=1, max_size=300))
usages = st.just((b"U", USAGE))
jobs = st.lists(st.one_of(outputs, usages), max_size=8)
conversations = st.lists(jobs, max_size=4)


@given(conversations, st.data())
def test_a_conversation_is_read_the_same_however_it_is_cut(conversation, data):
    whole = frame(b"R", READY)
    expected: list[object] = [Ready(**READY)]
    for job in conversation:
        whole += frame(b"S")
        expected.append(Began())
        for kind, payload in job:
            whole += frame(kind, payload)
            stream = {b"O": "stdout", b"E": "stderr"}.get(kind)
            expected.append(Output(stream, payload) if stream else Usage(**payload))
        whole += frame(b"X", END)
        expected.append(End(**END))
    parser = FrameParser()
    found: list[object] = []
    while whole:
        cut = data.draw(st.integers(1, len(whole)))
        found += parser.feed(whole[:cut])
        whole = whole[cut:]
    assert found == expected
    assert parser.buffered == 0


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_nothing_that_a_liar_sends_is_anything_but_frames_or_a_refusal(chunks):
    parser = FrameParser()
    parser.feed(frame(b"R", READY) + frame(b"S"))
    for chunk in chunks:
        try:
            frames = parser.feed(chunk)
        except FrameError:
            break
        assert all(isinstance(found, (Output, Usage, End, Began)) for found in frames)
        assert parser.buffered <= CHUNK + 5 + 200


@given(st.sampled_from([b"R", b"S", b"O", b"E", b"U", b"X"]), st.integers(0, 2**32 - 1))
def test_a_length_that_a_kind_does_not_have_is_refused_before_its_bytes_come(kind, length):
    limits = {b"R": 1024, b"S": 0, b"O": CHUNK, b"E": CHUNK, b"U": 1024, b"X": 8192}
    parser = FrameParser()
    if kind != b"R":
        parser.feed(frame(b"R", READY))
    if kind not in (b"R", b"S"):
        parser.feed(frame(b"S"))
    header = kind + struct.pack(">I", length)
    if length > limits[kind]:
        with pytest.raises(FrameError):
            parser.feed(header)
    elif length:
        assert parser.feed(header) == []


@pytest.mark.parametrize(
    "data",
    [
        b"Z\0\0\0\0",
        b"HTTP/1.1 200 OK\r\n",
        frame(b"S"),
        frame(b"O", b"x"),
        frame(b"X", END),
        frame(b"R", READY) * 2,
        frame(b"R", READY) + frame(b"X", END),
        frame(b"R", READY) + frame(b"O", b"before the job"),
        frame(b"R", READY) + frame(b"S") + frame(b"S"),
        frame(b"R", READY) + frame(b"S") + frame(b"O"),
        frame(b"R", READY) + frame(b"S") + frame(b"E"),
        frame(b"R", READY) + frame(b"S") + frame(b"R", READY),
        frame(b"R", READY) + frame(b"S") + frame(b"X", END) + frame(b"O", b"after the job"),
        frame(b"R", READY) + frame(b"S") + frame(b"X", END) * 2,
    ],
)
def test_frames_out_of_order_are_refused(data):
    with pytest.raises(FrameError):
        FrameParser().feed(data)


@pytest.mark.parametrize(
    "change",
    [
        {"exit_code": 256},
        {"exit_code": -1},
        {"exit_code": "0"},
        {"exit_code": True},
        {"signal": 0},
        {"cpu_ms": -1},
        {"peak": 2**63},
        {"peak": 1.5},
        {"flooded": "both"},
        {"broke": "everything"},
        {"clean": 1},
        {"dirt": "x" * 1001},
        {"more": 1},
    ],
)
def test_an_end_with_a_value_out_of_range_is_refused(change):
    parser = FrameParser()
    parser.feed(frame(b"R", READY) + frame(b"S"))
    with pytest.raises(FrameError):
        parser.feed(frame(b"X", {**END, **change}))


@pytest.mark.parametrize("payload", [b"", b"[]", b"{", b"\xff", b"[" * 1000, b"NaN"])
def test_a_payload_that_is_no_object_is_refused(payload):
    with pytest.raises(FrameError):
        FrameParser().feed(frame(b"R", payload))
