"""Signing in, help, quitting, the connection, themes, small and large terminals."""

from __future__ import annotations

import msgspec
import pytest

from gridx.config import DashboardSettings
from gridx.services.coordinator.app import Coordinator
from gridx.tui.commands import PANES
from gridx.tui.screens.confirm import ConfirmScreen
from gridx.tui.screens.help import HelpScreen
from gridx.tui.screens.sign_in import SignInScreen
from gridx.tui.themes import DARK, LIGHT
from tests.tui.conftest import Here, picture, program, shown


async def test_signing_in_says_what_went_wrong_and_goes_on(grid, until):
    saved = []
    async with grid.dashboard(None, role="viewer", remember=lambda url, s: saved.append((url, s))) as (
        app,
        pilot,
    ):
        await until(lambda: isinstance(app.screen, SignInScreen), "the sign-in", 20)
        screen = app.screen
        screen._field("user").value = "carol"
        screen._field("password").value = "short"
        await pilot.press("f6")
        await until(lambda: "at least 8 characters" in picture(app), "too short", 20)
        screen._field("password").value = "correct horse"
        await pilot.press("f5")
        await until(lambda: "F6 makes an account" in " ".join(picture(app).split()), "unknown", 20)
        screen._field("url").value = "127.0.0.1:1"
        await pilot.press("f5")
        await until(lambda: "Nothing answers" in picture(app), "out of reach", 20)
        screen._field("url").value = grid.coordinator.http_url
        await pilot.press("f6")
        await until(lambda: "once more" in picture(app), "the password again", 20)
        await pilot.press(*"correct house", "enter")
        await until(lambda: "are not the same" in picture(app), "another one", 20)
        await pilot.press(*"correct horse", "enter")
        await until(lambda: app.screen is app.desk and app.state.link.connected, "signed in", 20)
        await shown(app, until, "carol")
        assert saved and saved[0][0] == grid.coordinator.http_url


async def test_a_name_that_is_taken_is_said(grid, until):
    await grid.token("ann")
    async with grid.dashboard(None, role="viewer") as (app, pilot):
        await until(lambda: isinstance(app.screen, SignInScreen), "the sign-in", 20)
        app.screen._field("user").value = "ann"
        app.screen._field("password").value = "correct horse"
        await pilot.press("f6", *"correct horse", "f6")
        await until(lambda: "There is a user ann already" in picture(app), "taken", 20)


async def test_a_revoked_sign_in_leads_back_to_signing_in(grid, ann, until):
    async with grid.dashboard() as (app, _pilot):
        await until(lambda: app.state.link.connected, "connected", 20)
        await ann.logout()
        await until(lambda: isinstance(app.screen, SignInScreen), "the sign-in", 20)
        assert app.screen._field("user").value == "ann"


async def test_what_is_to_be_done_once_connected_is_done_once(grid, until):
    done = []
    async with grid.dashboard() as (app, _pilot):
        app.once_connected = lambda: done.append(app.state.link.connected)
        await until(lambda: done, "the call", 20)
        app._tick()
        assert done == [True]


async def test_help_is_made_from_the_bindings_in_force(grid, until):
    async with grid.dashboard() as (app, pilot):
        await until(lambda: app.state.link.connected, "connected", 20)
        await pilot.press("escape", "question_mark")
        await until(lambda: isinstance(app.screen, HelpScreen), "the help", 20)
        await shown(app, until, "Cancel the chosen job; asks first.")
        assert "Give credits" not in picture(app)
        await pilot.press("escape", "6", "question_mark")
        await pilot.pause()
        await shown(app, until, "Give credits to another user.")


async def test_the_palette_does_what_the_keys_do(grid, until):
    async with grid.dashboard() as (app, pilot):
        await until(lambda: app.state.link.connected, "connected", 20)
        await pilot.press("escape", "ctrl+p")
        await pilot.pause()
        await pilot.press(*"go to the pane ledger")
        await until(lambda: "Ledger" in picture(app), "found", 20)
        await pilot.pause(0.5)
        await pilot.press("enter")
        await until(lambda: app.desk.pane("ledger").display and app.screen is app.desk, "there", 20)


async def test_quit_asks_while_jobs_run_here_and_names_the_consequence(grid, until):
    here = Here(running=lambda: 2, consequence="They are given back.")
    async with grid.dashboard(here=here) as (app, pilot):
        await until(lambda: app.state.link.connected, "connected", 20)
        await pilot.press("ctrl+q")
        await until(lambda: isinstance(app.screen, ConfirmScreen), "the question", 20)
        await shown(app, until, "Quit while 2 jobs run on this machine?")
        await shown(app, until, "They are given back.")
        await pilot.press("enter")
        await pilot.pause()
        assert app.is_running
        await pilot.press("escape", "q")
        await until(lambda: isinstance(app.screen, ConfirmScreen), "the question again", 20)
        await pilot.press("y")
        await until(lambda: not app.is_running, "gone", 20)


async def test_control_c_does_not_quit(grid, until):
    async with grid.dashboard() as (app, pilot):
        await pilot.press("ctrl+c")
        await pilot.press("escape", "ctrl+c")
        await pilot.pause()
        assert app.is_running


