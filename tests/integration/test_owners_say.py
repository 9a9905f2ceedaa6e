"""An owner's say over a machine, with real processes and real jobs: as the owner would type it."""

from __future__ import annotations

import json
import stat

from conftest import wait_for

from gridx.control import CONTROL_FILE

SLEEPER = "import time; print('begun', flush=True); time.sleep(600)"


def submit(grid, *args: str) -> str:
    return str(json.loads(grid.gridx("submit", "--json", *args, user="ann").stdout)["id"])


def job(grid, id: str) -> dict:
    return json.loads(grid.gridx("show", id, "--json", user="ann").stdout)


def fleet(grid) -> dict[str, dict]:
    found = json.loads(grid.gridx("workers", "--json", user="ann").stdout)["workers"]
    return {worker["name"]: worker for worker in found}


def here(grid, name: str, *args: str, **options):
    """``gridx worker`` typed at the machine of a worker; it knows no coordinator."""
    folder = str(grid.folder / f"worker-{name}")
    return grid.gridx("worker", "--data-dir", folder, *args, GRIDX_COORDINATOR="", **options)


def status(grid, name: str) -> dict:
    return json.loads(here(grid, name, "status", "--json").stdout)


def test_an_owner_takes_the_machine_back_and_the_job_begins_anew_elsewhere(processes):
    grid = processes
    grid.coordinator()
    desk = grid.worker("ann", "desk", GRIDX_WORKER_CPUS="1")
    grid.gridx("login", "ann", user="ann", GRIDX_PASSWORD="correct horse")
    id = submit(grid, "-c", SLEEPER, "--max-attempts", "1")
    wait_for(lambda: "begun" in grid.gridx("output", id, user="ann").stdout, "the job to begin")
    control = grid.folder / "worker-desk" / CONTROL_FILE
    assert stat.S_IMODE(control.stat().st_mode) == 0o600
    assert [held["job_id"] for held in status(grid, "desk")["running"]] == [int(id)]

    grid.worker("ann", "shelf", GRIDX_WORKER_CPUS="1", GRIDX_WORKER_ONLY_USERS="bob")
    said = here(grid, "desk", "pause", "--give-back").stdout
    assert said == "The worker desk is paused: at the machine, by its owner.\n1 job was given back.\n"

    wait_for(lambda: job(grid, id)["worker_name"] == "shelf", "the job to go on elsewhere")
    attempts = job(grid, id)["attempts"]
    assert attempts[0]["state"] == "released"
    assert attempts[0]["reason"] == "its owner wants the machine"
    wait_for(lambda: fleet(grid)["desk"]["state"] == "paused", "everybody to see it")
    assert fleet(grid)["desk"]["state_reason"] == "at the machine, by its owner"
    shown = grid.gridx("workers", "show", str(fleet(grid)["shelf"]["id"]), user="ann").stdout
    assert "jobs of its owner and of bob only" in shown
    listed = grid.gridx("workers", user="ann").stdout
    assert f"Worker {fleet(grid)['shelf']['id']} (shelf): jobs of its owner and of bob only" in listed
    assert "paused" in listed and "at the machine, by its owner" in listed

    # The pause outlives the worker's process; a resume from the shell elsewhere ends it.
    assert desk.stop() == 0
    assert not control.exists()
    done = here(grid, "desk", "status", check=False)
    assert done.returncode == 2
    assert "No worker runs on this machine" in done.stderr
    desk = grid.worker("ann", "desk", GRIDX_WORKER_CPUS="1")
    assert status(grid, "desk")["state"] == "paused"
    grid.gridx("workers", "resume", str(fleet(grid)["desk"]["id"]), user="ann")
    wait_for(lambda: status(grid, "desk")["state"] == "online", "the worker to open")

    # From elsewhere the same can be had, and the only other machine is closed by then.
    here(grid, "shelf", "pause")
    grid.gridx("workers", "pause", str(fleet(grid)["shelf"]["id"]), "--give-back", user="ann")
    wait_for(lambda: job(grid, id)["worker_name"] == "desk", "the job to come back")
    grid.gridx("cancel", id, user="ann")

    here(grid, "desk", "drain")
    assert desk.process.wait(60) == 0
    assert "drained; leaving the grid" in desk.text


def test_the_owner_is_heard_while_the_coordinator_is_away(processes):
    grid = processes
    coordinator = grid.coordinator()
    grid.worker("ann", "desk", GRIDX_WORKER_DRAIN_S="0.5")
    grid.gridx("login", "ann", user="ann", GRIDX_PASSWORD="correct horse")
    id = submit(grid, "-c", SLEEPER, "--max-attempts", "1")
    wait_for(lambda: "begun" in grid.gridx("output", id, user="ann").stdout, "the job to begin")
    coordinator.kill()
    wait_for(lambda: not status(grid, "desk")["connected"], "the worker to know")
    assert "1 job was given back." in here(grid, "desk", "pause", "--give-back").stdout
    assert status(grid, "desk")["running"] == []

    grid.coordinator()
    wait_for(lambda: status(grid, "desk")["connected"], "the worker to be back")
    # One attempt was allowed, and this one was no failure.
    wait_for(lambda: job(grid, id)["state"] == "queued", "the job to wait again")
    assert [attempt["state"] for attempt in job(grid, id)["attempts"]] == ["released"]
    wait_for(lambda: "paused: at the machine, by its owner" in job(grid, id)["reason"], "the reason")
    here(grid, "desk", "resume")
    wait_for(lambda: len(job(grid, id)["attempts"]) == 2, "the next attempt")


def test_hours_that_are_wrong_are_refused_before_anything_starts(processes):
    grid = processes
    grid.coordinator()
    node = grid.worker("ann", "desk", wait=False, GRIDX_WORKER_HOURS="weekdays 18-8")
    assert node.process.wait(60) == 2
    assert "worker.hours: 'weekdays 18-8' is not understood: weekdays is not a day" in node.text
    assert "mon-fri 18:00-08:00" in node.text
