"""A worker whose engine goes, whose coordinator asks too much, who meets a second one of its own name."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from kit.attacks import CONTAINERS, ended
from kit.mangled import Mangled
from kit.wire import Wire

from gridx.errors import GridError
from gridx.messages import MAX_CODE_BYTES, AttemptState, JobSpec, JobState, decode_coordinator_frames
from gridx.services.worker.sandbox.engine import find_engine, warnings

pytestmark = pytest.mark.engine

WORKER = CONTAINERS
KEPT = 32
COLD = {**CONTAINERS, "GRIDX_WORKER_WARM": "0"}
SMALL = {"cpus": 0.2, "memory_mb": 64, "timeout_s": 60}


# -- what a job cannot ask for -------------------------------------------------------------------------------


async def test_code_over_the_cap_is_too_large_for_the_coordinator(grid):
    headers = {"Authorization": f"Bearer {grid.standing.tokens['bob']}"}
    fits = "#" * (MAX_CODE_BYTES - 20) + "\nprint('whole')"
    async with aiohttp.ClientSession(headers=headers) as http:
        for code in (
            "#" * (MAX_CODE_BYTES + 1),
            "é" * (MAX_CODE_BYTES // 2 + 1),
            "\\" * (MAX_CODE_BYTES + 1),
        ):
            async with http.post(f"{grid.url}/jobs", json={"code": code}) as answer:
                assert answer.status == 413, await answer.text()
                assert (await answer.json())["error"]["hint"]
    job = await grid.bob.submit(JobSpec(code=fits, **SMALL))
    assert (await ended(grid.bob, job.id)).ok().stdout == b"whole\n"


FOREIGN = {
    "image": "evil:latest",
    "mounts": ["/:/host"],
    "privileged": True,
    "network": "host",
    "command": ["sh"],
    "volumes": {"/": "/host"},
    "user": "root",
    "cap_add": ["SYS_ADMIN"],
    "devices": ["/dev/sda"],
    "pids": 100_000,
    "oci_runtime": "evil",
    "entrypoint": "sh",
    "security_opt": [],
    "HostConfig": {},
    "output_cap_bytes": 1 << 40,
    "worker_id": 1,
    "owner": "admin",
    "state": "succeeded",
    "__class__": "x",
    "code ": "x",
}


async def test_a_field_that_a_job_does_not_have_is_refused_by_name(grid):
    headers = {"Authorization": f"Bearer {grid.standing.tokens['bob']}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        for name, value in FOREIGN.items():
            spec = {"code": "print(1)", name: value}
            for path, body in (("/jobs", spec), ("/quote", spec), ("/jobs/batch", {"jobs": [spec]})):
                async with http.post(f"{grid.url}{path}", json=body) as answer:
                    text = await answer.text()
                    assert answer.status in (400, 422), (name, path, text)
                    assert name.strip() in json.loads(text)["error"]["message"], (name, path, text)


# -- what a coordinator cannot ask for -----------------------------------------------------------------------


@dataclass
class Lying(Mangled):
    """A coordinator that changes what it assigns."""

    rewrite: Callable[[dict[str, Any]], None] = lambda attempt: None

    async def _pump(self, source, sink) -> None:
        with contextlib.suppress(ConnectionError):
            async for message in source:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    return
                frames = json.loads(message.data)
                for frame in frames:
                    if frame["type"] == "assign":
                        for attempt in frame["attempts"]:
                            self.rewrite(attempt)
                await sink.send_str(json.dumps(frames))


ASKED = {
    "needs 1,000 cores|needs 1000 cores": {"cpu_millis": 1_000_000},
    "of memory; ": {"memory_mb": 1 << 22},
    "has no runtime": {"runtime": "evil"},
    "does not run": {"language": "machine code"},
    "does not offer the GPU": {"gpus": ["GPU-1"]},
    "the program has": {"code": "é" * (MAX_CODE_BYTES // 2 + 1)},
}
NONSENSE = {
    "an image": {"image": "evil"},
    "privileges": {"privileged": True},
    "another number of processes": {"pids": 1 << 20},
    "a time without end": {"timeout_s": 1 << 40},
    "no memory": {"memory_mb": 0},
    "an output without end": {"output_cap_bytes": 1 << 50},
    "a negative number of cores": {"cpu_millis": -1},
    "an attempt that is none": {"attempt_id": -1},
}


def test_an_assignment_that_asks_for_what_there_is_not_is_none():
    fits = {
        "attempt_id": 1,
        "job_id": 1,
        "number": 1,
        "owner": "bob",
        "name": "",
        "code": "pass",
        "language": "python",
        "args": [],
        "env": {},
        "cpu_millis": 1000,
        "memory_mb": 512,
        "gpus": [],
        "timeout_s": 10,
        "runtime": "default",
        "output_cap_bytes": 1024,
    }
    assert decode_coordinator_frames(json.dumps([{"type": "assign", "attempts": [fits]}]))
    for changes in NONSENSE.values():
        with pytest.raises(GridError):
            decode_coordinator_frames(json.dumps([{"type": "assign", "attempts": [{**fits, **changes}]}]))


async def test_a_coordinator_that_asks_for_more_than_the_owner_allows_is_refused(grid, until):
    line = Lying(grid.ws_url, random.Random(1))
    await line.start()
    desk = next(each for each in await grid.ann.workers() if each.name == "desk")
    await grid.ann.pause_worker(desk.id)
    worker = None
    try:
        worker = await asyncio.to_thread(
            grid.standing.processes.worker,
            "bob",
            "lied-to",
            **COLD,
            COORDINATOR_WS=line.url,
        )
        line.rewrite = lambda attempt: attempt.update(ASKED.get(attempt["name"], {}))
        jobs = {
            said: await grid.bob.submit(JobSpec(code="print('never')", name=said, **SMALL)) for said in ASKED
        }

        async def refused(id: int):
            attempts = (await grid.bob.job(id)).attempts or []
            return [each for each in attempts if each.state is AttemptState.REFUSED]

        for said, job in jobs.items():
            (first, *_) = await until(lambda id=job.id: refused(id), f"the refusal: {said}")
            assert any(part in first.reason for part in said.split("|")), first.reason
        for job in jobs.values():
            await grid.bob.cancel(job.id)
            each = await ended(grid.bob, job.id)
            assert (each.job.state, each.stdout) == (JobState.CANCELLED, b"")
        # What is no assignment at all ends the connection, not the worker; nothing of it runs.
        for name, changes in list(NONSENSE.items())[:2]:
            line.rewrite = lambda attempt, changes=changes: attempt.update(changes)
            before = worker.text.count("connected to")
            job = await grid.bob.submit(JobSpec(code="print('never')", **SMALL))
            await until(
                lambda before=before: worker.text.count("connected to") > before, f"a new connection: {name}"
            )
            await grid.bob.cancel(job.id)
            await grid.bob.wait(job.id)
            assert await grid.bob.output(job.id) == b""
        line.rewrite = lambda attempt: None
        job = await grid.bob.submit(JobSpec(code="print('honest')", **SMALL))
        assert (await ended(grid.bob, job.id)).ok().stdout == b"honest\n"
        assert worker.process.poll() is None
    finally:
        if worker is not None:
            await asyncio.to_thread(worker.stop)
            grid.standing.processes.nodes.remove(worker)
        await line.stop()
        await grid.ann.resume_worker(desk.id)


# -- two of one name, an engine that goes --------------------------------------------------------------------

FIRST_HANGS = """
import os, time
print("begun", flush=True)
if os.environ["GRIDX_ATTEMPT"] == "1": time.sleep(50)
"""


async def test_of_two_workers_with_one_identity_the_newer_stays_and_the_older_is_told(grid, until):
    processes = grid.standing.processes
    first = await asyncio.to_thread(processes.worker, "bob", "first", **COLD)
    twin = processes.folder / "worker-twin"
    twin.mkdir(mode=0o700)
    shutil.copy2(processes.folder / "worker-first" / "worker.id", twin / "worker.id")
    second = None
    try:
        second = await asyncio.to_thread(processes.worker, "bob", "twin", **COLD)
        # It says why, and does not come back to take the place from the newer one again.
        await until(lambda: "share one identity" in first.text, "the older to be told")
        await until(lambda: first.process.poll() is not None, "the older to end")
        named = [each for each in await grid.bob.workers() if each.owner == "bob" and each.state == "online"]
        assert [each.name for each in named] == ["twin"]
        assert second.process.poll() is None
        job = await grid.bob.submit(JobSpec(code="print('one')", **SMALL))
        each = (await ended(grid.bob, job.id)).ok()
        assert len(each.job.attempts or []) == 1
    finally:
        for node in (second, first):
            if node is not None:
                await asyncio.to_thread(node.stop) if node.process.poll() is None else None
                processes.nodes.remove(node)


async def test_an_engine_that_stops_or_hangs_breaks_the_attempt_and_comes_back_by_itself(
    grid, tmp_path, until
):
    desk = next(each for each in await grid.ann.workers() if each.name == "desk")
    await grid.ann.pause_worker(desk.id)
    worker = None
    async with Wire(tmp_path) as wire:
        try:
            worker = await asyncio.to_thread(
                grid.standing.processes.worker,
                "bob",
                "shaky",
                **COLD,
                GRIDX_WORKER_ENGINE=f"unix://{wire.path}",
            )

            async def me():
                return next(each for each in await grid.bob.workers() if each.name == "shaky")

            for fail, heal in ((wire.cut, wire.mend), (wire.freeze, wire.thaw)):
                job = await grid.bob.submit(JobSpec(code=FIRST_HANGS, **SMALL))

                async def begun(job=job):
                    return await grid.bob.output(job.id) == b"begun\n"

                await until(begun, "the job to run")
                failing = fail()
                if failing is not None:
                    await failing

                async def broken(job=job):
                    attempts = (await grid.bob.job(job.id)).attempts or []
                    return attempts and attempts[0].state is AttemptState.BROKEN

                await until(broken, "the attempt to be broken", 90)
                await until(lambda: _is(me, "unready"), "the worker to be unready")
                healing = heal()
                if healing is not None:
                    await healing
                each = (await ended(grid.bob, job.id)).ok()
                assert (each.job.attempt, each.stdout) == (2, b"begun\n")
                assert (await me()).state == "online"
                receipt = await grid.bob.receipt(job.id)
                assert [attempt.charge > 0 for attempt in receipt.attempts] == [False, True]
        finally:
            wire.thaw()
            if worker is not None:
                await asyncio.to_thread(worker.stop)
                grid.standing.processes.nodes.remove(worker)
            with contextlib.suppress(GridError):
                await grid.ann.resume_worker(desk.id)


async def _is(worker, state: str) -> bool:
    return (await worker()).state == state


async def test_what_the_engine_lacks_is_told_to_the_owner_and_to_everybody(grid):
    engine = await find_engine("")
    try:
        lacking = warnings(engine.facts)
    finally:
        await engine.close()
    desk = next(each for each in await grid.bob.workers() if each.name == "desk")
    told = desk.offer.warnings if desk.offer else []
    assert [one for one in lacking if one not in told] == []
    doctor = await asyncio.to_thread(grid.standing.processes.gridx, "doctor", "--no-job", check=False)
    # On one line each, however wide the terminal is.
    said = " ".join(doctor.stdout.split())
    assert [one for one in lacking if one not in said] == []
