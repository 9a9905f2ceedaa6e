"""The screens as they are meant to look: every pane at three sizes, dark, light and without colour.

The grid behind them is made up and its clock stands still. ``tests/tui/snapshot.py`` says how to keep a new
look after a change that is meant.
"""

from __future__ import annotations

import time

import pytest
from textual.pilot import Pilot
from textual.timer import Timer

from gridx.tui.app import GridApp
from gridx.tui.commands import PANES
from tests.tui.scene import Scene, past, scene
from tests.tui.snapshot import THEMES, Kept, styles_of, text_of

SIZES = ("80x24", "120x40", "200x60")
SMALLER = SIZES[:2]
"""For what looks the same in the middle of a larger screen."""
LOOKS = {"colour": ("dark", "light"), "plain": ("plain",)}
NOTICE = (
    "First start. F5 runs the program in the editor; F1 shows all keys; Esc twice closes this.",
    "The administrator of this grid is admin, password: correct-horse  It is shown this once.",
)


@pytest.fixture(autouse=True)
def in_utc(monkeypatch):
    """Times of day are shown as they are here; the kept screens are of Greenwich."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class Stage:
    """One dashboard on the made-up grid, and what is kept of it."""

    def __init__(self, app: GridApp, pilot: Pilot[None], kept: Kept, until) -> None:
        self.app, self.pilot, self.kept, self.until = app, pilot, kept, until

    async def take(self, name: str, shows: str, *keys: str) -> None:
        """Press keys, wait for a text and until nothing changes any more, and compare."""
        for key in keys:
            await self.pilot.press(key)
        await self.until(lambda: any(shows in line for line in text_of(self.app)), shows, 20)
        await self.still(name)
        drawn = {"text": text_of(self.app)}
        for look in self.kept.looks:
            if THEMES.get(look, self.app.theme) != self.app.theme:
                self.app.theme = THEMES[look]
                await self.still(name)
            drawn[look] = styles_of(self.app)
            self.kept.picture(self.app, name, look)
        self.app.theme = THEMES["dark"]
        self.kept.compare(name, drawn)

    async def still(self, name: str) -> None:
        """Wait until nothing changes any more."""
        seen: list[object] = []

        async def same() -> bool:
            await self.pilot.pause()
            seen.append((text_of(self.app), styles_of(self.app)))
            return len(seen) > 2 and seen[-1] == seen[-2] and self.quiet()

        await self.until(same, f"{name} to stand still", 20)

    def quiet(self) -> bool:
        """Whether nothing is on its way: no repaint, no request, no delayed reading."""
        app = self.app
        lasting = ("feed", "local machine", "")
        working = [w for w in app.workers if w.is_running and w.name not in lasting and w.group != "deeds"]
        timers = ("_timer", "_quote_timer", "_delay", "_search")
        soon = [
            name for pane in app.desk.panes for name in timers if isinstance(getattr(pane, name, None), Timer)
        ]
        return not app._paint_timer and not working and not soon


def sizes(*wanted: str):
    """Run a test at these sizes, in colours and without."""
    params = [(size, kind) for kind in LOOKS for size in wanted]
    return pytest.mark.parametrize("view", params, indirect=True, ids=lambda p: f"{p[0]}-{p[1]}")


@pytest.fixture
def view(request, until, monkeypatch):
    """Opens dashboards of one size and look; at the end every difference is told."""
    size, kind = request.param
    monkeypatch.delenv("NO_COLOR", raising=False)
    if kind == "plain":
        monkeypatch.setenv("NO_COLOR", "1")
    kept = Kept(size, LOOKS[kind])

    def opened(role: str = "standalone", **more):
        return _Opened(size, role, kept, until, more)

    yield opened
    kept.check()


class _Opened:
    def __init__(self, size, role, kept, until, more) -> None:
        self._app = scene("dark", role, **more)
        self._run = self._app.run_test(size=tuple(map(int, size.split("x"))))
        self._kept, self._until = kept, until

    async def __aenter__(self) -> Stage:
        app = self._app
        pilot = await self._run.__aenter__()
        if app.client.token is not None:
            await self._until(lambda: app.state.link.connected and app.state.machines, "connected", 20)
            for machine in app.state.machines.values():
                past(machine)
            app.desk.tick()  # now, and not within a second
        return Stage(app, pilot, self._kept, self._until)

    async def __aexit__(self, *error) -> None:
        await self._run.__aexit__(*error)
        await self._app.client.close()


@sizes(*SIZES)
async def test_the_main_screens_of_the_roles(view):
    for role, shows in (
        ("standalone", "at most"),
        ("coordinator", "Jobs"),
        ("worker", "memory"),
        ("viewer", "Jobs"),
    ):
        async with view(role) as stage:
            await stage.take(f"main-{role}", shows)


@sizes(*SIZES)
async def test_every_pane_with_the_whole_screen(view):
    shows = {
        "jobs": "training, ",
        "submit": "at most",
        "output": "epoch 22",
        "monitor": "gpu-box",
        "workers": "lab-west",
        "ledger": "sign-up grant",
        "log": "attempt 2 of job 412 started",
    }
    async with view() as stage:
        await stage.pilot.press("escape", "1", "z", "g", "j")
        for number, (name, _) in enumerate(PANES, 1):
            await stage.take(f"pane-{name}", shows[name], *(["escape"] if number == 3 else []), str(number))
            if name == "monitor":
                await stage.take("pane-monitor-gpus", "H100", "j")


@sizes(*SMALLER)
async def test_the_screens_over_the_dashboard(view):
    async with view() as stage:
        await stage.take("job-running", "asked for", "escape", "1", "g", "j", "enter")
        await stage.take("job-cancel", "Cancel job 412", "c")
        await stage.pilot.press("escape", "escape", "j", "j", "j", "j", "j")
        await stage.take("job-ended", "asked for", "enter")
        await stage.take("job-files", "What job 407 gave back", "w")
        await stage.take("job-array", "elements", "escape", "escape", "g", "enter")
        await stage.take("array-unfolded", "[12] sweep", "escape", "u", "j")
        await stage.pilot.press("u")
        await stage.take("help", "What the keys do", "question_mark")
        await stage.take("filter", "filtered", "escape", "slash", *"state:bad")
        await stage.take("history", "Submitted before", "escape", "2", "f3")
        await stage.take("open-file", "Open a program", "escape", "ctrl+o")
        await stage.take("transfer", "Transfer credits", "escape", "escape", "6", "x")


@sizes(*SMALLER)
async def test_accounts_and_the_audits_verdict(view):
    async with view("coordinator") as stage:
        await stage.take("accounts", "The audit finds no difference", "6", "z", "v")


@sizes(*SMALLER)
async def test_signing_in(view):
    async with view("viewer", client=Scene(token=None)) as stage:
        await stage.take("sign-in", "Sign in to a coordinator")
        await stage.take("sign-in-new", "once more", *"zoe", "enter", *"a long secret", "f6")


@sizes(*SMALLER)
async def test_the_first_start_and_a_lost_connection(view):
    async with view(notice=NOTICE) as stage:
        await stage.take("first-start", "correct-horse")
        stage.app.state.disconnected("nothing answers")
        stage.app.changed()
        await stage.take("disconnected", "disconnected since", "escape", "escape")


async def test_a_terminal_that_is_too_small(until):
    app = scene("dark")
    kept = Kept("59x15", ("dark",))
    async with app.run_test(size=(59, 15)) as pilot:
        await Stage(app, pilot, kept, until).take("too-small", "60 columns and 16 lines")
    await app.client.close()
    kept.check()
