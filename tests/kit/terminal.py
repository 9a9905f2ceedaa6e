"""A real terminal: a program in a pty, every byte that it sends there, and keys that are typed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
import unicodedata
from collections.abc import Mapping, Sequence

# What programs of this project may send: colours, and what a full screen needs.
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
SCREEN = re.compile(
    r"\x1b(?:\[[0-9;?<>=]*[ -/]*[@-~]|[()][0-9A-Z]|[=>78DM]|\]22;default\x07)"
    # It rings where a key is typed that a field does not take; how it ends tells whether it rang for more.
    r"|\x07"
    # What is read while it is being sent may end within one.
    r"|\x1b(?:\[[0-9;?<>=]*|\]2?2?;?[a-z]*)?\Z"
)


class Terminal:
    """A program on a terminal of its own."""

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str], *, size: tuple[int, int] = (120, 40)
    ):
        master, slave = pty.openpty()
        columns, rows = size
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        environ = {**environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8"}
        environ.pop("NO_COLOR", None)
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environ, start_new_session=True
        )
        os.close(slave)
        self._master = master
        self._bytes = bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._master, 65536):
                self._bytes += data

    @property
    def sent(self) -> bytes:
        """Every byte that the terminal was sent."""
        return bytes(self._bytes)

    @property
    def text(self) -> str:
        return self.sent.decode("utf-8", "replace")

    @property
    def words(self) -> str:
        """What can be read of it, without what moves and colours it."""
        return SCREEN.sub("", self.text)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait(self, within_s: float = 60) -> int:
        code = self.process.wait(within_s)
        self._thread.join(10)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._thread.join(10)
        os.close(self._master)


def obeyed(text: str, allowed: re.Pattern[str]) -> list[str]:
    """Characters of a text that a terminal would obey or turn around, besides what is allowed."""
    return [
        ascii(char)
        for char in allowed.sub("", text)
        if (char < " " and char not in "\n\r\t")
        or "\x7f" <= char <= "\x9f"
        or unicodedata.category(char) in ("Cf", "Cs", "Zl", "Zp")
    ]
