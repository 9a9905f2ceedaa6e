"""The dashboard's application: screens, themes, what every screen can do.

``node.py`` calls :func:`run_dashboard`; everything else in this package is behind it.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Final, Literal

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.filter import LineFilter
from textual.screen import Screen
from textual.theme import Theme
from textual.timer import Timer

from gridx import safetext
from gridx.address import private
from gridx.client import Client
from gridx.clock import Clock, SystemClock
from gridx.config import Role, Settings
from gridx.errors import GridError, Unauthenticated, Unreachable
from gridx.messages import Session
from gridx.tui.commands import COMMANDS, GridCommands, bindings
from gridx.tui.feed import Feed
from gridx.tui.here import Here
from gridx.tui.keymap import read_keymap
from gridx.tui.local import LocalMachine
from gridx.tui.logbook import Logbook
from gridx.tui.plain import PlainLines
from gridx.tui.screens.confirm import ConfirmScreen
from gridx.tui.screens.dashboard import Dashboard
from gridx.tui.screens.help import HelpScreen
from gridx.tui.screens.job import JobScreen
from gridx.tui.screens.sign_in import SignInScreen
from gridx.tui.state import GridState
from gridx.tui.terminal import driver_class
from gridx.tui.themes import DARK, LIGHT, Palette
from gridx.tui.widgets.editor import Editor

log = logging.getLogger("gridx.tui")

REPAINT_S: Final = 0.25
"""Changes are shown at most this often: over SSH every repaint counts."""

Severity = Literal["information", "warning", "error"]


class GridApp(App[None]):
    """The dashboard of one coordinator as one user.

    Args:
        client: where the grid is; without a token the sign-in screen comes first.
        settings: the whole configuration.
        role: what this process is, which decides what is shown first.
        logbook: where the process's log lines are kept.
        here: what runs in this process, for the question before quitting.
        ascii_only: draw with ASCII alone (``--ascii``).
        remember: called with the address and the session after a sign-in, to save the token.
        notice: lines that are shown until they are closed; the first is a heading.
        started: what stands for ``client``, ``here`` and ``notice``, in this order, when the services of this
            process have started; until then the screen is there, and nothing is asked.
        painted: called when the first frame has been drawn.
        clock: for ages and for how often is painted.
    """

    TITLE = "Grid-X"
    CSS_PATH = "app.tcss"
    COMMANDS = App.COMMANDS | {GridCommands}
    BINDINGS: ClassVar[list[BindingType]] = bindings("app")
    ENABLE_COMMAND_PALETTE = True

    def __init__(
        self,
        client: Client,
        settings: Settings,
        *,
        role: Role,
        logbook: Logbook,
        here: Here | None = None,
        ascii_only: bool = False,
        remember: Callable[[str, Session], None] | None = None,
        notice: Sequence[str] = (),
        started: asyncio.Future[Any] | None = None,
        painted: Callable[[], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        # NO_COLOR means none at all: with the terminal's own colours Textual leaves every one out.
        super().__init__(driver_class=driver_class(), ansi_color=True if "NO_COLOR" in os.environ else None)
        for theme in (DARK, LIGHT):
            self.register_theme(theme)
        # Before anything is styled: changing it later would style everything twice at the start.
        self.set_reactive(App.theme, (DARK if settings.dashboard.theme == "dark" else LIGHT).name)
        self.stylesheet.set_variables(self.get_css_variables())
        self._keys = read_keymap(settings.dashboard.keys)
        self.set_keymap(self._keys)
        self.client = client
        self.settings = settings
        self.role = role
        self.logbook = logbook
        self.here = here or Here()
        self.ascii_only = ascii_only or settings.dashboard.ascii
        self.remember = remember
        self.notice = notice
        self._started = started
        self.starting = started is not None
        """The services of this process are not there yet."""
        self._painted = painted
        self.clock = clock or SystemClock()
        self.state = GridState(self.clock)
        self.feed = Feed(client, self.state, self.changed)
        self.local = LocalMachine(settings.data_path, self.clock)
        self.desk: Dashboard
        self.frozen = False
        self.once_connected: Callable[[], None] | None = None
        """Called once, when what there is has been read and shown."""
        self._plain = PlainLines()
        self._palettes: dict[str, Palette] = {}
        self._paint_timer: Timer | None = None
        self._painted_at = 0.0
        self._asking_to_quit = False
        self._warned = ""

    # -- life --------------------------------------------------------------------------------------------

    def on_mount(self) -> None:
        # Textual makes the loop start tasks at once, which the services in the same process do not expect.
        asyncio.get_running_loop().set_task_factory(None)
        self.theme_changed_signal.subscribe(self, self._theme_changed)
        self.desk = Dashboard()
        self.push_screen(self.desk)
        if self._painted is not None:
            self.desk.call_after_refresh(self._painted)
        self.run_worker(self._live(), name="feed")
        self.run_worker(self.local.run(), name="local machine")
        self.set_interval(1.0, self._tick)

    async def on_unmount(self) -> None:
        await self.client.close()

    async def _live(self) -> None:
        """Signed in, connected, and again from the start when either ends."""
        if self._started is not None:
            await self.client.close()
            self.client, self.here, notice = await asyncio.shield(self._started)
            self.feed = Feed(self.client, self.state, self.changed)
            self.starting = False
            self.desk.announce(notice)
        problem = ""
        while True:
            if self.client.token is None:
                known = self.state.user.username if self.state.user else self.settings.client.user
                session = await self.push_screen_wait(SignInScreen(problem, known))
                self.client.token = session.token
                if session.notice:
                    self.tell(session.notice, severity="warning")
                if self.remember is not None:
                    try:
                        self.remember(self.client.url, session)
                    except (GridError, OSError) as error:
                        self.tell(f"The sign-in could not be saved: {error}", severity="warning")
                self.state = GridState(self.clock)
                self.feed = Feed(self.client, self.state, self.changed)
            try:
                await self._warn_of_readers()
                await self.feed.run()
            except Unauthenticated as error:
                self.client.token = None
                problem = str(error)
                self.state.disconnected(error.message)
                self.changed()

    async def _warn_of_readers(self) -> None:
        """Say once where the network could read along."""
        if self._warned == self.client.url:
            return
        try:
            await self.client.secure()
        except GridError:
            return  # the feed says so, and goes on trying
        if not private(self.client.url):
            text = f"Not encrypted: passwords and output cross the network to {self.client.url} in the clear."
            self.tell(f"{text} See --tls in the README.", severity="warning")
            log.warning("%s", text)
        self._warned = self.client.url

    async def connect_to(self, url: str) -> Client:
        """The client of another address, or the one there is."""
        if url != self.client.url:
            old, self.client = self.client, Client(url, timeout_s=self.settings.client.timeout_s)
            await old.close()
        return self.client

    # -- painting ----------------------------------------------------------------------------------------

    @property
    def palette(self) -> Palette:
        """The styles of the theme."""
        name = self.theme
        if name not in self._palettes:
            self._palettes[name] = Palette(self.theme_variables, no_color=self.no_color)
        return self._palettes[name]

    def changed(self) -> None:
        """Something in the state changed: show it soon, with what else changes until then."""
        if self._paint_timer is None and not self.frozen and self.is_running:
            wait_s = self._painted_at + REPAINT_S - self.clock.monotonic()
            self._paint_timer = self.set_timer(max(0.01, min(REPAINT_S, wait_s)), self._paint)

    def _paint(self) -> None:
        self._paint_timer = None
        if self.frozen or not self.is_running or not self.desk.is_mounted:
            return
        self._painted_at = self.clock.monotonic()
        changes = self.state.take()
        if not changes:
            return
        with self.batch_update():
            self.desk.apply(changes)
            if isinstance(self.screen, JobScreen):
                self.screen.apply(changes)
            self.desk.toast(changes.ended)

    def _tick(self) -> None:
        if self.once_connected is not None and self.state.link.connected:
            told, self.once_connected = self.once_connected, None
            told()
        if self.frozen or not self.is_running:
            return
        with self.batch_update():
            if self.screen is self.desk:
                self.desk.tick()
            elif isinstance(self.screen, JobScreen):
                self.screen.tick()

    def freeze(self, frozen: bool) -> None:
        """Stop showing changes, or show what came meanwhile and go on."""
        self.frozen = frozen
        if not frozen:
            self.changed()

    def _theme_changed(self, theme: Theme) -> None:
        self._palettes.clear()
        for screen in self.screen_stack:
            if isinstance(screen, Dashboard):
                screen.restyle()
            else:
                for editor in screen.query(Editor):
                    editor.restyle()

    # -- saying and asking -------------------------------------------------------------------------------

    def tell(self, text: str, *, severity: Severity = "information") -> None:
        """Say something for a few seconds."""
        self.notify(safetext.clean(text, limit=600), severity=severity, timeout=5, markup=False)

    def tell_error(self, error: GridError) -> None:
        """Say what went wrong; a lost connection is said at the top of the screen already."""
        if isinstance(error, Unreachable) and not self.state.link.connected:
            return
        self.notify(
            safetext.clean(f"{error.message} {error.hint}".strip(), limit=600),
            severity="error",
            timeout=8,
            markup=False,
        )

    async def ask(self, question: str, consequence: str, yes: str) -> bool:
        """Ask before something that cannot be undone; only within a worker."""
        return await self.push_screen_wait(ConfirmScreen(question, consequence, yes))

    def copy(self, text: str, what: str) -> None:
        """Copy to the clipboard of the terminal, and say what was copied."""
        self.copy_to_clipboard(text)
        self.tell(f"Copied {what}.")

    # -- actions -----------------------------------------------------------------------------------------

    async def action_quit(self) -> None:
        """Leave; while jobs run here, ask first and say what will happen to them."""
        running = self.here.running()
        if not running:
            self.exit()
        elif not self._asking_to_quit:
            self._asking_to_quit = True
            self.run_worker(self._quit(running), group="quit")

    async def _quit(self, running: int) -> None:
        jobs = "1 job runs" if running == 1 else f"{running} jobs run"
        try:
            if await self.ask(f"Quit while {jobs} on this machine?", self.here.consequence, "Quit"):
                self.exit()
        finally:
            self._asking_to_quit = False

    def action_help(self) -> None:
        """Show the keys that work here."""
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen(self.screen.active_bindings.values()))

    def action_next_theme(self) -> None:
        """Change between dark and light."""
        self.theme = LIGHT.name if self.theme == DARK.name else DARK.name

    def _handle_exception(self, error: Exception) -> None:
        log.critical("the dashboard crashed", exc_info=error)
        super()._handle_exception(error)

    def _print_error_renderables(self) -> None:
        # Textual prints the traceback with the values of variables, tokens among them; the log has it too.
        self._exit_renderables.clear()

    def get_line_filters(self) -> Sequence[LineFilter]:
        """The filters of every drawn line; with ``--ascii`` one that leaves nothing else."""
        filters = super().get_line_filters()
        return [*filters, self._plain] if self.ascii_only else filters

    def get_key_display(self, binding: Binding) -> str:
        """A key as people write it: F5, Esc, Enter, ^O."""
        key = binding.key_display or super().get_key_display(binding)
        key = {"esc": "Esc", "space": "Space", "tab": "Tab", "⏎": "Enter"}.get(key, key)
        return key.upper() if len(key) < 4 and (key[:1] in "f^") and len(key) > 1 else key

    def key_of(self, command_id: str) -> str:
        """The first key of a command, as people write it."""
        command = next(command for command in COMMANDS if command.id == command_id)
        keys = self._keys.get(command_id, command.keys)
        return self.get_key_display(Binding(keys.split(",")[0], command.action))

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """What the palette offers besides the commands of the place."""
        yield SystemCommand("Choose a theme", "All themes, with a preview.", self.action_change_theme)
        yield SystemCommand("Save a picture", "Write this screen as an SVG file.", self.action_screenshot)


def keep_what_stays() -> None:
    """Leave modules and widgets out of later collections of garbage.

    They stay until the end, and to look through them all held up the loop for 65 to 90 ms each time.
    """
    gc.collect()
    gc.freeze()


async def run_dashboard(app: GridApp) -> int:
    """Show the dashboard until it is quit: 0, or 1 where the interface crashed (the services still run then).

    The caller has replaced handlers of ``logging`` that write to the terminal by the app's logbook, and ends
    the dashboard from outside with ``app.exit()``.
    """
    app.once_connected = keep_what_stays
    await app.run_async()
    return app.return_code or 0
