"""Log lines: to stderr without a screen; with one to a file in the data folder and to the screen's own list.

Every line passes :mod:`gridx.safetext`, so no name and no output of anybody can forge a line or move a
cursor. Writing happens in a thread of its own with a bounded queue: a terminal that was stopped with Ctrl-S
or a slow disk does not stop the event loop.
"""

from __future__ import annotations

import contextlib
import json
import logging
import logging.handlers
import queue
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gridx import safetext
from gridx.config import LogSettings

FILE_BYTES: Final = 5 << 20
FILES_KEPT: Final = 3
QUEUE_LINES: Final = 10_000
MESSAGE_CHARS: Final = 4000
CLOSE_S: Final = 2.0


class TextFormat(logging.Formatter):
    """``2026-01-31T12:00:00Z info gridx.worker message``; a traceback follows, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line, and one more for each line of its traceback."""
        head = f"{_time(record)} {record.levelname.lower()} {record.name} {_message(record)}"
        trace = _trace(record)
        return head + "".join(f"\n    {safetext.line(part, limit=MESSAGE_CHARS)}" for part in trace)


class JsonFormat(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line of JSON."""
        fields: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        if trace := _trace(record):
            fields["traceback"] = [safetext.clean(part, limit=MESSAGE_CHARS) for part in trace]
        return json.dumps(fields, ensure_ascii=False)


class Apart(logging.Handler):
    """Hands records to a handler in a thread; past the queue's bound it drops them and counts how many."""

    def __init__(self, target: logging.Handler) -> None:
        super().__init__()
        self._target = target
        self._queue: queue.Queue[logging.LogRecord | None] = queue.Queue(QUEUE_LINES)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record, with its message made now: its arguments may change."""
        record.msg, record.args = record.getMessage(), None
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Write what is queued, for a while at most: a terminal that does not read must not hold us up."""
        if self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._queue.put(None, timeout=CLOSE_S)
            self._thread.join(CLOSE_S)
        super().close()

    def _write(self) -> None:
        while (record := self._queue.get()) is not None:
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                notice = f"{dropped} log lines were dropped: they came faster than they could be written"
                self._target.handle(
                    logging.LogRecord("gridx.log", logging.WARNING, "", 0, notice, None, None)
                )
            self._target.handle(record)
        self._target.close()


def to_stderr(settings: LogSettings) -> None:
    """Log to stderr, in place of everything that was set up before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_format(settings))
    _install(settings, Apart(handler))


def to_file(settings: LogSettings, path: Path, *also: logging.Handler) -> None:
    """Log to a file of mode 0600 that is replaced when it grows, and to ``also``; nothing to the terminal."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = logging.handlers.RotatingFileHandler(
        path, maxBytes=FILE_BYTES, backupCount=FILES_KEPT, encoding="utf-8", errors="backslashreplace"
    )
    path.chmod(0o600)
    file.setFormatter(_format(settings))
    _install(settings, Apart(file), *also)


def close() -> None:
    """Write what is queued and let go of files."""
    _install(LogSettings())


def _install(settings: LogSettings, *handlers: logging.Handler) -> None:
    logging.raiseExceptions = False  # a full disk or a closed stderr must not print tracebacks
    logging.captureWarnings(True)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        root.addHandler(handler)
    level = settings.level.upper()
    # The libraries' own progress is of interest to nobody but who asks for everything.
    root.setLevel(level if level in ("DEBUG", "ERROR") else "WARNING")
    logging.getLogger("gridx").setLevel(level)
    # They log each statement with its values, and each request: secrets are among them.
    for name in ("tortoise", "aiosqlite", "urllib3", "docker", "aiohttp.access", "markdown_it"):
        logging.getLogger(name).setLevel("WARNING")


def _format(settings: LogSettings) -> logging.Formatter:
    return JsonFormat() if settings.format == "json" else TextFormat()


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _message(record: logging.LogRecord) -> str:
    return safetext.line(record.getMessage(), limit=MESSAGE_CHARS)


def _trace(record: logging.LogRecord) -> list[str]:
    if not record.exc_info:
        return []
    return logging.Formatter().formatException(record.exc_info).splitlines()
