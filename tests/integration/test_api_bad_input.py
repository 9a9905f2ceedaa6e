"""Whatever is sent, the answer is a 4xx of one shape that names what is wrong, and the next request works."""

from __future__ import annotations

import json

import pytest

from gridx.messages import MAX_CODE_BYTES

OK = {"code": "print(1)", "timeout_s": 60, "memory_mb": 64}


def job(**fields) -> bytes:
    return json.dumps({**OK, **fields}).encode()


BAD_JOBS = [
    (b"", 400, None),
    (b"{", 400, None),
    (b"\xff\xfe{}", 400, None),
    (b'{"code": "\xff"}', 400, None),
    (b"[" * 100_000, 400, None),
    (b'{"code": "x", "cpus": NaN}', 400, None),
    (b'{"code": "x", "timeout_s": ' + b"9" * 5000 + b"}", 422, "timeout_s"),
    (b"[]", 400, None),
    (b"null", 400, None),
    (b'"text"', 400, None),
    (b"{}", 422, "code"),
    (b'{"code": "\\ud800"}', 400, None),
    (job(code=1), 422, "code"),
    (job(code=None), 422, "code"),
    (job(code="x" * (MAX_CODE_BYTES + 1)), 413, None),
    (job(timeout_s=0), 422, "timeout_s"),
    (job(timeout_s=-1), 422, "timeout_s"),
    (job(timeout_s=2**63), 422, "timeout_s"),
    (job(timeout_s=1.5), 422, "timeout_s"),
    (job(timeout_s="60"), 422, "timeout_s"),
    (job(timeout_s=True), 422, "timeout_s"),
    (job(cpus=0), 422, "cpus"),
    (job(cpus=-1), 422, "cpus"),
    (job(cpus=1e400), 400, None),
    (job(memory_mb=1), 422, "memory_mb"),
    (job(gpus=-1), 422, "gpus"),
    (job(priority=101), 422, "priority"),
    (job(max_attempts=0), 422, "max_attempts"),
    (job(name="a\x00b"), 422, "name"),
    (job(name="a\nb"), 422, "name"),
    (job(name="x" * 201), 422, "name"),
    (job(args=["a\x00"]), 422, "args[0]"),
    (job(args="text"), 422, "args"),
    (job(env={"A-B": "x"}), 422, "env"),
    (job(env={"A": 1}), 422, "env[...]"),
    (job(env={"": "x"}), 422, "env"),
    (job(python="2.7"), 422, "python"),
    (job(runtime="../x"), 422, "runtime"),
    (job(language="cobol"), 422, "language"),
    (job(user_id="somebody"), 403, None),
    (job(user_id=99), 403, None),
    *[
        (job(**{field: 1}), 422, field)
        for field in (
            "image",
            "mounts",
            "privileged",
            "network",
            "command",
            "state",
            "owner",
            "balance",
            "role",
        )
    ],
]


@pytest.mark.parametrize(("body", "status", "field"), BAD_JOBS, ids=lambda value: repr(value)[:40])
async def test_a_bad_job_is_refused_with_the_path_of_what_is_wrong(grid, body, status, field):
    ann = await grid.person("ann")
    for path in ("/jobs", "/quote"):
        answer = await ann.post(path, body)
        assert answer.status == status, (path, answer.content)
        error = answer.error
        assert error["message"]
        assert error["hint"]
        if field is not None:
            assert error["code"] == "invalid_field"
            assert error["details"]["field"].startswith(field), error
    assert (await ann.get("/jobs")).json["jobs"] == []


async def test_a_bad_job_in_a_batch_is_named_and_none_is_accepted(grid):
    ann = await grid.person("ann")
    answer = await ann.post("/jobs/batch", {"jobs": [OK, {**OK, "gpus": -1}]})
    assert answer.status == 422
    assert answer.error["details"]["field"] == "jobs[1].gpus"
    assert (await ann.post("/jobs/batch", {"jobs": []})).status == 422
    assert (await ann.post("/jobs/batch", {"jobs": [OK] * 1001})).status == 422
    assert (await ann.get("/jobs")).json["jobs"] == []


AMOUNTS = [-1, 0, 0.1, "1", True, None, 2**63, [1], {"a": 1}]


@pytest.mark.parametrize("amount", AMOUNTS, ids=repr)
async def test_an_amount_is_a_positive_whole_number(grid, amount):
    ann = await grid.person("ann")
    await grid.person("bob")
    for person, path in ((ann, "/credits/transfer"), (grid.admin, "/credits/grant")):
        answer = await person.post(path, {"to": "bob", "amount": amount})
        assert answer.status == 422, answer.content
        assert answer.error["details"]["field"] == "amount"


