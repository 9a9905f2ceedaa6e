"""Passwords: argon2id in a bounded pool of threads with a bounded line in front of it.

One hash takes about a tenth of a second and tens of MiB by design. So it never runs on the event loop, no
more than a few run at once, and whoever comes when the line is full is told to come back: guessing cannot
take the machine away from those who are signed in.
"""

from __future__ import annotations

import asyncio
import os
import warnings
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from gridx.errors import TooMany

with warnings.catch_warnings():
    # passlib reads argon2-cffi's version the old way and imports crypt: both warn, neither matters here.
    warnings.simplefilter("ignore", DeprecationWarning)
    from passlib.hash import argon2

    argon2.set_backend("argon2_cffi")

ROUNDS: Final = 3
WAITING_PER_THREAD: Final = 24
"""Callers that may wait for each hashing thread."""

T = TypeVar("T")


class Passwords:
    """Makes and checks argon2id hashes.

    Args:
        threads: hashes that run at once.
        memory_mb: MiB that each takes.
    """

    def __init__(self, *, threads: int, memory_mb: int) -> None:
        self._scheme: Any = argon2.using(  # type: ignore[no-untyped-call]
            type="ID", rounds=ROUNDS, memory_cost=memory_mb * 1024, parallelism=1
        )
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="gridx-hash")
        self._most = threads * (1 + WAITING_PER_THREAD)
        self._inside = 0
        salt, digest = (b64encode(os.urandom(n)).decode().rstrip("=") for n in (16, 32))
        # Costs as much to check as a real one, and nothing matches it.
        self._nobody = f"$argon2id$v=19$m={memory_mb * 1024},t={ROUNDS},p=1${salt}${digest}"

    async def hash(self, password: bytes) -> str:
        """Hash a new password. Raises TooMany when the line is full."""
        return await self._run(lambda: str(self._scheme.hash(password)))

    async def verify(self, password: bytes, stored: str | None) -> bool:
        """Whether a password matches. Without a usable hash the answer is no, after the same time.

        Raises:
            TooMany: the line is full; nothing is known about the password.
        """
        known = stored is not None and stored.startswith("$argon2")
        against = stored if stored is not None and known else self._nobody
        return await self._run(lambda: bool(self._scheme.verify(password, against))) and known

    async def _run(self, work: Callable[[], T]) -> T:
        if self._inside >= self._most:
            raise TooMany(
                "Too many sign-ins are waiting for their password to be checked.",
                "Try again in a few seconds.",
                retry_after_s=5,
            )
        self._inside += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._inside -= 1

    def close(self) -> None:
        """Drop what waits; the threads end by themselves."""
        self._pool.shutdown(wait=False, cancel_futures=True)
