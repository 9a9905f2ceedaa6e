"""Jobs over HTTP: submitted once, seen by whom they belong to, waited for, paid."""

from __future__ import annotations

import asyncio

import pytest

from gridx.messages import Pause

OK = {"code": "print(6 * 7)", "timeout_s": 60, "memory_mb": 64}


async def test_a_job_goes_from_submit_to_receipt(grid):
    ann, owner = await grid.person("ann"), await grid.person("owner")
    quote = (await ann.post("/quote", {**OK, "name": "answer"})).json
    answer = await ann.post("/jobs", {**OK, "name": "answer"})
    assert answer.status == 201
    job = answer.json
    assert (job["state"], job["owner"], job["hold"]) == ("queued", "ann", quote["hold"])
    assert job["reason"]
    assert (await ann.get("/credits/ann")).json["held"] == quote["hold"]

    worker = await grid.worker(owner)
    given = await worker.assignment()
    assert (given.code, given.owner) == (OK["code"], "ann")
    await worker.start(given.attempt_id)
    await worker.write(given.attempt_id, b"42\n")
    await worker.finish(given.attempt_id, exit_code=0, stdout_bytes=3, wall_ms=1000)

    done = (await ann.get(f"/jobs/{job['id']}?wait_s=30")).json
    assert (done["state"], done["exit_code"], done["worker_name"]) == ("succeeded", 0, "owner-machine")
    assert done["spec"]["code"] == OK["code"]
    assert [attempt["number"] for attempt in done["attempts"]] == [1]
    receipt = (await ann.get(f"/jobs/{job['id']}/receipt")).json
    assert receipt["hold"] == receipt["charge"] + receipt["released"]
    mine, theirs = (await ann.get("/credits/ann")).json, (await owner.get("/credits/owner")).json
    assert (mine["held"], mine["spent"]) == (0, receipt["charge"])
    assert theirs["earned"] == receipt["charge"]
    audit = (await grid.admin.get("/admin/audit")).json
    assert audit["ok"], audit["findings"]


async def test_one_key_many_times_is_one_job_and_one_hold(grid):
    ann = await grid.person("ann")
    headers = {"Idempotency-Key": "the same"}
    answers = await asyncio.gather(*(ann.post("/jobs", OK, headers=headers) for _ in range(10)))
    assert sorted(answer.status for answer in answers) == [200] * 9 + [201]
    assert len({answer.json["id"] for answer in answers}) == 1
    assert (await ann.get("/credits/ann")).json["held"] == answers[0].json["hold"]
    # The order of fields and the defaults that are spelt out make no other body.
    same = {"memory_mb": 64, "timeout_s": 60, "code": "print(6 * 7)", "cpus": 1}
    assert (await ann.post("/jobs", same, headers=headers)).status == 200


async def test_a_key_with_another_body_or_another_address_is_a_conflict(grid):
    ann, bob = await grid.person("ann"), await grid.person("bob")
    headers = {"Idempotency-Key": "the same"}
    assert (await ann.post("/jobs", OK, headers=headers)).status == 201
    answer = await ann.post("/jobs", {**OK, "timeout_s": 61}, headers=headers)
    assert (answer.status, answer.error["code"]) == (409, "conflict")
    assert (await ann.post("/jobs/batch", {"jobs": [OK]}, headers=headers)).status == 409
    assert (await bob.post("/jobs", OK, headers=headers)).status == 201


async def test_a_batch_is_accepted_whole_or_not_at_all(start_grid):
    grid = await start_grid(auth={}, credits={"signup_grant": 1})
    ann = await grid.person("ann")
    dear = {**OK, "timeout_s": 3000}
    answer = await ann.post("/jobs/batch", {"jobs": [dear, dear]})
    assert answer.status == 402
    assert (await ann.get("/jobs")).json["jobs"] == []
    answer = await ann.post("/jobs/batch", {"jobs": [{**OK, "name": n} for n in "abc"]})
    assert answer.status == 201
    assert [job["name"] for job in answer.json["jobs"]] == ["a", "b", "c"]


