"""Large messages take turns; small ones do not wait for them."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest

from gridx.errors import TooLarge, TooMany
from gridx.services.coordinator import turns as module
from gridx.services.coordinator.turns import SMALL_BYTES, Turns

LARGE = bytes(SMALL_BYTES + 1)


def slow(data: bytes) -> str:
    end = time.perf_counter() + 0.05
    while time.perf_counter() < end:
        pass
    return "read"


async def test_between_large_messages_others_have_the_loop():
    turns, heard, gaps = Turns(), [], []

    async def live() -> None:
        while True:
            heard.append(time.perf_counter())
            await asyncio.sleep(0.001)

    living = asyncio.create_task(live())
    assert await asyncio.gather(*(turns.read(LARGE, slow) for _ in range(4))) == ["read"] * 4
    living.cancel()
    gaps = [later - earlier for earlier, later in pairwise(heard)]
    # Never two of them in one piece: there are as many silences as messages.
    assert sum(gap >= 0.05 for gap in gaps) >= 3
    assert len(heard) > 8


async def test_a_small_message_is_read_while_a_large_one_waits():
    turns = Turns()
    await turns.read(LARGE, slow)
    waiting = asyncio.create_task(turns.read(LARGE, slow))
    await asyncio.sleep(0)
    assert await turns.read(bytes(SMALL_BYTES), lambda data: "at once") == "at once"
    assert not waiting.done()
    assert await waiting == "read"


async def test_what_fails_lets_the_next_one_come():
    turns = Turns()

    def fails(data: bytes) -> None:
        raise ValueError("no")

    for _ in range(3):
        with pytest.raises(ValueError):
            await turns.read(LARGE, fails)


@pytest.mark.parametrize("mark", module.MOST)
async def test_a_message_of_too_many_values_is_refused_unread(mark):
    turns = Turns()
    most = mark * module.MOST[mark]
    assert await turns.read(most, len) == len(most)
    with pytest.raises(TooLarge):
        await turns.read(most + mark, len)


async def test_of_one_user_one_large_body_is_taken_in_and_so_many_wait(monkeypatch):
    monkeypatch.setattr(module, "MAX_IN_LINE", 3)
    turns, inside, most = Turns(), 0, 0

    async def take(user_id: int) -> None:
        nonlocal inside, most
        async with turns.line(user_id):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    mine = [asyncio.create_task(take(1)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(TooMany):
        await take(1)
    await take(2)
    await asyncio.gather(*mine)
    assert most <= 2
    assert not turns._lines
