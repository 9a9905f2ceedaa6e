"""Large messages are read one after the other, with pauses in which everybody else has the event loop.

While a message is read nothing else happens. One of some MiB may hold so many small values that this takes
seconds, in which no worker's sign of life is heard: it is refused unread. What is left takes some tenths of a
second, and many of those at once must not follow each other without a pause.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from gridx.errors import TooLarge, TooMany

T = TypeVar("T")

SMALL_BYTES: Final = 64 << 10
"""Up to this a message is read at once: it takes a few milliseconds at most."""
PAUSE: Final = 4.0
"""How many times as long as a large message took the next one waits."""
MOST: Final[Mapping[bytes, int]] = {b",": 1_000_000, b":": 400_000, b"[": 250_000, b"{": 120_000}
"""How often a message may hold what separates and begins values; in texts they count, too, as to tell them
apart takes as long as to read it. An array of a hundred thousand with ten arguments each is within."""
MAX_IN_LINE: Final = 16
"""Large bodies of one user that may wait."""


class Turns:
    """Whose large message is read next: one at a time, and of each user one in line."""

    def __init__(self) -> None:
        self._reading = asyncio.Lock()
        self._lines: dict[int, tuple[asyncio.Lock, list[None]]] = {}

    @asynccontextmanager
    async def line(self, user_id: int) -> AsyncIterator[None]:
        """Wait until no other large body of a user is being taken in. Raises TooMany when too many wait."""
        lock, waiting = self._lines.setdefault(user_id, (asyncio.Lock(), []))
        if len(waiting) >= MAX_IN_LINE:
            raise TooMany(
                "Too many large requests of yours are waiting.", "Send them one by one.", retry_after_s=5
            )
        waiting.append(None)
        try:
            async with lock:
                yield
        finally:
            waiting.pop()
            if not waiting:
                del self._lines[user_id]

    async def read(self, data: bytes, work: Callable[[bytes], T]) -> T:
        """Do ``work``, which reads a message; a large one when its turn has come. Raises TooLarge unread."""
        if len(data) <= SMALL_BYTES:
            return work(data)
        for mark, most in MOST.items():
            if data.count(mark) > most:
                raise TooLarge("This holds too many values.", "Send it in several parts.")
        await self._reading.acquire()
        begun = time.perf_counter()
        try:
            return work(data)
        finally:
            # The next one waits, and not whoever waits for this one.
            pause_s = PAUSE * (time.perf_counter() - begun)
            asyncio.get_running_loop().call_later(pause_s, self._reading.release)