async def test_without_the_credits_the_answer_says_what_is_missing(start_grid):
    grid = await start_grid(credits={"signup_grant": 1})
    ann = await grid.person("ann")
    answer = await ann.post("/jobs", {**OK, "cpus": 2, "timeout_s": 3600})
    assert (answer.status, answer.error["code"]) == (402, "insufficient_credits")
    details = answer.error["details"]
    assert details["balance"] == 1_000_000
    assert details["shortfall"] == details["price"] - 1_000_000


async def test_at_once_no_more_is_accepted_than_can_be_paid(start_grid):
    grid = await start_grid(credits={"signup_grant": 1})
    ann = await grid.person("ann")
    dear = {**OK, "timeout_s": 3000}
    answers = await asyncio.gather(*(ann.post("/jobs", dear) for _ in range(30)))
    assert sorted(answer.status for answer in answers) == [201] + [402] * 29


async def test_past_the_quota_of_waiting_jobs_it_is_429(start_grid):
    grid = await start_grid(coordinator={"max_queued_per_user": 3})
    ann, bob = await grid.person("ann"), await grid.person("bob")
    statuses = [(await ann.post("/jobs", OK)).status for _ in range(4)]
    assert statuses == [201, 201, 201, 429]
    answer = await ann.post("/jobs", OK)
    assert answer.error["code"] == "too_many"
    assert (await bob.post("/jobs", OK)).status == 201


async def test_a_job_of_another_is_as_if_it_were_missing(grid):
    ann, bob = await grid.person("ann"), await grid.person("bob")
    job = await ann.submit()
    for method, path in (
        ("GET", "/jobs/{}"),
        ("GET", "/jobs/{}?wait_s=1"),
        ("GET", "/jobs/{}/output"),
        ("GET", "/jobs/{}/output?follow=1"),
        ("GET", "/jobs/{}/receipt"),
        ("POST", "/jobs/{}/cancel"),
        ("POST", "/jobs/{}/retry"),
    ):
        theirs = await bob.ask(method, path.format(job))
        missing = await bob.ask(method, path.format(10_000))
        assert theirs.status == missing.status == 404, path
        assert theirs.content.replace(str(job).encode(), b"10000") == missing.content
        if path != "/jobs/{}/retry" and "follow" not in path:
            assert (await grid.admin.ask(method, path.format(job))).status == 200
    assert (await bob.get("/jobs")).json["jobs"] == []


async def test_the_list_goes_by_pages_newest_first(grid):
    ann = await grid.person("ann")
    ids = [await ann.submit(name=f"job {n}") for n in range(7)]
    seen, path = [], "/jobs?limit=3"
    while path:
        page = (await ann.get(path)).json
        seen.append([job["id"] for job in page["jobs"]])
        path = f"/jobs?limit=3&before={page['next']}" if page["next"] else ""
    assert seen == [ids[:3:-1], ids[3:0:-1], ids[:1]]


async def test_the_list_is_narrowed_by_state_text_and_owner(grid):
    ann, bob = await grid.person("ann"), await grid.person("bob")
    first, second = await ann.submit(name="apples"), await ann.submit(name="pears")
    theirs = await bob.submit(name="apples")
    await ann.post(f"/jobs/{first}/cancel")

    async def ids(person, query: str) -> list[int]:
        return [job["id"] for job in (await person.get(f"/jobs?{query}")).json["jobs"]]

    assert await ids(ann, "state=cancelled") == [first]
    assert await ids(ann, "state=queued,running") == [second]
    assert await ids(ann, "q=apple") == [first]
    assert await ids(grid.admin, "q=apple") == [theirs, first]
    assert await ids(grid.admin, "owner=bob") == [theirs]
    assert await ids(ann, "owner=ann") == [second, first]
    assert (await ann.get("/jobs?owner=bob")).json.get("jobs", []) == []


