"""From the start of the dashboard to the first output: one key."""

from __future__ import annotations

import pytest

from tests.tui.conftest import picture, shown


@pytest.mark.parametrize(
    ("size", "key"), [((80, 24), "f5"), ((80, 40), "f5"), ((120, 40), "ctrl+j"), ((200, 60), "f5")]
)
async def test_one_key_runs_the_sample_and_shows_its_output(grid, until, size, key):
    await grid.worker()
    async with grid.dashboard(size=size) as (app, pilot):
        await until(lambda: app.state.link.connected and app.state.machines, "connected", 20)
        await shown(app, until, "A sample job")
        await pilot.press(key)
        await until(lambda: "step 5 of 5" in picture(app), "the output", 20)
        await until(lambda: "succeeded" in picture(app), "the end", 20)


async def test_the_editor_keeps_the_focus_where_both_fit(grid, until):
    async with grid.dashboard(size=(120, 40)) as (app, pilot):
        await until(lambda: app.state.link.connected, "connected", 20)
        await pilot.press("f5")
        await until(lambda: app.state.jobs, "submitted", 20)
        await pilot.pause()
        assert app.focused is app.desk.submit.editor


async def test_letters_typed_into_the_program_are_letters(grid, until):
    async with grid.dashboard() as (app, pilot):
        await until(lambda: app.focused is app.desk.submit.editor, "the editor", 20)
        await pilot.press("q", "1", "t", "question_mark", "slash")
        assert app.desk.submit.editor.text.startswith("q1t?/")
        assert app.is_running
        await pilot.press("escape")
        assert app.focused is app.desk.jobs.table
        await pilot.press("2")
        assert app.focused is app.desk.submit.editor


async def test_the_first_hint_says_what_to_press(grid, until):
    async with grid.dashboard() as (app, _pilot):
        await until(lambda: app.state.link.connected, "connected", 20)
        await shown(app, until, "F5 runs the program in the editor")
        await until(lambda: "F5 Run" in picture(app).splitlines()[-1], "the line of keys", 20)
