"""Whatever is sent in a body, a path, a query or a header: a 4xx in one shape, no 500, and nothing done."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
import pytest_asyncio
import yarl
from kit.attack import error_of, session_from

WORKER = {"GRIDX_WORKER_REUSE": "true"}
KEPT = 3
JOB = {"code": "print(1)", "timeout_s": 60, "memory_mb": 64}
TAKE_BODIES = (
    ("POST", "/auth/register"),
    ("POST", "/auth/login"),
    ("POST", "/jobs"),
    ("POST", "/jobs/batch"),
    ("POST", "/quote"),
    ("POST", "/credits/transfer"),
    ("POST", "/credits/grant"),
    ("POST", "/users"),
    ("PATCH", "/users/bob"),
    ("POST", "/workers/1/heartbeat"),
    ("POST", "/workers/1/pause"),
)
NO_JSON = {
    "a brace": b"{",
    "bad UTF-8": b"\xff\xfe{}",
    "bad UTF-8 in a text": b'{"code": "\xff", "username": "\xff", "to": "\xff"}',
    "overlong UTF-8": b'{"code": "\xc0\xaf"}',
    "UTF-16": '{"code": "x"}'.encode("utf-16"),
    "100,000 brackets": b"[" * 100_000,
    "100,000 objects": b'{"a":' * 100_000,
    "a list": b"[]",
    "null": b"null",
    "a text": b'"text"',
    "a number": b"1",
    "a long number": b"9" * 5000,
    "a long number in a field": b'{"amount": ' + b"9" * 5000 + b', "to": "bob"}',
    "NaN": b'{"cpus": NaN, "amount": NaN}',
    "Infinity": b'{"cpus": Infinity, "amount": -Infinity}',
    "1e400": b'{"cpus": 1e400, "amount": 1e400}',
    "a lone surrogate": b'{"code": "\\ud800", "username": "\\ud800", "to": "\\ud800"}',
    "a comment": b"{/**/}",
    "two values": b"{}{}",
    "a NUL after it": b"{}\x00",
    "single quotes": b"{'a': 1}",
    "form data": b"username=eve&password=correct+horse&code=print(1)",
    "XML": b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><x>&e;</x>",
    "a pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07gridx.cli\x94.",
    "an unknown field": b'{"is_admin": true}',
}


class Person:
    """Somebody who sends anything."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str) -> None:
        self._session, self._url = session, url
        self._headers = {"Authorization": f"Bearer {token}"}

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        url = yarl.URL(self._url + path, encoded=True)  # as it is, not as a client would put it in order
        async with self._session.request(
            method, url, data=data, headers=self._headers | headers, allow_redirects=False
        ) as answer:
            return answer.status, await answer.read()

    async def refused(self, method: str, path: str, body: Any = None, **headers: str) -> dict[str, Any]:
        """The error; fails where it was no 4xx of the one shape."""
        status, content = await self.ask(method, path, body, **headers)
        assert 400 <= status < 500, (method, path, status, content[:300])
        return {"status": status, **error_of(content)}


@pytest_asyncio.fixture
async def ann(grid):
    async with session_from("127.3.0.1") as session:
        yield Person(session, grid.url, grid.ann.token)


@pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON.keys())
async def test_what_is_no_request_is_refused_wherever_a_body_is_taken(grid, ann, body):
    before = (await grid.ann.balance(), len((await grid.ann.jobs(limit=500)).jobs), await grid.admin.users())
    for method, path in TAKE_BODIES:
        if path.startswith("/workers") and body in (NO_JSON["null"],):
            continue
        error = await ann.refused(method, path, body)
        assert error["status"] in (400, 403, 413, 422), (path, error)
    after = (await grid.ann.balance(), len((await grid.ann.jobs(limit=500)).jobs), await grid.admin.users())
    assert before == after


