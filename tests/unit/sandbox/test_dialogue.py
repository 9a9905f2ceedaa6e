"""The worker's side of a job: caps, clock and judgement, against a supervisor that a test plays."""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any

import pytest

from gridx.errors import SandboxBroken
from gridx.services.worker.sandbox import dialogue
from gridx.services.worker.sandbox.base import RunRequest
from gridx.services.worker.sandbox.dialogue import Dialogue, Line
from gridx.services.worker.sandbox.judgement import judge, signal_name

END = {
    "exit_code": 0,
    "signal": None,
    "flooded": "",
    "broke": "",
    "memory_error": False,
    "clean": True,
    "dirt": "",
    "cpu_ms": 5,
    "peak": 30 << 20,
    "oom_kills": 0,
}


def frame(kind: bytes, payload: bytes | dict[str, Any] = b"") -> bytes:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return kind + struct.pack(">I", len(data)) + data


def end(**changes: Any) -> bytes:
    return frame(b"X", {**END, **changes})


READY = frame(b"R", {"protocol": 1, "python": "3.12", "pid": 1})


def request(**fields: Any) -> RunRequest:
    defaults: dict[str, Any] = {
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
    }
    return RunRequest(**{**defaults, **fields})


class Played:
    """A channel whose other end is the test."""

    def __init__(self, *data: bytes, ends: bool = True) -> None:
        self.incoming: asyncio.Queue[bytes] = asyncio.Queue()
        for part in data:
            self.incoming.put_nowait(part)
        if ends:
            self.incoming.put_nowait(b"")
        self.input_ended = asyncio.Event()
        self.killed = asyncio.Event()
        self.on_end_input = b""

    async def send(self, data: bytes) -> None:
        return

    async def receive(self) -> bytes:
        return await self.incoming.get()

    async def end_input(self) -> None:
        self.input_ended.set()
        if self.on_end_input:
            self.incoming.put_nowait(self.on_end_input)

    def last_words(self) -> str:
        return "last words"

    async def kill(self) -> None:
        self.killed.set()
        self.incoming.put_nowait(b"")


async def follow(
    channel: Played, asked: RunRequest | None = None, *, cancel: asyncio.Event | None = None, check=None
):
    """Run a dialogue; the ending, what reached the sink, how often ``started`` was called."""
    asked = asked or request()
    written: dict[str, bytes] = {"stdout": b"", "stderr": b""}
    starts = 0

    async def sink(stream: str, data: bytes) -> None:
        written[stream] += data

    async def started() -> None:
        nonlocal starts
        starts += 1

    async def nothing() -> None:
        return

    line = Line(channel)
    await line.ready()
    talk = Dialogue(line, asked, sink, started, kill=channel.kill, check=check or nothing)
    ending = await talk.run(b"", cancel or asyncio.Event())
    return ending, written, starts


async def test_output_reaches_the_sink_in_order_and_the_job_starts_once():
    channel = Played(READY, frame(b"S"), frame(b"O", b"a") + frame(b"E", b"b"), frame(b"O", b"c") + end())
    ending, written, starts = await follow(channel)
    assert (ending.how, written, starts) == ("ended", {"stdout": b"ac", "stderr": b"b"}, 1)
    assert judge(request(), ending).outcome == "succeeded"
    assert not channel.input_ended.is_set()


async def test_output_past_the_cap_is_replaced_by_one_marker():
    channel = Played(READY, frame(b"S"), frame(b"O", b"x" * 60), frame(b"O", b"y" * 41) + end())
    _, written, _ = await follow(channel)
    assert written["stdout"].startswith(b"x" * 60 + b"y" * 40 + b"\n[gridx:")
    assert written["stdout"].count(b"100 bytes") == 1


async def test_a_supervisor_that_passes_on_more_than_it_may_is_broken():
    with pytest.raises(SandboxBroken, match="more output"):
        await follow(Played(READY, frame(b"S"), frame(b"O", b"x" * 101), frame(b"O", b"x") + end()))


async def test_a_supervisor_that_goes_on_after_the_end_is_broken():
    with pytest.raises(SandboxBroken):
        await follow(Played(READY, frame(b"S"), end() + frame(b"S")))


async def test_a_supervisor_that_speaks_another_language_is_broken():
    with pytest.raises(SandboxBroken, match="frame"):
        await follow(Played(READY, frame(b"S"), b"HTTP/1.1 400 Bad Request\r\n"))


async def test_a_supervisor_that_ends_before_it_is_ready_says_why():
    with pytest.raises(SandboxBroken, match="last words"):
        await follow(Played())


async def test_a_stream_that_ends_without_a_word_is_vanished():
    ending, _, _ = await follow(Played(READY, frame(b"S"), frame(b"O", b"half")))
    assert (ending.how, ending.end) == ("vanished", None)


