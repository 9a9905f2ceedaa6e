"""Log lines kept for the log pane: bounded, and filled from any thread.

While the dashboard has the terminal nothing may be written to it, so the root logger's handler is a
:class:`Logbook` (and a file) in place of stderr.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from gridx import safetext

MAX_LINES = 5000
MAX_LINE_CHARS = 4000


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line as the pane shows it; ``text`` is safe to print."""

    number: int
    at: datetime
    level: int
    source: str
    text: str


class Logbook(logging.Handler):
    """Keeps the newest lines; ``since`` hands over what came after a line's number."""

    def __init__(self, level: int = logging.NOTSET, *, keep: int = MAX_LINES) -> None:
        super().__init__(level)
        self._lines: deque[LogLine] = deque(maxlen=keep)
        self._count = 0
        self._guard = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record; a traceback becomes lines of its own."""
        try:
            text = record.getMessage()
            if record.exc_info:
                text += "\n" + logging.Formatter().formatException(record.exc_info)
        except Exception:
            self.handleError(record)
            return
        at = datetime.fromtimestamp(record.created, UTC)
        with self._guard:
            for part in safetext.clean(text, limit=64 * MAX_LINE_CHARS).split("\n"):
                self._count += 1
                self._lines.append(
                    LogLine(self._count, at, record.levelno, record.name, part[:MAX_LINE_CHARS])
                )

    def since(self, number: int) -> Sequence[LogLine]:
        """The lines with numbers above ``number``, oldest first."""
        with self._guard:
            if not self._lines or self._count <= number:
                return ()
            skip = number - self._lines[0].number + 1
            return [line for i, line in enumerate(self._lines) if i >= skip]

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Nothing: the usual complaint on stderr would be written over the screen."""
