"""What is told over a connection and in which order; over any number of them it is told exactly once."""

from __future__ import annotations

import asyncio
import random

import pytest

from gridx.messages import (
    MAX_BATCH,
    Accepted,
    Finished,
    Output,
    Refused,
    Sample,
    Started,
    StreamOffsets,
)
from gridx.services.worker import outbox as outbox_module
from gridx.services.worker.outbox import WINDOW_BYTES, Outbox, Report
from gridx.services.worker.spool import Spool


class Line:
    """A connection's other end: keeps output by offset, answers samples when it is told to."""

    def __init__(self, spool, reports, stored=None):
        self.stored = stored if stored is not None else {}
        self.sent = []
        self.batches = []
        self.answers = True
        self.seq = 0
        offsets = {
            id: StreamOffsets(stdout=len(self.have(id, "stdout")), stderr=len(self.have(id, "stderr")))
            for id in reports
        }
        self.outbox = Outbox(spool, reports, offsets, self.mark)
        self.task = asyncio.create_task(self.outbox.run(self.send))

    def have(self, id, stream):
        return self.stored.setdefault((id, stream), bytearray())

    def mark(self):
        self.seq += 1
        return Sample(seq=self.seq, attempts=[])

    async def send(self, frames):
        assert 0 < len(frames) <= MAX_BATCH
        self.batches.append(frames)
        for frame in frames:
            self.sent.append(frame)
            if isinstance(frame, Output):
                have = self.have(frame.attempt_id, frame.stream)
                assert frame.offset == len(have)
                have += frame.data
            elif isinstance(frame, Sample) and self.answers:
                self.outbox.confirm(frame.seq)

    async def close(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def lines():
    made = []
    yield made
    for line in made:
        await line.close()


@pytest.fixture
def spool(tmp_path):
    opened = Spool.open(tmp_path / "spool")
    yield opened
    opened.close()


def report(spool, id, **written):
    made = Report(spool.entry(id, 1 << 30), "default", started=True)
    for stream, data in written.items():
        made.entry.write(stream, data)
    return made


def finish(one):
    one.end(
        Finished(
            attempt_id=one.attempt_id,
            outcome="succeeded",
            stdout_bytes=one.entry.lengths["stdout"],
            stderr_bytes=one.entry.lengths["stderr"],
        )
    )


async def test_an_attempt_is_told_in_the_order_of_its_life(spool, lines, until):
    one = report(spool, 1, stdout=b"out", stderr=b"err")
    finish(one)
    line = Line(spool, {1: one})
    lines.append(line)
    line.outbox.put(Accepted(attempt_id=1))
    await line.outbox.told()
    assert [type(frame) for frame in line.sent] == [Accepted, Started, Output, Output, Finished]
    # Nothing is told twice.
    line.outbox.touch(1, hurry=True)
    line.outbox.put(Refused(attempt_id=2, reason="no"))
    await line.outbox.told()
    assert [type(frame) for frame in line.sent[5:]] == [Refused]


async def test_words_do_not_wait_behind_output(spool, lines, until):
    one = report(spool, 1, stdout=b"x" * (4 * WINDOW_BYTES))
    line = Line(spool, {1: one})
    lines.append(line)
    line.answers = False
    await until(lambda: len(line.have(1, "stdout")) == WINDOW_BYTES, "the window to be full")
    line.outbox.put(Refused(attempt_id=2, reason="no"))
    await until(lambda: isinstance(line.sent[-1], Refused), "the word")
    assert len(line.have(1, "stdout")) == WINDOW_BYTES


async def test_a_burst_of_words_travels_in_few_messages(spool, lines):
    line = Line(spool, {})
    lines.append(line)
    line.outbox.put(*(Accepted(attempt_id=id) for id in range(1, 1001)))
    await line.outbox.told()
    assert [frame.attempt_id for frame in line.sent] == list(range(1, 1001))
    assert len(line.batches) <= 4


async def test_a_thousand_results_are_all_told_though_the_window_is_small(spool, lines):
    reports = {id: report(spool, id, stdout=b"x" * 500) for id in range(1, 1001)}
    for one in reports.values():
        finish(one)
    line = Line(spool, reports)
    lines.append(line)
    await line.outbox.told()
    assert sorted(frame.attempt_id for frame in line.sent if isinstance(frame, Finished)) == sorted(reports)


async def test_what_was_dropped_is_not_told(spool, lines):
    reports = {1: report(spool, 1, stdout=b"one"), 2: report(spool, 2, stdout=b"two")}
    gone = reports.pop(1)
    gone.entry.drop()
    line = Line(spool, reports)
    lines.append(line)
    line.outbox.touch(1)
    await line.outbox.told()
    assert {frame.attempt_id for frame in line.sent if not isinstance(frame, Sample)} == {2}


async def test_a_result_that_is_not_acknowledged_is_told_again(spool, lines, monkeypatch):
    one = report(spool, 1)
    finish(one)
    line = Line(spool, {1: one})
    lines.append(line)
    await line.outbox.told()
    line.outbox.remind()
    await line.outbox.told()
    assert line.sent.count(one.finished) == 1
    monkeypatch.setattr(outbox_module, "REMIND_S", -1.0)
    line.outbox.remind()
    await line.outbox.told()
    assert line.sent.count(one.finished) == 2


@pytest.mark.parametrize("seed", range(8))
async def test_over_any_breaks_of_the_line_every_byte_arrives_once_and_in_order(spool, lines, seed):
    """Attempts write while connections come and go; each new one goes on from what the last one stored."""
    rng = random.Random(seed)
    reports = {id: report(spool, id) for id in (1, 2, 3)}
    written = {(id, stream): b"" for id in reports for stream in ("stdout", "stderr")}
    stored = {}
    for _ in range(6):
        line = Line(spool, reports, stored)
        lines.append(line)
        for _ in range(rng.randrange(12)):
            id, stream = rng.choice(list(written))
            data = rng.randbytes(rng.randrange(1, 40_000))
            written[id, stream] += data
            reports[id].entry.write(stream, data)
            line.outbox.touch(id)
            for _ in range(rng.randrange(20)):
                await asyncio.sleep(0)
        await line.close()
    for one in reports.values():
        finish(one)
    line = Line(spool, reports, stored)
    lines.append(line)
    await line.outbox.told()
    assert {key: bytes(line.have(*key)) for key in written} == written
    assert sum(isinstance(frame, Finished) for frame in line.sent) == 3
