"""Workers that lie about everything, users who change their minds: whatever they say, the books are right."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random

import aiohttp
import pytest

from gridx.messages import (
    Accepted,
    Assign,
    Finished,
    Offer,
    Offering,
    Output,
    Refused,
    Released,
    Resumed,
    Runtime,
    Sample,
    Started,
)

ROUNDS = int(os.environ.get("GRIDX_TEST_LIES", "250"))
SEEDS = int(os.environ.get("GRIDX_TEST_LIARS", "3"))
STATES = ("online", "online", "online", "paused", "closed", "draining", "unready")
OUTCOMES = ("succeeded", "failed", "timed_out", "out_of_memory", "cancelled", "broken")


class Liar:
    """A worker that says anything about any attempt that it has ever heard of, its own or not."""

    def __init__(self, grid, owner, identity: str, rng: random.Random, heard: list[int]) -> None:
        self.grid, self.owner, self.identity, self.rng, self.heard = grid, owner, identity, rng, heard
        self.worker = None
        self._reading: asyncio.Task | None = None

    async def join(self) -> None:
        """Come back, naming what it likes."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
            await self.worker.socket.close()
        self.worker = await self.grid.worker(
            self.owner, identity=self.identity, running=self.some(), spooled=self.some()
        )
        self._reading = asyncio.create_task(self._read(self.worker))

    async def leave(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self.worker.socket.close()

    async def _read(self, worker) -> None:
        with contextlib.suppress(TypeError, TimeoutError):
            while True:
                frame = await worker.receive(Assign)
                self.heard.extend(given.attempt_id for given in frame.attempts)

    def some(self) -> list[int]:
        return sorted(set(self.rng.sample(self.heard, min(len(self.heard), self.rng.randrange(6)))))

    def lie(self):
        rng = self.rng
        id = rng.choice([*self.heard[-20:], *self.heard[-20:], rng.randrange(1, 500), 2**53])
        return rng.choice(
            [
                lambda: Accepted(attempt_id=id),
                lambda: Started(attempt_id=id, runtime=rng.choice(["default", "another"])),
                lambda: Started(attempt_id=id, runtime="default"),
                lambda: Output(
                    attempt_id=id,
                    stream=rng.choice(["stdout", "stderr"]),
                    offset=rng.choice([0, 0, 3, 100, 2**53]),
                    data=rng.randbytes(rng.randrange(20)),
                ),
                *[
                    lambda: Finished(
                        attempt_id=id,
                        outcome=rng.choice(OUTCOMES),
                        wall_ms=rng.choice([0, 1, 1000, 2**53]),
                        cpu_ms=2**53,
                        exit_code=rng.choice([None, 0, -(2**31)]),
                        stdout_bytes=rng.choice([0, 0, 0, 5, 2**53]),
                    )
                ]
                * 3,
                lambda: Refused(attempt_id=id, reason="no"),
                lambda: Released(attempt_id=id, reason="no"),
                lambda: Sample(seq=rng.randrange(100), attempts=self.some()),
                lambda: Sample(
                    seq=1,
                    attempts=[],
                    state=rng.choice(STATES),
                ),
                lambda: Offering(offer=offer(rng.choice([0, 100, 64_000]))),
                lambda: Offering(offer=offer(64_000, only_users=[rng.choice(["ann", "bob", "nobody"])])),
                lambda: Resumed(),
            ]
        )()

    async def speak(self) -> None:
        try:
            await self.worker.send(*(self.lie() for _ in range(self.rng.randrange(1, 8))))
        except (ConnectionError, aiohttp.ClientError):
            await self.join()


def offer(cpu_millis: int, **fields) -> Offer:
    runtime = Runtime(name="default", python="3.11", languages=["python"])
    return Offer(cpu_millis=max(100, cpu_millis), memory_mb=64_000, runtimes=[runtime], **fields)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_whatever_workers_and_users_say_the_books_are_right(start_grid, until, seed):
    rng = random.Random(seed)
    grid = await start_grid(coordinator={"lease_s": 1.0, "heartbeat_s": 0.2}, credits={"signup_grant": 1000})
    people = [await grid.person(name) for name in ("ann", "bob", "eve")]
    heard: list[int] = []
    liars = [Liar(grid, rng.choice(people), f"{n + 1:032x}", rng, heard) for n in range(4)]
    for liar in liars:
        await liar.join()
    jobs: list[tuple[object, int]] = []
    statuses: set[int] = set()

    async def ask(person, path, body=None, **more):
        answer = await person.post(path, body, **more)
        statuses.add(answer.status)
        return answer

    async def act() -> None:
        """Something that a user may do."""
        person = rng.choice(people)
        match rng.randrange(9):
            case 0 | 1 | 2 | 3:
                body = {"code": "print(1)", "timeout_s": rng.choice([1, 3600]), "memory_mb": 64}
                key = {"Idempotency-Key": f"{rng.randrange(60)}"} if rng.random() < 0.4 else {}
                answer = await ask(person, "/jobs", body, headers=key)
                if answer.status in (200, 201):
                    jobs.append((person, answer.json["id"]))
            case 4 | 5 if jobs:
                owner, id = rng.choice(jobs)
                await ask(
                    rng.choice([owner, person]), f"/jobs/{id}/{rng.choice(['cancel', 'cancel', 'retry'])}"
                )
            case 6:
                to = rng.choice(people).name
                await ask(
                    person, "/credits/transfer", {"to": to, "amount": rng.choice([1, 10**6, 10**9, 2**53])}
                )
            case 7:
                what = rng.choice(["pause", "resume", "resume", "drain"])
                await ask(person, f"/workers/{rng.randrange(1, 5)}/{what}")
            case _ if rng.random() < 0.3:
                await rng.choice(liars).join()

    for _ in range(ROUNDS):
        steps = [act() for _ in range(rng.randrange(3))] + [liar.speak() for liar in rng.sample(liars, 2)]
        await asyncio.gather(*steps)
    assert not statuses & {500, 503}, statuses
    for liar in liars:
        await liar.leave()

    # An honest machine runs what is left.
    for number in range(1, 5):
        await grid.admin.post(f"/workers/{number}/resume")
    honest = await grid.worker(people[0], identity="f" * 32, cpu_millis=1_000_000, memory_mb=4_000_000)

    async def work() -> None:
        while True:
            for given in (await honest.receive(Assign)).attempts:
                await honest.start(given.attempt_id)
                await honest.send(Finished(attempt_id=given.attempt_id, outcome="succeeded", wall_ms=2**53))

    async def live() -> None:
        seq = 0
        while True:
            seq += 1
            await honest.send(Sample(seq=seq, attempts=[]))
            await asyncio.sleep(0.2)

    working = [asyncio.create_task(work()), asyncio.create_task(live())]

    async def over() -> bool:
        page = (await grid.admin.get("/jobs?state=queued,assigned,running,cancelling")).json
        return not page["jobs"]

    await until(over, "all jobs to end")
    for task in working:
        task.cancel()
    await asyncio.gather(*working, return_exceptions=True)

    report = (await grid.admin.get("/admin/audit")).json
    assert report["ok"], report["findings"]
    assert report["held"] == 0
    balances = [(await person.get(f"/credits/{person.name}")).json for person in people]
    treasury = 3 * 1000 * 10**6 - sum(balance["balance"] for balance in balances)
    assert treasury >= 0
    for owner, id in jobs:
        receipt = (await owner.get(f"/jobs/{id}/receipt")).json
        paid = [attempt for attempt in receipt["attempts"] if attempt["charge"]]
        assert len(paid) <= 1
        assert receipt["charge"] + receipt["released"] == receipt["hold"]
        # Nobody is paid for longer than the attempt was on its machine.
        for attempt in paid:
            assert attempt["charged_ms"] <= 60_000, attempt
