"""The worker of one machine: joins the grid, offers what the owner allows, runs what it is given.

The agent ties the parts together and decides nothing twice: the link keeps the connection, the attempts keep
themselves, the policy says what is allowed, the outbox says what is told next.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from gridx import __version__, safetext
from gridx.clock import Clock, SystemClock
from gridx.config import Settings
from gridx.errors import ConfigError, GridError
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
    Sample,
    StreamOffsets,
    Welcome,
    WorkerFrame,
)
from gridx.services.monitor import Monitor
from gridx.services.worker import identity
from gridx.services.worker.attempt import Attempt
from gridx.services.worker.attempts import Attempts
from gridx.services.worker.leases import Leases
from gridx.services.worker.link import Link
from gridx.services.worker.lookout import Lookout
from gridx.services.worker.outbox import Outbox
from gridx.services.worker.policy import Standing
from gridx.services.worker.sandbox.base import Sandbox
from gridx.services.worker.signin import PasswordSource, SignIn, sign_in
from gridx.services.worker.spool import Spool

__all__ = ["Agent", "sign_in"]

log = logging.getLogger("gridx.worker")

TELL_S: Final = 5.0
"""How long the last words may take when the worker stops."""
LEASE_TICKS: Final = 20
"""Looks at the leases in the time of one lease."""
MAX_NAMED: Final = 10_000


class Agent:
    """The worker of this machine.

    Args:
        token: a sign-in that was made already.
        password: asked when there is no sign-in, or when it is not accepted any more.
        sandbox: where attempts run; None: what the settings say.
        monitor: reads the machine.
        clock: for the leases.
        rng: for the jitter of reconnecting.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        token: str | None = None,
        password: PasswordSource | None = None,
        sandbox: Sandbox | None = None,
        monitor: Monitor | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.settings = settings
        self.name = safetext.line(settings.worker.name or socket.gethostname(), limit=190) or "worker"
        self.worker_id: int | None = None
        """Set at the first connection."""
        self.owner = settings.worker.user
        self.standing = Standing()
        """Whether it takes new attempts, and why not."""
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()  # noqa: S311
        self._signing = SignIn(settings, password, token=token)
        self._sandbox = sandbox
        self._monitor = monitor or Monitor(settings.data_path)
        self._leases = Leases(self._clock)
        self._lock: identity.DataLock | None = None
        self._identity = ""
        self._spool: Spool | None = None
        self._attempts: Attempts | None = None
        self._link: Link | None = None
        self._offer: Offer | None = None
        self._outbox: Outbox | None = None
        self._seq = 0
        self._beat_now = asyncio.Event()
        self._hurry = asyncio.Event()
        self._stopped: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._over: asyncio.Future[BaseException | None] | None = None

    # -- for screens ---------------------------------------------------------------------------------------

    @property
    def running(self) -> dict[int, Attempt]:
        """Attempts on this machine now, by id."""
        return self._attempts.running if self._attempts else {}

    @property
    def connected(self) -> bool:
        """Whether there is a connection to the coordinator now."""
        return self._outbox is not None

    # -- life ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Make everything ready and try to connect once; what fails then is tried again for ever.

        Raises:
            SetupError: another worker has the data folder, there is no engine, no address, ...
            Unauthenticated, Forbidden: the coordinator does not let this user in.
        """
        worker = self.settings.worker
        if not worker.coordinator_http or not worker.coordinator_ws:
            raise ConfigError(
                "The worker does not know where its coordinator is.",
                "Add --coordinator-ip HOST, or set COORDINATOR_HTTP and COORDINATOR_WS.",
            )
        data_path = self.settings.data_path
        self._over = asyncio.get_running_loop().create_future()
        try:
            self._lock = await asyncio.to_thread(identity.DataLock.take, data_path)
            self._identity = await asyncio.to_thread(identity.load, data_path)
            self._spool = await asyncio.to_thread(Spool.open, data_path / "spool")
            self._sandbox = await self._open_sandbox()
            self._attempts = Attempts(self._sandbox, self._spool, self._leases, self, pids=worker.pids)
            if found := len(self._attempts.waiting):
                log.info("%d results of an earlier run wait for their acknowledgement", found)
            lookout = Lookout(worker, self._sandbox, self._monitor)
            self._offer, unready = await lookout.look()
            self.standing = Standing(unready=unready)
            self._link = Link(worker.coordinator_ws, self._signing, self, clock=self._clock, rng=self._rng)
            link = self._watched(self._link.run(), "worker link")
            self._watched(self._keep_leases(), "worker leases")
            self._watched(self._keep_looking(lookout), "worker lookout")
            self._watched(lookout.keep_sweeping(), "worker sweep")
            tried = asyncio.create_task(self._link.tried.wait(), name="worker first try")
            try:
                await asyncio.wait((link, tried), return_when=asyncio.FIRST_COMPLETED)
            finally:
                tried.cancel()
            # The first try is marked as over just before the link ends with what it met.
            await asyncio.sleep(0)
            if link.done():
                await link
        except BaseException:
            await self._close()
            raise

    async def stop(self, drain: bool = True) -> None:
        """Finish what runs, for at most ``drain_s``, then give the rest back and leave the grid.

        Called again, or without ``drain``, it gives everything back at once.
        """
        if not drain or self._stopped is not None:
            self._hurry.set()
        if self._stopped is None:
            self._stopped = asyncio.create_task(self._stop(), name="worker stop")
        await asyncio.shield(self._stopped)

    async def wait_failed(self) -> BaseException:
        """Wait until the worker cannot go on by itself; what happened."""
        assert self._over is not None
        error = await asyncio.shield(self._over)
        if error is None:
            await asyncio.Event().wait()
        assert error is not None
        return error

    async def wait_left(self) -> None:
        """Wait until the worker has left the grid because the coordinator told it to drain."""
        assert self._over is not None
        if await asyncio.shield(self._over) is not None:
            await asyncio.Event().wait()

    # -- what the link calls -------------------------------------------------------------------------------

    def hello(self) -> Hello:
        """Everything about this worker, now."""
        assert self._attempts is not None and self._offer is not None
        return Hello(
            protocol=PROTOCOL_VERSION,
            version=__version__,
            identity=self._identity,
            name=self.name,
            offer=self._offer,
            running=self._attempts.executing[:MAX_NAMED],
            spooled=self._attempts.waiting[: 10 * MAX_NAMED],
        )

    def joined(self, hello: Hello, sent_at: float, welcome: Welcome) -> Outbox:
        """A connection stands: go on from what the coordinator has."""
        assert self._attempts is not None and self._spool is not None
        self.worker_id, self.owner = welcome.worker_id, welcome.owner
        self._leases.joined(welcome.lease_s, sent_at)
        # A pause that holds is told after the welcome.
        self.standing = replace(self.standing, paused=False)
        offsets: dict[int, StreamOffsets] = {}
        gone: list[WorkerFrame] = []
        for resume in welcome.resume:
            if not resume.current:
                self._attempts.disown(resume.attempt_id)
            elif resume.attempt_id in self._attempts.reports:
                offsets[resume.attempt_id] = resume.offsets
            else:
                gone.append(Released(attempt_id=resume.attempt_id, reason="its lease ran out here"))
        self._outbox = Outbox(self._spool, self._attempts.reports, offsets, self._light_sample)
        self._outbox.put(self._light_sample(), *gone)
        if self._offer is not None and self._offer != hello.offer:
            self._outbox.put(Offering(offer=self._offer))
        return self._outbox

    def parted(self) -> None:
        """The connection is gone; what runs goes on."""
        self._outbox = None

    def received(self, frame: CoordinatorFrame) -> None:
        """Do what the coordinator says."""
        assert self._attempts is not None and self._offer is not None
        match frame:
            case Assign():
                for assignment in frame.attempts:
                    self._attempts.take(
                        assignment, offer=self._offer, owner=self.owner, standing=self.standing
                    )
            case Cancel():
                self._attempts.cancel(frame.attempt_ids, frame.reason)
            case Ack():
                self._attempts.acknowledged(frame.attempt_ids)
            case Renewed():
                self._leases.renewed(frame.seq)
                if self._outbox is not None:
                    self._outbox.confirm(frame.seq)
            case Pause():
                if frame.paused != self.standing.paused:
                    log.info("paused" if frame.paused else "resumed")
                self._stand(replace(self.standing, paused=frame.paused))
            case Drain():
                if not self.standing.draining:
                    log.info("told to drain: what runs is finished, then this worker leaves")
                    self._stand(replace(self.standing, draining=True))
                    self._watched(self._leave_when_done(), "worker drain")

    async def beat(self, heartbeat_s: float) -> None:
        """A sign of life at every heartbeat, and at once when the standing changed."""
        while True:
            sample = await self._monitor.sample()
            if self._outbox is not None:
                self._outbox.put(self._sample(sample))
                self._outbox.remind()
            self._beat_now.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(heartbeat_s):
                    await self._beat_now.wait()

    # -- what the attempts call ----------------------------------------------------------------------------

    def say(self, frame: WorkerFrame) -> None:
        """Tell the coordinator; without a connection it learns the same from the next hello."""
        if self._outbox is not None:
            self._outbox.put(frame)

    def touch(self, attempt_id: int, *, hurry: bool = False) -> None:
        """There is more to tell of an attempt."""
        if self._outbox is not None:
            self._outbox.touch(attempt_id, hurry=hurry)

    # -- inside --------------------------------------------------------------------------------------------

    def _sample(self, sample: MachineSample | None) -> Sample:
        """The next sign of life; the leases it renews run from now."""
        assert self._attempts is not None
        self._seq += 1
        held = [*self._attempts.executing, *self._attempts.waiting][:MAX_NAMED]
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

    def _stand(self, standing: Standing) -> None:
        if standing != self.standing:
            self.standing = standing
            self._beat_now.set()

    async def _open_sandbox(self) -> Sandbox:
        if self._sandbox is not None:
            await self._sandbox.open()
            return self._sandbox
        from gridx.services.worker.sandbox import open_sandbox

        return await open_sandbox(
            self.settings.worker, identity=self._identity, data_path=self.settings.data_path
        )

    async def _keep_looking(self, lookout: Lookout) -> None:
        while True:
            await lookout.pause()
            found, unready = await lookout.look()
            self._stand(replace(self.standing, unready=unready))
            if found != self._offer:
                log.info("the offer changed")
                self._offer = found
                self.say(Offering(offer=found))

    async def _keep_leases(self) -> None:
        assert self._attempts is not None
        while True:
            await asyncio.sleep(min(1.0, self._leases.lease_s / LEASE_TICKS or 1.0))
            for attempt_id in self._leases.lapsed():
                self._attempts.kill(attempt_id, "its lease ran out, so it is not ours any more")

    async def _leave_when_done(self) -> None:
        """What a drain from the coordinator ends in."""
        assert self._attempts is not None and self._link is not None and self._over is not None
        await self._attempts.idle(acknowledged=True)
        log.info("drained; leaving the grid")
        await self._link.leave()
        if not self._over.done():
            self._over.set_result(None)

    async def _stop(self) -> None:
        attempts = self._attempts
        try:
            if attempts is not None:
                if attempts.running and not self._hurry.is_set():
                    log.info(
                        "stopping: %d running jobs get %.0f s to finish",
                        len(attempts.running),
                        self.settings.worker.drain_s,
                    )
                self._stand(replace(self.standing, draining=True))
                await self._within(attempts.idle(), self.settings.worker.drain_s, self._hurry)
                await attempts.give_back("the worker stops")
                if self._outbox is not None:
                    # What is not acknowledged by then is told at the next start.
                    await self._within(self._last_words(attempts, self._outbox), TELL_S)
        finally:
            await self._close()

    async def _last_words(self, attempts: Attempts, outbox: Outbox) -> None:
        await attempts.idle(acknowledged=True)
        await outbox.told()

    async def _within(
        self, work: Coroutine[Any, Any, None], timeout_s: float, hurry: asyncio.Event | None = None
    ) -> None:
        """Wait for something, but no longer than this, and not when there is no more time."""
        working = asyncio.create_task(work)
        hurrying = asyncio.create_task((hurry or asyncio.Event()).wait())
        await asyncio.wait((working, hurrying), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for task in (working, hurrying):
            task.cancel()
        await asyncio.gather(working, hurrying, return_exceptions=True)

    async def _close(self) -> None:
        """Let go of everything, in the reverse order of its making."""
        if self._link is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(TELL_S):
                    await self._link.leave()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            if self._attempts is not None:
                await self._attempts.give_back("the worker stops")
                await self._attempts.close()
            if self._sandbox is not None:
                await self._sandbox.close()
        finally:
            self._monitor.close()
            if self._spool is not None:
                self._spool.close()
            if self._lock is not None:
                self._lock.release()

    def _watched(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run something in the background whose unexpected end is the end of the worker."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not isinstance(error, GridError):
            log.error("%s failed", task.get_name(), exc_info=error)
        if self._over is not None and not self._over.done():
            self._over.set_result(error)
