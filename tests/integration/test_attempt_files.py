"""Files between jobs and workers: what a worker may read and send, and what its job's owner gets of it."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import pytest

from gridx import safetext
from gridx.messages import Finished, LeftFile, OutputFile, Rejected
from tests.integration.conftest import Grid, Person, PlayedWorker

MIB = 1 << 20


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def named(path: str, data: bytes) -> dict[str, Any]:
    return {"path": path, "sha256": digest(data), "size": len(data)}


def came(path: str, data: bytes) -> OutputFile:
    return OutputFile(**named(path, data))


async def upload(who: Person, data: bytes) -> None:
    answer = await who.ask("PUT", f"/blobs/{digest(data)}?size={len(data)}", data)
    assert answer.json["complete"], answer.content


async def send(who: Person, attempt_id: int, data: bytes) -> Any:
    return await who.ask("PUT", f"/attempts/{attempt_id}/files/{digest(data)}?size={len(data)}", data)


async def read(who: Person, attempt_id: int, data: bytes, **headers: str) -> Any:
    return await who.ask("GET", f"/attempts/{attempt_id}/inputs/{digest(data)}", headers=headers)


@pytest.fixture
async def ann(grid: Grid) -> Person:
    return await grid.person("ann")


@pytest.fixture
async def bob(grid: Grid) -> Person:
    return await grid.person("bob")


@pytest.fixture
async def worker(grid: Grid, bob: Person) -> PlayedWorker:
    return await grid.worker(bob)


async def sound(grid: Grid) -> None:
    report = (await grid.admin.get("/admin/audit")).json
    assert report["findings"] == []


async def test_a_worker_reads_the_inputs_of_its_live_attempts_and_no_others(grid, ann, bob, worker):
    data, other = os.urandom(2 * MIB), b"not of this job"
    await upload(ann, data)
    await upload(ann, other)
    job_id = await ann.submit(inputs=[named("data.csv", data)])
    attempt = await worker.assignment()
    assert [one.path for one in attempt.inputs] == ["data.csv"]
    answer = await read(bob, attempt.attempt_id, data)
    assert answer.status == 200
    assert answer.content == data
    part = await read(bob, attempt.attempt_id, data, Range=f"bytes={MIB}-")
    assert part.status == 206
    assert part.content == data[MIB:]
    assert part.headers["Content-Range"] == f"bytes {MIB}-{len(data) - 1}/{len(data)}"
    past = await read(bob, attempt.attempt_id, data, Range=f"bytes={len(data)}-")
    assert past.status == 416
    assert (await read(bob, attempt.attempt_id, other)).status == 404
    # Not its owner's to read by this way either, and not anybody's once it is over.
    assert (await read(ann, attempt.attempt_id, data)).status == 404
    await worker.start(attempt.attempt_id)
    await worker.finish(attempt.attempt_id)
    assert (await read(bob, attempt.attempt_id, data)).status == 404
    assert (await ann.get(f"/jobs/{job_id}")).json["spec"]["inputs"] == [
        {**named("data.csv", data), "executable": False}
    ]
    await sound(grid)


async def test_what_was_not_uploaded_by_oneself_is_no_input(grid, ann, bob):
    data = b"bob's"
    await upload(bob, data)
    for inputs, field in (
        ([named("a", data)], "inputs[0]"),
        ([named("a", b"nobody's")], "inputs[0]"),
    ):
        answer = await ann.post("/jobs", {"code": "1", "inputs": inputs})
        assert answer.status == 422
        assert "was not uploaded" in answer.error["message"]
        assert answer.error["details"]["field"] == field
    await upload(ann, data)
    wrong = {**named("a", data), "size": 4}
    assert (await ann.post("/jobs", {"code": "1", "inputs": [wrong]})).status == 422
    assert (await ann.get("/jobs")).json["jobs"] == []


@pytest.mark.parametrize(
    "paths",
    [
        ("job.py",),
        ("out",),
        ("out/x",),
        ("a", "a"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("a/b/c", "a/b"),
        ("ü" * 200,),
    ],
)
async def test_names_that_are_in_each_others_way_are_refused(ann, paths):
    await upload(ann, b"x")
    answer = await ann.post("/jobs", {"code": "1", "inputs": [named(path, b"x") for path in paths]})
    assert answer.status == 422
    assert answer.error["details"]["field"].startswith("inputs[")


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "/etc/passwd",
        "a/../b",
        "./a",
        "a//b",
        "a/",
        "a\x00b",
        "new\nline",
        "esc\x1b[2J",
        "turn\u202e",
        "c1\x9b",
        "x" * 300,
        "a/" * 600 + "b",
        "a\\b",
        "c:x",
        "",
    ],
)
async def test_a_path_that_leads_elsewhere_or_confuses_is_refused_and_shown_safely(ann, path):
    await upload(ann, b"x")
    answer = await ann.post("/jobs", {"code": "1", "inputs": [named(path, b"x")]})
    assert answer.status == 422
    assert answer.error["details"]["field"] == "inputs[0].path"
    assert safetext.line(answer.error["message"], limit=1000) == answer.error["message"]


async def test_an_end_that_names_such_a_path_is_no_end(grid, ann, bob, worker):
    job_id = await ann.submit()
    attempt = await worker.assignment()
    await worker.start(attempt.attempt_id)
    await send(bob, attempt.attempt_id, b"x")
    end = {"type": "finished", "attempt_id": attempt.attempt_id, "outcome": "succeeded"}
    await worker.socket.send_json([{**end, "files": [named("../x", b"x")]}])
    await worker.receive(Rejected)
    assert not (await ann.get(f"/jobs/{job_id}")).json["state"].startswith("succeeded")
    await worker.finish(
        attempt.attempt_id, files=[came("x", b"x")], left=[LeftFile(path="turn\u202e", why="y")]
    )
    listed = (await ann.get(f"/jobs/{job_id}/files")).json
    assert [file["path"] for file in listed["files"]] == ["x"]
    assert listed["left"] == [{"path": "turn", "why": "y"}]


async def test_files_come_back_with_the_end_and_are_their_owners_alone(grid, ann, bob, worker):
    carol = await grid.person("carol")
    job_id = await ann.submit()
    attempt = await worker.assignment()
    await worker.start(attempt.attempt_id)
    model, table = os.urandom(MIB), b"a,b\n1,2\n"
    for data in (model, table):
        assert (await send(bob, attempt.attempt_id, data)).json["complete"]
    left = LeftFile(path="pipe", why="it is a pipe")
    await worker.finish(
        attempt.attempt_id, files=[came("model.bin", model), came("sub/ä b.csv", table)], left=[left]
    )
    job = (await ann.get(f"/jobs/{job_id}")).json
    assert (job["files"], job["file_bytes"]) == (2, len(model) + len(table))
    listed = (await ann.get(f"/jobs/{job_id}/files")).json
    assert listed["files"] == [named("model.bin", model), named("sub/ä b.csv", table)]
    assert listed["left"] == [{"path": "pipe", "why": "it is a pipe"}]
    assert listed["expires_at"]
    file = await ann.get(f"/jobs/{job_id}/files/sub/%C3%A4%20b.csv")
    assert file.content == table
    assert file.headers["Content-Disposition"].startswith("attachment")
    assert file.headers["Content-Type"] == "application/octet-stream"
    assert file.headers["ETag"] == f'"{digest(table)}"'
    for who in (bob, carol):
        for path in ("", "/model.bin"):
            assert (await who.get(f"/jobs/{job_id}/files{path}")).status == 404
        assert (await who.ask("DELETE", f"/jobs/{job_id}/files")).status == 404
    for path in ("nothing", "sub", "../grid.db", "..%2f..%2fgrid.db", "model.bin%00", "x" * 3000):
        assert (await ann.get(f"/jobs/{job_id}/files/{path}")).status == 404
    assert (await ann.get("/blobs/usage")).json["output_bytes"] == len(model) + len(table)
    await sound(grid)
    freed = await ann.ask("DELETE", f"/jobs/{job_id}/files")
    assert freed.json == {"files": 2, "bytes": len(model) + len(table)}
    assert (await ann.get(f"/jobs/{job_id}/files")).json["files"] == []
    assert (await ann.get("/blobs/usage")).json["output_bytes"] == 0
    assert not list(grid.settings.db_path.with_name("grid.db-blobs").glob("??/*"))
    await sound(grid)


async def test_a_failed_job_gives_its_files_back_too(grid, ann, bob, worker):
    job_id = await ann.submit()
    attempt = await worker.assignment()
    await worker.start(attempt.attempt_id)
    await send(bob, attempt.attempt_id, b"log")
    await worker.finish(attempt.attempt_id, "failed", exit_code=1, files=[came("log", b"log")])
    assert (await ann.get(f"/jobs/{job_id}/files")).json["files"] == [named("log", b"log")]


async def test_only_a_live_attempt_of_ones_own_worker_takes_files(grid, ann, bob, worker):
    await ann.submit()
    attempt = await worker.assignment()
    assert (await send(ann, attempt.attempt_id, b"x")).status == 404
    assert (await send(bob, attempt.attempt_id + 1, b"x")).status == 404
    assert (await bob.ask("HEAD", f"/attempts/{attempt.attempt_id}/files/{digest(b'x')}")).status == 404
    assert (await send(bob, attempt.attempt_id, b"x")).status == 200
    assert (await bob.ask("HEAD", f"/attempts/{attempt.attempt_id}/files/{digest(b'x')}")).status == 200
    # Sent once more it is there already.
    assert (await send(bob, attempt.attempt_id, b"x")).json["complete"]
    await worker.start(attempt.attempt_id)
    await worker.finish(attempt.attempt_id)
    assert (await send(bob, attempt.attempt_id, b"y")).status == 404
    # What was sent and not named with the end is nobody's.
    assert (await ann.get("/blobs/usage")).json["output_bytes"] == 0
    await sound(grid)


async def test_what_an_attempt_sent_is_dropped_when_its_machine_gives_it_back(grid, ann, bob, worker):
    job_id = await ann.submit()
    attempt = await worker.assignment()
    await worker.start(attempt.attempt_id)
    await send(bob, attempt.attempt_id, os.urandom(1000))
    assert (await ann.get("/blobs/usage")).json["output_bytes"] == 1000
    await worker.finish(attempt.attempt_id, "broken", reason="the machine broke")
    again = await worker.assignment()
    assert again.job_id == job_id
    assert (await ann.get("/blobs/usage")).json["output_bytes"] == 0
    await sound(grid)


async def test_an_attempt_gives_back_no_more_than_it_may(start_grid):
    grid = await start_grid(files={"out_mb": 1, "out_files": 2, "quota_mb": 2})
    ann, bob = await grid.person("ann"), await grid.person("bob")
    worker = await grid.worker(bob)
    await ann.submit()
    attempt = await worker.assignment()
    assert (attempt.out_files.total_bytes, attempt.out_files.files) == (MIB, 2)
    assert (await send(bob, attempt.attempt_id, os.urandom(MIB + 1))).status == 413
    assert (await send(bob, attempt.attempt_id, os.urandom(MIB - 10))).status == 200
    assert (await send(bob, attempt.attempt_id, os.urandom(11))).status == 413
    assert (await send(bob, attempt.attempt_id, b"small")).status == 200
    assert (await send(bob, attempt.attempt_id, b"third")).status == 413


async def test_a_full_quota_of_the_owner_is_told_to_the_worker(start_grid):
    grid = await start_grid(files={"quota_mb": 1})
    ann, bob = await grid.person("ann"), await grid.person("bob")
    worker = await grid.worker(bob)
    await ann.submit()
    attempt = await worker.assignment()
    await upload(ann, os.urandom(MIB - 100))
    answer = await send(bob, attempt.attempt_id, os.urandom(101))
    assert answer.status == 429
    assert answer.error["code"] == "quota_exceeded"
    assert (await send(bob, attempt.attempt_id, os.urandom(100))).status == 200


async def test_a_file_that_was_named_and_never_sent_is_left_behind_in_the_end(grid, ann, bob, worker):
    """The worker is asked to come again; one that keeps to its word does not keep its job from ending."""
    job_id = await ann.submit()
    attempt = await worker.assignment()
    await worker.start(attempt.attempt_id)
    await send(bob, attempt.attempt_id, b"here")
    files = [came("here", b"here"), came("gone", b"gone")]
    for _ in range(10):
        await worker.send(
            Finished(attempt_id=attempt.attempt_id, outcome="succeeded", wall_ms=10, files=files)
        )
        await worker.socket.receive(timeout=30)
        if (await ann.get(f"/jobs/{job_id}?wait_s=0.2")).json["state"] == "succeeded":
            break
        if worker.socket.closed:
            worker = await grid.worker(bob, spooled=[attempt.attempt_id])
    listed = (await ann.get(f"/jobs/{job_id}/files")).json
    assert listed["files"] == [named("here", b"here")]
    assert [one["path"] for one in listed["left"]] == ["gone"]
    await sound(grid)
