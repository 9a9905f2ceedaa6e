"""Anything at random, on the whole engine: every job and array comes to an end, and nothing is left over."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from gridx.errors import Conflict, GridError
from gridx.messages import ArraySpec, Cancel, Dependency, JobState, Refused, Released

ONE_RUN = 36_000
"""About what a run of the jobs here may cost."""


class Chaos:
    """Users who submit and cancel, workers that do whatever comes to their minds."""

    def __init__(self, engine, users, seed: int) -> None:
        self.engine = engine
        self.users = users
        self.random = random.Random(seed)
        self.numbers: list[tuple] = []

    async def submit(self) -> None:
        user = self.random.choice(self.users)
        mine = [number for owner, number in self.numbers if owner is user]
        after = [
            Dependency(job_id=parent, when=self.random.choice(["success", "end", "end"]))
            for parent in self.random.sample(mine, min(len(mine), self.random.choice([0, 0, 1, 2])))
        ]
        array = None
        if self.random.random() < 0.7:
            array = ArraySpec(
                count=self.random.randint(1, 30),
                max_fails=self.random.choice([None, None, 0, 3]),
                max_credits=self.random.choice([None, None, 3 * ONE_RUN, 8 * ONE_RUN]),
            )
        try:
            job = await self.engine.submit(
                user,
                timeout_s=60,
                memory_mb=512,
                cpus=self.random.choice([0.5, 1, 2]),
                retries=self.random.choice([0, 0, 1, 2]),
                retry_delay_s=self.random.choice([0, 0, 3]),
                max_attempts=self.random.choice([1, 3]),
                priority=self.random.choice([0, 0, 5]),
                array=array,
                after=after,
            )
        except Conflict:
            return
        self.numbers.append((user, job.id))

    async def cancel(self) -> None:
        user, number = self.random.choice(self.numbers)
        await self.engine.jobs.cancel(user, number + self.random.choice([0, 0, 1])) if number else None

    async def work(self, worker) -> None:
        """Answer what it was given and what it was told to kill."""
        done: set[int] = set()
        while True:
            killed = {id_ for frame in worker.all(Cancel) for id_ in frame.attempt_ids}
            for given in worker.assignments:
                if given.attempt_id not in done:
                    done.add(given.attempt_id)
                    self.answer(worker, given.attempt_id, given.attempt_id in killed)
            await asyncio.sleep(0.005)

    def answer(self, worker, attempt_id: int, killed: bool) -> None:
        what = self.random.random()
        if what < 0.05:
            worker.say(Refused(attempt_id=attempt_id, reason="no"))
        elif what < 0.1:
            worker.say(Released(attempt_id=attempt_id, reason="later"))
        else:
            worker.start(attempt_id)
            outcome = self.random.choices(
                ["succeeded", "failed", "timed_out", "broken"], weights=[8, 3, 1, 1]
            )[0]
            wall_ms = self.random.choice([1, 1000, 60_000])
            worker.finish(attempt_id, "cancelled" if killed else outcome, wall_ms=wall_ms)
            if self.random.random() < 0.2:
                worker.finish(attempt_id, outcome, wall_ms=wall_ms)

    async def still_open(self) -> list[int]:
        found = []
        for user, number in self.numbers:
            job = await self.engine.jobs.job(user, number)
            if not job.state.ended:
                found.append(number)
        return found


@pytest.mark.parametrize("seed", range(5))
async def test_everything_comes_to_an_end(engine, ann, bob, until, seed):
    chaos = Chaos(engine, [ann, bob], seed)
    workers = [await engine.worker(owner, cpus=4) for owner in (ann, bob)]
    working = [asyncio.create_task(chaos.work(worker)) for worker in workers]
    try:
        for number in range(20):
            await chaos.submit()
            if number % 4 == 3:
                with contextlib.suppress(GridError):
                    await chaos.cancel()
            await engine.pass_time(2)
            await asyncio.sleep(0.01)

        async def all_ended() -> bool:
            await engine.pass_time(20)
            return not await chaos.still_open()

        await until(all_ended, "everything to end", 60)
    finally:
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
    assert len(engine.jobs._backlog) == 0
    assert not engine.fleet.all_live()
    assert not engine.jobs._backlog._arrays
    for user in (ann, bob):
        assert (await engine.store.balance(user.id)).held == 0
    for user, number in chaos.numbers:
        job = await engine.jobs.job(user, number)
        if job.array is not None:
            assert job.hold == 0
            assert job.array.max_credits is None or job.charge <= job.array.max_credits
            if job.state is JobState.SUCCEEDED:
                assert job.array.succeeded == job.array.count
