"""Credits: nobody makes, loses or moves one twice, whatever they send and whenever they send it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sqlite3
from typing import Any

import aiohttp
import pytest
from kit.attack import error_of, session_from

from gridx import messages
from gridx.client import Client
from gridx.errors import Conflict, GridError, InsufficientCredits
from gridx.messages import (
    PROTOCOL_VERSION,
    Ack,
    Assign,
    Finished,
    Frame,
    Hello,
    JobSpec,
    JobState,
    Offer,
    Runtime,
    Sample,
    Started,
    Welcome,
)

COORDINATOR = {
    "GRIDX_COORDINATOR_LEASE_S": "2",
    "GRIDX_COORDINATOR_HEARTBEAT_S": "0.4",
    "GRIDX_CREDITS_SIGNUP_GRANTS_TOTAL": "40",
    "GRIDX_CREDITS_SIGNUP_GRANTS_PER_ADDRESS": "3",
}
WORKER = {"GRIDX_WORKER_REUSE": "true", "GRIDX_WORKER_CPUS": "2"}
KEPT = 3
PASSWORD = "correct horse"
CREDIT = 1_000_000


class Liar:
    """A worker at the other end of a real WebSocket, which says what the test wants it to."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, welcome: Welcome) -> None:
        self.socket, self.welcome, self._frames = socket, welcome, []
        self._living: asyncio.Task | None = asyncio.create_task(self._live())

    async def _live(self) -> None:
        seq = 0
        with contextlib.suppress(ConnectionError):
            while True:
                seq += 1
                await self.send(Sample(seq=seq, attempts=[]))
                await asyncio.sleep(0.3)

    async def send(self, *frames: Frame) -> None:
        await self.socket.send_str(messages.encode(frames).decode())

    async def next(self, *kinds: type) -> Any:
        while True:
            for frame in self._frames:
                if isinstance(frame, kinds):
                    self._frames.remove(frame)
                    return frame
            self._frames += messages.decode_coordinator_frames(await self.socket.receive_str(timeout=60))

    async def started(self) -> int:
        """The next attempt that it is given, which it says it began."""
        (given, *_) = (await self.next(Assign)).attempts
        await self.send(Started(attempt_id=given.attempt_id, runtime="default"))
        return given.attempt_id

    async def finish(self, attempt_id: int, **fields: Any) -> None:
        """Hand in an end, and wait until it is acknowledged."""
        await self.send(
            Finished(**{"attempt_id": attempt_id, "outcome": "succeeded", "wall_ms": 5, **fields})
        )
        while attempt_id not in (await self.next(Ack)).attempt_ids:
            pass

    async def leave(self) -> None:
        self._living.cancel()
        await asyncio.gather(self._living, return_exceptions=True)
        await self.socket.close()


class Stage:
    """A new owner with a machine of many cores, on which only jobs run that ask for so many."""

    def __init__(self, grid, owner: Client, name: str, http: aiohttp.ClientSession) -> None:
        self.grid, self.owner, self.name, self.http = grid, owner, name, http

    async def join(self, identity: str = "", spooled: list[int] | None = None) -> Liar:
        headers = {"Authorization": f"Bearer {self.owner.token}"}
        socket = await self.http.ws_connect(self.grid.ws_url, headers=headers, max_msg_size=16 << 20)
        hello = Hello(
            protocol=PROTOCOL_VERSION,
            version="0",
            identity=identity or f"{hash(self.name) & (2**128 - 1):032x}",
            name=self.name,
            running=[],
            spooled=spooled or [],
            offer=Offer(
                cpu_millis=500_000,
                memory_mb=500_000,
                sandbox="docker",
                isolated=True,
                runtimes=[Runtime(name="default", python="3.11", languages=["python"])],
            ),
        )
        await socket.send_str(messages.encode([hello]).decode())
        first, *_ = messages.decode_coordinator_frames(await socket.receive_str(timeout=30))
        assert isinstance(first, Welcome), first
        return Liar(socket, first)

    async def submit(self, **fields: Any) -> int:
        """A job of bob's that only this machine is large enough for."""
        spec = JobSpec(**{"code": "print(1)", "cpus": 100.0, "memory_mb": 64, "timeout_s": 60, **fields})
        return (await self.grid.bob.submit(spec)).id


