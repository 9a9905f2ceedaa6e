"""The coordinator: its parts, in which order they start and stop, and what happens when one dies."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from gridx.clock import Clock, SystemClock
from gridx.config import Settings
from gridx.errors import Unavailable
from gridx.services.coordinator import api, certificate
from gridx.services.coordinator.accounts import Accounts
from gridx.services.coordinator.api.admin import sweep
from gridx.services.coordinator.api.call import Parts
from gridx.services.coordinator.channel import Channel
from gridx.services.coordinator.doors import Doors
from gridx.services.coordinator.events import Hub
from gridx.services.coordinator.files import Files
from gridx.services.coordinator.fleet import Fleet
from gridx.services.coordinator.jobs import Jobs
from gridx.services.coordinator.listeners import STOP_S, Listener, allow_descriptors, bind, url
from gridx.services.coordinator.metrics import Metrics
from gridx.services.coordinator.retention import Retention
from gridx.services.coordinator.sockets import Sockets
from gridx.services.coordinator.store import Store

log = logging.getLogger("gridx.coordinator")

# Together below the ten seconds in which a coordinator has stopped.
CHANNEL_S: Final = 1.5
CONNECTIONS_S: Final = 2 * STOP_S + 0.5
JOBS_S: Final = 1.0
STORE_S: Final = 3.0


class Coordinator:
    """Everything that a grid needs in the middle, in one process.

    ``http_url`` and ``ws_url`` are set once it has started, and so are ``first_admin``, name and password of
    the admin that the very first start made, to be shown this once, and ``certificate``, the fingerprint of
    what it speaks TLS with, or "".
    """

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock: Clock = clock or SystemClock()
        self._undo = contextlib.AsyncExitStack()
        self._parts: Parts | None = None
        self._failure: asyncio.Future[BaseException] | None = None
        self.http_url = ""
        self.ws_url = ""
        self.certificate = ""
        self.first_admin: tuple[str, str] | None = None

    async def start(self) -> None:
        """Bind the ports, open the database, begin to serve.

        Raises:
            SetupError: a port is in use or may not be used; the address is not this machine's.
            StoreError: the database is in use, newer than this program, damaged or not writable.
        """
        self._failure = asyncio.get_running_loop().create_future()
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Take nothing new, send everybody away, finish what is being written, close. Within ten seconds."""
        await self._undo.aclose()

    async def wait_failed(self) -> BaseException:
        """Wait until a part without which nothing works has died, and say of what."""
        assert self._failure is not None, "it has not started"
        return await asyncio.shield(self._failure)

    async def local_session(self, username: str) -> str:
        """A token for a user of this machine, without a password; a new name becomes a user."""
        if self._parts is None:
            raise Unavailable("The coordinator is not running.", "Start it first.")
        return await self._parts.accounts.local_session(username)

    async def _start(self) -> None:
        settings, clock, undo = self._settings, self._clock, self._undo
        allow_descriptors()
        tls = await asyncio.to_thread(self._certificate)
        http, workers = await asyncio.to_thread(self._bind)
        store = await Store.open(settings.db_path, clock=clock)
        undo.push_async_callback(_within, STORE_S, "closing the database", store.close)
        store.on_failure(self._failed_in_a_thread)
        folder = settings.db_path.parent
        await asyncio.to_thread(sweep, folder)

        sockets, hub, metrics = Sockets(), Hub(store), Metrics()
        accounts = Accounts(store, sockets, settings, clock)
        undo.callback(accounts.close)
        undo.push_async_callback(_within, JOBS_S, "writing the last uses of tokens", accounts.write_uses)
        fleet = Fleet(store, hub, settings, clock)
        jobs = Jobs(store, fleet, hub, settings, clock)
        jobs.on_failure(self._failed)
        undo.push_async_callback(_within, JOBS_S, "stopping the jobs' dispatcher", jobs.stop)
        await jobs.start()
        files = Files(store, fleet, settings, clock)
        undo.callback(files.close)
        await files.start()
        self._run("gridx-retention", Retention(store, files.disk, settings.files.keep_days, clock).run())
        channel = Channel(jobs, fleet, store, settings, clock)
        metrics.watch(jobs.stats)
        for name, work in (("events", hub.run()), ("accounts", accounts.run()), ("lag", metrics.run())):
            self._run(f"gridx-{name}", work)

        parts = Parts(settings, store, accounts, sockets, hub, fleet, jobs, files, channel, metrics, folder)
        listeners = [
            Listener(api.application(parts, table), listening, tls)
            for table, listening in ((api.EVERYBODY, http), (api.WORKERS, workers))
            if listening is not None
        ]

        async def close_connections() -> None:
            await asyncio.gather(*(listener.stop() for listener in listeners))

        undo.push_async_callback(_within, CONNECTIONS_S, "closing connections", close_connections)
        for listener in listeners:
            await listener.serve()
        undo.push_async_callback(_within, CHANNEL_S, "sending the workers away", channel.close)
        undo.callback(_say_that_it_stops, parts)
        # Last: its password is shown once, so nothing may fail after it.
        self.first_admin = await accounts.first_admin()
        self._parts = parts

    def _certificate(self) -> ssl.SSLContext | None:
        loaded = certificate.load(self._settings)
        if loaded is None:
            return None
        context, self.certificate = loaded
        return context

    def _bind(self) -> tuple[socket.socket, socket.socket | None]:
        """Both listening sockets; the second is None when one listener does for both."""
        own = self._settings.coordinator
        host = own.host or ("0.0.0.0" if self._settings.role == "coordinator" else "127.0.0.1")  # noqa: S104
        doors = Doors(own.max_connections_per_address)
        http = bind(host, own.http_port, "--http-port", doors)
        self._undo.callback(http.close)
        workers = None
        if own.ws_port != own.http_port or own.ws_port == 0:
            workers = bind(host, own.ws_port, "--ws-port", doors)
            self._undo.callback(workers.close)
        secure = "s" if own.tls != "off" else ""
        self.http_url = url(f"http{secure}", http)
        self.ws_url = url(f"ws{secure}", workers or http) + "/ws/worker"
        if not secure and not _is_loopback(http):
            log.warning(
                "Passwords, tokens and output cross the network unencrypted. Start with --tls auto, or stay "
                "inside a VPN or a trusted network."
            )
        return http, workers

    def _run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run something for as long as the coordinator lives; its death is a failure of the whole."""
        task = asyncio.create_task(work, name=name)

        def over(done: asyncio.Task[None]) -> None:
            if not done.cancelled() and (error := done.exception()) is not None:
                self._failed(error)

        task.add_done_callback(over)
        self._undo.push_async_callback(_cancel, task)

    def _failed(self, error: BaseException) -> None:
        if self._failure is not None and not self._failure.done():
            log.critical("a part of the coordinator has died", exc_info=error)
            self._failure.set_result(error)

    def _failed_in_a_thread(self, error: BaseException) -> None:
        assert self._failure is not None
        self._failure.get_loop().call_soon_threadsafe(self._failed, error)


def _is_loopback(listening: socket.socket) -> bool:
    return ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback


def _say_that_it_stops(parts: Parts) -> None:
    parts.stopping = True
    parts.hub.close()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait([task])


async def _within(seconds: float, what: str, step: Callable[[], Awaitable[None]]) -> None:
    """One step of stopping: what takes too long or fails does not keep the rest from stopping."""
    try:
        async with asyncio.timeout(seconds):
            await step()
    except TimeoutError:
        log.warning("%s took more than %.1f s and was given up", what, seconds)
    except Exception:
        log.exception("%s failed", what)
