"""Monitor, workers, ledger and log."""

from __future__ import annotations

import logging

from msgspec.structs import replace

from gridx.errors import Unreachable
from gridx.messages import Gpu, GpuSample, MachineSample, Offer, Worker
from gridx.tui.here import Here
from gridx.tui.machine import draw
from gridx.tui.screens.confirm import ConfirmScreen
from gridx.tui.state import History
from tests.tui.conftest import picture, program, shown

SAMPLE = MachineSample(
    cpu_percent=[10.0, 90.0, 50.0, 0.0],
    load=1.5,
    memory_used_bytes=3 << 30,
    memory_total_bytes=8 << 30,
    swap_used_bytes=0,
    disk_used_bytes=20 << 30,
    disk_total_bytes=100 << 30,
    disk_read_bps=1e6,
    disk_write_bps=0,
    net_rx_bps=5e6,
    net_tx_bps=1e3,
    gpus=[],
)


def plain(lines) -> str:
    return "\n".join("".join(part.text for part in line) for line in lines)


def test_a_machine_without_a_gpu_has_one_quiet_line_about_it():
    text = plain(draw(SAMPLE, History(), 60))
    assert [line for line in text.splitlines() if "gpu" in line] == ["gpu     none"]
    assert " 38% load 1.50" in text and "3.00 GiB of 8.00 GiB" in text


def test_each_gpu_has_load_memory_temperature_and_power_as_far_as_it_tells():
    gpus = [
        GpuSample("GPU-1", "H100", 75.0, 10 << 30, 80 << 30, 61.0, 412.0),
        GpuSample("GPU-2", "Old [b]card", None, None, None, None, None),
    ]
    text = plain(draw(replace(SAMPLE, gpus=gpus), History(), 70))
    assert "H100" in text and "75%" in text and "10.0 GiB of 80.0 GiB" in text
    assert "61 °C" in text and "412 W" in text
    assert "Old [b]card tells nothing of itself" in " ".join(text.split())
    text = plain(draw(replace(SAMPLE, gpus=gpus), History(), 70, room=12))
    assert "H100 · 61 °C · 412 W" in text


async def test_the_monitor_shows_this_machine_and_every_worker(grid, until):
    await grid.worker(name="lab-one")
    async with grid.dashboard(size=(200, 60)) as (app, _pilot):
        await until(lambda: "memory" in picture(app) and "GiB of" in picture(app), "this machine", 20)
        await until(lambda: picture(app).count("lab-one") >= 2, "the worker", 20)
        await shown(app, until, "this machine")


async def test_a_sample_that_is_old_is_called_stale(grid, until):
    async with grid.dashboard(size=(200, 60)) as (app, pilot):
        await until(lambda: app.state.link.connected, "connected", 20)
        app.state.put_worker(Worker(id=7, name="quiet", owner="ann", state="online", sample=SAMPLE))
        app.changed()
        await until(lambda: "quiet" in picture(app), "the worker", 20)
        app.state.machines[7].sampled_at -= 30
        await pilot.pause(1.1)
        await until(lambda: "stale 3" in picture(app), "stale", 20)


async def test_workers_show_what_they_offer_and_what_is_wrong(grid, until):
    await grid.worker(name="lab-one")
    async with grid.dashboard(size=(200, 60)) as (app, pilot):
        await until(lambda: app.state.machines, "the worker", 20)
        offer = Offer(
            cpu_millis=8000,
            memory_mb=16384,
            gpus=[Gpu("GPU-1", "H100", 81920)],
            warnings=["no container engine"],
            sandbox="process",
            isolated=False,
        )
        app.state.put_worker(
            Worker(
                id=9,
                name="gpu-box",
                owner="bob",
                state="unready",
                state_reason="engine gone",
                offer=offer,
                jobs=[3],
            )
        )
        app.changed()
        await pilot.press("escape", "5", "z")
        await until(lambda: "gpu-box !" in picture(app), "the second", 20)
        shown = picture(app)
        assert "● online" in shown and "▲ unready" in shown and "16.0 GiB" in shown and "1/2" not in shown
        app.desk.pane("workers").table.select(9)
        await pilot.pause()
        shown = picture(app)
        assert (
            "no wall" in shown
            and "! no container engine" in shown
            and "engine gone" in shown
            and "GPU H100" in shown
        )


