"""Names, output and errors that want to be markup, escape sequences or a broken layout."""

from __future__ import annotations

import re

from kit.tricks import texts
from msgspec.structs import replace
from rich.cells import cell_len

from gridx.messages import MachineSample, Offer, Worker
from tests.tui.conftest import picture, program

NAMES = (
    "[/b]",
    "[/",
    "[red]x",
    "[@click=app.quit]x[/]",
    "[TODO] \\[b]",
    "\u202eevil\u202c",
    "a\u200b\u200db",
    "e" + "\u0301" * 150,
    "日本語の名前です" * 8,
    "$error {0} %s",
    "👩‍👩‍👧‍👦 family",
)
BAD = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b-\u200f]")


def check(app, size: tuple[int, int]) -> str:
    """The picture; it holds no character that a terminal obeys, and each line is as wide as the terminal."""
    shown = picture(app)
    assert not BAD.search(shown)
    for line in shown.splitlines():
        assert cell_len(line) == size[0]
    return shown


async def test_names_are_only_names(grid, ann, until):
    size = (120, 40)
    for name in NAMES:
        await ann.submit(program("print(1)", name=name, args=[name]))
    async with grid.dashboard(size=size) as (app, pilot):
        table = app.desk.jobs.table
        await until(lambda: len(table.keys) == len(NAMES), "the jobs", 20)
        for number, name in enumerate(NAMES, 1):
            offer = Offer(cpu_millis=1000, memory_mb=100, warnings=[name])
            app.state.put_worker(
                Worker(id=number, name=name, owner=name, state="unready", state_reason=name, offer=offer)
            )
            changed = replace(app.state.jobs[number], worker_name=name, owner=name, reason=name)
            app.state.put_jobs([changed])
            app.tell(f"toast {name}")
        app.changed()
        await pilot.press("escape")
        for number in range(1, len(NAMES) + 1):
            table.select(number)
            await pilot.pause()
            check(app, size)
        for number in (1, 4, 6, 8):
            table.select(number)
            for keys in (("enter",), ("escape", "c"), ("escape", "5", "p"), ("escape", "j", "1")):
                await pilot.press(*keys)
                check(app, size)
        await pilot.press("1", "slash", *"[/b]")
        check(app, size)
        assert app.is_running


async def test_anything_that_anybody_says_is_only_text_in_every_pane(grid, ann, until):
    """As it would be if no coordinator had looked at it before."""
    size = (160, 50)
    said = texts(7, 9)
    for number in range(20):
        await ann.submit(program("print(1)", name=f"job {number}"))
    async with grid.dashboard(size=size) as (app, pilot):
        table = app.desk.jobs.table
        await until(lambda: len(table.keys) == 20, "the jobs", 20)
        for start in range(0, len(said), 20):
            for number, text in enumerate(said[start : start + 20], 1):
                offer = Offer(cpu_millis=1000, memory_mb=100, warnings=[text], rules=[text])
                app.state.put_worker(
                    Worker(
                        id=number,
                        name=text,
                        owner=text,
                        state="unready",
                        state_reason=text,
                        offer=offer,
                        version=text,
                    )
                )
                told = {"name": text, "owner": text, "worker_name": text, "reason": text}
                app.state.put_jobs([replace(app.state.jobs[number], **told)])
                app.tell(f"toast {text}")
            app.changed()
            await pilot.press("escape")
            for number in (1, 5, 9, 13, 17, 20):
                table.select(number)
                await pilot.pause()
                check(app, size)
            for keys in (("enter",), ("escape", "4"), ("z",), ("escape", "5"), ("6",), ("7",), ("1",)):
                await pilot.press(*keys)
                await pilot.pause()
                check(app, size)
            await pilot.press("escape", "escape")
        assert app.is_running


async def test_output_cannot_reach_the_terminal(grid, ann, until):
    await grid.worker()
    code = r"""
import sys
w = sys.stdout.buffer.write
w(b"\x1b]52;c;ZXZpbA==\x07one\n\x1b]0;title\x07\x1b[2Jtwo\n\x1b[6n\x1bP1$r\x1b\\three\n\x9b31mfour\x00\x08\x7f\n")
w("\u202efive\u202c\n".encode() + b"\xff\xfe six\n" + b"[/b] [@click=app.quit]seven[/]\n")
w(b"a" + "\u0301".encode() * 10000 + b" eight\n")
sys.stderr.buffer.write(b"[/red] \x1b[31mnine\n")
"""
    job = await ann.submit(program(code, name="evil"))
    await ann.wait(job.id)
    async with grid.dashboard() as (app, _pilot):
        await until(lambda: "nine" in picture(app), "the output", 20)
        shown = check(app, (120, 40))
        for word in (
            "one",
            "two",
            "three",
            "five",
            "six",
            "[/b] [@click=app.quit]seven[/]",
            "eight",
            "[/red] nine",
        ):
            assert word in shown, word


async def test_a_program_of_somebody_else_is_shown_without_what_it_hides(grid, ann, until):
    await ann.submit(program("x = 1  # \u202e \x1b[2J [/b] hidden"))
    async with grid.dashboard() as (app, pilot):
        await until(lambda: app.desk.jobs.table.keys, "the job", 20)
        await pilot.press("escape", "enter")
        await until(lambda: "hidden" in picture(app), "the program", 20)
        check(app, (120, 40))
        await pilot.press("e")
        await until(lambda: app.screen is app.desk and "cannot be shown" in picture(app), "said so", 20)
        check(app, (120, 40))


async def test_refusals_that_quote_what_was_typed_are_only_text(grid, until):
    async with grid.dashboard() as (app, _pilot):
        await until(lambda: app.state.link.connected, "connected", 20)
        app.desk.submit.field("cpus").value = "[/b][@click=app.quit]1[/]"
        await until(lambda: "'[/b][@click=app.quit]1[/]' is not" in picture(app), "refused", 20)
        check(app, (120, 40))


async def test_absurd_samples_do_not_break_the_monitor(grid, until):
    async with grid.dashboard(size=(200, 60)) as (app, pilot):
        await until(lambda: app.state.link.connected, "connected", 20)
        sample = MachineSample(
            cpu_percent=[100.0] * 4096,
            load=1e15,
            memory_used_bytes=2**53,
            memory_total_bytes=0,
            swap_used_bytes=2**53,
            disk_used_bytes=2**53,
            disk_total_bytes=1,
            disk_read_bps=1e15,
            disk_write_bps=1e15,
            net_rx_bps=1e15,
            net_tx_bps=1e15,
            gpus=[],
        )
        app.state.put_worker(
            Worker(id=2, name="liar", owner="x", state="online", sample=sample, earned=2**53)
        )
        app.changed()
        await pilot.press("escape", "4", "G")
        await pilot.pause(0.5)
        check(app, (200, 60))
        await pilot.press("z", "5")
        await pilot.pause(0.3)
        check(app, (200, 60))
