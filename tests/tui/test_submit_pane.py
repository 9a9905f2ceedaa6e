"""Writing a job and sending it: what it asks for, what it costs, what is wrong with it."""

from __future__ import annotations

import asyncio

from gridx.credits import MICROCREDITS
from gridx.tui.here import Here
from gridx.tui.screens.history import HistoryScreen
from tests.tui.conftest import picture, program, shown


async def test_price_and_balance_follow_what_is_typed(grid, until):
    async with grid.dashboard() as (app, pilot):
        await until(lambda: "at most 0.0854 of your 100.00 credits" in picture(app), "the price", 20)
        app.desk.submit.field("cpus").value = "2"
        await until(lambda: "at most 0.169" in picture(app), "the new price", 20)
        app.desk.submit.field("timeout_s").value = "10d"
        await until(lambda: "credits are missing" in picture(app), "too dear", 20)
        await pilot.press("f5")
        await until(lambda: "402" in picture(app) or "missing" in picture(app), "refused", 20)
        assert not app.state.jobs


async def test_errors_stand_where_they_belong(grid, until):
    async with grid.dashboard() as (app, pilot):
        await until(lambda: app.state.link.connected, "connected", 20)
        field = app.desk.submit.field("memory_mb")
        field.value = "lots"
        await until(lambda: "'lots' is not a size" in picture(app), "said so", 20)
        assert field.has_class("-wrong")
        await pilot.press("f5")
        await pilot.pause()
        assert app.focused is field
        field.value = "64M"
        await until(lambda: not field.has_class("-wrong"), "right again", 20)
        await pilot.press("escape", "2", "f7", "delete", "f5")
        await until(lambda: "There is no program" in picture(app), "no program", 20)


async def test_what_the_coordinator_refuses_is_shown_at_its_field(grid, until):
    async with grid.dashboard() as (app, _pilot):
        await until(lambda: app.state.link.connected, "connected", 20)
        field = app.desk.submit.field("gpus")
        field.value = "999"
        await until(lambda: field.has_class("-wrong"), "marked", 20)
        await shown(app, until, "gpus")


async def test_a_file_is_opened_and_a_bad_one_says_why(grid, until, tmp_path):
    good, bad = tmp_path / "good.sh", tmp_path / "bad.py"
    good.write_text("print('from a file')\n")
    bad.write_bytes(b"\xff\xfe\x00")
    async with grid.dashboard() as (app, pilot):
        await until(lambda: app.state.link.connected, "connected", 20)
        await pilot.press("ctrl+o")
        await until(lambda: "Open a program" in picture(app), "the form", 20)
        for name, said in ((str(tmp_path / "none.py"), "There is no file"), (str(bad), "is not UTF-8")):
            app.screen.query_one("#form-path").value = name
            await pilot.press("enter")
            await until(lambda said=said: said in picture(app), said, 20)
        app.screen.query_one("#form-path").value = str(good)
        await pilot.press("enter")
        await until(lambda: app.screen is app.desk, "closed", 20)
        assert app.desk.submit.editor.text == "print('from a file')\n"
        assert app.desk.submit.field("name").value == "good"
        assert app.desk.submit.spec().language == "bash"
        await pilot.press("ctrl+z")
        assert "A sample job" in app.desk.submit.editor.text


async def test_what_was_submitted_before_comes_back(grid, ann, until):
    await ann.submit(program("print('old one')", name="old", priority=7, env={"A": "b"}))
    async with grid.dashboard() as (app, pilot):
        await until(lambda: app.state.jobs, "read", 20)
        await pilot.press("f3")
        await until(lambda: isinstance(app.screen, HistoryScreen) and "old" in picture(app), "the list", 20)
        await pilot.press("enter")
        await until(lambda: app.desk.submit.editor.text == "print('old one')", "in the editor", 20)
        await pilot.press("f5")
        await until(lambda: len(app.state.jobs) == 2, "submitted", 20)
        again = await ann.job(2)
        assert (again.spec.priority, again.spec.env, again.spec.name) == (7, {"A": "b"}, "old")


async def test_pasted_control_characters_do_not_get_in(grid, until):
    from textual.events import Paste

    async with grid.dashboard() as (app, pilot):
        await until(lambda: app.focused is app.desk.submit.editor, "the editor", 20)
        app.desk.submit.editor.post_message(Paste("a\x1b]52;c;eA==\x07b\r\nc"))
        await pilot.pause()
        assert app.desk.submit.editor.text.startswith("ab\nc#")


async def test_keys_that_arrive_at_once_are_taken_in_order(grid, until):
    from textual.events import Key

    typed = [("a", "a"), ("b", "b"), ("backspace", None), ("c", "c"), ("left", None), ("d", "d")]
    async with grid.dashboard() as (app, pilot):
        editor, field = app.desk.submit.editor, app.desk.submit.field("name")
        await until(lambda: app.focused is editor, "the editor", 20)
        editor.put("")
        field.value = ""
        for target in (editor, field):
            target.focus()
            await pilot.pause()
            for key, character in typed:
                app.post_message(Key(key, character))
            await pilot.pause()
        assert (editor.text, field.value) == ("adc", "adc")
        for key, character in [("e", "e"), ("escape", None), ("6", "6"), ("x", "x")]:
            app.post_message(Key(key, character))
        await until(lambda: "Transfer credits" in picture(app), "what was typed after Escape", 20)
        assert field.value == "adec"


async def test_the_key_goes_first_to_an_editor_that_is_not_seen(grid, until):
    async with grid.dashboard(size=(80, 24)) as (app, pilot):
        await until(lambda: app.state.link.connected, "connected", 20)
        await pilot.press("escape", "1", "f5")
        await pilot.pause()
        assert app.focused is app.desk.submit.editor
        assert not app.state.jobs
        await pilot.press("f5")
        await until(lambda: app.state.jobs, "submitted", 20)
        assert app.state.jobs[1].hold < MICROCREDITS


async def test_escape_and_a_key_that_come_as_one_leave_the_editor_first(grid, until):
    async with grid.dashboard() as (app, pilot):
        await until(lambda: app.focused is app.desk.submit.editor, "the editor", 20)
        before = app.desk.submit.editor.text
        await pilot.press("alt+z")
        await until(lambda: app.desk.zoomed, "what z does outside", 20)
        await pilot.press("z", "2", "alt+5")
        await until(lambda: app.focused is app.desk.pane("workers").table, "the pane of the digit", 20)
        assert app.desk.submit.editor.text == before


async def test_a_program_that_is_run_while_the_grid_starts_runs_when_it_has(grid, until):
    await grid.worker()
    client = await grid.client("ann")
    started = asyncio.get_running_loop().create_future()
    async with grid.dashboard(None, started=started) as (app, pilot):
        await shown(app, until, "starting ...")
        await pilot.press("f5")
        assert not app.state.jobs
        started.set_result((client, Here(), ["First start.", "the rest"]))
        await shown(app, until, "step 5 of 5")
        await shown(app, until, "the rest")
        await pilot.press("escape", "escape")
        await until(lambda: "the rest" not in picture(app), "closed", 20)