@pytest.mark.parametrize("amount", [b"NaN", b"1e400", b"Infinity", b"9" * 5000])
async def test_an_amount_that_is_no_json_number_is_refused(grid, amount):
    ann = await grid.person("ann")
    answer = await ann.post("/credits/transfer", b'{"to": "bob", "amount": ' + amount + b"}")
    assert answer.status in (400, 422)
    assert answer.error["message"]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/jobs?colour=red", "colour"),
        ("/jobs?limit=0", "limit"),
        ("/jobs?limit=501", "limit"),
        ("/jobs?limit=ten", "limit"),
        ("/jobs?limit=1&limit=2", "limit"),
        ("/jobs?before=-1", "before"),
        ("/jobs?before=9223372036854775808", "before"),
        ("/jobs?state=happy", "state"),
        ("/jobs?state=queued,happy", "state"),
        ("/jobs?q=%00", "q"),
        ("/jobs?owner=%20", "owner"),
        ("/jobs/{job}?wait_s=61", "wait_s"),
        ("/jobs/{job}?wait_s=-1", "wait_s"),
        ("/jobs/{job}?wait_s=nan", "wait_s"),
        ("/jobs/{job}/output?stream=stdin", "stream"),
        ("/jobs/{job}/output?offset=-1", "offset"),
        ("/jobs/{job}/output?offset=9223372036854775808", "offset"),
        ("/jobs/{job}/output?limit=0", "limit"),
        ("/jobs/{job}/output?attempt=0", "attempt"),
        ("/jobs/{job}/output?follow=perhaps", "follow"),
        ("/jobs/{job}/receipt?x=1", "x"),
        ("/credits/ann/entries?limit=0", "limit"),
        ("/credits/ann/entries?before=x", "before"),
        ("/workers?x", "x"),
        ("/auth/me?x=", "x"),
    ],
)
async def test_a_bad_parameter_is_refused_by_its_name(grid, path, field):
    ann = await grid.person("ann")
    answer = await ann.get(path.format(job=await ann.submit()))
    assert answer.status == 422, answer.content
    assert answer.error["code"] == "invalid_field"
    assert answer.error["details"]["field"] == field


NO_IDS = ["0", "-1", "x", "1.0", "9007199254740993", "9" * 400, "%00", "%F0%9F%94%91", "1%20", "٣", "1'--"]


@pytest.mark.parametrize("id", NO_IDS)
async def test_what_cannot_be_an_id_is_not_found(grid, id):
    ann = await grid.person("ann")
    for path in (f"/jobs/{id}", f"/jobs/{id}/output", f"/jobs/{id}/receipt", f"/workers/{id}"):
        answer = await ann.get(path)
        assert answer.status == 404, (path, answer.content)
        assert answer.error["code"] == "not_found"
    for path in (
        f"/jobs/{id}/cancel",
        f"/jobs/{id}/retry",
        f"/workers/{id}/pause",
        f"/workers/{id}/heartbeat",
    ):
        assert (await ann.post(path)).status == 404
    assert (await ann.ask("DELETE", f"/auth/tokens/{id}")).status == 404


@pytest.mark.parametrize("name", ["nobody", "%00", "ann'--", "a" * 300, "%F0%9F%94%91", "..", "%2e%2e%2fx"])
async def test_what_cannot_be_a_user_is_not_found(grid, name):
    for person in (await grid.person("ann"), grid.admin):
        for path in (f"/credits/{name}", f"/credits/{name}/entries"):
            answer = await person.get(path)
            assert answer.status == 404, (path, answer.content)


async def test_sql_is_text(grid):
    ann = await grid.person("ann")
    await ann.submit(name="100%_'; DROP TABLE jobs; --")
    await ann.submit(name="1000")
    found = (await ann.get("/jobs", params={"q": "100%_'; DROP"})).json["jobs"]
    assert [job["name"] for job in found] == ["100%_'; DROP TABLE jobs; --"]
    assert (await ann.get("/jobs", params={"q": "%"})).json["jobs"] == found


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "text/plain", "application/json", ""]
)
async def test_json_is_taken_whatever_it_is_called(grid, content_type):
    ann = await grid.person("ann")
    answer = await ann.post("/jobs", OK, headers={"Content-Type": content_type})
    assert answer.status == 201


async def test_no_address_and_no_method_of_that_kind(grid):
    ann = await grid.person("ann")
    answer = await ann.get("/nowhere")
    assert (answer.status, answer.error["code"]) == (404, "not_found")
    answer = await ann.ask("PUT", "/jobs")
    assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, POST"
    answer = await ann.get("/jobs", headers={"Expect": "a miracle"})
    assert answer.status == 417
    assert answer.error


@pytest.mark.parametrize("key", ["", " ", "x" * 201, "ä"])
async def test_a_bad_idempotency_key_is_refused(grid, key):
    ann = await grid.person("ann")
    answer = await ann.post("/jobs", OK, headers={"Idempotency-Key": key})
    assert answer.status == 422
    assert answer.error["details"]["field"] == "Idempotency-Key"


async def test_a_fault_of_the_coordinator_shows_no_traceback(grid, monkeypatch, caplog):
    ann = await grid.person("ann")

    async def broken(*_, **__):
        raise ZeroDivisionError("the secret of the coordinator")

    monkeypatch.setattr("gridx.services.coordinator.jobs.Jobs.page", broken)
    answer = await ann.get("/jobs")
    assert (answer.status, answer.error["code"]) == (500, "internal")
    assert b"secret" not in answer.content
    assert "the secret of the coordinator" in caplog.text