async def test_pause_and_drain_ask_and_resume_does_not(grid, until):
    await grid.worker(name="lab-one")
    async with grid.dashboard() as (app, pilot):
        await until(lambda: app.state.machines, "the worker", 20)
        await pilot.press("escape", "5", "p")
        await until(lambda: isinstance(app.screen, ConfirmScreen), "the question", 20)
        await shown(app, until, "Pause worker 1, lab-one?")
        await pilot.press("y")
        await until(lambda: app.state.machines[1].worker.state == "paused", "paused", 20)
        await until(lambda: "□ paused" in picture(app), "shown", 20)
        await pilot.press("r")
        await until(lambda: app.state.machines[1].worker.state == "online", "resumed", 20)
        await pilot.press("b")
        await shown(app, until, "Take worker 1, lab-one, back now?")
        await pilot.press("y")
        await until(lambda: app.state.machines[1].worker.state == "paused", "paused again", 20)
        await pilot.press("r")
        await until(lambda: app.state.machines[1].worker.state == "online", "resumed again", 20)
        await pilot.press("d")
        await until(lambda: isinstance(app.screen, ConfirmScreen), "the question", 20)
        await pilot.press("escape")
        await pilot.pause()
        assert app.state.machines[1].worker.state == "online"


async def test_the_worker_of_this_process_is_steered_without_the_coordinator(grid, until):
    agent = await grid.worker(name="lab-one")
    here = Here(worker_id=lambda: agent.worker_id, order=agent.obey)
    async with grid.dashboard(here=here) as (app, pilot):
        await until(lambda: app.state.machines, "the worker", 20)

        async def unreachable(*args: object, **more: object):
            raise Unreachable("Nothing answers.")

        for deed in ("pause_worker", "resume_worker", "drain_worker"):
            setattr(app.client, deed, unreachable)
        await pilot.press("escape", "5", "b")
        await shown(app, until, "Take worker 1, lab-one, back now?")
        await pilot.press("y")
        await until(lambda: agent.standing.paused_here, "the worker to be paused", 20)
        await shown(app, until, "paused: at the machine, by its owner")
        await pilot.press("r")
        await until(lambda: agent.standing.state == "online", "the worker to take jobs", 20)
        await until(lambda: app.state.machines[1].worker.state == "online", "resumed", 20)


async def test_the_ledger_shows_balance_entries_and_what_they_were_for(grid, ann, until):
    await grid.worker("bob", "lab")
    job = await ann.submit(program("print(1)"))
    async with grid.dashboard() as (app, pilot):
        await until(lambda: app.state.link.connected, "connected", 20)
        await ann.cancel(job.id)
        await pilot.press("escape", "6")
        await until(lambda: "release" in picture(app), "the entries", 20)
        shown = picture(app)
        assert "balance 100" in shown and "sign-up grant" in shown and "hold" in shown
        await pilot.press("slash", *"grant")
        await until(lambda: len(app.desk.pane("ledger").table.keys) == 1, "filtered", 20)
        await pilot.press("escape")
        assert len(app.desk.pane("ledger").table.keys) == 3