async def test_a_waiting_job_is_cancelled_and_its_hold_released(grid):
    ann = await grid.person("ann")
    job = await ann.submit()
    cancelled = (await ann.post(f"/jobs/{job}/cancel")).json
    assert cancelled["state"] == "cancelled"
    assert (await ann.get("/credits/ann")).json["held"] == 0
    again = await ann.post(f"/jobs/{job}/cancel")
    assert (again.status, again.json["state"]) == (200, "cancelled")


async def test_a_running_job_is_cancelled_by_its_worker(grid):
    ann = await grid.person("ann")
    job = await ann.submit()
    worker = await grid.worker(ann)
    given = await worker.assignment()
    await worker.start(given.attempt_id)
    waiting = asyncio.create_task(ann.get(f"/jobs/{job}?wait_s=60"))
    assert (await ann.post(f"/jobs/{job}/cancel")).json["state"] == "cancelling"
    assert given.attempt_id in await worker.cancelled()
    await worker.finish(given.attempt_id, "cancelled")
    assert (await waiting).json["state"] == "cancelled"


async def test_an_ended_job_is_tried_again_as_a_job_of_its_own(grid):
    ann = await grid.person("ann")
    job = await ann.submit("print('again')")
    assert (await ann.post(f"/jobs/{job}/retry")).status == 409
    await ann.post(f"/jobs/{job}/cancel")
    headers = {"Idempotency-Key": "once more"}
    answer = await ann.post(f"/jobs/{job}/retry", headers=headers)
    assert answer.status == 201
    assert (answer.json["retry_of"], answer.json["state"]) == (job, "queued")
    again = await ann.post(f"/jobs/{job}/retry", headers=headers)
    assert (again.status, again.json["id"]) == (200, answer.json["id"])
    assert (await ann.get(f"/jobs/{answer.json['id']}")).json["spec"]["code"] == "print('again')"


async def test_waiting_ends_with_the_time_when_the_job_does_not(grid):
    ann = await grid.person("ann")
    job = await ann.submit()
    assert (await ann.get(f"/jobs/{job}?wait_s=0.05")).json["state"] == "queued"


@pytest.mark.parametrize("user_id", ["ann", None])
async def test_the_user_in_the_body_may_be_oneself(grid, user_id):
    ann = await grid.person("ann")
    assert (await ann.post("/jobs", {**OK, "user_id": user_id})).status == 201


async def test_the_fleet_is_seen_and_steered_by_its_owner(grid):
    ann, bob = await grid.person("ann"), await grid.person("bob")
    worker = await grid.worker(ann)
    worker_id = worker.welcome.worker_id
    (seen,) = (await bob.get("/workers")).json["workers"]
    assert (seen["id"], seen["owner"], seen["state"]) == (worker_id, "ann", "online")
    assert (await bob.get(f"/workers/{worker_id}")).json["name"] == "ann-machine"
    for action in ("pause", "resume", "drain", "heartbeat"):
        assert (await bob.post(f"/workers/{worker_id}/{action}")).status in (403, 404)
    assert (await ann.post(f"/workers/{worker_id}/pause")).json["state"] == "paused"
    assert (await ann.post(f"/workers/{worker_id}/pause", {"give_back": True})).json["state"] == "paused"
    assert (await worker.receive(Pause)).give_back is False
    assert (await worker.receive(Pause)).give_back is True
    for nonsense in ({"give_back": "yes"}, {"at_once": True}):
        assert (await ann.post(f"/workers/{worker_id}/pause", nonsense)).status == 422
    assert (await grid.admin.post(f"/workers/{worker_id}/resume")).json["state"] == "online"
    assert (await ann.post(f"/workers/{worker_id}/heartbeat", {"attempts": []})).status == 200
    assert (await ann.post(f"/workers/{worker_id}/heartbeat")).status == 200
    assert (await ann.post(f"/workers/{worker_id}/heartbeat", {"attempts": [0]})).status == 422
    assert (await ann.post(f"/workers/{worker_id}/drain")).json["state"] == "draining"
    assert (await ann.get("/workers/999")).status == 404