TWICE = {
    "/jobs": b'{"code": "print(1)", "code": "print(2)"}',
    "/quote": b'{"code": "x", "env": {"A": "1", "A": "2"}}',
    "/jobs/batch": b'{"jobs": [{"code": "x", "memory_mb": 64, "memory_mb": 64}]}',
    "/credits/transfer": b'{"to": "bob", "amount": 1, "amount": 2}',
    "/auth/login": b'{"username": "ann", "username": "admin", "password": "correct horse"}',
}


@pytest.mark.parametrize("path", TWICE)
async def test_of_two_fields_of_one_name_none_is_taken(grid, ann, path):
    error = await ann.refused("POST", path, TWICE[path])
    assert (error["status"], error["code"]) == (400, "bad_request")
    assert "twice" in error["message"]


ODD = {
    "2^63": 2**63,
    "2^53 + 1": 2**53 + 1,
    "-1": -1,
    "-2^63": -(2**63),
    "0.5": 0.5,
    "a text": "1",
    "true": True,
    "a list": [1],
    "an object": {"a": 1},
    "a NUL": "a\x00b",
    "a newline": "a\nb",
    "an escape": "\x1b]0;x\x07",
    "a long text": "x" * 70_000,
}
FIELDS = (
    *("name", "args", "env", "cpus", "memory_mb", "gpus", "timeout_s", "priority", "max_attempts", "runtime"),
    *("python", "language", "inputs", "outputs", "after", "array", "retries", "retry_delay_s", "user_id"),
)
RIGHT = {
    *(("priority", "-1"), ("cpus", "0.5"), ("name", "a text"), ("args", "a text"), ("cpus", "2^63")),
    *(("language", "a text"), ("runtime", "a text"), ("env", "an object")),
}


@pytest.mark.parametrize("value", ODD)
async def test_a_value_that_no_field_takes_is_refused_by_the_fields_name(grid, ann, value):
    for field in FIELDS:
        status, content = await ann.ask("POST", "/quote", {**JOB, field: ODD[value]})
        if status == 200:
            assert (field, value) in RIGHT, (field, value)
            continue
        assert 400 <= status < 500, (field, value, status, content)
        error = error_of(content)
        if status == 422 and error["code"] == "invalid_field":
            assert error["details"]["field"].startswith(field), (field, error)
            assert "\x1b" not in error["message"]


FOREIGN = (
    "balance",
    "role",
    "owner",
    "state",
    "id",
    "hold",
    "charge",
    "image",
    "mounts",
    "privileged",
    "network",
)


async def test_fields_that_are_not_for_users_are_refused_by_name_and_change_nothing(grid, ann):
    """Rows 22 and 31: what a job, a user or a transfer must not say of itself."""
    for field in (*FOREIGN, "command", "entrypoint", "user", "devices", "binds", "cap_add", "pid_mode"):
        error = await ann.refused("POST", "/jobs", {**JOB, field: "admin"})
        assert (error["status"], error["details"]["field"]) == (422, field)
    for field in ("role", "id", "balance", "disabled", "grant"):
        body = {"username": "mallory", "password": "correct horse", field: "admin"}
        error = await ann.refused("POST", "/auth/register", body)
        assert error["details"]["field"] == field
        error = await ann.refused("PATCH", "/users/ann", {field: "admin"})
        assert error["status"] in (403, 422)
    for field in ("from", "from_user_id", "payer"):
        error = await ann.refused("POST", "/credits/transfer", {"to": "bob", "amount": 1, field: "admin"})
        assert error["details"]["field"] == field
    assert "mallory" not in {user.username for user in await grid.admin.users()}
    assert {user.username for user in await grid.admin.users() if user.role == "admin"} == {"admin"}


SQL = (
    "' OR '1'='1",
    "'; DROP TABLE jobs; --",
    '" OR ""="',
    "100%_'; DELETE FROM postings; --",
    "\\'; UPDATE accounts SET balance = 1e9; --",
    "1) UNION SELECT password_hash FROM users --",
    "x' AND (SELECT load_extension('x')) --",
    "%' ESCAPE '\\",
)


