"""Arrays and dependencies over HTTP: submitted, listed, waited for, watched, by whom they belong to."""

from __future__ import annotations

import asyncio

import pytest

from gridx import messages
from gridx.client import Client
from gridx.messages import ArraySpec, Assign, Finished, JobSpec, JobState, Output, Started

OK = {"code": "print(1)", "timeout_s": 60, "memory_mb": 64, "cpus": 0.1}


async def run_all(worker) -> None:
    """Answer every assignment at once, for ever; in few messages, for a worker may not send any number."""
    while True:
        frame = await worker.receive(Assign)
        answers: list = []
        for one in frame.attempts:
            data = f"{one.array_index}\n".encode()
            outcome = "failed" if one.args[-1:] == ["bad"] else "succeeded"
            answers += [
                Started(attempt_id=one.attempt_id, runtime="default"),
                Output(attempt_id=one.attempt_id, stream="stdout", offset=0, data=data),
                Finished(
                    attempt_id=one.attempt_id,
                    outcome=outcome,
                    exit_code=0,
                    wall_ms=1,
                    stdout_bytes=len(data),
                ),
            ]
        await worker.send(*answers)


@pytest.fixture
async def running():
    """Lets workers run whatever they are given until the test is over."""
    tasks = []

    def begin(worker) -> None:
        tasks.append(asyncio.create_task(run_all(worker)))

    yield begin
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(ended, asyncio.CancelledError), ended


async def test_an_array_from_submit_to_the_output_of_all(grid, running):
    ann = await grid.person("ann")
    answer = await ann.post("/jobs", {**OK, "array": {"args": [["a"], ["bad"], ["c"]]}})
    assert answer.status == 201
    array = answer.json
    assert array["array"]["count"] == 3
    listed = (await ann.get("/jobs")).json["jobs"]
    assert [job["id"] for job in listed] == [array["id"]]
    running(await grid.worker(ann))
    done = (await ann.get(f"/jobs/{array['id']}?wait_s=30")).json
    assert (done["state"], done["array"]["succeeded"], done["array"]["failed"]) == ("failed", 2, 1)
    page = (await ann.get(f"/jobs?array={array['id']}&limit=2")).json
    assert [job["array_index"] for job in page["jobs"]] == [0, 1]
    rest = (await ann.get(f"/jobs?array={array['id']}&after={page['next']}")).json
    assert [job["array_index"] for job in rest["jobs"]] == [2]
    assert "next" not in rest or rest["next"] is None
    failed = (await ann.get(f"/jobs?array={array['id']}&state=failed")).json["jobs"]
    assert [job["array_index"] for job in failed] == [1]
    one = (await ann.get(f"/jobs?array={array['id']}&index=2")).json["jobs"][0]
    assert (await ann.get(f"/jobs/{one['id']}/output")).content == b"2\n"
    refused = await ann.get(f"/jobs/{array['id']}/output")
    assert (refused.status, refused.error["code"]) == (422, "invalid_field")
    assert (await ann.get(f"/jobs/{array['id']}/output?follow=1")).status == 422
    assert (await ann.get(f"/jobs/{array['id']}/files")).status == 422
    receipt = (await ann.get(f"/jobs/{array['id']}/receipt")).json
    assert receipt["hold"] == receipt["charge"] + receipt["released"]
    again = await ann.post(f"/jobs/{array['id']}/retry")
    assert (again.status, again.json["array"]["count"]) == (201, 1)


async def test_one_key_many_times_is_one_array_and_one_hold(grid):
    ann = await grid.person("ann")
    body = {**OK, "array": {"count": 100}}
    answers = await asyncio.gather(
        *(ann.post("/jobs", body, headers={"Idempotency-Key": "the same"}) for _ in range(8))
    )
    assert sorted(answer.status for answer in answers) == [200] * 7 + [201]
    assert len({answer.json["id"] for answer in answers}) == 1
    assert (await ann.get("/credits/ann")).json["held"] == answers[0].json["hold"]


async def test_arrays_and_elements_of_others_are_not_there(grid):
    ann, bob = await grid.person("ann"), await grid.person("bob")
    array = await ann.submit(array={"count": 2})
    for path in (
        f"/jobs/{array}",
        f"/jobs/{array + 1}",
        f"/jobs?array={array}",
        f"/jobs?array={array}&index=0",
    ):
        assert (await bob.get(path)).status == 404
    child = await bob.post("/jobs", {**OK, "after": [{"job_id": array}]})
    assert (child.status, child.error["code"]) == (404, "not_found")
    assert (await bob.get("/jobs")).json["jobs"] == []
    assert [job["id"] for job in (await grid.admin.get("/jobs")).json["jobs"]] == [array]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        ({}, "exactly one"),
        ({"count": 2, "args": [["a"]]}, "exactly one"),
        ({"count": 0}, "count"),
        ({"args": []}, "args"),
        ({"count": 2, "max_credits": 1}, "one element may cost"),
        ({"count": 2, "max_fails": -1}, "max_fails"),
        ({"count": 10**9}, "count"),
    ],
)
async def test_what_is_no_array_is_refused_with_the_field(grid, array, words):
    ann = await grid.person("ann")
    answer = await ann.post("/jobs", {**OK, "array": array})
    assert answer.status == 422
    assert words in answer.error["message"]
    assert (await ann.get("/credits/ann")).json["held"] == 0


