"""Accounts: transfers, grants, entries; nothing is made, lost or moved twice."""

from __future__ import annotations

import asyncio

import pytest

from gridx.errors import Conflict, InsufficientCredits, InvalidField, NotFound
from gridx.services.coordinator.ledger import MAX_AMOUNT
from gridx.services.coordinator.store.records import Idempotency


async def test_a_transfer_moves_credits(grid):
    after = await grid.store.transfer(grid.ann, grid.bob, 300, "for lunch")
    assert after.balance == 700
    assert await grid.balance(grid.bob) == 300
    (entry,) = await grid.store.entries(grid.bob, before=None, limit=10)
    assert (entry.kind, entry.amount, entry.note) == ("transfer", 300, "for lunch")
    await grid.sound()


async def test_nobody_can_send_more_than_they_have(grid):
    tries = [grid.store.transfer(grid.ann, grid.bob, 600, "") for _ in range(20)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(result, InsufficientCredits) for result in results) == 19
    assert await grid.balance(grid.ann) == 400
    await grid.sound()


@pytest.mark.parametrize("amount", [0, -1, MAX_AMOUNT + 1, 2**63, 10**40])
async def test_an_amount_that_is_none_is_refused(grid, amount):
    with pytest.raises(InvalidField):
        await grid.store.transfer(grid.ann, grid.bob, amount, "")
    with pytest.raises(InvalidField):
        await grid.store.grant(grid.ann, amount, "")


async def test_a_transfer_to_oneself_or_to_nobody_is_refused(grid):
    with pytest.raises(InvalidField):
        await grid.store.transfer(grid.ann, grid.ann, 1, "")
    for one, two in ((grid.ann, 99), (99, grid.ann)):
        with pytest.raises(NotFound):
            await grid.store.transfer(one, two, 1, "")
    with pytest.raises(NotFound):
        await grid.store.balance(99)
    await grid.sound()


async def test_a_transfer_with_a_key_moves_once(grid):
    key = Idempotency("key", b"digest")
    await asyncio.gather(
        *(grid.store.transfer(grid.ann, grid.bob, 100, "", idempotency=key) for _ in range(5))
    )
    assert await grid.balance(grid.ann) == 900
    with pytest.raises(Conflict):
        await grid.store.transfer(grid.ann, grid.bob, 1, "", idempotency=Idempotency("key", b"other"))
    for _ in range(2):
        await grid.store.grant(grid.bob, 7, "", idempotency=key)
    assert await grid.balance(grid.bob) == 107
    await grid.sound()


async def test_the_mint_ends_where_numbers_do(grid):
    await grid.store.grant(grid.bob, MAX_AMOUNT - 1000, "everything")
    with pytest.raises(Conflict):
        await grid.store.grant(grid.bob, 1, "one more")
    with pytest.raises(Conflict):
        await grid.store.create_user("carol", "hash", grant=1)
    assert await grid.store.user_by_name("carol") is None
    await grid.sound()


async def test_entries_are_read_in_pages_newest_first(grid):
    for amount in range(1, 8):
        await grid.store.transfer(grid.ann, grid.bob, amount, str(amount))
    seen, before = [], None
    while page := await grid.store.entries(grid.bob, before=before, limit=3):
        seen += [entry.amount for entry in page]
        before = page[-1].id
    assert seen == [7, 6, 5, 4, 3, 2, 1]
    assert await grid.store.entries(grid.bob, before=None, limit=0) == []


async def test_a_balance_says_what_is_held_earned_and_spent(grid):
    await grid.submit(hold=70)
    _, attempt_id = await grid.run(hold=100)
    await grid.store.finish_attempt(attempt_id, grid.end(charge=40, fee=10))
    ann, bob = await grid.store.balances()
    assert (ann.username, ann.balance, ann.held, ann.earned, ann.spent) == ("ann", 890, 70, 0, 40)
    assert (bob.username, bob.balance, bob.held, bob.earned, bob.spent) == ("bob", 30, 0, 30, 0)
    report = await grid.store.audit()
    assert (report.held, report.in_circulation) == (70, 1000)
