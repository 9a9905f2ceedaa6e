"""Writing to a terminal that stands still or is gone: it neither waits nor fails."""

from __future__ import annotations

import os
import select
import threading

import pytest

from gridx.tui import terminal
from gridx.tui.terminal import SteadyFile, driver_class


class Pipe:
    """A terminal that takes a little and then stands still until it is read."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.open = {self.reader, self.writer}

    def close(self, *fds: int) -> None:
        for fd in fds or (self.reader, self.writer):
            if fd in self.open:
                self.open.remove(fd)
                os.close(fd)

    def read(self) -> bytes:
        return os.read(self.reader, 1 << 16)


@pytest.fixture
def pipe():
    made = Pipe()
    yield made
    made.close()


def test_what_is_written_arrives_in_order(pipe):
    file = SteadyFile(pipe.writer, lambda: None)
    for part in ("a", "é", "\x1b[2J"):
        file.write(part)
    file.finish()
    assert pipe.read().decode() == "aé\x1b[2J"


def test_a_terminal_that_stands_still_holds_nothing_up_and_is_drawn_anew(pipe):
    repainted = threading.Event()
    file = SteadyFile(pipe.writer, repainted.set)
    frame = "x" * 100_000
    for _ in range(100):
        file.write(frame)
    while not repainted.is_set():
        # Empty before it is drawn anew: a plain read would wait for what comes after.
        if select.select([pipe.reader], [], [], 0.01)[0]:
            pipe.read()
    file.write("new")
    file.finish()
    pipe.close(pipe.writer)
    rest = b""
    while data := pipe.read():
        rest += data
    assert rest.endswith(b"new")
    assert len(rest) < terminal.MAX_PENDING_BYTES


def test_a_terminal_that_is_gone_takes_everything_silently(pipe):
    pipe.close(pipe.reader)
    file = SteadyFile(pipe.writer, lambda: None)
    for _ in range(1000):
        file.write("x" * 10_000)
    file.finish()


def test_the_end_waits_for_a_terminal_that_stands_still_a_moment_only(pipe):
    file = SteadyFile(pipe.writer, lambda: None)
    file.write("x" * 500_000)
    file.finish(timeout_s=0.01)


def test_alt_and_a_digit_is_that_and_no_character():
    from textual._xterm_parser import XTermParser

    assert driver_class() is not None
    parser = XTermParser()
    keys = [*parser.feed("\x1b5"), *parser.feed("")]
    assert [event.key for event in keys] == ["alt+5"]
