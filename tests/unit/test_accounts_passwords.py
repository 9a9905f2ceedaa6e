"""Passwords: argon2id, in a bounded pool with a bounded line."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from gridx.errors import TooMany
from gridx.services.coordinator.passwords import WAITING_PER_THREAD, Passwords


@pytest.fixture
def passwords():
    made = Passwords(threads=1, memory_mb=8)
    yield made
    made.close()


async def test_only_the_right_password_matches(passwords):
    stored = await passwords.hash("säcret".encode())
    assert stored.startswith("$argon2id$v=19$m=8192,t=3,p=1$")
    assert "cret" not in stored
    assert await passwords.verify("säcret".encode(), stored)
    assert not await passwords.verify(b"secret", stored)


async def test_equal_passwords_have_different_hashes(passwords):
    assert await passwords.hash(b"the same") != await passwords.hash(b"the same")


@pytest.mark.parametrize("stored", [None, "!", ""])
async def test_without_a_hash_a_password_is_checked_all_the_same_and_never_right(passwords, stored):
    assert not await passwords.verify(b"anything", stored)


async def test_the_longest_password_is_taken(passwords):
    longest = ("\U0001f511" * 1024).encode()
    assert await passwords.verify(longest, await passwords.hash(longest))


async def test_who_comes_when_the_line_is_full_is_told_to_come_back(passwords):
    checks = [
        asyncio.create_task(passwords.verify(b"wrong", None)) for _ in range(WAITING_PER_THREAD * 2 + 5)
    ]
    done = await asyncio.gather(*checks, return_exceptions=True)
    refused = [found for found in done if isinstance(found, TooMany)]
    assert len(refused) == len(checks) - (WAITING_PER_THREAD + 1)
    assert refused[0].details["retry_after_s"] > 0
    assert not await passwords.verify(b"wrong", None)


def test_importing_and_hashing_warns_of_nothing():
    code = (
        "import asyncio; from gridx.services.coordinator.passwords import Passwords;"
        "p = Passwords(threads=1, memory_mb=8);"
        "h = asyncio.run(p.hash(b'x')); assert asyncio.run(p.verify(b'x', h)); p.close()"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