async def test_sql_is_text_wherever_it_stands(grid, ann):
    users = await grid.admin.users()
    for text in SQL:
        quoted = quote(text, safe="")
        status, content = await ann.ask("GET", f"/jobs?q={quoted}")
        assert (status, json.loads(content)["jobs"]) == (200, [])
        for path in (
            f"/jobs/{quoted}",
            f"/workers/{quoted}",
            f"/credits/{quoted}",
            f"/jobs/1{quoted}/output",
        ):
            assert (await ann.refused("GET", path))["status"] == 404, path
        await ann.refused("GET", f"/jobs?owner={quoted}")
        await ann.refused("GET", f"/jobs?state={quoted}")
        assert (await ann.refused("POST", "/auth/login", {"username": text, "password": text}))[
            "status"
        ] == 401
        await ann.refused("POST", "/auth/register", {"username": text, "password": "correct horse"})
        await ann.refused("POST", "/credits/transfer", {"to": text, "amount": 1})
        status, content = await ann.ask("POST", "/jobs", {**JOB, "name": text})
        job = json.loads(content)
        assert (status, job["name"]) == (201, text)
        status, content = await ann.ask("GET", f"/jobs?q={quoted}")
        assert [found["id"] for found in json.loads(content)["jobs"]] == [job["id"]]
        await grid.ann.cancel(job["id"])
    assert await grid.admin.users() == users


PATHS = (
    *(
        "/nowhere",
        "//jobs",
        "/jobs/",
        "/jobs/../admin/audit",
        "/jobs/%2e%2e/admin/audit",
        "/%00",
        "/jobs/%ff",
    ),
    *(
        "/jobs/1%0d%0aSet-Cookie:x",
        "/credits/..%2f..%2fetc%2fpasswd",
        "/credits/%F0%9F%94%91",
        "/.git/config",
    ),
    *("/jobs/1;x=1", "/jobs/999999999999999999999", "/jobs/-1", "/jobs/1e3", "/jobs/0x1", "/jobs/%D9%A1"),
    *("/jobs/1/files/../../../etc/passwd", "/docs/../../etc/passwd", "/admin", "/*", "/" + "a" * 7000),
)


async def test_paths_that_lead_nowhere_are_not_found_and_other_methods_not_allowed(grid, ann):
    for path in PATHS:
        error = await ann.refused("GET", path)
        assert error["status"] == 404, (path, error)
        assert "Set-Cookie" not in error["message"]
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "X" * 100):
        error = await ann.refused(method, "/auth/me")
        assert error["status"] in (400, 405), (method, error)


HEADERS = {
    "Authorization": (
        "",
        "Bearer",
        "Bearer ",
        "Basic !!!",
        "Basic Og==",
        "Digest x",
        "Bearer " + "x" * 7000,
        "\t",
    ),
    "Idempotency-Key": ("", " ", "x" * 201, "ä", "a\tb"),
    "Content-Length": ("-1", "x", "1e3"),
    "Expect": ("a miracle",),
    "Content-Encoding": ("gzip", "x"),
}


@pytest.mark.parametrize("name", HEADERS)
async def test_headers_that_cannot_be_are_refused(grid, ann, name):
    for value in HEADERS[name]:
        if name == "Content-Length":
            from kit.attack import exchange

            sent = f"POST /jobs HTTP/1.1\r\nHost: x\r\n{name}: {value}\r\n\r\n".encode()
            assert b" 400 " in (await exchange(grid.standing.port, sent)).split(b"\r\n")[0]
            continue
        error = await ann.refused("POST", "/jobs", JOB, **{name.replace("-", "_"): value})
        assert error["status"] in (400, 401, 413, 417, 422), (value, error)
        assert "x" * 100 not in error["message"]


async def test_every_answer_tells_browsers_to_make_nothing_of_it(grid, ann):
    for path in ("/health", "/jobs", "/nowhere", "/docs", "/openapi.json"):
        async with ann._session.get(grid.url + path) as answer:
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["X-Frame-Options"] == "DENY"
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers["Server"] == "gridx"
            assert "Access-Control-Allow-Origin" not in answer.headers
            assert "Set-Cookie" not in answer.headers
