"""Two users do anything with files, in any order; disk, rows and quota stay true to each other."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from gridx.messages import Assign, OutputFile
from tests.integration.conftest import Grid, Person, PlayedWorker

Until = Callable[..., Awaitable[Any]]
STEPS = int(os.environ.get("GRIDX_TEST_FILE_STEPS", "120"))
SEED = int(os.environ.get("GRIDX_TEST_SEED", secrets.randbits(32)))
QUOTA = 1 << 20
CONTENTS = [bytes([number]) * size for number, size in enumerate([0, 1, 1000, 70_000, 200_000, 600_000])]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Play:
    """What the two do, and what must be true after each step."""

    def __init__(
        self, grid: Grid, people: list[Person], worker: PlayedWorker, rng: random.Random, until: Until
    ) -> None:
        self.grid = grid
        self.until = until
        self.people = people
        self.worker = worker
        self.rng = rng
        self.jobs: list[tuple[Person, int]] = []

    async def upload(self) -> None:
        """Sent well, in part, from a wrong place, under a wrong name, or with a wrong size."""
        who, data = self.rng.choice(self.people), self.rng.choice(CONTENTS)
        name = digest(data) if self.rng.random() < 0.8 else digest(self.rng.choice(CONTENTS))
        size = len(data) if self.rng.random() < 0.8 else self.rng.randrange(300_000)
        begun = int((await who.ask("HEAD", f"/blobs/{name}")).headers["Gridx-Offset"])
        offset = begun if self.rng.random() < 0.8 else self.rng.randrange(300_000)
        end = len(data) if self.rng.random() < 0.6 else self.rng.randrange(len(data) + 1)
        path = f"/blobs/{name}?size={size}&offset={offset}"
        answer = await who.ask("PUT", path, data[min(begun, end) : end])
        assert answer.status in (200, 409, 413, 422, 429), answer.content

    async def both_at_once(self) -> None:
        await asyncio.gather(*(self.upload() for _ in range(4)))

    async def delete(self) -> None:
        who = self.rng.choice(self.people)
        answer = await who.ask("DELETE", f"/blobs/{digest(self.rng.choice(CONTENTS))}")
        assert answer.status in (200, 409)

    async def prune(self) -> None:
        assert (await self.rng.choice(self.people).post("/blobs/prune")).status == 200

    async def submit(self) -> None:
        """A job that runs, or one that no machine can run, which stays open until it is cancelled."""
        who = self.rng.choice(self.people)
        chosen = self.rng.sample(CONTENTS, self.rng.randrange(3))
        inputs = [{"path": digest(one), "sha256": digest(one), "size": len(one)} for one in chosen]
        body = {"code": "1", "memory_mb": 64, "inputs": inputs, "gpus": self.rng.randrange(2)}
        answer = await who.post("/jobs", body)
        assert answer.status in (201, 422), answer.content
        if answer.status == 201:
            self.jobs.append((who, answer.json["id"]))

    async def cancel(self) -> None:
        if self.jobs:
            who, job_id = self.rng.choice(self.jobs)
            assert (await who.post(f"/jobs/{job_id}/cancel")).status == 200

    async def work(self) -> None:
        """The worker: does its jobs, gives back this and that, and breaks now and then."""
        while True:
            for attempt in (await self.worker.receive(Assign)).attempts:
                await self.worker.start(attempt.attempt_id)
                files = []
                for data in self.rng.sample(CONTENTS, 2):
                    path = f"/attempts/{attempt.attempt_id}/files/{digest(data)}?size={len(data)}"
                    sent = await self.people[0].ask("PUT", path, data)
                    assert sent.status in (200, 404, 429), sent.content
                    if sent.status == 200 and self.rng.random() < 0.8:
                        files.append(OutputFile(path=f"f{len(files)}", sha256=digest(data), size=len(data)))
                outcome = self.rng.choice(["succeeded", "succeeded", "succeeded", "failed", "broken"])
                await self.worker.finish(attempt.attempt_id, outcome, files=files)

    async def delete_outputs(self) -> None:
        if self.jobs:
            who, job_id = self.rng.choice(self.jobs)
            assert (await who.ask("DELETE", f"/jobs/{job_id}/files")).status == 200

    async def look(self) -> None:
        """The audit finds nothing, nothing lies on the disk without a row, and nobody is over the quota."""
        report = (await self.grid.admin.get("/admin/audit")).json
        assert report["findings"] == []
        parts = self.grid.coordinator._parts
        assert parts is not None
        folder = self.grid.settings.db_path.with_name("grid.db-blobs")

        async def in_step() -> bool:
            return {path.name for path in folder.glob("??/*")} == set(await parts.store.blobs())

        # A file of the worker's may have its place and not yet its row.
        await self.until(in_step, "the disk to have what the rows say")
        for path in folder.glob("??/*"):
            with suppress(FileNotFoundError):
                assert digest(path.read_bytes()) == path.name
        for user in await parts.store.users():
            assert (await parts.store.files_taken(user.id)).size <= QUOTA


async def test_whatever_two_users_do_disk_rows_and_quota_stay_true(start_grid, until):
    print(f"GRIDX_TEST_SEED={SEED} GRIDX_TEST_FILE_STEPS={STEPS}")
    rng = random.Random(SEED)
    grid = await start_grid(files={"quota_mb": 1}, credits={"signup_grant": 100_000})
    people = [await grid.person("ann"), await grid.person("bob")]
    worker = await grid.worker(people[0])
    play = Play(grid, people, worker, rng, until)
    steps = [play.upload] * 6 + [
        play.both_at_once,
        play.delete,
        play.prune,
        play.submit,
        play.cancel,
        play.delete_outputs,
    ]
    working = asyncio.create_task(play.work())
    for number in range(STEPS):
        await rng.choice(steps)()
        if number % 4 == 0:
            await play.look()
    assert not working.done() or working.exception() is None
    # Everything is given up: nothing is left, on the disk or in the books.
    for who, job_id in play.jobs:
        await who.post(f"/jobs/{job_id}/cancel")

    async def ended() -> bool:
        pages = [(await who.get("/jobs?limit=500")).json["jobs"] for who in people]
        return all(job["ended_at"] for page in pages for job in page)

    await until(ended, "all jobs to end")
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    for who, job_id in play.jobs:
        await who.ask("DELETE", f"/jobs/{job_id}/files")
    for who in people:
        await who.post("/blobs/prune")
        usage = (await who.get("/blobs/usage")).json
        assert (usage["input_bytes"], usage["output_bytes"]) == (0, 0)
    await play.look()
    folder = grid.settings.db_path.with_name("grid.db-blobs")
    assert not [path for path in folder.rglob("*") if path.is_file()]
