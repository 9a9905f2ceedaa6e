"""Workers that say anything in any order, over real WebSockets: only who did a job is paid, and once.

A state machine: hypothesis looks for an order of joining, leaving, true and false words, garbage, submits and
cancels after which the books do not add up, and shrinks it to the shortest.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

import aiohttp
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gridx import messages
from gridx.client import Client
from gridx.errors import GridError
from gridx.messages import (
    PROTOCOL_VERSION,
    Accepted,
    Assign,
    Finished,
    Frame,
    Hello,
    JobSpec,
    Offer,
    Output,
    Refused,
    Released,
    Runtime,
    Sample,
    Started,
    Welcome,
)

COORDINATOR = {"GRIDX_COORDINATOR_LEASE_S": "2", "GRIDX_COORDINATOR_HEARTBEAT_S": "0.4"}
WORKER = {"GRIDX_WORKER_REUSE": "true", "GRIDX_WORKER_CPUS": "1"}
KEPT = 3
EXAMPLES = int(os.environ.get("GRIDX_TEST_EXAMPLES", "8"))
MACHINES = range(3)
OFFER = Offer(
    cpu_millis=300_000,
    memory_mb=100_000,
    sandbox="docker",
    isolated=True,
    runtimes=[Runtime(name="default", python="3.11", languages=["python"])],
)
which = st.sampled_from(MACHINES)
anything = st.integers(0, 30)
"""Which of the attempts that were heard of."""
numbers = st.sampled_from([0, 1, 3, 1000, 2**53])
outcomes = st.sampled_from(["succeeded", "failed", "timed_out", "out_of_memory", "cancelled", "broken"])


class Liars(RuleBasedStateMachine):
    """Three identities of one owner, bob's jobs, and what each machine was truly given."""

    grid: Any
    owner: Client
    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        super().__init__()
        self.http = self.do(self._session())
        # New ones: what a machine has done in an example before is remembered of it.
        self.identities = [os.urandom(16).hex() for _ in MACHINES]
        self.sockets: dict[int, aiohttp.ClientWebSocketResponse] = {}
        self.reading: dict[int, asyncio.Task] = {}
        self.heard: list[int] = []
        self.given: dict[int, set[int]] = {}
        self.handed_in: set[int] = set()
        """Attempts whose end was told by one to whom they had been given."""
        self.jobs: list[int] = []

    @staticmethod
    async def _session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(headers={"Authorization": f"Bearer {Liars.owner.token}"})

    def do(self, work: Any) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 60))

    @initialize(machine=which)
    def begin(self, machine: int) -> None:
        self.join(machine, [], [])
        self.submit(1)

    @rule(machine=which, running=st.lists(anything, max_size=3), spooled=st.lists(anything, max_size=3))
    def join(self, machine: int, running: list[int], spooled: list[int]) -> None:
        self.do(self._leave(machine))
        self.do(self._join(machine, self._ids(running), self._ids(spooled)))

    @rule(machine=which)
    def leave(self, machine: int) -> None:
        self.do(self._leave(machine))

    @rule(count=st.integers(1, 3))
    def submit(self, count: int) -> None:
        # So large that the true worker of this grid cannot take it.
        spec = JobSpec(code="print(1)", cpus=90.0, memory_mb=64, timeout_s=30, max_attempts=2)
        jobs = self.do(self.grid.bob.submit_batch([spec] * count))
        self.jobs += [job.id for job in jobs]
        self.hear()

    @precondition(lambda self: self.jobs)
    @rule(number=anything, how=st.sampled_from(["cancel", "retry"]))
    def change_a_mind(self, number: int, how: str) -> None:
        job_id = self.jobs[number % len(self.jobs)]
        with contextlib.suppress(GridError):
            job = self.do(getattr(self.grid.bob, how)(job_id))
            if job.id not in self.jobs:
                self.jobs.append(job.id)
        self.hear()

    @precondition(lambda self: self.sockets)
    @rule(machine=which, number=anything, outcome=outcomes, wall_ms=numbers, stdout_bytes=numbers)
    def finish(self, machine: int, number: int, outcome: str, wall_ms: int, stdout_bytes: int) -> None:
        (id,) = self._ids([number])
        if self.say(
            machine,
            Finished(
                attempt_id=id, outcome=outcome, wall_ms=wall_ms, cpu_ms=2**53, stdout_bytes=stdout_bytes % 5
            ),
        ) and machine in self.given.get(id, ()):
            self.handed_in.add(id)

    @precondition(lambda self: self.heard)
    @rule(number=anything, outcome=outcomes, first=st.booleans(), times=st.integers(1, 2))
    def work(self, number: int, outcome: str, first: bool, times: int) -> None:
        """What a true worker does with what it was given, perhaps twice."""
        id = self.heard[number % len(self.heard)]
        (machine,) = self.given[id]
        told = [Started(attempt_id=id, runtime="default")] if first else []
        told += [Finished(attempt_id=id, outcome=outcome, wall_ms=1)] * times
        if self.say(machine, *told):
            self.handed_in.add(id)

    @precondition(lambda self: self.sockets)
    @rule(
        machine=which,
        number=anything,
        kind=st.sampled_from([Accepted, Started, Started, Refused, Released, Output]),
        offset=numbers,
        data=st.binary(max_size=8),
    )
    def tell(self, machine: int, number: int, kind: type, offset: int, data: bytes) -> None:
        (id,) = self._ids([number])
        if kind is Started:
            self.say(machine, Started(attempt_id=id, runtime="default"))
        elif kind is Accepted:
            self.say(machine, Accepted(attempt_id=id))
        elif kind is Output:
            self.say(machine, Output(attempt_id=id, stream="stdout", offset=offset, data=data))
        else:
            self.say(machine, kind(attempt_id=id, reason="no"))

    @precondition(lambda self: self.sockets)
    @rule(
        machine=which,
        attempts=st.lists(anything, max_size=4),
        state=st.sampled_from(["online"] * 6 + ["paused", "draining", "unready"]),
    )
    def live(self, machine: int, attempts: list[int], state: str) -> None:
        self.say(machine, Sample(seq=1, attempts=self._ids(attempts), state=state))

    @precondition(lambda self: self.sockets)
    @rule(
        machine=which,
        sent=st.one_of(
            st.text(max_size=40),
            st.sampled_from(
                ["[]", "[{}]", '[{"type":"hello"}]', "[" * 5000, '[{"type":"finished"}]', "\x00"]
            ),
            st.binary(max_size=20),
        ),
    )
    def babble(self, machine: int, sent: str | bytes) -> None:
        socket = self.sockets.get(machine)
        if socket is not None:
            with contextlib.suppress(ConnectionError):
                self.do(socket.send_bytes(sent) if isinstance(sent, bytes) else self._text(socket, sent))
        self.hear()

    @staticmethod
    async def _text(socket: aiohttp.ClientWebSocketResponse, sent: str) -> None:
        await socket.send_frame(sent.encode("utf-8", "surrogatepass"), aiohttp.WSMsgType.TEXT)

    def say(self, machine: int, *frames: Frame) -> bool:
        """Send frames; False when the connection is gone."""
        socket = self.sockets.get(machine)
        if socket is None or socket.closed:
            return False
        try:
            self.do(socket.send_str(messages.encode(frames).decode()))
        except ConnectionError:
            return False
        self.hear()
        return True

    def hear(self) -> None:
        """Let what the coordinator sent arrive."""
        self.do(asyncio.sleep(0.02))

    def _ids(self, picks: list[int]) -> list[int]:
        """Attempts that were heard of, the newest mostly, and now and then one that nobody gave."""
        known = [*self.heard[-8:], 10**6]
        return list(dict.fromkeys(known[pick % len(known)] for pick in picks))

    async def _join(self, machine: int, running: list[int], spooled: list[int]) -> None:
        socket = await self.http.ws_connect(self.grid.ws_url, max_msg_size=16 << 20)
        hello = Hello(
            protocol=PROTOCOL_VERSION,
            version="0",
            identity=self.identities[machine],
            name="liar",
            running=running,
            spooled=[id for id in spooled if id not in running],
            offer=OFFER,
        )
        await socket.send_str(messages.encode([hello]).decode())
        message = await socket.receive(30)
        if message.type is not aiohttp.WSMsgType.TEXT:
            return
        first, *rest = messages.decode_coordinator_frames(message.data)
        if not isinstance(first, Welcome):
            return
        self.sockets[machine] = socket
        self._take(machine, rest)
        self.reading[machine] = asyncio.create_task(self._read(machine, socket))

    async def _read(self, machine: int, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                self._take(machine, messages.decode_coordinator_frames(message.data))

    def _take(self, machine: int, frames: list[Any]) -> None:
        for frame in frames:
            if isinstance(frame, Assign):
                for given in frame.attempts:
                    holders = self.given.setdefault(given.attempt_id, set())
                    holders.add(machine)
                    assert len(holders) == 1, "one attempt on two machines"
                    if given.attempt_id not in self.heard:
                        self.heard.append(given.attempt_id)

    async def _leave(self, machine: int) -> None:
        socket, task = self.sockets.pop(machine, None), self.reading.pop(machine, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if socket is not None:
            await socket.close()

    def teardown(self) -> None:
        self.do(self._end())

    async def _end(self) -> None:
        bob, admin = self.grid.bob, self.grid.admin
        for machine in MACHINES:
            await self._leave(machine)
        await self.http.close()
        await asyncio.gather(*(bob.cancel(job_id) for job_id in self.jobs))
        # Whoever has gone without a word loses its attempts with the lease, and what was cancelled is free.
        ended = [await bob.wait(job_id, 30) for job_id in self.jobs]
        assert all(job.state.ended for job in ended), ended
        report = await admin.audit()
        assert report.ok, report.findings
        paid = 0
        for job_id in self.jobs:
            receipt = await bob.receipt(job_id)
            assert receipt.charge + receipt.released == receipt.hold
            charged = [attempt for attempt in receipt.attempts if attempt.charge]
            assert len(charged) <= 1
            paid += bool(charged)
        assert (await bob.balance()).held == 0
        assert paid <= len(self.handed_in), "somebody was paid who handed nothing in"


def test_whatever_workers_say_in_whatever_order_only_who_was_given_a_job_is_paid_for_it(grid):
    loop = asyncio.new_event_loop()
    people: dict[str, Client] = {}

    async def ready() -> None:
        with contextlib.suppress(GridError):
            await people["admin"].create_user("liar", "correct horse")
        await people["admin"].grant("bob", 10**6 * 10**6)
        people["liar"].token = (await people["liar"].login("liar", "correct horse")).token

    try:
        tokens = grid.standing.tokens
        people |= {name: Client(grid.url, tokens[name]) for name in ("bob", "admin")}
        people["liar"] = Client(grid.url)
        loop.run_until_complete(ready())

        class OfThisGrid:
            ws_url, bob, admin = grid.ws_url, people["bob"], people["admin"]

        Liars.grid, Liars.owner, Liars.loop = OfThisGrid, people["liar"], loop
        run_state_machine_as_test(
            Liars,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=40,
                deadline=None,
                database=None,
                derandomize="GRIDX_TEST_EXAMPLES" not in os.environ,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        for client in people.values():
            loop.run_until_complete(client.close())
        loop.close()
