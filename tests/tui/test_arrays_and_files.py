"""Arrays folded and unfolded, and the files that jobs give back, on a real grid."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from gridx.messages import ArrayProgress, ArraySpec, JobState
from gridx.tui import arrays
from gridx.tui.screens.files import FilesScreen
from gridx.tui.screens.job import JobScreen
from tests.tui.conftest import picture, program, shown
from tests.tui.scene import JOBS

ELEMENT = """
import os
n = int(os.environ["GRIDX_INDEX"])
print("element", n, "of", os.environ["GRIDX_COUNT"])
if n == 2:
    raise SystemExit(3)
"""
WRITER = """
from pathlib import Path
Path("out/deep").mkdir(parents=True)
Path("out/a.txt").write_text("first")
Path("out/deep/b.txt").write_text("second")
"""


async def test_an_array_is_one_row_that_unfolds_into_its_elements(grid, ann, until):
    await grid.worker()
    array = await ann.submit(program(ELEMENT, name="sweep", array=ArraySpec(count=4)))
    async with grid.dashboard() as (app, pilot):
        await until(lambda: app.state.link.connected, "connected", 20)
        await shown(app, until, "4/4 sweep")
        pane = app.desk.jobs
        assert pane.table.keys == [array.id]
        await until(lambda: "3 succeeded · 1 failed" in " ".join(picture(app).split()), "the counts", 20)
        await pilot.press("escape", "g")
        await shown(app, until, "An array: u in the list shows its elements.")
        await pilot.press("u")
        await until(lambda: len(pane.table.keys) == 4, "its elements", 20)
        await shown(app, until, "[2] sweep")
        assert [app.state.jobs[key].array_index for key in pane.table.keys] == [0, 1, 2, 3]
        await pilot.press("j", "j")
        await shown(app, until, "element 2 of 4")
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, JobScreen), "its own screen", 20)
        await shown(app, until, f"2 of array {array.id}")
        await pilot.press("escape", "slash", *"state:bad")
        await until(lambda: len(pane.table.keys) == 1, "filtered", 20)
        await pilot.press("escape", "escape")
        await until(lambda: pane.table.keys == [array.id] and pane.job.id == array.id, "folded", 20)


async def test_the_elements_follow_the_array_as_it_goes_on(grid, ann, until):
    array = await ann.submit(program(ELEMENT, name="sweep", array=ArraySpec(count=3)))
    async with grid.dashboard() as (app, pilot):
        await shown(app, until, "0/3 sweep")
        await pilot.press("escape", "g", "u")
        await until(lambda: len(app.desk.jobs.table.keys) == 3, "its elements", 20)
        assert "queued" in picture(app)
        await grid.worker()
        await until(lambda: picture(app).count("✓ succeeded") >= 2 and "✗ failed" in picture(app), "ends", 30)
        await pilot.press("u", "enter")
        await until(lambda: isinstance(app.screen, JobScreen), "the array's screen", 20)
        await shown(app, until, "100%")
        await pilot.press("u")
        await until(lambda: app.desk.jobs.elements.array_id == array.id, "unfolded from there", 20)


async def test_cancelling_an_array_says_what_becomes_of_its_elements(grid, ann, until):
    await ann.submit(program("import time; time.sleep(60)", name="sweep", array=ArraySpec(count=3)))
    async with grid.dashboard() as (app, pilot):
        await shown(app, until, "0/3 sweep")
        await pilot.press("escape", "g", "c")
        await shown(app, until, "0 of its elements run")
        await pilot.press("y")
        await until(lambda: "□ cancelled" in picture(app), "cancelled", 20)


async def test_files_are_listed_and_saved_one_or_all(grid, ann, until, tmp_path):
    await grid.worker()
    job = await ann.submit(program(WRITER, name="writer"))
    await ann.wait(job.id)
    async with grid.dashboard(size=(120, 40)) as (app, pilot):
        await shown(app, until, "writer")
        await pilot.press("escape", "g", "enter")
        await shown(app, until, "deep/b.txt")
        await pilot.press("w")
        await until(lambda: isinstance(app.screen, FilesScreen), "the files", 20)
        await shown(app, until, "2 files, 11 B")

        async def into(target) -> None:
            field = app.screen.query_one("#form-path")
            field.value = str(target)
            await pilot.press("enter")

        await pilot.press("enter")
        await shown(app, until, "Save a file")
        await into(tmp_path / "one.txt")
        await until((tmp_path / "one.txt").exists, "saved", 20)
        assert (tmp_path / "one.txt").read_text() == "first"
        await until(lambda: isinstance(app.screen, FilesScreen), "back at the files", 20)
        await pilot.press("enter")
        await into(tmp_path / "one.txt")
        await shown(app, until, "exists already")
        await pilot.press("escape", "a")
        await shown(app, until, "Save what job")
        await into(tmp_path / "all")
        await until(lambda: (tmp_path / "all" / "deep" / "b.txt").exists(), "all saved", 20)
        assert (tmp_path / "all" / "a.txt").read_text() == "first"


async def test_a_job_without_files_says_so(grid, ann, until):
    job = await ann.submit(program("print(1)"))
    async with grid.dashboard() as (app, pilot):
        await until(lambda: job.id in app.state.jobs, "the job", 20)
        await pilot.press("escape", "g", "enter")
        await until(lambda: isinstance(app.screen, JobScreen) and app.screen._full, "its screen", 20)
        await pilot.press("w")
        await shown(app, until, "gave back no files")


def test_the_pace_of_an_array_is_told_in_the_unit_that_fits():
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def said(ended: int, count: int, seconds: float) -> str:
        progress = ArrayProgress(count, count - ended, 0, succeeded=ended, failed=0, cancelled=0)
        return arrays.pace(replace(JOBS[0], array=progress, started_at=now - timedelta(seconds=seconds)), now)

    assert said(50, 100, 10) == "5.0/s, 10s left"
    assert said(10, 20, 60) == "10.0/min, 1m 00s left"
    assert said(1, 3, 7200) == "0.5/h, 4h 00m left"
    assert said(0, 3, 7200) == ""
    ended = replace(JOBS[0], state=JobState.SUCCEEDED)
    assert arrays.pace(ended, now) == "" and arrays.note(ended, now) == arrays.parts(ended.array)
