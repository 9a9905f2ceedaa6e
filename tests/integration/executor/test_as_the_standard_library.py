"""What the standard library says of executors and futures, each a promise that ours keeps."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import subprocess
import sys
import threading
import time

import pytest
from conftest import wait_for

from gridx.executor import JobCancelled, RemoteTraceback
from gridx.messages import JobState


def double(number):
    return 2 * number


def fail(number):
    raise ValueError(number)


def endless():
    time.sleep(3600)


CORES = 2  # of the machine


def test_it_is_an_executor_of_the_standard_library(executor):
    assert isinstance(executor, concurrent.futures.Executor)
    assert isinstance(executor.submit(double, 1), concurrent.futures.Future)


def test_submit_gives_the_value_of_the_call(executor):
    future = executor.submit(pow, 2, exp=5)
    assert future.result(60) == 32
    assert future.done() and not future.running() and not future.cancelled()
    assert future.exception() is None


def test_arguments_may_have_the_names_of_the_parameters_of_submit(executor):
    assert executor.submit(dict, self=1, fn=2).result(60) == {"self": 1, "fn": 2}


def test_an_exception_of_the_call_is_raised_with_its_remote_traceback(executor):
    future = executor.submit(fail, 7)
    error = future.exception(60)
    assert type(error) is ValueError
    assert error.args == (7,)
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "in fail" in str(error.__cause__)
    assert "raise ValueError(number)" in str(error.__cause__)  # the line itself, which lies here alone
    with pytest.raises(ValueError, match="7"):
        future.result()


def test_a_call_that_exits_raises_what_it_exited_with(executor):
    with pytest.raises(SystemExit) as raised:
        executor.submit(sys.exit, 3).result(60)
    assert raised.value.code == 3


def test_result_and_exception_time_out(executor):
    future = executor.submit(endless)
    with pytest.raises(TimeoutError):
        future.result(0.01)
    with pytest.raises(TimeoutError):
        future.exception(0.01)
    assert not future.done()


def test_what_cannot_be_pickled_is_a_failed_future(executor):
    error = executor.submit(double, threading.Lock()).exception(60)
    assert isinstance(error, TypeError)
    assert "pickle" in str(error)


def test_callbacks_are_called_once_also_when_added_late(executor):
    called = []
    future = executor.submit(double, 4)
    future.add_done_callback(called.append)
    future.result(60)
    future.add_done_callback(called.append)
    wait_for(lambda: len(called) == 2, "two callbacks")
    assert called == [future, future]


def test_a_callback_may_submit_and_may_fail(executor):
    more = []
    future = executor.submit(double, 4)
    future.add_done_callback(lambda done: 1 / 0)
    future.add_done_callback(lambda done: more.append(executor.submit(double, done.result())))
    wait_for(lambda: more, "the second call")
    assert more[0].result(60) == 16


# -- waiting ---------------------------------------------------------------------------------------------


def test_wait_for_all(executor):
    futures = [executor.submit(double, number) for number in range(3)]
    done, waiting = concurrent.futures.wait(futures, 60)
    assert done == set(futures)
    assert not waiting


def test_wait_for_the_first(executor):
    slow, quick = executor.submit(endless), executor.submit(double, 1)
    done, waiting = concurrent.futures.wait([slow, quick], 60, concurrent.futures.FIRST_COMPLETED)
    assert done == {quick}
    assert waiting == {slow}


def test_wait_for_the_first_exception(executor):
    slow, bad = executor.submit(endless), executor.submit(fail, 1)
    done, waiting = concurrent.futures.wait([slow, bad], 60, concurrent.futures.FIRST_EXCEPTION)
    assert done == {bad}
    assert waiting == {slow}


def test_wait_counts_what_was_cancelled(executor, busy):
    futures = [executor.submit(double, number) for number in range(3)]
    assert all(future.cancel() for future in futures)
    done, _ = concurrent.futures.wait(futures, 60)
    assert done == set(futures)


def test_as_completed_gives_each_as_it_ends(executor):
    slow = executor.submit(endless)
    futures = [executor.submit(double, number) for number in range(4)]
    seen = concurrent.futures.as_completed([slow, *futures], 60)
    assert {next(seen) for _ in futures} == set(futures)


def test_as_completed_times_out(executor):
    with pytest.raises(TimeoutError):
        list(concurrent.futures.as_completed([executor.submit(endless)], 0.05))


# -- cancelling ------------------------------------------------------------------------------------------


def test_a_call_that_waits_is_cancelled_and_so_is_its_job(executor, busy):
    future = executor.submit(double, 1)
    wait_for(lambda: future.job_id, "the job")
    assert future.cancel()
    assert future.cancelled() and future.done()
    assert future.cancel()  # again: it is cancelled
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()
    wait_for(lambda: future.job().state is JobState.CANCELLED, "the job to be cancelled")


def test_a_call_that_was_not_sent_yet_is_cancelled_and_runs_nowhere(executor, busy, ann):
    future = executor.submit(double, 1)
    assert future.cancel()
    executor.shutdown()
    assert not ann.jobs(JobState.QUEUED)


def test_a_call_that_runs_is_not_cancelled(executor, ann):
    future = executor.submit(endless)
    wait_for(future.running, "the call to run")
    assert not future.cancel()
    assert future.running()
    assert ann.ask(lambda grid: grid.job(future.job_id)).state is JobState.RUNNING


def test_a_call_that_ended_is_not_cancelled(executor):
    future = executor.submit(double, 1)
    future.result(60)
    assert not future.cancel()
    assert not future.stop()


def test_stop_ends_a_call_that_runs(executor):
    future = executor.submit(endless)
    wait_for(future.running, "the call to run")
    assert future.stop()
    error = future.exception(60)
    assert isinstance(error, JobCancelled)
    assert isinstance(error, concurrent.futures.CancelledError)


# -- shutdown --------------------------------------------------------------------------------------------


def test_a_shutdown_waits_for_every_call(executor):
    futures = [executor.submit(double, number) for number in range(5)]
    executor.shutdown()
    assert all(future.done() for future in futures)
    assert [future.result() for future in futures] == [0, 2, 4, 6, 8]


def test_a_shutdown_without_waiting_lets_the_calls_end(executor):
    future = executor.submit(double, 3)
    executor.shutdown(wait=False)
    assert future.result(60) == 6


def test_a_shutdown_can_cancel_what_waits(executor):
    running = executor.with_options(cpus=CORES).submit(endless)
    wait_for(running.running, "the call to run")
    waiting = [executor.submit(double, number) for number in range(3)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in waiting)
    assert not running.done()
    running.stop()
    executor.shutdown()
    assert isinstance(running.exception(), JobCancelled)


@pytest.mark.parametrize("use", [lambda pool: pool.submit(double, 1), lambda pool: pool.map(double, [1])])
def test_nothing_is_taken_after_the_shutdown(executor, use):
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        use(executor)


def test_a_second_shutdown_does_nothing(executor):
    executor.submit(double, 1)
    executor.shutdown()
    executor.shutdown(cancel_futures=True)


def test_an_executor_that_was_never_used_shuts_down(executor):
    executor.shutdown()
    assert executor._session._thread is None


def test_as_a_context_manager_it_waits_at_the_end(executor_of):
    with executor_of() as pool:
        future = pool.submit(double, 2)
    assert future.done()
    with pytest.raises(RuntimeError):
        pool.submit(double, 2)


def test_the_end_of_the_block_waits_also_after_an_exception(executor_of):
    with pytest.raises(KeyError), executor_of() as pool:
        future = pool.submit(double, 2)
        raise KeyError
    assert future.result() == 4


def test_calls_end_also_when_their_executor_was_forgotten(ann):
    future = ann.executor().submit(double, 2)
    assert future.result(60) == 4
    future._session.join()  # its thread ends: nobody can submit any more


PROGRAM = """
from gridx import Executor

