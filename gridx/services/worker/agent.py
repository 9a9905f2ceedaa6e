"""The worker of one machine: what starts and stops when, and what is looked after meanwhile."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, Final

from gridx import safetext
from gridx.clock import Clock, SystemClock
from gridx.config import Settings
from gridx.control import Order, Report
from gridx.errors import ConfigError, Conflict, GridError
from gridx.services.monitor import Monitor
from gridx.services.worker import identity
from gridx.services.worker.attempt import Attempt
from gridx.services.worker.cache import Cache
from gridx.services.worker.conversation import Conversation
from gridx.services.worker.disk import DiskBudget
from gridx.services.worker.inputs import Inputs
from gridx.services.worker.link import Link, channel_url
from gridx.services.worker.lookout import Lookout
from gridx.services.worker.policy import Standing
from gridx.services.worker.reception import Reception, report
from gridx.services.worker.sandbox.base import Sandbox
from gridx.services.worker.sightings import Sensors
from gridx.services.worker.signin import PasswordSource, SignIn, sign_in
from gridx.services.worker.spool import Spool
from gridx.services.worker.steering import Steering
from gridx.services.worker.transfer import Transfers

__all__ = ["Agent", "sign_in"]

log = logging.getLogger("gridx.worker")

LAST_WORDS_S: Final = 5.0
"""How long the coordinator may take to acknowledge what is told when the worker stops."""
AWAY_S: Final = 30.0
"""How long a worker that drains waits for a coordinator that is away."""
CLOSE_S: Final = 20.0
"""How long sandboxes and disk may take to be cleaned up."""


class Agent:
    """The worker of this machine.

    Args:
        token: a sign-in that was made already.
        password: asked when there is no sign-in, or when it is not accepted any more.
        certificate: the fingerprint of the coordinator in the same process.
        sandbox: where attempts run; None: what the settings say.
        monitor: reads the machine.
        clock: for the leases.
        rng: for the jitter of reconnecting.
        sensors: how the machine is looked at for its owner's rules; None: with the system's means.

    Raises:
        SetupError: no owner, or no coordinator that could be reached at its address.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        token: str | None = None,
        password: PasswordSource | None = None,
        certificate: str = "",
        sandbox: Sandbox | None = None,
        monitor: Monitor | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        sensors: Sensors | None = None,
    ) -> None:
        worker = settings.worker
        if not worker.coordinator_http or not worker.coordinator_ws:
            raise ConfigError(
                "The worker does not know where its coordinator is.",
                "Add --coordinator-ip HOST, or set COORDINATOR_HTTP and COORDINATOR_WS.",
            )
        self.settings = settings
        self.name = safetext.line(worker.name or socket.gethostname(), limit=190) or "worker"
        channel_url(worker.coordinator_ws)
        self._signing = SignIn(settings, password, token=token, certificate=certificate)
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()  # noqa: S311
        self._sensors = sensors
        self._steering: Steering | None = None
        self._reception: Reception | None = None
        self._sandbox = sandbox
        self._monitor = monitor or Monitor(settings.data_path)
        self._lock: identity.DataLock | None = None
        self._spool: Spool | None = None
        self._cache: Cache | None = None
        self._transfers = Transfers(self._signing, self._rng)
        self._conversation: Conversation | None = None
        self._link: Link | None = None
        self._hurry = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._over: asyncio.Future[BaseException | None] | None = None

    # -- for screens ---------------------------------------------------------------------------------------

    @property
    def running(self) -> dict[int, Attempt]:
        """Attempts on this machine now, by id."""
        return self._conversation.attempts.running if self._conversation else {}

    @property
    def connected(self) -> bool:
        """Whether there is a connection to the coordinator now."""
        return self._conversation is not None and self._conversation.outbox is not None

    @property
    def worker_id(self) -> int | None:
        """The coordinator's number for this worker; None before the first connection."""
        return self._conversation.worker_id if self._conversation else None

    @property
    def owner(self) -> str:
        """Whose worker this is."""
        return self._conversation.owner if self._conversation else self.settings.worker.user

    @property
    def standing(self) -> Standing:
        """Whether it takes new attempts, and why not."""
        return self._conversation.standing if self._conversation else Standing()

    # -- life ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Make everything ready and try to connect once; what fails then is tried again for ever.

        Raises:
            SetupError: another worker has the data folder, there is no engine, ...
            Unauthenticated, Forbidden: the coordinator does not let this user in.
        """
        self._over = asyncio.get_running_loop().create_future()
        try:
            await self._make_ready()
            assert self._conversation is not None
            url = self.settings.worker.coordinator_ws
            self._link = Link(url, self._signing, self._conversation, clock=self._clock, rng=self._rng)
            link = self._watched(self._link.run(), "worker link")
            tried = asyncio.create_task(self._link.tried.wait(), name="worker first try")
            await asyncio.wait((link, tried), return_when=asyncio.FIRST_COMPLETED)
            tried.cancel()
            if link.done():
                await link
        except BaseException:
            await self._close()
            raise

    async def stop(self, drain: bool = True) -> None:
        """Finish what runs, for at most ``drain_s``, then give the rest back and leave the grid.

        Called again, or without ``drain``, it gives everything back at once.
        """
        if not drain or self._stopping is not None:
            self._hurry.set()
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(), name="worker stop")
        await asyncio.shield(self._stopping)

    async def wait_failed(self) -> BaseException:
        """Wait until the worker cannot go on by itself; what happened."""
        assert self._over is not None
        error = await asyncio.shield(self._over)
        if error is None:
            await asyncio.Event().wait()
        assert error is not None
        return error

    async def wait_left(self) -> None:
        """Wait until the worker has left the grid because it was told to drain."""
        assert self._over is not None
        if await asyncio.shield(self._over) is not None:
            await asyncio.Event().wait()

    # -- at the machine --------------------------------------------------------------------------------------

    async def obey(self, order: Order) -> Report:
        """Do what a person at the machine orders; how the worker is then."""
        assert self._steering is not None
        given_back = 0
        if order.do != "status" and self._stopping is not None:
            raise Conflict("The worker is stopping.", "Start it again first.")
        if order.do == "pause":
            given_back = await self._steering.pause(give_back=order.give_back)
        elif order.do == "resume":
            self._drain(False)
            await self._steering.resume()
        elif order.do == "drain":
            self._drain(True)
        assert self._conversation is not None
        return report(self._conversation, self.settings.worker.coordinator_http, given_back)

    # -- start ---------------------------------------------------------------------------------------------

    async def _make_ready(self) -> None:
        worker, data_path = self.settings.worker, self.settings.data_path
        self._lock = await asyncio.to_thread(identity.DataLock.take, data_path)
        identified = await asyncio.to_thread(identity.load, data_path)
        budget = DiskBudget(worker.disk_mb << 20, data_path)
        self._spool = await asyncio.to_thread(Spool.open, data_path / "spool", budget)
        self._cache = await asyncio.to_thread(Cache.open, data_path / "cache", budget)
        if found := len(self._spool.recovered):
            log.info("%d results of an earlier run wait for their acknowledgement", found)
        sandbox = self._sandbox = await self._open_sandbox(identified)
        lookout = Lookout(worker, sandbox, self._monitor)
        offer, unready = await lookout.look()
        self._conversation = Conversation(
            name=self.name,
            owner=worker.user,
            identity=identified,
            offer=offer,
            sandbox=sandbox,
            spool=self._spool,
            inputs=Inputs(self._cache, self._transfers),
            transfers=self._transfers,
            monitor=self._monitor,
            clock=self._clock,
            pids=worker.pids,
            on_drain=self._drain,
            on_pause=lambda frame: steering.paused(frame),
            on_doubt=lambda: self._look(lookout),
        )
        self._conversation.stand(Standing(unready=unready))
        steering = Steering(worker, self._conversation, data_path, self._sensors)
        self._steering = steering
        await steering.begin()
        self._watched(steering.keep_watching(), "owner's rules")
        self._reception = Reception(data_path, self.obey)
        await self._reception.start()
        self._watched(self._conversation.keep_leases(), "worker leases")
        self._watched(self._keep_looking(lookout), "worker lookout")
        self._watched(lookout.keep_sweeping(), "worker sweep")

    async def _open_sandbox(self, identified: str) -> Sandbox:
        if self._sandbox is not None:
            await self._sandbox.open()
            return self._sandbox
        from gridx.services.worker.sandbox import open_sandbox

        return await open_sandbox(
            self.settings.worker, identity=identified, data_path=self.settings.data_path
        )

    async def _keep_looking(self, lookout: Lookout) -> None:
        while True:
            await lookout.pause()
            await self._look(lookout)

    async def _look(self, lookout: Lookout) -> None:
        """See what can run now, and tell it."""
        offer, unready = await lookout.look()
        if (conversation := self._conversation) is not None:
            conversation.stand(replace(conversation.standing, unready=unready))
            conversation.offer_now(offer)

    # -- stop ----------------------------------------------------------------------------------------------

    def _drain(self, wanted: bool) -> None:
        """Somebody wants this worker to leave when it is done, or to stay after all."""
        conversation = self._conversation
        if conversation is None or self._stopping is not None or wanted == (self._draining is not None):
            return
        conversation.stand(replace(conversation.standing, draining=wanted))
        if wanted:
            log.info("told to drain: what runs is finished, then this worker leaves")
            self._draining = self._watched(self._leave_when_done(conversation), "worker drain")
        elif self._draining is not None:
            self._draining.cancel()
            self._draining = None

    async def _leave_when_done(self, conversation: Conversation) -> None:
        assert self._over is not None
        await conversation.attempts.idle()
        # Without a coordinator results wait on disk for the next start.
        while not await _within(conversation.last_words(), AWAY_S) and conversation.outbox is not None:
            log.debug("the coordinator has not acknowledged everything")
        log.info("drained; leaving the grid")
        if self._link is not None:
            await self._link.leave()
        if not self._over.done():
            self._over.set_result(None)

    async def _stop(self) -> None:
        conversation = self._conversation
        try:
            if conversation is not None:
                running, drain_s = len(conversation.attempts.running), self.settings.worker.drain_s
                if running and not self._hurry.is_set():
                    log.info("stopping: %d running attempts get %.0f s to finish", running, drain_s)
                conversation.stand(replace(conversation.standing, draining=True))
                await _within(conversation.attempts.idle(), drain_s, self._hurry)
                await conversation.attempts.give_back("the worker stops")
                if conversation.outbox is not None:
                    # What is not acknowledged by then is told at the next start.
                    await _within(conversation.last_words(), LAST_WORDS_S)
        finally:
            await self._close()

    async def _close(self) -> None:
        """Let go of everything, in the reverse order of its making."""
        if self._reception is not None:
            await self._reception.close()
        if self._link is not None:
            await _within(self._link.leave(), LAST_WORDS_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            if self._conversation is not None:
                await self._conversation.attempts.give_back("the worker stops")
                await self._conversation.attempts.close()
            if self._sandbox is not None:
                await _within(self._sandbox.close(), CLOSE_S)
        finally:
            if self._steering is not None:
                await self._steering.end()
            self._monitor.close()
            await self._transfers.close()
            if self._cache is not None:
                self._cache.close()
            if self._spool is not None:
                self._spool.close()
            if self._lock is not None:
                self._lock.release()

    # -- background ----------------------------------------------------------------------------------------

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


async def _within(
    work: Coroutine[Any, Any, None], timeout_s: float, hurry: asyncio.Event | None = None
) -> bool:
    """Wait for something, but no longer than this, and not once ``hurry`` is set; whether it came."""
    working = asyncio.create_task(work)
    hurrying = asyncio.create_task((hurry or asyncio.Event()).wait())
    try:
        await asyncio.wait((working, hurrying), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        hurrying.cancel()
        working.cancel()
    await asyncio.wait((working, hurrying))
    if working.cancelled():
        return False
    working.result()
    return True
