"""Users, tokens and workers."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from gridx.errors import Conflict, NotFound

LATER = datetime(2031, 1, 1, tzinfo=UTC)


async def test_a_name_is_taken_whatever_its_letters(grid):
    with pytest.raises(Conflict):
        await grid.store.create_user("ANN", "hash")
    assert (await grid.store.user_by_name("aNN")).id == grid.ann
    assert [user.username for user in await grid.store.users()] == ["ann", "bob"]


async def test_one_of_many_who_want_a_name_gets_it(store):
    results = await asyncio.gather(
        *(store.create_user("carol", "hash", grant=5) for _ in range(20)), return_exceptions=True
    )
    assert sum(isinstance(result, Conflict) for result in results) == 19
    assert (await store.audit()).in_circulation == 5


@pytest.mark.parametrize("name", ["", "nobody", "' OR 1=1 --", "a\0nn", "\ud800", "%", "ann\n"])
async def test_a_name_that_nobody_has_finds_nobody(grid, name):
    assert await grid.store.user_by_name(name) is None


@pytest.mark.parametrize("number", [0, -1, 2**63, 10**30])
async def test_an_id_that_nothing_has_finds_nothing(grid, number):
    store = grid.store
    assert await store.user(number) is None
    assert await store.worker(number) is None
    assert await store.job(number) is None
    assert await store.attempt(number) is None
    assert await store.attempts_of(number) == []
    assert await store.jobs_by_id([number]) == []
    assert await store.entries(number, before=number, limit=number % 100) == []


async def test_a_token_is_found_by_its_digest_until_it_is_revoked(grid):
    token = await grid.store.create_token(grid.ann, b"d" * 32, label="laptop", expires_at=LATER)
    assert await grid.store.token_by_digest(b"d" * 32) == (token, await grid.store.user(grid.ann))
    assert await grid.store.token_by_digest(b"e" * 32) is None
    assert not await grid.store.revoke_token(grid.bob, token.id)
    assert await grid.store.revoke_token(grid.ann, token.id)
    assert not await grid.store.revoke_token(grid.ann, token.id)
    assert await grid.store.token_by_digest(b"d" * 32) is None
    second = await grid.store.create_token(grid.ann, b"d" * 32, label="", expires_at=LATER)
    assert second.id > token.id


async def test_the_last_use_of_a_token_only_moves_forward(grid):
    token = await grid.store.create_token(grid.ann, b"d" * 32, label="", expires_at=LATER)
    for day in (2, 3, 1):
        await grid.store.touch_tokens({token.id: datetime(2030, 5, day, tzinfo=UTC), 99: LATER})
    (found,) = await grid.store.tokens_of(grid.ann)
    assert found.last_used_at == datetime(2030, 5, 3, tzinfo=UTC)


@pytest.mark.parametrize("change", [{"disabled": True}, {"password_hash": "new"}])
async def test_a_new_password_or_disabling_ends_every_sign_in(grid, change):
    for user, digest in ((grid.ann, b"1"), (grid.ann, b"2"), (grid.bob, b"3")):
        await grid.store.create_token(user, digest, label="", expires_at=LATER)
    await grid.store.update_user(grid.ann, **change)
    assert await grid.store.tokens_of(grid.ann) == []
    assert len(await grid.store.tokens_of(grid.bob)) == 1


async def test_a_role_changes_alone(grid):
    await grid.store.create_token(grid.ann, b"1", label="", expires_at=LATER)
    user = await grid.store.update_user(grid.ann, role="admin")
    assert (user.role, user.disabled, user.password_hash) == ("admin", False, "hash")
    assert await grid.store.user(grid.ann) == user
    assert len(await grid.store.tokens_of(grid.ann)) == 1
    with pytest.raises(NotFound):
        await grid.store.update_user(99, role="admin")


async def test_a_disabled_user_gets_no_token(grid):
    await grid.store.update_user(grid.ann, disabled=True)
    with pytest.raises(NotFound):
        await grid.store.create_token(grid.ann, b"1", label="", expires_at=LATER)


async def test_tokens_long_expired_are_forgotten(grid, clock, reopen, until):
    expired = clock.now() + timedelta(days=1)
    await grid.store.create_token(grid.ann, b"1", label="old", expires_at=expired)
    await grid.store.create_token(grid.ann, b"2", label="new", expires_at=expired + timedelta(days=30))
    await grid.store.close()
    clock.turn(timedelta(days=20))
    again = await reopen()
    try:

        async def pruned():
            return [token.label for token in await again.tokens_of(grid.ann)] == ["new"]

        await until(pruned, "the old token to go")
    finally:
        await again.close()


async def test_a_worker_comes_back_as_itself(grid):
    again = await grid.store.join_worker(grid.bob, "b" * 32, name="new name", version="2")
    assert (again.id, again.joined_at) == (grid.worker.id, grid.worker.joined_at)
    assert (again.name, again.version) == ("new name", "2")
    other = await grid.store.join_worker(grid.ann, "b" * 32, name="same machine, another owner", version="2")
    assert other.id != again.id
    assert await grid.store.workers() == [again, other]


async def test_a_worker_is_paused_and_stays_so(grid):
    paused = await grid.store.set_worker_paused(grid.worker.id, True)
    assert paused.paused
    assert (await grid.store.join_worker(grid.bob, "b" * 32, name="b", version="1")).paused
    assert await grid.store.set_worker_paused(99, True) is None
