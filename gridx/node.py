"""One process of the grid: its services and its dashboard, and what ends them.

The first signal stops cleanly, the second gives running jobs back at once, the third ends the process on the
spot. A screen that crashes does not take the services with it, and neither does a terminal that goes away
from a coordinator or a worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gridx import logs, safetext
from gridx.config import Settings
from gridx.errors import EXIT_INTERRUPTED, EXIT_JOB_FAILED, EXIT_OK, GridError, SetupError
from gridx.roles import Services

if TYPE_CHECKING:
    from gridx.client import Client
    from gridx.messages import Session
    from gridx.services.coordinator.app import Coordinator
    from gridx.services.worker.agent import Agent
    from gridx.tui.app import GridApp
    from gridx.tui.here import Here
    from gridx.tui.logbook import Logbook

log = logging.getLogger("gridx.node")

SCREEN_CLOSE_S: Final = 5.0
"""How long the dashboard may take to give the terminal back."""


class Started(NamedTuple):
    """What a screen that was there first is told when the services have started."""

    client: Client
    here: Here
    notice: list[str]


class Password:
    """Where a password comes from: given by flag, file or environment, else asked for on the terminal.

    Args:
        given: by flag, file or environment.
        user: whose it is, for the prompt.
        may_ask: there is a person at a terminal.
    """

    def __init__(self, given: str | None = None, *, user: str = "", may_ask: bool = False) -> None:
        self.given = given
        self.user = user
        self.may_ask = may_ask
        self._terminal: list[Any] | None = None

    @property
    def asks(self) -> bool:
        """Whether a person types it."""
        return self.given is None and self.may_ask

    @property
    def asking(self) -> bool:
        """Whether the prompt stands there now."""
        return self._terminal is not None

    def __call__(self, new: bool) -> str | None:
        """The password, or None where there is none; ``new``: the name may be, so it is asked once more."""
        if not self.asks:
            return self.given
        question = (
            f"{self.user} is new here, or that is not the password. The same again registers {self.user}: "
            if new
            else f"Password of {self.user}: "
        )
        self._terminal = _terminal_state()
        try:
            return getpass.getpass(question)
        except EOFError:
            return None
        finally:
            self._terminal = None

    def leave(self) -> None:
        """Make the terminal as it was before the prompt, whose thread cannot be interrupted."""
        if self._terminal:
            import termios

            termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, self._terminal)
        say("")


def _terminal_state() -> list[Any]:
    """What a prompt changes of the terminal; empty where the platform has no such thing."""
    try:
        import termios
    except ImportError:  # Windows
        return []
    return termios.tcgetattr(sys.stdin.fileno())


def run(settings: Settings, *, screen: bool, ascii_only: bool = False, password: Password) -> int:
    """Run the node until it is told to stop; its exit code.

    Raises:
        GridError: it could not start, or a part of it failed.
    """

    async def main() -> int:
        return await Node(settings, screen=screen, ascii_only=ascii_only, password=password).run()

    return asyncio.run(main())


class Node:
    """The life of one process.

    Args:
        settings: ``role`` decides what runs.
        screen: whether the dashboard is shown.
        ascii_only: draw it with ASCII alone.
        password: asked when a worker has to sign in and has no token yet.
    """

    def __init__(
        self, settings: Settings, *, screen: bool, ascii_only: bool = False, password: Password
    ) -> None:
        self.services = Services(settings, password)
        self.password = password
        self.settings = self.services.settings
        self.screen = screen
        self.ascii_only = ascii_only
        self._app: GridApp | None = None
        self._started: asyncio.Future[Started] | None = None
        self._painted = asyncio.Event()
        self._held: list[str] | None = None
        """Lines for the terminal that wait until the screen gives it back; None while they need not."""
        self._logbook: Logbook | None = None
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()
        self._signals: list[signal.Signals] = []

    @property
    def log_path(self) -> Path:
        """Where the log goes while the dashboard has the terminal."""
        return self.settings.data_path / "gridx.log"

    async def run(self) -> int:
        """Start everything, wait for the end, stop everything; the exit code."""
        self._listen_to_signals()
        self._set_up_logs()
        try:
            try:
                screen = await self._paint_early()
                try:
                    if not await self._unless_stopped(self._start(), screen):
                        return self._exit_code()
                finally:
                    if screen is not None and self._started is not None and not self._started.done():
                        await self._end_dashboard(screen)
                return await self._serve(screen)
            finally:
                await self.services.stop(self._hurrying)
                self._tell_held(all_of_it=False)
        finally:
            await asyncio.to_thread(logs.close)

    async def _paint_early(self) -> asyncio.Task[int] | None:
        """Show the dashboard before the services are loaded, which takes longer than to draw it.

        Not where a person may be asked for a password first, and not for a coordinator elsewhere, which
        has nothing to load.
        """
        if not self.screen or self.settings.role not in ("standalone", "coordinator"):
            return None
        self._held = []
        self._started = asyncio.get_running_loop().create_future()
        screen = asyncio.create_task(self._show(), name="dashboard")
        painted = asyncio.create_task(self._painted.wait(), name="painted")
        await asyncio.wait((screen, painted), return_when=asyncio.FIRST_COMPLETED)
        painted.cancel()
        return screen

    async def _start(self) -> None:
        """Start the services, and let the screen that waits for them know."""
        if self._started is not None:
            # In a thread: the screen shall answer meanwhile.
            await asyncio.to_thread(_load, self.settings.role)
        await self.services.start(self._listening)
        self.password.may_ask = False  # from now on the terminal is the screen's or the log's
        if self.settings.role != "viewer":
            self._say(f"{self.settings.role} ready" + ("" if self.screen else "; Ctrl-C stops it"))
        if self._started is not None:
            client, _ = await self._dashboard_client()
            self._started.set_result(Started(client, self._here(), self._first_words()))

    def _say(self, line: str) -> None:
        """Print a line, or keep it until the screen has given the terminal back."""
        if self._held is None:
            say(line)
            return
        self._held.append(line)
        if line.startswith(("HTTP", "WebSocket", "Certificate")):
            log.info("%s", line)

    def _tell_held(self, *, all_of_it: bool) -> None:
        """Print what was kept: all of it where the services go on, else what is told only once."""
        held, self._held = self._held or [], None
        first = next((n for n, line in enumerate(held) if line.startswith("First start")), len(held))
        for line in held if all_of_it else [line for line in held[first:] if not line.endswith("ready")]:
            say(line)

    def _listening(self, coordinator: Coordinator) -> None:
        self._say(f"HTTP API: {coordinator.http_url}")
        self._say(f"WebSocket: {coordinator.ws_url}")
        if coordinator.certificate:
            self._say(f"Certificate: {coordinator.certificate}")
        if coordinator.first_admin is not None:
            user, password = coordinator.first_admin
            self._say(f"First start: the administrator is {user}, password: {password}")
            here = _for_a_person(coordinator.http_url)
            self._say("It is shown this once. Sign in here and change it:")
            self._say(f"  gridx --coordinator {here} login {user}")
            self._say(f"  gridx admin password {user}")

    # -- life --------------------------------------------------------------------------------------------

    async def _serve(self, screen: asyncio.Task[int] | None) -> int:
        """Until a signal, the end of the dashboard, or the end of a service that should not end."""
        if self.screen and screen is None:
            screen = asyncio.create_task(self._show(), name="dashboard")
        parts = (("coordinator", self.services.coordinator), ("worker", self.services.agent))
        failures: list[asyncio.Task[BaseException]] = [
            asyncio.create_task(_failure(part), name=name) for name, part in parts if part is not None
        ]
        stopping = asyncio.create_task(self._until_told(), name="stopping")
        try:
            while True:
                watched = [task for task in (screen, stopping, *failures) if task is not None]
                done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
                for failed in failures:
                    if failed in done:
                        raise _service_failed(failed.get_name(), failed.result())
                if stopping in done or screen is None:
                    return self._exit_code()
                code = screen.result()
                if code == EXIT_OK and not self._hung_up():
                    return EXIT_OK
                if not failures:
                    raise GridError("The dashboard crashed.", f"What happened: {self.log_path}")
                screen = None
                self._go_on_without_screen()
        finally:
            if screen is not None:
                await self._end_dashboard(screen)
            for task in (stopping, *failures):
                task.cancel()
            await asyncio.gather(stopping, *failures, return_exceptions=True)

    async def _until_told(self) -> None:
        """Until a signal, or until a worker that was told to drain has left the grid."""
        if self.settings.role == "worker" and self.services.agent is not None:
            left = asyncio.create_task(self.services.agent.wait_left(), name="left")
            stopping = asyncio.create_task(self._stopping.wait(), name="told")
            try:
                await asyncio.wait((left, stopping), return_when=asyncio.FIRST_COMPLETED)
            finally:
                left.cancel()
                stopping.cancel()
                await asyncio.gather(left, stopping, return_exceptions=True)
        else:
            await self._stopping.wait()

    async def _show(self) -> int:
        """Show the dashboard until it is quit; not 0 when it crashed. Raises GridError if it cannot."""
        from gridx.tui.app import run_dashboard

        try:
            self._app = await self._dashboard()
            try:
                return await run_dashboard(self._app)
            finally:
                await self._app.client.close()
        except GridError:
            raise
        except Exception:
            log.exception("the dashboard failed")
            return EXIT_JOB_FAILED

    async def _dashboard(self) -> GridApp:
        """The screen of this process: over its own services, or for a coordinator elsewhere."""
        from gridx.client import Client
        from gridx.tui.app import GridApp

        assert self._logbook is not None
        if self._started is not None:
            client, remember = Client("http://127.0.0.1"), None  # until there is one
        else:
            client, remember = await self._dashboard_client()
        return GridApp(
            client,
            self.services.settings,
            role=self.settings.role,
            logbook=self._logbook,
            here=self._here(),
            ascii_only=self.ascii_only,
            remember=remember,
            notice=self._first_words(),
            started=self._started,
            painted=self._painted.set,
        )

    def _here(self) -> Here:
        """What runs in this process, for the screen."""
        from gridx.tui.here import Here

        agent = self.services.agent
        if agent is None:
            return Here()
        patience = f"{self.settings.worker.drain_s:.0f} s"
        return Here(
            running=lambda: len(agent.running),
            consequence=f"They get {patience} to finish, then they are given back and run elsewhere.",
            worker_name=agent.name,
            worker_id=lambda: agent.worker_id,
            order=agent.obey,
        )

    def _first_words(self) -> list[str]:
        """What the screen says at the first start of a grid; what was printed lies below it."""
        coordinator = self.services.coordinator
        if coordinator is None or coordinator.first_admin is None:
            return []
        user, password = coordinator.first_admin
        here = _for_a_person(coordinator.http_url)
        first = (
            "First start. F5 runs the program in the editor; F1 shows all keys; Esc twice closes this."
            if self.settings.role == "standalone"
            else "First start. Workers join with: gridx-tui --role worker --user NAME --coordinator-ip HOST. "
            "Esc closes this."
        )
        return [
            first,
            f"The administrator of this grid is {user}, password: {password}  It is shown this once.",
            f"Sign in and change it: gridx --coordinator {here} login {user}; gridx admin password {user}",
        ]

    async def _dashboard_client(self) -> tuple[Client, Callable[[str, Session], None] | None]:
        """Where the dashboard looks, and how a sign-in that is made there is saved."""
        from gridx import credentials
        from gridx.client import Client

        timeout_s = self.settings.client.timeout_s
        services = self.services
        if services.coordinator is not None:
            # Whoever has the database file has the grid: beside a coordinator one looks as its administrator.
            own = services.token or await services.coordinator.local_session(self.settings.auth.admin_user)
            certificate = services.coordinator.certificate
            url = services.coordinator.http_url
            return Client(url, own, timeout_s=timeout_s, certificate=certificate), None
        if services.agent is not None:
            url = services.settings.worker.coordinator_http
            return Client(url, services.token, timeout_s=timeout_s), None
        url, token = credentials.resolve(self.settings)
        return Client(url, token, timeout_s=timeout_s), credentials.remember

    def _go_on_without_screen(self) -> None:
        log.warning("the dashboard ended; the services go on without it")
        hung_up = self._hung_up()
        self._tell_held(all_of_it=not hung_up)
        if not hung_up:
            logs.to_stderr(self.settings.log)
            say(f"The dashboard crashed; the {self.settings.role} goes on without it. Ctrl-C stops it.")
            say(f"What happened: {self.log_path}")

    async def _end_dashboard(self, screen: asyncio.Task[int]) -> None:
        """Give the terminal back."""
        if self._app is not None and not screen.done():
            self._app.exit()
        done, _ = await asyncio.wait([screen], timeout=SCREEN_CLOSE_S)
        if not done:
            screen.cancel()
        await asyncio.gather(screen, return_exceptions=True)

    # -- signals and logs --------------------------------------------------------------------------------

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK"):
            number = getattr(signal, name, None)
            # Whoever started us with nohup, or in the background of a script, wants these ignored.
            if number is None or signal.getsignal(number) is signal.SIG_IGN:
                continue
            try:
                loop.add_signal_handler(number, self._signalled, number)
            except NotImplementedError:  # Windows
                signal.signal(number, lambda n, _: loop.call_soon_threadsafe(self._signalled, n))

    def _signalled(self, number: int) -> None:
        name = signal.Signals(number).name
        log.info("%s received", name)
        if self.password.asking:
            self.password.leave()
            os._exit(EXIT_INTERRUPTED)  # nothing has been started yet
        self._signals.append(signal.Signals(number))
        if self._hung_up() and self._app is not None:
            self._app.exit()  # the terminal is gone, not the work
            return
        if len(self._signals) > 2:
            os._exit(128 + number)
        if len(self._signals) == 2:
            say("Giving running jobs back and stopping at once; once more ends the process on the spot.")
            self._hurrying.set()
        self._stopping.set()

    def _hung_up(self) -> bool:
        """Whether the terminal went away from services that go on without one."""
        lost = bool(self._signals) and self._signals[-1].name == "SIGHUP"
        return self.screen and lost and self.settings.role in ("coordinator", "worker")

    def _exit_code(self) -> int:
        return EXIT_INTERRUPTED if signal.SIGINT in self._signals else EXIT_OK

    async def _unless_stopped(
        self, work: Coroutine[Any, Any, None], screen: asyncio.Task[int] | None = None
    ) -> bool:
        """Run ``work`` to its end; False when a signal came first or the screen was quit: it is cancelled."""
        working = asyncio.create_task(work, name="start")
        stopping = asyncio.create_task(self._stopping.wait(), name="stopping")
        quitting = asyncio.create_task(self._until_quit(screen), name="quitting")
        await asyncio.wait((working, stopping, quitting), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        quitting.cancel()
        if not working.done():
            working.cancel()
        await asyncio.gather(working, stopping, quitting, return_exceptions=True)
        if working.cancelled():
            return False
        await working
        return True

    async def _until_quit(self, screen: asyncio.Task[int] | None) -> None:
        """Until the screen was left; one that crashed or lost its terminal is not reason enough to stop."""
        if screen is not None:
            await asyncio.wait([screen])
            crashed = screen.cancelled() or screen.exception() is not None or screen.result() != EXIT_OK
            if not crashed and not self._hung_up():
                return
        await asyncio.Event().wait()

    def _set_up_logs(self) -> None:
        if not self.screen:
            logs.to_stderr(self.settings.log)
            return
        from gridx.tui.logbook import Logbook

        self._logbook = Logbook()
        try:
            logs.to_file(self.settings.log, self.log_path, self._logbook)
        except OSError as error:
            raise SetupError(
                f"The log {self.log_path} cannot be written: {error.strerror}.",
                "Name another folder with --data-dir.",
            ) from None


def _load(role: str) -> None:
    """Import what the services of a role are made of."""
    importlib.import_module("gridx.services.coordinator.app")
    if role == "standalone":
        importlib.import_module("gridx.services.worker.agent")


def say(line: str) -> None:
    """Print a line that people and scripts wait for; a stdout that nobody reads is no reason to stop."""
    with contextlib.suppress(OSError, ValueError):
        print(safetext.line(line, limit=1000), flush=True)  # noqa: T201


def _for_a_person(url: str) -> str:
    """The address to type on this machine, where "everywhere" is what was listened on."""
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


async def _failure(part: Coordinator | Agent) -> BaseException:
    return await part.wait_failed()


def _service_failed(name: str, error: BaseException) -> GridError:
    if isinstance(error, GridError):
        return error
    log.error("the %s failed", name, exc_info=error)
    return GridError(
        f"The {name} failed: {type(error).__name__}: {error}.", "The log has the details. Start it again."
    )
