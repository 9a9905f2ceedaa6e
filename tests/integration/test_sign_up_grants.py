"""Sign-up grants have an end, for an address, for a day and in all; an account is made all the same."""

from __future__ import annotations

import asyncio

import aiohttp


async def sign_up(grid, name: str, address: str = "127.0.0.1") -> dict:
    connector = aiohttp.TCPConnector(local_addr=(address, 0))
    async with aiohttp.ClientSession(connector=connector) as session:
        body = {"username": name, "password": "correct horse"}
        async with session.post(grid.url + "/auth/register", json=body) as answer:
            assert answer.status == 201, await answer.text()
            return await answer.json()


async def balance(grid, name: str) -> int:
    return (await grid.admin.get(f"/credits/{name}")).json["balance"]


async def test_of_one_address_only_so_many_get_it_in_a_day(start_grid):
    grid = await start_grid(credits={"signup_grants_per_address": 2})
    told = [await sign_up(grid, f"u{n}") for n in range(3)]
    assert [bool(each["notice"]) for each in told] == [False, False, True]
    assert "your address" in told[2]["notice"]
    assert "administrator" in told[2]["notice"]
    assert [await balance(grid, f"u{n}") for n in range(3)] == [100_000_000, 100_000_000, 0]
    # Others are not held up by it, and an administrator gives as often as they like.
    assert not (await sign_up(grid, "elsewhere", "127.0.0.9"))["notice"]
    made = await grid.admin.post("/users", {"username": "made", "password": "correct horse"})
    assert made.status == 201
    assert await balance(grid, "made") == 100_000_000
    assert (await grid.admin.get("/admin/audit")).json["ok"]


async def test_the_caps_of_a_day_and_of_all_time_hold_over_a_restart_and_when_many_come_at_once(start_grid):
    grid = await start_grid(credits={"signup_grants_per_day": 3})
    told = await asyncio.gather(*(sign_up(grid, f"u{n}", f"127.0.1.{n + 1}") for n in range(8)))
    assert sum(not each["notice"] for each in told) == 3
    assert {each["notice"].count("made here today") for each in told} == {0, 1}
    await grid.coordinator.stop()
    grid = await start_grid(credits={"signup_grants_per_day": 3})
    assert "today" in (await sign_up(grid, "late", "127.0.2.1"))["notice"]
    await grid.coordinator.stop()
    grid = await start_grid(credits={"signup_grants_total": 3})
    assert "all the sign-up grants" in (await sign_up(grid, "later", "127.0.2.1"))["notice"]
    await grid.coordinator.stop()
    grid = await start_grid(credits={"signup_grants_total": 4})
    assert not (await sign_up(grid, "last", "127.0.2.1"))["notice"]
    assert (await sign_up(grid, "over", "127.0.2.1"))["notice"]


async def test_a_name_that_is_taken_takes_no_grant_away(start_grid):
    grid = await start_grid(credits={"signup_grants_total": 2})
    await sign_up(grid, "ann")
    body = {"username": "ANN", "password": "correct horse"}
    assert (await grid.stranger.post("/auth/register", body)).status == 409
    assert not (await sign_up(grid, "bob"))["notice"]
    assert (await sign_up(grid, "eve"))["notice"]


async def test_where_nothing_is_granted_nothing_is_missed(start_grid):
    grid = await start_grid(credits={"signup_grant": 0, "signup_grants_per_address": 0})
    assert not (await sign_up(grid, "ann"))["notice"]
    grid = await start_grid(folder="other", credits={"signup_grants_per_address": 0})
    assert (await sign_up(grid, "ann"))["notice"]
    assert await balance(grid, "ann") == 0


async def test_common_passwords_are_refused_for_new_users_and_new_passwords(grid):
    for name, password in (("eve", "password1"), ("eve", "eve12345"), ("eve", "é" * 513)):
        answer = await grid.stranger.post("/auth/register", {"username": name, "password": password})
        assert (answer.status, answer.error["details"]["field"]) == (422, "password")
        answer = await grid.admin.post("/users", {"username": name, "password": password})
        assert (answer.status, answer.error["details"]["field"]) == (422, "password")
    ann = await grid.person("ann")
    answer = await ann.ask("PATCH", "/users/ann", {"password": "ann-1234"})
    assert (answer.status, answer.error["details"]["field"]) == (422, "password")
    assert (await ann.get("/auth/me")).status == 200