async def test_a_lost_connection_is_told_and_everything_comes_back(grid, ann, until):
    await ann.submit(program("print(1)"))
    async with grid.dashboard() as (app, _pilot):
        await until(lambda: app.state.link.connected and app.state.jobs, "connected", 20)
        port = int(grid.coordinator.http_url.rpartition(":")[2])
        await grid.coordinator.stop()
        await until(lambda: "disconnected since" in picture(app), "told", 20)
        await shown(app, until, "queued")
        section = grid.settings.coordinator
        settings = msgspec.structs.replace(
            grid.settings, coordinator=msgspec.structs.replace(section, http_port=port)
        )
        grid.coordinator = Coordinator(settings)
        await grid.coordinator.start()
        await until(lambda: app.state.link.connected and "disconnected" not in picture(app), "back", 30)
        await ann.submit(program("print(2)"))
        await until(lambda: len(app.desk.jobs.table.keys) == 2, "new things are seen", 20)


async def test_pausing_stops_the_screen_and_going_on_catches_up(grid, ann, until):
    async with grid.dashboard() as (app, pilot):
        await until(lambda: app.state.link.connected, "connected", 20)
        await pilot.press("escape", "p")
        await shown(app, until, "PAUSED")
        await ann.submit(program("print(1)"))
        await until(lambda: app.state.jobs, "known", 20)
        await pilot.pause(0.5)
        assert not app.desk.jobs.table.keys
        await pilot.press("p")
        await until(lambda: app.desk.jobs.table.keys, "shown", 20)


@pytest.mark.parametrize("role", ["standalone", "coordinator", "worker", "viewer"])
async def test_each_role_opens_on_what_it_is_for(grid, until, role):
    await grid.worker()
    first = {"standalone": "submit", "coordinator": "jobs", "worker": "monitor", "viewer": "jobs"}[role]
    async with grid.dashboard(role=role, size=(80, 24)) as (app, _pilot):
        await until(lambda: app.focused is not None, "the focus", 20)
        assert first == app.desk._pane_of(app.focused).NAME
        assert role in picture(app)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60), (60, 16)])
async def test_every_pane_can_be_reached_at_every_size(grid, until, size):
    await grid.worker()
    async with grid.dashboard(size=size) as (app, pilot):
        await until(lambda: app.state.machines, "read", 20)
        for number, (name, title) in enumerate(PANES, 1):
            await pilot.press("escape", str(number))
            await pilot.pause()
            assert app.desk.pane(name).display
            await shown(app, until, f"{number} {title}")
            assert name == app.desk._pane_of(app.focused).NAME
        await pilot.press("tab", "shift+tab", "z", "z")
        assert all(len(line) == size[0] for line in picture(app).splitlines())


async def test_a_terminal_that_is_too_small_says_what_is_needed(grid, until):
    async with grid.dashboard(size=(200, 60)) as (app, pilot):
        await until(lambda: app.state.link.connected, "connected", 20)
        await pilot.resize_terminal(59, 15)
        await until(lambda: "60 columns and 16 lines" in picture(app), "said so", 20)
        await pilot.resize_terminal(80, 24)
        await until(lambda: "F5 Run" in picture(app), "back", 20)
        assert app.focused is not None


async def test_the_theme_changes_between_dark_and_light(grid, until):
    async with grid.dashboard() as (app, pilot):
        await until(lambda: app.state.link.connected, "connected", 20)
        assert app.screen.styles.background.hex.lower() == DARK.background
        await pilot.press("escape", "t")
        await until(lambda: app.screen.styles.background.hex.lower() == LIGHT.background, "light", 20)
        assert LIGHT.primary in app.export_screenshot()


async def test_keys_of_the_configuration_are_in_force_and_in_the_help(grid, ann, until):
    keys = ["jobs_cancel=X", "desk_submit=f9"]
    settings = msgspec.structs.replace(grid.settings, dashboard=DashboardSettings(keys=keys, theme="light"))
    await ann.submit(program("print(1)"))
    async with grid.dashboard(settings=settings) as (app, pilot):
        await until(lambda: app.desk.jobs.table.keys, "the job", 20)
        assert not app.current_theme.dark
        await shown(app, until, "Run (F9)")
        await pilot.press("escape", "c")
        assert app.screen is app.desk
        await until(lambda: "X Cancel" in picture(app).splitlines()[-1], "the line of keys", 20)
        await pilot.press("X")
        await until(lambda: isinstance(app.screen, ConfirmScreen), "the question", 20)
        await pilot.press("escape", "f5")
        await pilot.press("f9")
        await until(lambda: len(app.state.jobs) == 2, "submitted once", 20)


async def test_ascii_only_draws_nothing_else(grid, ann, until):
    await grid.worker()
    job = await ann.submit(program("import sys; print('out'); print('err', file=sys.stderr)"))
    await ann.wait(job.id)
    async with grid.dashboard(size=(200, 60), ascii_only=True) as (app, pilot):
        await until(lambda: "err" in picture(app) and "GiB of" in picture(app), "drawn", 20)
        for keys in (("escape",), ("7",), ("question_mark",), ("escape", "1", "enter"), ("escape", "c")):
            await pilot.press(*keys)
            await pilot.pause(0.3)
            odd = {char for char in picture(app) if not char.isascii()}
            assert not odd, (keys, odd)


async def test_without_colour_everything_is_still_told(grid, ann, until, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    await ann.submit(program("print(1)"))
    async with grid.dashboard() as (app, pilot):
        await until(lambda: app.desk.jobs.table.keys, "the job", 20)
        await pilot.press("escape")
        await pilot.pause()
        assert "○ queued" in picture(app) and "›" in picture(app)
        colors = {
            str(segment.style.color)
            for strip in app.screen._compositor.render_strips()
            for segment in strip.apply_filter(app._filters[-1], app.screen.background_colors[1])
            if segment.style is not None and segment.style.color is not None
        }
        assert all("default" in color for color in colors)
