"""Writing to a terminal that may stand still or go away, without holding the process up.

Textual's own writer hands each frame to a thread through a short queue and waits where that is full. So a
terminal that was stopped (a frozen SSH session) or closed would stop the event loop, and with it a
coordinator that runs in the same process. Here frames are dropped when the terminal does not take them, and
when it does again the whole screen is drawn anew.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from textual.driver import Driver

MAX_PENDING_BYTES: Final = 1 << 20
"""More than some whole screens: a terminal that is this far behind stands still."""
LAST_WORDS_S: Final = 1.0
"""How long the sequences that give the terminal back may take."""


class SteadyFile:
    """A file for one terminal whose ``write`` neither waits nor fails.

    Args:
        fd: the terminal.
        repaint: called from a thread when frames were dropped and the terminal takes them again.
    """

    def __init__(self, fd: int, repaint: Callable[[], None]) -> None:
        self._fd = fd
        self._repaint = repaint
        self._pending: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = False
        self._over = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="terminal", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Take text to be written in order."""
        data = text.encode("utf-8", "replace")
        with self._changed:
            if not self._over:
                if self._bytes + len(data) > MAX_PENDING_BYTES:
                    self._pending.clear()
                    self._bytes = 0
                    self._dropped = True
                self._pending.append(data)
                self._bytes += len(data)
                self._changed.notify()
        return len(text)

    def flush(self) -> None:
        """Nothing: what was taken is written as soon as the terminal takes it."""

    def fileno(self) -> int:
        """The terminal."""
        return self._fd

    def isatty(self) -> bool:
        """It is one."""
        return True

    def finish(self, timeout_s: float = LAST_WORDS_S) -> None:
        """Write what is left, for a while at most, and take nothing more."""
        with self._changed:
            self._over = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._pending and not self._over:
                    self._changed.wait()
                if not self._pending:
                    return
                data = self._pending.popleft()
                self._bytes -= len(data)
            try:
                while data:
                    data = data[os.write(self._fd, data) :]
            except OSError:
                self._give_up()
                return
            with self._changed:
                repaint, self._dropped = (
                    self._dropped and not self._pending,
                    self._dropped and bool(self._pending),
                )
            if repaint and not self._over:
                self._repaint()

    def _give_up(self) -> None:
        """The terminal is gone."""
        with self._changed:
            self._over = True
            self._pending.clear()
            self._bytes = 0


def driver_class() -> type[Driver] | None:
    """Textual's driver with a steady file; None where the platform has another way to write."""
    if sys.platform == "win32":
        return None
    from textual._ansi_sequences import ANSI_SEQUENCES_KEYS
    from textual.drivers.linux_driver import LinuxDriver

    # Alt and a digit go to a pane. Textual takes what terminals send for it as the character that this types
    # on a Macintosh, so that it would go into the program instead.
    if isinstance(ANSI_SEQUENCES_KEYS, dict):
        for digit in range(10):
            ANSI_SEQUENCES_KEYS.pop(f"\x1b{digit}", None)

    class SteadyDriver(LinuxDriver):
        """As Textual's own, but for the file."""

        def __init__(self, app: Any, **options: Any) -> None:
            super().__init__(app, **options)
            terminal = sys.__stderr__
            assert terminal is not None
            self._steady = SteadyFile(terminal.fileno(), self._repaint)
            self._file = cast("Any", self._steady)
            self._running_loop = asyncio.get_running_loop()

        def _get_terminal_size(self) -> tuple[int, int]:
            """The terminal's own word; COLUMNS and LINES of the environment do not follow a resize."""
            with suppress(OSError):
                width, height = os.get_terminal_size(self._steady.fileno())
                if width and height:
                    return width, height
            return super()._get_terminal_size()

        def stop_application_mode(self) -> None:
            """Leave an empty screen behind: where it was made larger meanwhile, some terminals keep parts."""
            self.write("\x1b[0m\x1b[H\x1b[2J")
            super().stop_application_mode()

        def close(self) -> None:
            """Give the terminal back."""
            super().close()
            self._steady.finish()

        def _repaint(self) -> None:
            with suppress(RuntimeError):  # the loop has ended
                self._running_loop.call_soon_threadsafe(self._draw_anew)

        def _draw_anew(self) -> None:
            if self._app.is_running:
                self._app.refresh(layout=True)

    return SteadyDriver
