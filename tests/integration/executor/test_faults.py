"""Calls on a real grid of which parts die: each future has a result all the same."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest
from conftest import wait_for

from gridx.client import Client
from gridx.executor import Executor, JobLost, JobOutOfMemory, JobTimedOut


@pytest.fixture
def grid(processes):
    processes.coordinator(GRIDX_COORDINATOR_LEASE_S="4", GRIDX_COORDINATOR_HEARTBEAT_S="0.5")
    processes.worker("ann", "desk")
    return processes


def executor(grid, **options) -> Executor:
    async def sign_in() -> str:
        async with Client(grid.http_url) as client:
            return (await client.login("ann", "correct horse")).token

    small = {"cpus": 0.1, "memory_mb": 128, "timeout_s": 120}
    return Executor(grid.http_url, token=asyncio.run(sign_in()), **{**small, **options})


def late(number):
    time.sleep(1)
    return number


def test_calls_go_on_over_the_death_of_the_coordinator(grid):
    with executor(grid) as pool:
        futures = [pool.submit(late, number) for number in range(4)]
        wait_for(lambda: any(future.running() for future in futures), "a call to run")
        grid.nodes[0].kill()
        more = [pool.submit(late, number) for number in range(4, 6)]
        grid.coordinator(GRIDX_COORDINATOR_LEASE_S="4", GRIDX_COORDINATOR_HEARTBEAT_S="0.5")
        assert [future.result(120) for future in (*futures, *more)] == list(range(6))


def test_a_call_whose_machine_dies_runs_on_another(grid):
    def elsewhere():
        if os.environ["GRIDX_ATTEMPT"] == "1":
            time.sleep(3600)
        return os.environ["GRIDX_ATTEMPT"]

    with executor(grid) as pool:
        future = pool.submit(elsewhere)
        wait_for(future.running, "the call to run")
        grid.nodes[1].kill()
        grid.worker("ann", "other")
        assert int(future.result(120)) > 1


def test_a_call_whose_every_machine_dies_is_lost(grid):
    with executor(grid, max_attempts=1) as pool:
        future = pool.submit(time.sleep, 3600)
        wait_for(future.running, "the call to run")
        grid.nodes[1].kill()
        error = future.exception(120)
        assert isinstance(error, JobLost)
        assert error.job_id == future.job_id


def test_a_call_that_takes_too_long_says_so(grid):
    with executor(grid, timeout_s=1) as pool:
        assert isinstance(pool.submit(time.sleep, 3600).exception(120), JobTimedOut)


def test_a_call_that_fails_is_tried_again_as_often_as_asked(grid):
    def moody():
        if os.environ["GRIDX_ATTEMPT"] != "3":
            raise OSError("not yet")
        return "now"

    with executor(grid, retries=2, retry_delay_s=0) as pool:
        assert pool.submit(moody).result(120) == "now"
        with pytest.raises(ZeroDivisionError):
            pool.with_options(retries=1).submit(lambda: 1 / 0).result(120)


@pytest.mark.engine
def test_a_call_that_needs_too_much_memory_says_so(processes):
    processes.coordinator()
    processes.worker("ann", "desk", GRIDX_WORKER_SANDBOX="docker", GRIDX_WORKER_WARM="0")
    with executor(processes) as pool:
        error = pool.submit(lambda: len(b"x" * (1 << 30))).exception(120)
        assert isinstance(error, JobOutOfMemory)
        assert "128 MiB" in error.message


def test_nothing_is_left_of_a_threads_work_when_an_executor_ends(grid):
    before = threading.active_count()
    with executor(grid) as pool:
        pool.submit(abs, -1).result(120)
    wait_for(lambda: threading.active_count() <= before, "its thread to end")
