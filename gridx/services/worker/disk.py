"""How much of this machine's disk jobs may use: one budget for everything that the worker keeps for them.

Whoever keeps something says how much that is. What can be had again, like a cached input file, is given up
when something else needs the room. All methods block and may be called from several threads.
"""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

MIN_FREE_BYTES: Final = 32 << 20
"""What stays free on the disk, whatever the budget."""


class DiskBudget:
    """The budget of one worker.

    Args:
        total_bytes: what its owner allows; None: what the disk has.
        folder: on the disk in question.
    """

    def __init__(self, total_bytes: int | None, folder: Path) -> None:
        self.total_bytes = total_bytes
        self._folder = folder
        self._used: list[Callable[[], int]] = []
        self._give_up: list[Callable[[int], None]] = []
        self._lock = threading.Lock()

    def count(self, used: Callable[[], int], give_up: Callable[[int], None] | None = None) -> None:
        """Count what somebody keeps.

        Args:
            used: bytes that it keeps, or has set aside, now.
            give_up: asked to free so many bytes if it can.
        """
        self._used.append(used)
        if give_up is not None:
            self._give_up.append(give_up)

    def left_bytes(self) -> int:
        """What may still be used; negative where more is used than is allowed."""
        return min(self._free_bytes(), self._allowed_bytes())

    def lacking_bytes(self, wanted: int, then: Callable[[], None] | None = None) -> int:
        """How many bytes of those that are wanted are lacking, after what can be given up was; 0: it fits.

        Args:
            then: called when it fits, before anybody else can ask: sets the room aside.
        """
        with self._lock:
            for give_up in self._give_up:
                if (lacking := wanted - self.left_bytes()) > 0:
                    give_up(lacking)
            lacking = max(0, wanted - self.left_bytes())
            if not lacking and then is not None:
                then()
            return lacking

    def shortage(self, lacking: int, what: str) -> str:
        """Why there is no room, in words."""
        more = f"{max(1, lacking >> 20):,} MiB more are needed for {what}"
        if self.total_bytes is None or self._free_bytes() <= self._allowed_bytes():
            return f"the worker's disk is full: {more}"
        return f"the worker's owner lets jobs use {self.total_bytes >> 20:,} MiB of the disk: {more}"

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self._folder).free - MIN_FREE_BYTES

    def _allowed_bytes(self) -> int:
        if self.total_bytes is None:
            return sys.maxsize
        return self.total_bytes - sum(used() for used in self._used)
