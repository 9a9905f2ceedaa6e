"""How a worker signs in: new names register, known ones must match, and every refusal says what to do."""

from __future__ import annotations

import asyncio
import random

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gridx import credentials
from gridx.errors import ConfigError, Forbidden, SetupError, Unauthenticated
from gridx.messages import PROTOCOL_VERSION
from gridx.services.worker.agent import Agent, sign_in


async def test_a_new_name_registers_and_its_token_is_kept_for_the_next_start(grid, join, tmp_path):
    agent = await join()
    assert (agent.connected, agent.worker_id, agent.owner) == (True, 7, "ann")
    assert grid.asked == ["register"]
    hello = grid.hellos[0]
    assert (hello.protocol, hello.name, hello.running, hello.spooled) == (PROTOCOL_VERSION, "one", [], [])
    assert (hello.offer.cpu_millis, hello.offer.memory_mb) == (1000, 256)
    await agent.stop()

    await join(password=None)
    assert grid.asked == ["register"]
    assert grid.hellos[1].identity == hello.identity
    assert (tmp_path / "home" / "worker_ann.json").stat().st_mode & 0o777 == 0o600


async def test_another_folder_is_another_worker(grid, join):
    await join(data="one")
    await join(data="two")
    assert len({hello.identity for hello in grid.hellos}) == 2


async def test_a_known_name_signs_in_with_its_password(grid, settings):
    grid.users["ann"] = "correct horse"
    token = await sign_in(settings(), lambda new: "correct horse")
    assert grid.tokens[token] == "ann"
    assert grid.asked == ["register", "login"]


async def test_two_workers_of_one_new_name_at_once_both_get_in(grid, settings):
    tokens = await asyncio.gather(
        sign_in(settings(data="one"), lambda new: "correct horse"),
        sign_in(settings(data="two"), lambda new: "correct horse"),
    )
    assert [grid.tokens[token] for token in tokens] == ["ann", "ann"]
    assert len(grid.users) == 1


async def test_a_wrong_password_says_that_the_name_is_known_and_what_to_do(grid, join):
    grid.users["ann"] = "another password"
    with pytest.raises(Unauthenticated) as caught:
        await join()
    assert caught.value.message == "ann is a known user here, and the password is not right."
    assert "--user" in caught.value.hint
    assert caught.value.exit_code == 3


async def test_a_password_that_is_too_short_for_a_new_name_says_so(grid, join):
    with pytest.raises(Unauthenticated) as caught:
        await join(password="short")
    assert "must have at least 8 characters" in caught.value.message
    assert "is a known user" not in caught.value.message


async def test_a_known_users_short_password_still_signs_in(grid, settings):
    grid.users["ann"] = "short"
    assert await sign_in(settings(), lambda new: "short") in grid.tokens


async def test_no_password_says_how_to_give_one(grid, settings):
    with pytest.raises(Unauthenticated, match="There is no password for ann") as caught:
        await sign_in(settings(), lambda new: None)
    assert "GRIDX_PASSWORD" in caught.value.hint
    assert grid.asked == []


async def test_closed_registration_says_so(grid, settings):
    grid.registration = "closed"
    with pytest.raises(Forbidden, match="Registration is closed here"):
        await sign_in(settings(), lambda new: "correct horse")
    # Who has an account gets in all the same.
    grid.users["ann"] = "correct horse"
    assert await sign_in(settings(), lambda new: "correct horse") in grid.tokens


async def test_a_saved_sign_in_that_is_refused_gives_way_to_the_password(grid, settings):
    grid.users["ann"] = "correct horse"
    saved = credentials.of_worker("ann")
    saved.save(grid.url, credentials.SignIn(user="ann", token="revoked"))
    token = await sign_in(settings(), lambda new: "correct horse")
    assert token != "revoked"
    assert saved.find(grid.url).token == token


async def test_an_absent_coordinator_is_waited_for(grid, settings, caplog, until):
    await grid.stop()
    signing = asyncio.create_task(sign_in(settings(), lambda new: "correct horse", rng=random.Random(1)))
    await until(lambda: "cannot sign in yet" in caplog.text, "the wait to be told")
    await grid.start()
    assert await asyncio.wait_for(signing, 60) in grid.tokens


async def test_a_password_is_asked_for_once_however_long_the_coordinator_is_away(
    grid, settings, caplog, until
):
    await grid.stop()
    asked: list[bool] = []

    def password(new: bool) -> str:
        asked.append(new)
        return "correct horse"

    signing = asyncio.create_task(sign_in(settings(), password, rng=random.Random(1)))
    await until(lambda: "cannot sign in yet" in caplog.text, "the wait to be told")
    await grid.start()
    assert await asyncio.wait_for(signing, 60) in grid.tokens
    assert asked == [False]


async def test_why_the_coordinator_is_not_reached_is_told_in_the_systems_words(settings, caplog, until, grid):
    await grid.stop()
    signing = asyncio.create_task(sign_in(settings(), lambda new: "correct horse"))
    await until(lambda: "Connection refused" in caplog.text, "the reason to be told")
    signing.cancel()
    await asyncio.gather(signing, return_exceptions=True)
    assert "Connect call failed" not in caplog.text


async def test_a_stranger_at_the_address_is_named(settings, caplog, until):
    async def page(request):
        return web.Response(text="<h1>Welcome</h1>", content_type="text/html")

    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", page)
    async with TestServer(app) as server:
        signing = asyncio.create_task(
            sign_in(settings(coordinator_http=f"http://127.0.0.1:{server.port}"), lambda new: "correct horse")
        )
        await until(lambda: "is no Grid-X coordinator" in caplog.text, "the stranger to be named")
        signing.cancel()
        await asyncio.gather(signing, return_exceptions=True)


def test_a_worker_without_an_owner_or_an_address_is_not_made(grid, settings):
    with pytest.raises(SetupError, match="needs an owner"):
        Agent(settings(user=""))
    with pytest.raises(ConfigError, match="where its coordinator is"):
        Agent(settings(coordinator_ws=""))
