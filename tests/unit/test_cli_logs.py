"""Log lines: nothing that anybody sends can forge one, and writing them holds nothing up."""

from __future__ import annotations

import json
import logging
import threading

import pytest

from gridx import logs
from gridx.config import LogSettings


def record(message: str, *args: object, error: BaseException | None = None) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord("gridx.test", logging.INFO, "", 0, message, args, info)


@pytest.fixture
def restored():
    """Leaves logging as it was found."""
    root, own = logging.getLogger(), logging.getLogger("gridx")
    before = (list(root.handlers), root.level, own.level, logging.raiseExceptions)
    yield
    logs.close()
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    own.setLevel(before[2])
    logging.raiseExceptions = before[3]
    logging.captureWarnings(False)


HOSTILE = (
    "evil\n2026-01-01T00:00:00Z info gridx.coordinator worker 9 authenticated (owner: admin)\x1b[2J\x9b\u202e"
)


def test_a_message_is_one_line_whatever_is_in_it():
    text = logs.TextFormat().format(record("name: %s", HOSTILE))
    assert text.count("\n") == 0
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert "\u202e" not in text


def test_json_lines_are_one_object_each():
    text = logs.JsonFormat().format(record("name: %s", HOSTILE))
    fields = json.loads(text)
    assert "\n" not in text
    assert fields["logger"] == "gridx.test"
    assert fields["level"] == "info"
    assert "\x1b" not in fields["message"]


def test_a_traceback_is_indented_and_cleaned():
    try:
        raise ValueError(HOSTILE)
    except ValueError as error:
        text = logs.TextFormat().format(record("it failed", error=error))
        as_json = json.loads(logs.JsonFormat().format(record("it failed", error=error)))
    first, *rest = text.split("\n")
    assert first.endswith("it failed")
    assert rest
    assert all(line.startswith("    ") for line in rest)
    assert "\x1b" not in text
    assert any("ValueError" in line for line in as_json["traceback"])


def test_a_handler_that_hangs_holds_nothing_up_and_drops_are_counted(monkeypatch):
    monkeypatch.setattr(logs, "QUEUE_LINES", 5)
    released, written = threading.Event(), []

    class Stuck(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            released.wait(30)
            written.append(record.getMessage())

    apart = logs.Apart(Stuck())
    for number in range(50):
        apart.handle(record("line %d", number))
    released.set()
    apart.handle(record("after"))
    apart.close()
    assert "line 0" in written
    assert len(written) < 50
    assert any("dropped" in line for line in written)


def test_a_log_file_is_for_its_owner_alone(tmp_path, restored):
    path = tmp_path / "data" / "gridx.log"
    seen = []

    class Also(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())

    logs.to_file(LogSettings(level="info"), path, Also())
    logging.getLogger("gridx.test").info("hello %s", "there")
    logging.getLogger("gridx.test").debug("not this")
    logging.getLogger("aiohttp.access").info("nor this")
    logs.close()
    assert "hello there" in path.read_text()
    assert seen == ["hello there"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
