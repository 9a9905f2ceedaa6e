"""The list of jobs: shown, filtered, sorted, paged, and acted upon."""

from __future__ import annotations

from gridx.messages import JobState
from gridx.tui.screens.confirm import ConfirmScreen
from gridx.tui.screens.job import JobScreen
from tests.tui.conftest import picture, program, shown


async def test_jobs_are_listed_with_state_and_why_they_wait(grid, ann, until):
    await ann.submit(program("print(1)", name="tiny"))
    await ann.submit(program("print(1)", name="huge", cpus=900))
    async with grid.dashboard(size=(200, 60)) as (app, pilot):
        await until(lambda: len(app.desk.jobs.table.keys) == 2, "two jobs", 20)
        await pilot.press("escape")
        await pilot.pause()
        shown = picture(app)
        assert "○ queued" in shown and "tiny" in shown and "huge" in shown
        assert "2 queued" in shown and "no worker is connected" in shown
        assert "2 waiting" in shown


async def test_another_dashboard_sees_what_happens_here(grid, ann, until):
    await grid.worker()
    async with grid.dashboard() as (first, pilot), grid.dashboard(role="viewer") as (second, _):
        await until(lambda: first.state.machines and second.state.link.connected, "connected", 20)
        await pilot.press("f5")
        await until(lambda: "✓ succeeded" in picture(second), "the other's list", 20)


async def test_the_filter_narrows_as_one_types_and_escape_clears_it(grid, ann, until):
    for name in ("red", "green", "grey"):
        await ann.submit(program("print(1)", name=name))
    async with grid.dashboard() as (app, pilot):
        table = app.desk.jobs.table
        await until(lambda: len(table.keys) == 3, "three jobs", 20)
        await pilot.press("escape", "slash", *"gr")
        assert len(table.keys) == 2
        await pilot.press(*"een")
        assert len(table.keys) == 1
        await pilot.press("escape")
        assert len(table.keys) == 3
        assert app.focused is table
        await pilot.press("slash", *"state:zzz")
        await shown(app, until, "no state zzz")


async def test_a_filter_finds_jobs_that_were_not_read_yet(grid, ann, until):
    await ann.submit(program("print(1)", name="needle"))
    async with grid.dashboard() as (app, pilot):
        await until(lambda: app.state.jobs, "read", 20)
        app.state.jobs.clear()
        app.desk.jobs.shown()
        await pilot.press("escape", "slash", *"needle")
        await until(lambda: app.desk.jobs.table.keys, "found by the coordinator", 20)


async def test_sorting_by_key_and_by_a_click_on_the_header(grid, ann, until):
    for name in ("beta", "alpha"):
        await ann.submit(program("print(1)", name=name))
    async with grid.dashboard() as (app, pilot):
        table = app.desk.jobs.table
        await until(lambda: list(table.keys) == [2, 1], "newest first", 20)
        await shown(app, until, "id↓")
        await pilot.press("escape", "S")
        assert list(table.keys) == [1, 2]
        await shown(app, until, "id↑")
        await pilot.press("s", "s")
        assert app.desk.jobs.sort == "name"
        assert list(table.keys) == [2, 1]
        await pilot.click(table, offset=(22, 0))
        assert app.desk.jobs.sort in ("id", "name")


async def test_pages_before_the_newest_can_be_reached(grid, ann, until, monkeypatch):
    monkeypatch.setattr("gridx.tui.panes.jobs.PAGE", 2)
    monkeypatch.setattr("gridx.tui.feed.PAGE", 2)
    for _ in range(5):
        await ann.submit(program("print(1)"))
    async with grid.dashboard() as (app, pilot):
        table = app.desk.jobs.table
        await until(lambda: list(table.keys) == [5, 4], "the newest page", 20)
        await shown(app, until, "] older")
        await pilot.press("escape", "right_square_bracket")
        await until(lambda: list(table.keys) == [3, 2], "the page before", 20)
        await pilot.press("right_square_bracket")
        await until(lambda: list(table.keys) == [1], "the first page", 20)
        await pilot.press("left_square_bracket")
        await until(lambda: list(table.keys) == [3, 2], "one back", 20)
        await pilot.press("left_square_bracket")
        await until(lambda: list(table.keys) == [5, 4], "the newest again", 20)


async def test_cancel_asks_with_no_in_focus_and_wants_another_key(grid, ann, until):
    job = await ann.submit(program("print(1)", name="long one"))
    async with grid.dashboard() as (app, pilot):
        await until(lambda: app.desk.jobs.table.keys, "the job", 20)
        await pilot.press("escape", "c")
        await until(lambda: isinstance(app.screen, ConfirmScreen), "the question", 20)
        await shown(app, until, f"Cancel job {job.id}, long one?")
        await shown(app, until, "credits held for it")
        await pilot.press("c", "enter")
        await pilot.pause()
        assert (await ann.job(job.id)).state is JobState.QUEUED
        await pilot.press("c")
        await until(lambda: isinstance(app.screen, ConfirmScreen), "the question again", 20)
        await pilot.press("y")
        await until(lambda: app.state.jobs[job.id].state is JobState.CANCELLED, "cancelled", 20)
        await until(lambda: "□ cancelled" in picture(app), "shown", 20)