@pytest.fixture
async def stage(grid, request):
    async with aiohttp.ClientSession() as http, Client(grid.url) as stranger:
        name = f"owner-{abs(hash(request.node.name)) % 10**9}"
        made = await grid.admin.create_user(name, PASSWORD)
        async with Client(grid.url, (await stranger.login(made.username, PASSWORD)).token) as owner:
            await grid.admin.grant("bob", 1000 * CREDIT)
            yield Stage(grid, owner, name, http)


AMOUNTS = (
    "-1",
    "0",
    "0.1",
    "1.0",
    '"1"',
    "true",
    "null",
    "NaN",
    "1e400",
    "1e2",
    str(2**63),
    "-0",
    "[1]",
    "9" * 400,
)


@pytest.mark.parametrize("amount", AMOUNTS)
async def test_an_amount_is_a_positive_whole_number_or_it_is_refused(grid, amount):
    before = [balance.balance for balance in (await grid.ann.balance(), await grid.bob.balance())]
    for path, who in (("/credits/transfer", grid.ann), ("/credits/grant", grid.admin)):
        body = f'{{"to": "bob", "amount": {amount}}}'.encode()
        headers = {"Authorization": f"Bearer {who.token}"}
        async with (
            session_from("127.7.0.1") as session,
            session.post(grid.url + path, data=body, headers=headers) as answer,
        ):
            assert answer.status in ((400, 422) if amount in ("NaN", "1e400") else (422,)), (
                await answer.text()
            )
            error_of(await answer.read())
    assert before == [balance.balance for balance in (await grid.ann.balance(), await grid.bob.balance())]


