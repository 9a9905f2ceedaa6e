"""However a call ends, and whatever goes away meanwhile, its future gets a result that says so."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest
from conftest import wait_for
from kit.pretended import jobs_of

from gridx.errors import (
    Forbidden,
    InsufficientCredits,
    InvalidField,
    NotFound,
    TooMany,
    Unauthenticated,
    Unreachable,
    Unschedulable,
)
from gridx.executor import (
    Executor,
    JobCancelled,
    JobFailed,
    JobLost,
    JobOutOfMemory,
    JobTimedOut,
    RemoteError,
    ResultMissing,
    UntrustedResult,
    desk,
)
from gridx.executor.results import with_sources
from gridx.messages import JobState, LeftFile, Runtime


class Strange(Exception):
    def __init__(self, one, two):
        super().__init__("only one")  # pickled, it cannot be made again


class Point:
    def __init__(self, x):
        self.x = x


def double(number):
    return 2 * number


def endless():
    time.sleep(3600)


# -- ends ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (JobState.TIMED_OUT, JobTimedOut),
        (JobState.OUT_OF_MEMORY, JobOutOfMemory),
        (JobState.LOST, JobLost),
        (JobState.CANCELLED, JobCancelled),
    ],
)
def test_each_end_of_a_job_is_an_exception_of_its_own(executor, pretended, state, error):
    pretended.holding = True
    future = executor.submit(double, 1)
    wait_for(lambda: future.job_id, "the job")
    pretended.end(future.job_id, state)
    raised = future.exception(60)
    assert type(raised) is error
    assert str(future.job_id) in raised.message
    assert raised.hint
    assert raised.job_id == future.job_id


def test_a_process_that_ends_by_itself_says_how_and_what_it_wrote(executor):
    def crash():
        os.write(2, b"last words\x1b[2J")
        os._exit(9)

    error = executor.submit(crash).exception(60)
    assert isinstance(error, JobFailed)
    assert "exit code 9" in error.message
    assert "last words" in str(error.__cause__)
    assert "\x1b" not in str(error.__cause__)


def test_a_process_that_is_killed_says_by_what(executor):
    error = executor.submit(lambda: os.kill(os.getpid(), signal.SIGSEGV)).exception(60)
    assert isinstance(error, JobFailed)
    assert "signal 11" in error.message


def test_a_result_that_cannot_be_pickled_is_a_failure_with_a_text_traceback(executor):
    error = executor.submit(threading.Lock).exception(60)
    assert isinstance(error, ResultMissing)
    assert "_thread.lock" in error.message
    assert "Traceback" in str(error.__cause__)


def test_a_traceback_from_elsewhere_says_nothing_of_files_that_are_not_the_programs():
    told = with_sources(f'  File "/etc/passwd", line 1, in x\n  File "{__file__}", line 1, in y\n')
    assert "root" not in told
    assert "However a call ends" in told


def test_an_exception_that_cannot_be_brought_back_is_told_as_text(executor):
    def strange():
        raise Strange(1, 2)

    error = executor.submit(strange).exception(60)
    assert isinstance(error, RemoteError)
    assert "Strange: only one" in error.message
    assert "in strange" in str(error.__cause__)


def test_an_exception_that_cannot_be_pickled_is_told_as_text(executor):
    def strange():
        raise ValueError(threading.Lock())

    error = executor.submit(strange).exception(60)
    assert isinstance(error, RemoteError)
    assert error.message.startswith("ValueError: ")


def test_an_exception_without_a_text_is_told_all_the_same(executor):
    def strange():
        class Mute(Exception):
            def __str__(self):
                raise KeyError

        raise Mute(threading.Lock())

    assert isinstance(executor.submit(strange).exception(60), RemoteError)


def test_a_result_over_a_limit_says_which(executor, pretended):
    pretended.holding = True
    future = executor.submit(double, 1)
    wait_for(lambda: future.job_id, "the job")
    pretended.left[future.job_id] = [LeftFile(path="gridx-result", why="the owner's quota is full")]
    pretended.end(future.job_id, JobState.SUCCEEDED)
    error = future.exception(60)
    assert isinstance(error, ResultMissing)
    assert "the owner's quota is full" in error.message


@pytest.mark.parametrize("result", [b"", b"no JSON\n", b"[]\n", b'{"kind":"value"}\nno pickle'])
def test_a_result_that_is_none_is_a_failure(executor, pretended, result):
    pretended.holding = True
    future = executor.submit(double, 1)
    wait_for(lambda: future.job_id, "the job")
    pretended.outs[future.job_id] = {"gridx-result": result}
    pretended.end(future.job_id, JobState.SUCCEEDED, files=1)
    assert isinstance(future.exception(60), ResultMissing)


# -- whose machine ---------------------------------------------------------------------------------------


def test_a_machine_of_others_may_send_data_and_what_went_out(executor, pretended):
    pretended.owner = "bob"
    assert executor.submit(lambda: {"a": [1, 2.5, None, b"x", {3}]}).result(60) == {
        "a": [1, 2.5, None, b"x", {3}]
    }
    point = executor.submit(lambda: Point(3)).result(60)
    assert type(point) is Point
    assert point.x == 3
    with pytest.raises(ZeroDivisionError):
        executor.submit(lambda: 1 / 0).result(60)


def test_a_machine_of_others_may_send_no_more(executor, executor_of, pretended):
    pretended.owner = "bob"

    def pattern():
        return re.compile("x")

    error = executor.submit(pattern).exception(60)
    assert isinstance(error, UntrustedResult)
    assert "re._compile" in error.message
    assert "trust=['bob']" in error.hint
    assert executor_of(trust=["Bob"]).submit(pattern).result(60).pattern == "x"
    assert executor_of(trust="everybody").submit(pattern).result(60).pattern == "x"


def test_ones_own_machine_may_send_anything(executor):
    assert executor.submit(lambda: re.compile("x")).result(60).pattern == "x"


# -- refusals --------------------------------------------------------------------------------------------


def test_a_refused_call_fails_with_what_the_grid_said(executor, pretended):
    pretended.refusals.append(Forbidden("You may not.", "Ask somebody."))
    with pytest.raises(Forbidden, match="You may not"):
        executor.submit(double, 1).result(60)
    assert executor.submit(double, 1).result(60) == 2


def test_one_bad_call_does_not_fail_the_others(executor, pretended):
    pretended.away = True  # so that all four go together
    futures = [executor.submit(double, number) for number in range(4)]
    # The four are refused, then the first two of them, then the first.
    pretended.refusals.extend([Forbidden("No."), Forbidden("No."), Forbidden("No.")])
    pretended.away = False
    assert isinstance(futures[0].exception(60), Forbidden)
    assert [future.result(60) for future in futures[1:]] == [2, 4, 6]


def test_too_little_credit_for_one_call_fails_it(executor, pretended):
    pretended.refusals.append(InsufficientCredits("Too little.", "Ask for less."))
    assert isinstance(executor.submit(double, 1).exception(60), InsufficientCredits)


def test_more_calls_than_there_is_room_for_wait_for_each_other(executor, pretended, caplog):
    pretended.room = 3
    assert list(executor.map(double, range(20))) == [2 * number for number in range(20)]
    assert caplog.text.count("3 jobs may wait at once") == 1
    assert max(pretended.batches) <= 3


def test_a_rate_that_is_too_high_is_waited_out(executor, pretended):
    pretended.refusals.append(TooMany("Slower.", retry_after_s=0.1))
    assert executor.submit(double, 2).result(60) == 4


def test_a_python_that_no_machine_has_is_refused_with_what_there_is(executor, pretended):
    pretended.runtimes = [Runtime(name="default", python="3.99", languages=["python"])]
    error = executor.submit(double, 1).exception(60)
    assert isinstance(error, Unschedulable)
    assert "3.99 (default)" in error.message
    assert not pretended.specs


def test_the_callers_python_goes_with_the_call(executor, pretended):
    executor.submit(double, 1).result(60)
    assert pretended.specs[1].python == pretended.runtimes[0].python


# -- a coordinator that is away --------------------------------------------------------------------------


def test_a_coordinator_that_comes_back_is_asked_what_it_knows(executor, pretended):
    pretended.holding = True
    futures = [executor.submit(double, number) for number in range(8)]
    wait_for(lambda: all(future.job_id for future in futures), "the jobs")
    pretended.leave()
    pretended.start()
    wait_for(lambda: len(jobs_of(pretended, JobState.SUCCEEDED)) == 8, "the jobs to end meanwhile")
    late = executor.submit(double, 50)
    pretended.away = False
    assert [future.result(60) for future in futures] == [2 * number for number in range(8)]
    assert late.result(60) == 100


def test_a_coordinator_that_stays_away_fails_every_call(executor_of, pretended):
    executor = executor_of(patience_s=0.5)
    pretended.holding = True
    sent = [executor.submit(double, number) for number in range(3)]
    wait_for(lambda: all(future.job_id for future in sent), "the jobs")
    pretended.leave()
    late = executor.submit(double, 4)
    for future in (*sent, late):
        error = future.exception(60)
        assert isinstance(error, Unreachable)
        assert "away" in error.message
    pretended.away = pretended.holding = False
    assert executor.submit(double, 5).result(60) == 10


def test_each_future_raises_an_exception_of_its_own(executor_of, pretended):
    executor = executor_of(patience_s=0.2)
    pretended.away = True
    errors = [executor.submit(double, number).exception(60) for number in range(2)]
    assert errors[0] is not errors[1]


def test_a_coordinator_that_never_answered_is_not_waited_for_long(executor, pretended, monkeypatch):
    monkeypatch.setattr(desk, "FIRST_PATIENCE_S", 0.2)
    pretended.away = True
    assert isinstance(executor.submit(double, 1).exception(60), Unreachable)


def test_a_sign_in_that_ended_fails_every_call(executor, pretended):
    pretended.holding = True
    sent = executor.submit(double, 1)
    wait_for(lambda: sent.job_id, "the job")
    pretended.refusals.append(Unauthenticated("Signed out.", "Sign in."))
    late = executor.submit(double, 2)
    assert isinstance(late.exception(60), Unauthenticated)
    assert isinstance(sent.exception(60), Unauthenticated)


def test_the_connection_is_closed_when_nothing_comes_and_opened_again(executor, pretended, monkeypatch):
    monkeypatch.setattr(desk, "IDLE_S", 0.05)
    assert executor.submit(double, 1).result(60) == 2
    wait_for(lambda: executor._session._loop is None, "the connection to be closed")
    assert executor.submit(double, 2).result(60) == 4
    assert pretended.opened == 2


# -- what travels ----------------------------------------------------------------------------------------


def test_calls_that_come_together_go_together(executor, pretended):
    pretended.away = pretended.holding = True
    for number in range(200):
        executor.submit(double, number)
    pretended.away = False
    wait_for(lambda: sum(pretended.batches) == 200, "all of them")
    assert len(pretended.batches) == 1


def test_an_array_goes_once_however_many_calls_share_it(executor, pretended):
    numpy = pytest.importorskip("numpy")
    table = numpy.arange(1 << 17, dtype=float)

    def at(table, place):
        table[0] = 7  # a copy of its own: it may be changed
        return float(table[0] + table[place])

    futures = [executor.submit(at, table, place) for place in range(1, 5)]
    assert [future.result(60) for future in futures] == [8, 9, 10, 11]
    assert len(pretended.uploaded) == 1
    assert len(pretended.specs) == 4
    assert table[0] == 0
    executor.shutdown()
    assert pretended.forgotten == pretended.uploaded


def test_files_that_were_pruned_before_the_submit_are_sent_again(executor, pretended, monkeypatch):
    data = os.urandom(1 << 20)
    pretended.room = 1
    pretended.holding = True
    first = executor.submit(double, 1)
    wait_for(lambda: first.job_id, "the first")
    second = executor.submit(len, data)
    wait_for(lambda: pretended.uploaded, "the upload")
    pretended.now(pretended.prune)
    pretended.start()
    assert second.result(60) == 1 << 20
    assert len(pretended.uploaded) == 2


def test_a_fork_of_the_program_has_an_executor_of_its_own(executor):
    assert executor.submit(double, 1).result(60) == 2
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if executor.submit(double, 2).result(60) == 4 else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert executor.submit(double, 3).result(60) == 6


def test_a_job_that_the_coordinator_forgot_fails_its_call_alone(executor, pretended):
    pretended.holding = True
    lost, kept = executor.submit(double, 1), executor.submit(double, 2)
    wait_for(lambda: lost.job_id and kept.job_id, "the jobs")
    pretended.leave()
    pretended.forget(lost.job_id)
    pretended.start()
    pretended.away = False
    assert isinstance(lost.exception(60), NotFound)
    assert kept.result(60) == 4


def test_arguments_are_as_they_were_at_submit(executor, pretended):
    pretended.holding = True
    items = [1, 2]
    future = executor.submit(len, items)
    items.append(3)
    wait_for(lambda: future.job_id, "the job")
    pretended.start()
    assert future.result(60) == 2


def test_a_large_argument_and_a_large_result_arrive(executor):
    data = os.urandom(3 << 20)
    assert executor.submit(lambda data: data[::-1], data).result(60) == data[::-1]


def test_a_large_result_is_deleted_on_the_grid_once_it_is_here(executor, pretended):
    future = executor.submit(os.urandom, 1 << 20)
    assert len(future.result(60)) == 1 << 20
    wait_for(lambda: pretended.outs[future.job_id] == {}, "the file to be deleted")


def test_a_function_of_map_goes_once(executor, pretended):
    ballast = os.urandom(1 << 20)
    assert list(executor.map(lambda number: number + len(ballast) - (1 << 20), range(5))) == list(range(5))
    assert len(pretended.uploaded) == 1


def test_options_of_a_view_are_those_of_its_jobs(executor_of, pretended, tmp_path):
    (tmp_path / "data.txt").write_text("seven")
    executor = executor_of(memory_mb=256, env={"MODE": "slow"})
    view = executor.with_options(cpus=0.5, gpus=0, timeout_s=60, retries=2, inputs=[tmp_path / "data.txt"])
    read = view.submit(lambda: (Path("data.txt").read_text(), os.environ["MODE"]))
    assert read.result(60) == ("seven", "slow")
    executor.submit(double, 1).result(60)
    first, second = pretended.specs[1], pretended.specs[2]
    assert (first.cpus, first.timeout_s, first.retries, first.memory_mb) == (0.5, 60, 2, 256)
    assert (second.cpus, second.timeout_s, second.retries, second.memory_mb) == (1, 300, 0, 256)
    assert not second.inputs
    view.shutdown()
    with pytest.raises(RuntimeError):
        executor.submit(double, 1)


def test_a_bad_option_is_refused_at_once(executor):
    with pytest.raises(InvalidField, match="cpus"):
        executor.with_options(cpus=-1)
    with pytest.raises(InvalidField, match="nowhere"):
        executor.with_options(inputs=["nowhere.csv"])
    with pytest.raises(TypeError, match="cores"):
        executor.with_options(cores=1)
    with pytest.raises(InvalidField, match="trust"):
        Executor(trust="bob")


def test_a_job_is_named_after_its_function(executor, pretended):
    executor.submit(double, 1).result(60)
    assert pretended.specs[1].name == "double"


# -- what it prints and writes ---------------------------------------------------------------------------


def test_what_a_call_prints_is_read_while_it_runs(executor):
    def talk():
        print("begun", flush=True)
        time.sleep(3600)

    future = executor.submit(talk)
    wait_for(lambda: future.output() == b"begun\n", "the output")
    assert not future.done()
    assert future.job().state is JobState.RUNNING


def test_output_is_passed_on_before_the_result_is_there(executor_of):
    heard = []
    executor = executor_of(on_output=lambda future, stream, data: heard.append((future, stream, data)))

    def talk():
        import sys

        print("out", flush=True)
        print("err", file=sys.stderr, flush=True)

    future = executor.submit(talk)
    future.result(60)
    assert {one for one, _, _ in heard} == {future}
    for stream, text in (("stdout", b"out\n"), ("stderr", b"err\n")):
        assert b"".join(data for _, name, data in heard if name == stream) == text


def test_what_was_printed_is_read_also_after_the_shutdown(executor):
    future = executor.submit(print, "later")
    executor.shutdown()
    assert future.output() == b"later\n"
    assert future.job().state is JobState.SUCCEEDED


def test_a_future_without_a_job_has_no_output(executor, pretended):
    pretended.refusals.append(Forbidden("No."))
    future = executor.submit(double, 1)
    future.exception(60)
    assert future.output() == b""
    assert future.job() is None


def test_a_callback_that_would_wait_for_itself_is_told_so(executor, pretended):
    errors = []

    def ask(future):
        try:
            future.output()
        except RuntimeError as error:
            errors.append(error)

    pretended.holding = True  # so that the callback is there before the end
    future = executor.submit(double, 1)
    future.add_done_callback(ask)
    wait_for(lambda: future.job_id, "the job")
    pretended.start()
    wait_for(lambda: errors, "the callback")
    assert "another thread" in str(errors[0])


def test_files_that_a_call_wrote_are_fetched(executor, tmp_path):
    def write():
        Path("out/deep").mkdir()
        Path("out/deep/table.csv").write_text("1,2")

    future = executor.submit(write)
    future.result(60)
    assert future.fetch(tmp_path) == [tmp_path / "deep" / "table.csv"]
    assert (tmp_path / "deep" / "table.csv").read_text() == "1,2"