async def test_retry_and_edit_make_a_job_of_an_ended_one(grid, ann, until):
    await grid.worker()
    job = await ann.submit(program("print('first')", name="mine", cpus=0.25))
    async with grid.dashboard() as (app, pilot):
        await until(lambda: job.id in app.state.jobs and app.state.jobs[job.id].state.ended, "ended", 20)
        await pilot.press("escape", "r")
        await until(lambda: len(app.state.jobs) == 2, "the retry", 20)
        await pilot.press("e")
        await until(lambda: app.desk.submit.editor.text == "print('first')", "in the editor", 20)
        assert app.desk.submit.field("cpus").value == "0.25"
        assert app.focused is app.desk.submit.editor
        await shown(app, until, "from job 2")


async def test_a_job_that_runs_is_not_retried(grid, ann, until):
    await ann.submit(program("print(1)"))
    async with grid.dashboard() as (app, pilot):
        await until(lambda: app.desk.jobs.table.keys, "the job", 20)
        await pilot.press("escape", "r")
        await until(lambda: "has not ended" in picture(app), "said so", 20)


async def test_copying_says_what_was_copied(grid, ann, until):
    await ann.submit(program("print(1)"))
    async with grid.dashboard() as (app, pilot):
        await until(lambda: app.desk.jobs.table.keys, "the job", 20)
        await pilot.press("escape", "y")
        assert app.clipboard == "1"
        await until(lambda: "Copied job id 1" in picture(app), "said so", 20)


async def test_the_cursor_stays_on_its_job_while_others_come(grid, ann, until):
    await ann.submit(program("print(1)"))
    await ann.submit(program("print(1)"))
    async with grid.dashboard() as (app, pilot):
        table = app.desk.jobs.table
        await until(lambda: len(table.keys) == 2, "two", 20)
        await pilot.press("escape", "j")
        assert table.key == 1
        await ann.submit(program("print(1)"))
        await until(lambda: len(table.keys) == 3, "three", 20)
        assert table.key == 1
        await pilot.press("g")
        assert table.key == 3
        await pilot.press("G")
        assert table.key == 1
        await pilot.press("k")
        assert table.key == 2


async def test_a_job_has_a_screen_of_its_own(grid, ann, until):
    await grid.worker()
    job = await ann.submit(program("import sys; print('hello')", name="shown", args=["one", "two"]))
    async with grid.dashboard() as (app, pilot):
        await until(lambda: job.id in app.state.jobs and app.state.jobs[job.id].state.ended, "ended", 20)
        await pilot.press("escape", "enter")
        await until(lambda: "Receipt" in picture(app) and "charged" in picture(app), "the receipt", 20)
        shown = picture(app)
        for words in (
            "Job 1",
            "shown",
            "✓ succeeded",
            "one two",
            "import sys",
            "attempt 1 to lab of ann",
            "given back",
        ):
            assert words in shown, words
        await pilot.press("y")
        assert app.clipboard == str(job.id)
        await pilot.press("r")
        await until(lambda: 2 in app.state.jobs, "the retry", 20)
        await pilot.press("escape")
        assert app.screen is app.desk
        await pilot.press("enter", "l")
        await pilot.pause()
        assert app.screen is app.desk
        assert app.focused is app.desk.output.view


async def test_a_job_screen_follows_the_job(grid, ann, until):
    job = await ann.submit(program("import time; print('on'); time.sleep(0.5)"))
    async with grid.dashboard() as (app, pilot):
        await until(lambda: app.desk.jobs.table.keys, "the job", 20)
        await pilot.press("escape", "enter")
        await until(lambda: isinstance(app.screen, JobScreen) and "queued" in picture(app), "queued", 20)
        await grid.worker()
        await until(lambda: "► running" in picture(app), "running", 20)
        await until(lambda: "✓ succeeded" in picture(app), "succeeded", 20)
        await pilot.press("c")
        await until(lambda: "has ended already" in picture(app), "nothing to cancel", 20)
        assert (await ann.job(job.id)).state is JobState.SUCCEEDED


async def test_what_ended_while_one_looked_elsewhere_is_said(grid, ann, until):
    await grid.worker()
    async with grid.dashboard(size=(80, 24)) as (app, pilot):
        await until(lambda: app.state.link.connected, "connected", 20)
        await ann.submit(program("import sys; sys.exit(3)", name="elsewhere"))
        await until(lambda: "✗ failed: job 1, elsewhere" in picture(app), "the toast", 20)
        await pilot.pause()


async def test_the_mouse_chooses_and_opens(grid, ann, until):
    for _ in range(3):
        await ann.submit(program("print(1)"))
    async with grid.dashboard() as (app, pilot):
        table = app.desk.jobs.table
        await until(lambda: len(table.keys) == 3, "three", 20)
        await pilot.click(table, offset=(10, 2))
        assert table.key == 2
        assert app.focused is table
        await pilot.click(table, offset=(10, 3), times=2)
        await until(lambda: isinstance(app.screen, JobScreen), "opened", 20)
        await pilot.press("escape")
        await pilot.click("#tabs", offset=(48, 0))
        await pilot.pause()
        assert app.desk.pane("workers").display
