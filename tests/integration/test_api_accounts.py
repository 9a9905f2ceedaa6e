"""Who may in, by what, and who is out at once."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
from dataclasses import replace
from datetime import timedelta

import aiohttp
import pytest

from gridx.services.coordinator.passwords import Passwords

PASSWORD = "correct horse"


def login(name: str, password: str = PASSWORD) -> dict[str, str]:
    return {"username": name, "password": password}


def basic(name: str, password: str = PASSWORD) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


async def test_a_user_registers_signs_in_and_out(grid):
    answer = await grid.stranger.post("/auth/register", {**login("ann"), "label": "laptop"})
    assert answer.status == 201
    first = answer.json
    assert first["user"]["username"] == "ann"
    assert first["user"]["role"] == "user"
    assert first["token"].startswith("gridx_")
    answer = await grid.stranger.post("/auth/login", {**login("ann"), "label": "phone"})
    assert answer.status == 200
    ann = replace(grid.stranger, token=answer.json["token"])
    assert (await ann.get("/auth/me")).json == first["user"]
    tokens = (await ann.get("/auth/tokens")).json
    assert {token["label"]: token["current"] for token in tokens} == {"laptop": False, "phone": True}
    assert (await ann.post("/auth/logout")).status == 204
    assert (await ann.get("/auth/me")).status == 401
    laptop = replace(ann, token=first["token"])
    assert [token["label"] for token in (await laptop.get("/auth/tokens")).json] == ["laptop"]


async def test_registering_gives_the_grant(start_grid):
    grid = await start_grid(credits={"signup_grant": 7})
    ann = await grid.person("ann")
    assert (await ann.get("/credits/ann")).json["balance"] == 7_000_000
    (entry,) = (await ann.get("/credits/ann/entries")).json["entries"]
    assert (entry["kind"], entry["amount"]) == ("grant", 7_000_000)


@pytest.mark.parametrize("name", ["ann", "ANN"])
async def test_a_taken_name_is_a_conflict(grid, name):
    await grid.person("ann")
    answer = await grid.stranger.post("/auth/register", login(name, "another password"))
    assert answer.status == 409
    assert answer.error["hint"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (login(""), "username"),
        (login("a b"), "username"),
        (login("-x"), "username"),
        (login("a" * 65), "username"),
        (login("ann\n"), "username"),
        (login("ann", "short"), "password"),
        (login("ann", "x" * 1025), "password"),
        (login("ann", "eight\x00chars"), "password"),
        ({"username": "ann"}, "password"),
        ({**login("ann"), "role": "admin"}, "role"),
        ({**login("ann"), "balance": 10**9}, "balance"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_bad_registration_is_refused_by_its_field(grid, body, field):
    answer = await grid.stranger.post("/auth/register", body)
    assert answer.status == 422
    assert answer.error["details"]["field"] == field


async def test_closed_registration_leaves_accounts_to_the_admin(start_grid):
    grid = await start_grid(auth={"registration": "closed"})
    assert (await grid.stranger.post("/auth/register", login("ann"))).status == 403
    assert (await grid.admin.post("/users", login("ann"))).status == 201
    assert (await grid.stranger.post("/auth/login", login("ann"))).status == 200


async def test_registration_by_invite_wants_one(start_grid):
    grid = await start_grid(auth={"registration": "invite", "invites": ["let me in", "me too"]})
    for invite in ({}, {"invite": ""}, {"invite": "let me"}):
        answer = await grid.stranger.post("/auth/register", {**login("ann"), **invite})
        assert answer.status == 403
    for name, invite in (("ann", "let me in"), ("bob", "me too")):
        answer = await grid.stranger.post("/auth/register", {**login(name), "invite": invite})
        assert answer.status == 201


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Bearer gridx_" + "x" * 43},
        {"Authorization": "Bearer " + "x" * 5000},
        {"Authorization": "Digest x"},
        basic("nobody"),
        basic("ann", "wrong password"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_without_a_right_sign_in_everything_but_health_is_401(grid, headers):
    await grid.person("ann")
    for path in ("/jobs", "/jobs/1", "/workers", "/auth/me", "/credits/ann", "/users", "/admin/audit"):
        answer = await grid.stranger.get(path, headers=headers)
        assert answer.status == 401, path
        assert answer.error["code"] == "unauthenticated"
        assert answer.headers["WWW-Authenticate"].startswith("Basic")
    assert (await grid.stranger.get("/health", headers=headers)).status == 200


@pytest.mark.parametrize(
    "value", ["%%%", base64.b64encode(b"no colon").decode(), base64.b64encode(b"\xff:x").decode()]
)
async def test_a_header_that_cannot_be_read_is_a_bad_request(grid, value):
    answer = await grid.stranger.get("/jobs", headers={"Authorization": f"Basic {value}"})
    assert answer.status == 400
    assert answer.error


async def test_basic_works_everywhere_and_the_password_is_hashed_once(grid, monkeypatch):
    await grid.person("ann")
    hashed = []
    verify = Passwords.verify

    async def counted(self, password, stored):
        hashed.append(password)
        return await verify(self, password, stored)

    monkeypatch.setattr(Passwords, "verify", counted)
    answers = await asyncio.gather(*(grid.stranger.get("/auth/me", headers=basic("ann")) for _ in range(20)))
    assert [answer.status for answer in answers] == [200] * 20
    assert (await grid.stranger.get("/jobs", headers=basic("ANN"))).status == 200
    assert len(hashed) == 1


async def test_a_password_may_hold_colons_and_any_character(grid):
    password = "a:b:ü\u202e \U0001f511"
    assert (await grid.stranger.post("/auth/register", login("ann", password))).status == 201
    assert (await grid.stranger.get("/auth/me", headers=basic("ann", password))).status == 200


async def test_a_wrong_password_and_an_unknown_name_get_the_same_answer(grid):
    await grid.person("ann")
    wrong = await grid.stranger.post("/auth/login", login("ann", "wrong password"))
    unknown = await grid.stranger.post("/auth/login", login("nobody", "wrong password"))
    assert wrong.status == unknown.status == 401
    assert wrong.content == unknown.content


async def test_who_guesses_has_to_wait_and_the_real_user_does_not(start_grid):
    grid = await start_grid(auth={"login_failures": 5})
    ann = await grid.person("ann")
    guesses = [await grid.stranger.post("/auth/login", login("ann", f"guess number {n}")) for n in range(7)]
    assert [guess.status for guess in guesses] == [401] * 5 + [429] * 2
    assert guesses[-1].error["code"] == "too_many"
    assert 0 < int(guesses[-1].headers["Retry-After"]) <= 300
    # The right password from there has to wait as well: it would say that the guess was right.
    assert (await grid.stranger.post("/auth/login", login("ann"))).status == 429
    assert (await ann.get("/auth/me")).status == 200
    connector = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
    async with aiohttp.ClientSession(connector=connector) as elsewhere:
        from_elsewhere = replace(grid.stranger, session=elsewhere)
        assert (await from_elsewhere.post("/auth/login", login("ann"))).status == 200


async def test_guesses_that_come_all_at_once_are_counted_too(start_grid):
    grid = await start_grid(auth={"login_failures": 5})
    await grid.person("ann")
    answers = await asyncio.gather(
        *(grid.stranger.post("/auth/login", login("ann", f"guess number {n}")) for n in range(30))
    )
    assert sorted(answer.status for answer in answers) == [401] * 5 + [429] * 25


async def test_health_answers_while_many_sign_in(grid):
    await grid.person("ann")
    logins = [
        asyncio.create_task(grid.stranger.post("/auth/login", login(f"user{n}", "wrong password")))
        for n in range(100)
    ]
    assert (await grid.stranger.get("/health")).status == 200
    assert not all(task.done() for task in logins)
    assert {(await task).status for task in logins} <= {401, 429}


async def test_a_new_password_ends_all_sessions(grid):
    ann = await grid.person("ann")
    assert (await grid.stranger.get("/auth/me", headers=basic("ann"))).status == 200
    answer = await ann.ask("PATCH", "/users/ann", {"password": "battery staple"})
    assert answer.status == 200
    assert (await ann.get("/auth/me")).status == 401
    assert (await grid.stranger.get("/auth/me", headers=basic("ann"))).status == 401
    assert (await grid.stranger.get("/auth/me", headers=basic("ann", "battery staple"))).status == 200


async def test_a_password_that_is_changed_while_it_is_checked_is_refused(grid, monkeypatch):
    await grid.person("ann")
    assert (await grid.admin.get("/auth/me")).status == 200
    verify = Passwords.verify

    async def overtaken(self, password, stored):
        monkeypatch.setattr(Passwords, "verify", verify)
        right = await verify(self, password, stored)
        change = await grid.admin.ask("PATCH", "/users/ann", {"password": "battery staple"})
        assert (right, change.status) == (True, 200)
        return right

    monkeypatch.setattr(Passwords, "verify", overtaken)
    assert (await grid.stranger.get("/auth/me", headers=basic("ann"))).status == 401
    assert (await grid.stranger.get("/auth/me", headers=basic("ann"))).status == 401


async def test_a_disabled_user_is_out_at_once_by_every_way(grid):
    ann = await grid.person("ann")
    assert (await grid.stranger.get("/auth/me", headers=basic("ann"))).status == 200
    assert (await grid.admin.ask("PATCH", "/users/ann", {"disabled": True})).json["disabled"] is True
    assert (await ann.get("/auth/me")).status == 401
    assert (await grid.stranger.get("/auth/me", headers=basic("ann"))).status == 401
    assert (await grid.stranger.post("/auth/login", login("ann"))).status == 401
    assert (await grid.admin.ask("PATCH", "/users/ann", {"disabled": False})).status == 200
    assert (await grid.stranger.post("/auth/login", login("ann"))).status == 200


async def test_an_expired_token_is_refused(start_grid):
    grid = await start_grid(auth={"token_days": 1})
    ann = await grid.person("ann")
    assert (await ann.get("/auth/me")).status == 200
    clock = grid.coordinator._clock
    later = clock.now() + timedelta(days=1, seconds=1)
    grid.coordinator._parts.accounts._clock = type(
        "Later", (), {"now": lambda self: later, "monotonic": lambda self: clock.monotonic()}
    )()
    answer = await ann.get("/auth/me")
    assert answer.status == 401
    assert "expired" in answer.error["message"]


async def test_an_admin_cannot_be_the_last_to_go(grid):
    for change in ({"role": "user"}, {"disabled": True}):
        assert (await grid.admin.ask("PATCH", "/users/admin", change)).status == 409
    await grid.person("ann")
    assert (await grid.admin.ask("PATCH", "/users/ann", {"role": "admin"})).json["role"] == "admin"
    assert (await grid.admin.ask("PATCH", "/users/admin", {"role": "user"})).status == 200


async def test_users_change_nothing_but_their_own_password(grid):
    ann = await grid.person("ann")
    await grid.person("bob")
    for change in ({"role": "admin"}, {"disabled": False}):
        assert (await ann.ask("PATCH", "/users/ann", change)).status == 403
    answer = await ann.ask("PATCH", "/users/bob", {"password": "battery staple"})
    missing = await ann.ask("PATCH", "/users/nobody", {"password": "battery staple"})
    assert answer.status == missing.status == 404
    assert answer.content.replace(b"bob", b"nobody") == missing.content
    for path in ("/users", "/admin/audit", "/admin/backup"):
        assert (await ann.get(path)).status == 403
    assert (await ann.post("/users", login("cid"))).status == 403
    assert (await ann.post("/credits/grant", {"to": "ann", "amount": 1})).status == 403


async def test_of_many_sign_ins_the_one_that_was_not_used_for_longest_ends(grid, monkeypatch):
    monkeypatch.setattr("gridx.services.coordinator.accounts.MAX_TOKENS", 3)
    ann = await grid.person("ann")
    login = {"username": "ann", "password": "correct horse"}
    first, second = [(await grid.stranger.post("/auth/login", login)).json["token"] for _ in range(2)]
    assert (await ann.get("/auth/me")).status == 200
    assert (await replace(ann, token=second).get("/auth/me")).status == 200
    third = (await grid.stranger.post("/auth/login", login)).json["token"]
    assert (await replace(ann, token=first).get("/auth/me")).status == 401
    for token in (ann.token, second, third):
        assert (await replace(ann, token=token).get("/auth/me")).status == 200
    assert len((await ann.get("/auth/tokens")).json) == 3


async def test_who_guesses_at_invites_has_to_wait(start_grid):
    grid = await start_grid(auth={"registration": "invite", "invites": ["SESAME-7"], "login_failures": 4})
    new = {"username": "eve", "password": "correct horse"}
    answers = [await grid.stranger.post("/auth/register", {**new, "invite": f"SESAME-{n}"}) for n in range(7)]
    assert [answer.status for answer in answers] == [403] * 4 + [429] * 3
    assert int(answers[-1].headers["Retry-After"]) > 0


async def test_a_token_of_another_cannot_be_revoked(grid):
    ann, bob = await grid.person("ann"), await grid.person("bob")
    (token,) = (await bob.get("/auth/tokens")).json
    assert (await ann.ask("DELETE", f"/auth/tokens/{token['id']}")).status == 404
    assert (await bob.get("/auth/me")).status == 200
    assert (await bob.ask("DELETE", f"/auth/tokens/{token['id']}")).status == 204
    assert (await bob.get("/auth/me")).status == 401


@pytest.mark.parametrize("name", ["token", "access_token", "Token"])
async def test_a_token_in_the_address_is_refused_and_in_no_log(grid, name, caplog):
    caplog.set_level("DEBUG")
    ann = await grid.person("ann")
    for person in (ann, grid.stranger):
        answer = await person.get(f"/jobs?{name}={ann.token}")
        assert answer.status == 400
        assert ann.token.encode() not in answer.content
    assert ann.token not in caplog.text


async def test_a_copy_of_the_database_opens_nothing(grid):
    ann = await grid.person("ann")
    path = grid.settings.db_path
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as copy:
        dump = "\n".join(copy.iterdump())
    assert "ann" in dump
    for secret in (ann.token, ann.token.removeprefix("gridx_"), PASSWORD, grid.coordinator.first_admin[1]):
        assert secret not in dump
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


async def test_the_last_use_of_a_token_is_told(grid):
    ann = await grid.person("ann")
    (token,) = (await ann.get("/auth/tokens")).json
    assert token["last_used_at"] is not None


async def test_a_user_of_this_machine_needs_no_password(start_grid):
    grid = await start_grid(role="standalone")
    first = await grid.coordinator.local_session("ann")
    ann = replace(grid.stranger, token=first)
    assert (await ann.get("/auth/me")).json["role"] == "admin"
    again = replace(grid.stranger, token=await grid.coordinator.local_session("ann"))
    assert (await again.get("/auth/me")).status == 200
    assert (await ann.get("/auth/me")).status == 401
    assert (await grid.stranger.post("/auth/login", login("ann", "!"))).status == 401


async def test_a_page_of_another_site_cannot_act(grid):
    ann = await grid.person("ann")
    host = grid.url.removeprefix("http://")
    for origin, status in (("http://evil.example", 403), ("null", 403), (f"http://{host}", 201)):
        answer = await ann.post("/jobs", {"code": "1", "timeout_s": 1}, headers={"Origin": origin})
        assert answer.status == status, origin