async def test_listings_fold_arrays_among_jobs_page_by_page(grid):
    ann = await grid.person("ann")
    numbers = []
    for turn in range(4):
        numbers.append(await ann.submit(name=f"single {turn}"))
        numbers.append(await ann.submit(name=f"many {turn}", array={"count": 30}))
    seen: list[int] = []
    query = "limit=3"
    while True:
        page = (await ann.get(f"/jobs?{query}")).json
        seen += [job["id"] for job in page["jobs"]]
        if not page.get("next"):
            break
        query = f"limit=3&before={page['next']}"
    assert seen == sorted(numbers, reverse=True)
    many = (await ann.get("/jobs?q=many")).json["jobs"]
    assert all(job["array"]["count"] == 30 for job in many)
    assert len(many) == 4
    assert len((await ann.get("/jobs?state=queued&limit=500")).json["jobs"]) == 8


async def test_who_watches_an_array_hears_of_its_elements_and_others_of_the_array_alone(grid, running):
    ann = await grid.person("ann")
    async with Client(grid.url, ann.token) as client, client.events() as plain, client.events() as watching:
        array = await client.submit(JobSpec(**OK, array=ArraySpec(count=40)))
        await watching.watch([array.id])
        told: list[messages.Job] = []

        async def hear(events, until) -> None:
            async for event in events:
                if isinstance(event, messages.JobChanged):
                    told.append(event.job)
                    if until(event.job):
                        return

        # The watch has come when the first element is heard of; nothing else says so.
        heard = asyncio.create_task(hear(watching, lambda job: job.array_id == array.id))
        for number in range(1, 40):
            await client.cancel(array.id + number)
            await asyncio.wait([heard], timeout=0.5)
            if heard.done():
                break
        await heard
        await client.cancel(array.id)
        told.clear()
        await hear(plain, lambda job: job.state.ended)
        assert {job.id for job in told} == {array.id}
        assert told[-1].state is JobState.CANCELLED


async def test_what_an_element_wrote_at_length_comes_whole_as_well(grid):
    ann = await grid.person("ann")
    worker = await grid.worker(ann)
    sizes = {0: 3, 1: 1_000_000, 2: 0, 3: 100_000}
    async with Client(grid.url, ann.token) as client:
        array = await client.submit(JobSpec(**OK, array=ArraySpec(count=4)))
        while not (await client.job(array.id)).state.ended:
            for one in (await worker.receive(Assign)).attempts:
                data = bytes([65 + one.array_index]) * sizes[one.array_index]
                await worker.start(one.attempt_id)
                for at in range(0, len(data), 100_000):
                    await worker.write(one.attempt_id, data[at : at + 100_000], at)
                await worker.finish(one.attempt_id, exit_code=0, stdout_bytes=len(data))
        found = [one async for one in client.outputs(array.id)]
    assert [len(one.stdout) for one in found] == [3, 1_000_000, 0, 100_000]
    assert [set(one.stdout) for one in found] == [{65}, {66}, set(), {68}]
    page = (await ann.get(f"/jobs/{array.id}/outputs?limit=1")).json
    assert (len(page["elements"]), page["next"]) == (1, array.id + 1)
    assert (await ann.get(f"/jobs/{array.id + 1}/outputs")).status == 404


async def test_two_thousand_elements_are_no_effort(grid, running):
    ann = await grid.person("ann")
    owner = await grid.person("owner")
    running(await grid.worker(owner, cpu_millis=64_000, memory_mb=1 << 20))
    async with Client(grid.url, ann.token) as client:
        args = [[f"file {number}"] for number in range(2000)]
        array = await client.submit(JobSpec(**{**OK, "timeout_s": 10}, array=ArraySpec(args=args)))
        done = await client.wait(array.id, 200)
        assert (done.state, done.array.succeeded) == (JobState.SUCCEEDED, 2000)
        index = 0
        async for one in client.outputs(array.id):
            assert (one.job.array_index, one.stdout) == (index, f"{index}\n".encode())
            index += 1
        assert index == 2000
        receipt = await client.receipt(array.id)
    assert receipt.hold == receipt.charge + receipt.released
    audit = (await grid.admin.get("/admin/audit")).json
    assert audit["ok"], audit["findings"]
    assert audit["held"] == 0