async def test_credits_are_transferred_and_refusals_are_said_in_the_form(grid, until):
    await grid.token("bob")
    async with grid.dashboard() as (app, pilot):

        async def send(to: str, amount: str) -> None:
            for name, value in (("to", to), ("amount", amount)):
                app.screen.query_one(f"#form-{name}").value = value
            app.screen.query_one("#form-note").focus()
            await pilot.press("enter")

        await until(lambda: app.state.link.connected, "connected", 20)
        await pilot.press("escape", "6", "x")
        await until(lambda: "Transfer credits" in picture(app), "the form", 20)
        await send("bob", "lots")
        await until(lambda: "'lots' is not an amount" in picture(app), "no amount", 20)
        assert app.focused.id == "form-amount"
        await send("bob", "1000")
        await until(lambda: "1,000" in picture(app) or "are missing" in picture(app), "too much", 20)
        await send("nobody", "1")
        await until(lambda: "no user nobody" in picture(app), "nobody", 20)
        await send("bob", "2.5")
        await until(lambda: "2.5 credits went to bob" in picture(app), "done", 20)
        await until(lambda: "balance 97.5" in picture(app), "the balance", 20)


async def test_an_admin_sees_all_accounts_and_the_audits_verdict(grid, until):
    await grid.token("ann")
    await grid.token("bob")
    async with grid.dashboard("ann", role="viewer", size=(120, 40)) as (app, pilot):
        await until(lambda: app.state.link.connected, "connected", 20)
        assert app.state.admin
        await pilot.press("6", "a")
        await until(lambda: "bob" in picture(app), "the accounts", 20)
        await shown(app, until, "3 accounts")
        await pilot.press("v")
        await until(lambda: "The audit finds no difference" in picture(app), "the verdict", 20)


async def test_beside_a_coordinator_accounts_are_shown_and_looked_after(grid, until):
    await grid.token("ann")
    async with grid.dashboard("ann", role="coordinator", size=(200, 60)) as (app, pilot):
        await shown(app, until, "2 accounts")
        await shown(app, until, "joined")

        async def fill(*values: str) -> None:
            for value in values:
                await pilot.press(*value, "enter")

        await pilot.press("6", "n")
        await shown(app, until, "New user")
        await fill("zoe", "a long secret", "another one")
        await shown(app, until, "not the same")
        await pilot.press(*["backspace"] * 11)
        await fill("a long secret")
        await shown(app, until, "3 accounts")
        ledger = app.desk.pane("ledger")
        ledger.table.select("zoe")
        before = ledger.balances["zoe"].balance
        await pilot.press("m")
        await shown(app, until, "Grant credits to zoe")
        await fill("2.5", "a start")
        await until(lambda: ledger.balances["zoe"].balance == before + 2_500_000, "granted", 20)
        await pilot.press("d")
        await shown(app, until, "Close the account of zoe?")
        await pilot.press("y")
        await shown(app, until, "zoe (closed)")
        await pilot.press("d")
        await until(lambda: not ledger.users["zoe"].disabled, "open again", 20)
        await pilot.press("w")
        await shown(app, until, "New password for zoe")
        await fill("a new secret", "a new secret")
        await shown(app, until, "zoe has a new password.")


async def test_who_is_no_admin_is_offered_nothing_of_accounts(grid, ann, until):
    session = await ann.register("bob", "a long secret")
    grid.tokens["bob"] = session.token
    async with grid.dashboard("bob", role="viewer") as (app, pilot):
        await until(lambda: app.state.link.connected, "connected", 20)
        await pilot.press("6", "a", "n", "m")
        await shown(app, until, "Only an administrator")
        assert app.screen is app.desk


async def test_the_log_is_shown_by_level_and_searched(grid, until):
    log = logging.getLogger("gridx.test")
    async with grid.dashboard() as (app, pilot):
        log.warning("something [b]odd[/] \x1b]0;title\x07 happened")
        await pilot.press("escape", "7")
        await until(
            lambda: "W " in picture(app) and "something [b]odd[/]  happened" in picture(app), "the line", 20
        )
        await shown(app, until, "info and above")
        await pilot.press("v", "v")
        await until(lambda: "error and above" in picture(app), "errors only", 20)
        assert "something" not in app.desk.pane("log").view.text()
        await pilot.press("v", "v", "slash", *"ODD")
        await until(lambda: "1 lines" in picture(app), "found", 20)
