"""Output: live, both streams told apart, followed, searched, copied, saved, whatever its size."""

from __future__ import annotations

import pytest

from tests.tui.conftest import picture, program, shown

CHATTY = """
import sys, time
print("to stdout", flush=True)
print("to stderr", file=sys.stderr, flush=True)
for n in range(200):
    print("line", n, flush=True)
time.sleep(0.2)
print("the end")
"""


async def test_output_is_live_and_its_streams_are_told_apart(grid, ann, until):
    await grid.worker()
    async with grid.dashboard() as (app, _pilot):
        await until(lambda: app.state.link.connected, "connected", 20)
        await ann.submit(
            program(
                "import sys, time; print('one', flush=True); print('two', file=sys.stderr); time.sleep(2)"
            )
        )
        await shown(app, until, "▌ two")
        await shown(app, until, "  one")
        assert not app.state.jobs[1].state.ended
        await shown(app, until, "FOLLOW")


async def test_what_was_written_before_is_read_whole(grid, ann, until):
    await grid.worker()
    job = await ann.submit(program(CHATTY))
    await ann.wait(job.id)
    async with grid.dashboard() as (app, _pilot):
        text = app.desk.output.view.text
        await until(lambda: all(part in text() for part in ("to stdout", "to stderr", "the end")), "all", 20)
        assert [f"line {n}" for n in range(200)] == [
            line for line in text().splitlines() if line.startswith("line")
        ]


async def test_following_stops_when_one_goes_up_and_starts_again_at_the_end(grid, ann, until):
    await grid.worker()
    job = await ann.submit(program(CHATTY + "time.sleep(20)"))
    async with grid.dashboard() as (app, pilot):
        await shown(app, until, "the end")
        await pilot.press("escape", "3", "k")
        await shown(app, until, "PAUSED")
        await pilot.press("g")
        await shown(app, until, "to stdout")
        await pilot.press("f")
        await shown(app, until, "FOLLOW")
        await shown(app, until, "the end")
        await ann.cancel(job.id)


async def test_searching_marks_and_goes_from_place_to_place(grid, ann, until):
    await grid.worker()
    job = await ann.submit(program(CHATTY))
    await ann.wait(job.id)
    async with grid.dashboard() as (app, pilot):
        await shown(app, until, "the end")
        await pilot.press("escape", "3", "slash", *"LINE 12")
        await shown(app, until, "11 lines")
        await pilot.press("enter")
        await shown(app, until, "line 12")
        for _ in range(3):
            await pilot.press("n")
        await shown(app, until, "line 122")
        await pilot.press("escape")
        assert "11 lines" not in picture(app)


async def test_one_stream_alone_can_be_shown(grid, ann, until):
    await grid.worker()
    job = await ann.submit(program("import sys; print('plain'); print('loud', file=sys.stderr)"))
    await ann.wait(job.id)
    async with grid.dashboard() as (app, pilot):
        await shown(app, until, "loud")
        await pilot.press("escape", "3", "o")
        await until(lambda: "plain" in picture(app) and "▌ loud" not in picture(app), "stdout", 20)
        await pilot.press("o")
        await until(lambda: "▌ loud" in picture(app) and "  plain" not in picture(app), "stderr", 20)


async def test_output_is_copied_and_saved_as_it_is(grid, ann, until, tmp_path):
    await grid.worker()
    job = await ann.submit(
        program("import sys; sys.stdout.buffer.write(b'a\\xff\\x1b[2Jb\\n'); print(1, file=sys.stderr)")
    )
    await ann.wait(job.id)
    path = tmp_path / "out.txt"
    async with grid.dashboard() as (app, pilot):
        await shown(app, until, "a�b")
        await pilot.press("escape", "3", "y")
        await until(lambda: app.clipboard == "a�b\n", "copied", 20)
        await pilot.press("w")
        await shown(app, until, "Save the output of job 1")
        field = app.screen.query_one("#form-path")
        field.value = str(path)
        await pilot.press("enter")
        await until(path.exists, "saved", 20)
        await until(lambda: app.screen is app.desk, "closed", 20)
        assert path.read_bytes() == b"a\xff\x1b[2Jb\n"
        assert path.with_name("out.txt.err").read_bytes() == b"1\n"
        await pilot.press("w")
        await shown(app, until, "Save the output of job 1")
        app.screen.query_one("#form-path").value = str(path)
        await pilot.press("enter")
        await shown(app, until, "exists already")
        await pilot.press("escape")


async def test_a_job_that_is_tried_again_begins_a_new_part(grid, ann, until):
    agent = await grid.worker(name="first")
    await ann.submit(program("import time; print('begun', flush=True); time.sleep(2)", max_attempts=3))
    async with grid.dashboard() as (app, _pilot):
        await shown(app, until, "begun")
        await grid.worker(name="second")
        grid.agents.remove(agent)
        await agent.stop(drain=False)
        await shown(app, until, "attempt 2")
        await until(lambda: app.desk.output.view.text().count("begun") == 2, "the second", 30)


@pytest.mark.parametrize(
    "code",
    ["for n in range(100_000): print('row', n)", "print('x' * 900_000)"],
    ids=["100,000 lines", "a line of 900 kB"],
)
async def test_much_output_does_not_stop_the_screen(grid, ann, until, code):
    await grid.worker()
    async with grid.dashboard() as (app, pilot):
        await until(lambda: app.state.link.connected, "connected", 20)
        await ann.submit(program(code))
        await until(lambda: 1 in app.state.jobs and app.state.jobs[1].state.ended, "ended", 40)
        await shown(app, until, "✓ succeeded ·")
        await pilot.press("escape", "3", "g", "pagedown", "G")
        assert len(app.desk.output.view.lines) <= 20_000
