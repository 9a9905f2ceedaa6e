"""What the worker says to its coordinator, and what it does on its word; the same over every connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final

from gridx import __version__, safetext
from gridx.clock import Clock
from gridx.messages import (
    PROTOCOL_VERSION,
    Ack,
    Assign,
    Cancel,
    CoordinatorFrame,
    Drain,
    Hello,
    MachineSample,
    Offer,
    Offering,
    Pause,
    Released,
    Renewed,
    Resumed,
    Sample,
    StreamOffsets,
    Welcome,
    WorkerFrame,
)
from gridx.services.monitor import Monitor
from gridx.services.worker.attempts import Attempts
from gridx.services.worker.inputs import Inputs
from gridx.services.worker.leases import Leases
from gridx.services.worker.outbox import Outbox
from gridx.services.worker.policy import Standing
from gridx.services.worker.sandbox.base import Sandbox
from gridx.services.worker.spool import Spool
from gridx.services.worker.transfer import Transfers

log = logging.getLogger("gridx.worker")

LEASE_TICKS: Final = 20
"""Looks at the leases in the time of one lease, and at least one a second."""
MAX_RUNNING: Final = 10_000
MAX_SPOOLED: Final = 10_000
MAX_RELEASED: Final = 10_000
"""Attempts that one hello may name."""


class Conversation:
    """One worker's side of the protocol. It is the ``Peer`` of the link and the ``Teller`` of the attempts.

    Args:
        name: what others see this worker called.
        owner: whose it is, until the coordinator says so.
        offer: what it offers now.
        on_drain: told when the coordinator wants the worker to leave (True), or not any more (False).
        on_pause: told when the coordinator wants the worker paused or resumed.
        on_doubt: looks at the sandbox, which broke an attempt.
    """

    def __init__(
        self,
        *,
        name: str,
        owner: str,
        identity: str,
        offer: Offer,
        sandbox: Sandbox,
        spool: Spool,
        inputs: Inputs,
        transfers: Transfers,
        monitor: Monitor,
        clock: Clock,
        pids: int,
        on_drain: Callable[[bool], None],
        on_pause: Callable[[Pause], None],
        on_doubt: Callable[[], Awaitable[None]],
    ) -> None:
        self.name = name
        self.owner = owner
        self.worker_id: int | None = None
        self.standing = Standing()
        self.offer = offer
        self.outbox: Outbox | None = None
        """Set while there is a connection."""
        self._identity = identity
        self._spool = spool
        self._monitor = monitor
        self._on_drain = on_drain
        self._on_pause = on_pause
        self._on_doubt = on_doubt
        self._resumed = False
        self._leases = Leases(clock)
        self._seq = 0
        self._beat_now = asyncio.Event()
        self.attempts = Attempts(sandbox, spool, inputs, transfers, self._leases, self, pids=pids)

    # -- the link calls ------------------------------------------------------------------------------------

    def hello(self) -> Hello:
        """Everything about this worker, now."""
        # Whether it is paused over there is told after the welcome.
        standing = replace(self.standing, paused=False)
        return Hello(
            protocol=PROTOCOL_VERSION,
            version=__version__,
            identity=self._identity,
            name=self.name,
            offer=self.offer,
            running=self.attempts.executing[:MAX_RUNNING],
            spooled=self.attempts.waiting[:MAX_SPOOLED],
            released=list(self.attempts.given_back)[:MAX_RELEASED],
            state=standing.state,
            state_reason=safetext.line(standing.reason, limit=190),
        )

    def joined(self, hello: Hello, sent_at: float, welcome: Welcome) -> Outbox:
        """A connection stands: go on from what the coordinator has."""
        self.worker_id, self.owner = welcome.worker_id, welcome.owner
        self._leases.joined(welcome.lease_s, sent_at)
        # A pause that holds is told after the welcome.
        self.standing = replace(self.standing, paused=False)
        offsets: dict[int, StreamOffsets] = {}
        gone: list[WorkerFrame] = []
        for resume in welcome.resume:
            if not resume.current:
                self.attempts.disown(resume.attempt_id)
            elif resume.attempt_id in self.attempts.reports:
                offsets[resume.attempt_id] = resume.offsets
            else:
                gone.append(Released(attempt_id=resume.attempt_id, reason="its lease ran out here"))
        self.attempts.connected()
        self.outbox = Outbox(self._spool, self.attempts.reports, offsets, self._light_sample)
        self.outbox.put(self._light_sample(), *gone)
        if self.offer != hello.offer:
            self.outbox.put(Offering(offer=self.offer))
        if self._resumed:
            self._resumed = False
            self.outbox.put(Resumed())
        return self.outbox

    def parted(self) -> None:
        """The connection is gone; what runs goes on."""
        self.outbox = None

    def received(self, frame: CoordinatorFrame) -> None:
        """Do what the coordinator says."""
        match frame:
            case Assign():
                for assignment in frame.attempts:
                    self.attempts.take(assignment, offer=self.offer, owner=self.owner, standing=self.standing)
            case Cancel():
                self.attempts.cancel(frame.attempt_ids, frame.reason)
            case Ack():
                self.attempts.acknowledged(frame.attempt_ids)
            case Renewed():
                self._leases.renewed(frame.seq)
                if self.outbox is not None:
                    self.outbox.confirm(frame.seq)
            case Pause():
                if not frame.paused:
                    self._on_drain(False)
                self._on_pause(frame)
                self._beat_now.set()
            case Drain():
                self._on_drain(True)

    async def beat(self, heartbeat_s: float) -> None:
        """A sign of life at every heartbeat, and at once when the standing changed."""
        while True:
            sample = await self._monitor.sample()
            if self.outbox is not None:
                self.outbox.put(self._sample(sample))
                self.outbox.remind()
            self._beat_now.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(heartbeat_s):
                    await self._beat_now.wait()

    # -- the attempts call ---------------------------------------------------------------------------------

    def say(self, frame: WorkerFrame) -> None:
        """Tell the coordinator; without a connection it learns the same from the next hello."""
        if self.outbox is not None:
            self.outbox.put(frame)

    def touch(self, attempt_id: int, *, hurry: bool = False) -> None:
        """There is more to tell of an attempt."""
        if self.outbox is not None:
            self.outbox.touch(attempt_id, hurry=hurry)

    # -- the agent calls -----------------------------------------------------------------------------------

    async def doubt(self) -> None:
        """An attempt broke here: look whether anything can run before its end is told."""
        await self._on_doubt()

    def stand(self, standing: Standing) -> None:
        """Take new attempts or not from now on, and say so at once."""
        if standing != self.standing:
            self.standing = standing
            self._beat_now.set()

    def offer_now(self, offer: Offer) -> None:
        """Offer this from now on."""
        if offer != self.offer:
            log.info("the offer changed")
            self.offer = offer
            self.say(Offering(offer=offer))

    def resume(self) -> None:
        """Have the coordinator end a pause that it keeps; told when there is a connection."""
        self._resumed = self.outbox is None
        self.say(Resumed())

    async def keep_leases(self) -> None:
        """Kill what is not ours any more, for ever."""
        while True:
            await asyncio.sleep(min(1.0, self._leases.lease_s / LEASE_TICKS or 1.0))
            for attempt_id in self._leases.lapsed():
                self.attempts.kill(attempt_id, "its lease ran out, so it is not ours any more")

    async def last_words(self) -> None:
        """Wait until everything is told and every result acknowledged."""
        await self.attempts.idle(acknowledged=True)
        if self.outbox is not None:
            await self.outbox.told()

    def _sample(self, sample: MachineSample | None) -> Sample:
        """The next sign of life; the leases that it renews run from now."""
        self._seq += 1
        held = [*self.attempts.executing, *self.attempts.waiting][:MAX_RUNNING]
        self._leases.sample_sent(self._seq, held)
        return Sample(
            seq=self._seq,
            attempts=held,
            sample=sample,
            state=self.standing.state,
            state_reason=safetext.line(self.standing.reason, limit=190),
        )

    def _light_sample(self) -> Sample:
        return self._sample(None)