async def test_past_the_deadline_the_job_is_ended_and_the_supervisor_s_figures_count():
    channel = Played(READY, frame(b"S"), ends=False)
    channel.on_end_input = frame(b"O", b"last") + end(exit_code=None)
    ending, written, _ = await follow(channel, request(timeout_s=0))
    assert (ending.how, written["stdout"]) == ("timed_out", b"last")
    outcome = judge(request(timeout_s=1), ending)
    assert (outcome.outcome, outcome.cpu_ms, outcome.exit_code) == ("timed_out", 5, None)
    assert not channel.killed.is_set()


async def test_a_supervisor_that_does_not_yield_is_killed(monkeypatch):
    monkeypatch.setattr(dialogue, "YIELD_WITHIN_S", 0.01)
    usage = frame(b"U", {"cpu_ms": 7, "peak": 9})
    channel = Played(READY, frame(b"S"), usage, ends=False)
    ending, _, _ = await follow(channel, request(timeout_s=0))
    assert channel.killed.is_set()
    assert (ending.how, judge(request(), ending).cpu_ms) == ("timed_out", 7)


async def test_cancel_ends_the_job_also_before_it_has_begun():
    cancel = asyncio.Event()
    cancel.set()
    for data in ((READY,), (READY, frame(b"S"))):
        channel = Played(*data, ends=False)
        channel.on_end_input = b"\0"[:0] or frame(b"S") * (len(data) == 1) + end(exit_code=None)
        ending, _, _ = await follow(channel, cancel=cancel)
        assert judge(request(), ending).outcome == "cancelled"


async def test_a_job_that_does_not_begin_is_the_machine_s_fault(monkeypatch):
    monkeypatch.setattr(dialogue, "BEGIN_WITHIN_S", 0.01)
    with pytest.raises(SandboxBroken, match="did not begin"):
        await follow(Played(READY, ends=False))


async def test_in_a_silence_somebody_is_asked_and_may_call_it_off(monkeypatch):
    monkeypatch.setattr(dialogue, "SILENCE_S", 0.01)
    asked = 0

    async def check() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise SandboxBroken("nobody there")

    with pytest.raises(SandboxBroken, match="nobody there"):
        await follow(Played(READY, frame(b"S"), ends=False), check=check)


async def test_an_error_of_the_sink_or_the_started_hook_is_not_swallowed():
    line = Line(Played(READY, frame(b"S"), frame(b"O", b"x") + end()))
    await line.ready()

    async def nothing() -> None:
        return

    async def sink(stream: str, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    talk = Dialogue(line, request(), sink, nothing, kill=nothing, check=nothing)
    with pytest.raises(OSError, match="No space"):
        await talk.run(b"", asyncio.Event())


@pytest.mark.parametrize(
    ("changes", "outcome", "reason"),
    [
        ({"exit_code": 0}, "succeeded", ""),
        ({"exit_code": 0, "oom_kills": 1}, "succeeded", ""),
        ({"exit_code": 3}, "failed", "exit code 3"),
        ({"exit_code": 137}, "failed", "exit code 137"),
        ({"exit_code": None, "signal": 11}, "failed", "SIGSEGV"),
        ({"exit_code": None, "signal": 9}, "failed", "SIGKILL"),
        ({"exit_code": None, "signal": 9, "oom_kills": 1}, "out_of_memory", "128 MiB"),
        ({"exit_code": 1, "oom_kills": 1}, "out_of_memory", "30 MiB"),
        ({"exit_code": 1, "memory_error": True}, "out_of_memory", "128 MiB"),
        ({"exit_code": 2, "memory_error": True}, "failed", "exit code 2"),
        ({"exit_code": None, "broke": "memory"}, "out_of_memory", "128 MiB"),
        ({"exit_code": None, "broke": "pids"}, "failed", "64 processes"),
        ({"exit_code": None, "flooded": "stderr"}, "failed", "stderr"),
    ],
)
async def test_each_end_gets_its_own_name_and_reason(changes, outcome, reason):
    ending, _, _ = await follow(Played(READY, frame(b"S"), end(**changes)))
    judged = judge(request(), ending)
    assert judged.outcome == outcome
    assert reason in judged.reason
    assert judged.peak_memory_bytes == 30 << 20


def test_signals_have_names_for_people():
    assert signal_name(11) == "SIGSEGV (segmentation fault)"
    assert signal_name(63) == "signal 63"


async def test_what_a_job_has_used_is_known_while_it_runs_and_never_falls():
    asked = request()
    usage = [frame(b"U", {"cpu_ms": used, "peak": 0}) for used in (700, 400, 900)]
    channel = Played(READY, frame(b"S"), *usage, ends=False)
    line = Line(channel)
    await line.ready()

    async def sink(stream, data):
        return

    async def nothing():
        return

    talk = Dialogue(line, asked, sink, nothing, kill=channel.kill, check=nothing)
    running = asyncio.create_task(talk.run(b"", asyncio.Event()))
    while asked.meter.cpu_ms < 900:
        await asyncio.sleep(0)
    channel.incoming.put_nowait(end(cpu_ms=950))
    await running
    assert asked.meter.cpu_ms == 950
    # Each attempt has its own.
    assert request().meter.cpu_ms == 0