async def test_of_fifty_submits_at_once_with_the_balance_for_one_exactly_one_is_accepted(grid):
    async with Client(grid.url) as stranger:
        await grid.admin.create_user("poor", PASSWORD)
        token = (await stranger.login("poor", PASSWORD)).token
    async with Client(grid.url, token) as poor:
        spec = JobSpec(code="print(1)", cpus=100.0, memory_mb=64, timeout_s=60)
        price = (await poor.quote(spec)).hold
        have = (await poor.balance()).balance
        await poor.transfer("ann", have - price - price // 2)
        answers = await asyncio.gather(*(poor.submit(spec) for _ in range(50)), return_exceptions=True)
        accepted = [answer for answer in answers if not isinstance(answer, BaseException)]
        assert len(accepted) == 1
        assert {type(answer) for answer in answers if answer is not accepted[0]} == {InsufficientCredits}
        balance = await poor.balance()
        assert (balance.balance, balance.held) == (price // 2, price)
        await poor.cancel(accepted[0].id)
        assert (await poor.balance()).held == 0


async def test_one_key_ten_times_is_one_job_and_one_hold_and_another_body_under_it_a_conflict(grid):
    before = await grid.ann.balance()
    spec = JobSpec(code="print(1)", cpus=100.0, memory_mb=64, timeout_s=60)
    jobs = await asyncio.gather(*(grid.ann.submit(spec, idempotency_key="one") for _ in range(10)))
    assert len({job.id for job in jobs}) == 1
    held = (await grid.ann.balance()).held - before.held
    assert held == (await grid.ann.quote(spec)).hold
    other = JobSpec(code="print(2)", cpus=100.0, memory_mb=64, timeout_s=60)
    with pytest.raises(Conflict):
        await grid.ann.submit(other, idempotency_key="one")
    with pytest.raises(Conflict):
        await grid.ann.submit_batch([spec], idempotency_key="one")
    # Of another user it is another key.
    await grid.bob.cancel((await grid.bob.submit(spec, idempotency_key="one")).id)
    await grid.ann.cancel(jobs[0].id)
    again = await grid.ann.submit(spec, idempotency_key="one")
    assert (again.id, again.state) == (jobs[0].id, JobState.CANCELLED)


async def test_an_end_that_is_sent_again_and_again_is_paid_once_and_acknowledged_each_time(stage):
    liar = await stage.join("a" * 32)
    job_id = await stage.submit()
    attempt = await liar.started()
    for _ in range(3):
        await liar.finish(attempt)
    earned = (await stage.owner.balance()).earned
    assert earned > 0
    await liar.leave()
    # After a reconnect, and told otherwise.
    liar = await stage.join("a" * 32, spooled=[attempt])
    for outcome in ("succeeded", "failed", "timed_out"):
        await liar.finish(attempt, outcome=outcome, wall_ms=2**53)
    # After the coordinator was killed and came back.
    grid = stage.grid
    grid.coordinator.kill()
    await asyncio.to_thread(grid.standing.rise)
    await liar.leave()
    liar = await stage.join("a" * 32, spooled=[attempt])
    await liar.finish(attempt)
    await liar.leave()
    receipt = await grid.bob.receipt(job_id)
    assert (await stage.owner.balance()).earned == earned == receipt.charge
    assert (await grid.bob.job(job_id)).state is JobState.SUCCEEDED


async def test_an_end_of_anothers_an_unassigned_or_a_cancelled_attempt_pays_nothing(stage, grid):
    honest = await stage.join("b" * 32)
    thief_owner = await grid.admin.create_user("thief", PASSWORD)
    async with Client(grid.url) as stranger:
        token = (await stranger.login(thief_owner.username, PASSWORD)).token
    async with Client(grid.url, token) as owner:
        thief = Stage(grid, owner, "thief", stage.http)
        job_id = await stage.submit()
        attempt = await honest.started()
        before = await owner.balance()
        lying = await thief.join("c" * 32)
        for other in (attempt, attempt + 1, attempt + 1000, 2**53):
            await lying.finish(other, wall_ms=2**53)
        assert (await owner.balance()).earned == before.earned == 0
        assert (await grid.bob.job(job_id)).state is JobState.RUNNING
        await honest.finish(attempt)
        assert (await stage.owner.balance()).earned == (await grid.bob.receipt(job_id)).charge > 0
        # Nor one that was cancelled before it began.
        await honest.leave()
        second = await stage.submit()
        (given,) = (await lying.next(Assign)).attempts
        await grid.bob.cancel(second)
        await lying.finish(given.attempt_id, wall_ms=2**53)
        assert (await grid.bob.wait(second)).state in (JobState.CANCELLED, JobState.SUCCEEDED)
        receipt = await grid.bob.receipt(second)
        assert (await owner.balance()).earned == receipt.charge
        await lying.leave()


async def test_a_stale_attempt_is_fenced_and_the_newer_one_is_paid(stage, grid, until):
    first = await stage.join("d" * 32)
    job_id = await stage.submit()
    stale = await first.started()
    # Its machine falls silent for longer than the lease; another takes the job.
    first._living.cancel()
    second = await stage.join("e" * 32)
    newer = await second.started()
    assert newer > stale
    await second.finish(newer)
    earned = (await stage.owner.balance()).earned
    await first.leave()
    back = await stage.join("d" * 32, spooled=[stale])
    await back.finish(stale, wall_ms=2**53)
    assert (await stage.owner.balance()).earned == earned
    receipt = await grid.bob.receipt(job_id)
    assert [each.charge > 0 for each in receipt.attempts] == [False, True]
    await back.leave()
    await second.leave()


async def test_what_a_worker_claims_to_have_used_is_of_no_account(stage, grid):
    liar = await stage.join("f" * 32)
    job_id = await stage.submit(timeout_s=3600)
    attempt = await liar.started()
    await liar.finish(attempt, wall_ms=2**53, cpu_ms=10**12, peak_memory_bytes=2**53)
    receipt = await grid.bob.receipt(job_id)
    (paid,) = receipt.attempts
    assert paid.charged_ms < 600_000
    assert receipt.charge < receipt.hold / 6
    assert receipt.charge + receipt.released == receipt.hold
    await liar.leave()


async def test_cancel_and_end_at_one_instant_are_paid_or_released_and_never_both(stage, grid):
    liar = await stage.join("1" * 32)
    for _ in range(12):
        job_id = await stage.submit()
        attempt = await liar.started()
        before = await stage.owner.balance()
        await asyncio.gather(grid.bob.cancel(job_id), liar.finish(attempt), grid.bob.cancel(job_id))
        job = await grid.bob.wait(job_id)
        receipt = await grid.bob.receipt(job_id)
        assert job.state in (JobState.SUCCEEDED, JobState.CANCELLED)
        assert receipt.charge + receipt.released == receipt.hold
        assert (await stage.owner.balance()).earned - before.earned == receipt.charge
    await liar.leave()


async def test_a_hundred_sign_ups_get_no_more_than_the_operators_cap(grid):
    async def sign_up(number: int) -> dict[str, Any]:
        async with session_from(f"127.8.{number % 20}.1") as session:
            body = {"username": f"sock{number}", "password": PASSWORD}
            async with session.post(f"{grid.url}/auth/register", json=body) as answer:
                assert answer.status == 201
                return json.loads(await answer.read())

    before = await grid.admin.audit()
    told = [each for n in range(0, 100, 20) for each in await asyncio.gather(*map(sign_up, range(n, n + 20)))]
    after = await grid.admin.audit()
    paid = [each for each in told if not each["notice"]]
    assert after.in_circulation - before.in_circulation == len(paid) * 1000 * CREDIT
    # Ann and bob have had two of the forty.
    assert 0 < len(paid) <= 38
    assert all("0 credits" in each["notice"] for each in told if each not in paid)
    poor = next(each for each in told if each["notice"])
    async with Client(grid.url, poor["token"]) as client:
        with pytest.raises(InsufficientCredits):
            await client.submit(JobSpec(code="print(1)", cpus=0.1, memory_mb=64))


FORGERIES = (
    "UPDATE accounts SET balance = balance + 1000000 WHERE user_id = (SELECT max(user_id) FROM accounts)",
    "UPDATE accounts SET balance = 0 WHERE kind = 'mint'",
    "UPDATE jobs SET state = 'succeeded' WHERE id = (SELECT max(id) FROM jobs WHERE state = 'cancelled')",
)


async def test_a_balance_that_is_changed_in_the_file_is_found_by_the_audit(grid, tmp_path):
    """On a copy that an administrator took, served by a coordinator of its own: the grid stays sound."""
    spec = JobSpec(code="print(1)", cpus=100.0, memory_mb=64, timeout_s=60)
    await grid.ann.cancel((await grid.ann.submit(spec)).id)
    copy = tmp_path / "copy.db"
    await grid.admin.backup(copy)
    processes = grid.standing.processes
    found = []
    for number, forgery in enumerate((None, *FORGERIES)):
        folder = tmp_path / f"forged{number}"
        folder.mkdir(mode=0o700)
        shutil.copy(copy, folder / "grid.db")
        if forgery is not None:
            database = sqlite3.connect(folder / "grid.db")
            try:
                database.execute("PRAGMA writable_schema = ON")
                assert database.execute(forgery).rowcount == 1
                database.commit()
            finally:
                database.close()
        node = processes.start(
            "forged",
            *("--role", "coordinator", "--host", "127.0.0.1", "--http-port", "0", "--ws-port", "0"),
            *("--data-dir", str(folder)),
        )
        try:
            url = (await asyncio.to_thread(node.says, r"HTTP API: (\S+)"))[1]
            async with Client(url, grid.admin.token) as admin:
                found.append(not (await admin.audit()).ok)
        finally:
            await asyncio.to_thread(node.stop)
            processes.nodes.remove(node)
    assert found == [False, True, True, True]


async def test_credits_that_go_round_stay_as_many(grid):
    """Many transfers at once in a ring, with keys that come twice and amounts that are not there."""
    before = await grid.admin.audit()

    async def give(number: int) -> None:
        giver, to = (grid.ann, "bob") if number % 2 else (grid.bob, "ann")
        try:
            await giver.transfer(to, (number * 7919 % 13 + 1) * CREDIT * (1000 if number % 11 == 0 else 1))
        except GridError as error:
            assert isinstance(error, InsufficientCredits)

    await asyncio.gather(*(give(number) for number in range(120)))
    after = await grid.admin.audit()
    assert after.ok
    assert after.in_circulation == before.in_circulation