executor = Executor(cpus=0.5, memory_mb=256)

def slow():
    import time
    time.sleep(0.5)
    return "done"

executor.submit(slow).add_done_callback(lambda future: print(future.result(), flush=True))
"""


def test_the_end_of_the_program_waits_for_its_calls(ann):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "GRIDX_COORDINATOR": ann.url, "GRIDX_TOKEN": ann.token},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"


# -- map -------------------------------------------------------------------------------------------------


def test_map_gives_results_in_order(executor):
    assert list(executor.map(pow, [5, 2, 3], [2, 5, 2])) == [25, 32, 9]


def test_map_ends_with_the_shortest(executor):
    assert list(executor.map(pow, [5, 2, 3], [2])) == [25]
    assert list(executor.map(pow, [], [2])) == []


def test_map_submits_before_anything_is_asked_of_it(executor, busy, ann):
    results = executor.map(double, range(3))
    wait_for(lambda: len(ann.jobs(JobState.QUEUED)) == 3, "three jobs")
    results.close()


def test_map_takes_all_of_its_arguments_at_once(executor):
    numbers = iter(range(5))
    executor.map(double, numbers)
    assert list(numbers) == []


def test_map_with_a_buffer_takes_and_submits_as_results_are_taken(executor):
    taken = []
    numbers = (taken.append(number) or number for number in itertools.count())
    results = executor.map(double, numbers, buffersize=2)
    assert taken == [0, 1]
    assert [next(results) for _ in range(3)] == [0, 2, 4]
    assert taken == [0, 1, 2, 3, 4]
    results.close()


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError)])
def test_a_buffer_has_a_whole_positive_size(executor, size, error):
    with pytest.raises(error):
        executor.map(double, [1], buffersize=size)


def test_map_with_chunks_makes_one_job_of_several_calls(executor, ann):
    named = executor.with_options(name="chunks")
    assert list(named.map(double, range(7), chunksize=3)) == [0, 2, 4, 6, 8, 10, 12]
    assert [job.name for job in ann.jobs()].count("chunks") == 3


def test_a_chunk_has_at_least_one_call(executor):
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(double, [1], chunksize=0)


def test_map_raises_the_first_exception_in_order_and_cancels_the_rest(executor, ann):
    def some(number):
        if number == 1:
            raise KeyError(number)
        if number > 1:
            time.sleep(3600)
        return number

    results = executor.with_options(name="rest").map(some, range(20))
    assert next(results) == 0
    with pytest.raises(KeyError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)
    wait_for(
        lambda: [job.name for job in ann.jobs(JobState.CANCELLED)].count("rest") > 10,
        "the rest to be cancelled",
    )


def test_map_times_out_from_the_call_on(executor):
    def some(number):
        if number:
            time.sleep(3600)
        return number

    results = executor.map(some, [0, 1], timeout=10)
    assert next(results) == 0
    quick = executor.map(some, [1], timeout=0.05)
    with pytest.raises(TimeoutError):
        next(quick)
    results.close()


def test_map_that_is_left_early_cancels_the_rest(executor, ann):
    def some(number):
        if number:
            time.sleep(3600)
        return number

    results = executor.with_options(name="left").map(some, range(20))
    assert next(results) == 0
    results.close()
    wait_for(
        lambda: [job.name for job in ann.jobs(JobState.CANCELLED)].count("left") > 10,
        "the rest to be cancelled",
    )


def test_many_threads_may_submit_at_once(executor):
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        values = list(threads.map(lambda number: executor.submit(double, number).result(60), range(16)))
    assert values == [2 * number for number in range(16)]
