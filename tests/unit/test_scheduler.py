"""One round of placement, decided by hand; and every reason for waiting, word for word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from gridx.messages import Runtime
from gridx.services.coordinator.scheduler import (
    Machine,
    Need,
    Placement,
    Queue,
    Rules,
    Shares,
    WaitingJob,
    explain,
    obstacle,
    plan,
)

PYTHON = Runtime(name="default", python="3.11", languages=["python"])
RULES = Rules(half_life_s=3600, reserve_after_s=60)


def need(cpus: float = 1, memory_mb: int = 512, gpus: int = 0, language="python", runtime=None, python=None):
    return Need(int(cpus * 1000), memory_mb, gpus, language, runtime, python)


def machine(
    id: int = 1, cpus: float = 4, memory_mb: int = 8192, gpus: Sequence[str] = (), **fields
) -> Machine:
    return Machine(
        **{
            "worker_id": id,
            "owner_id": 100 + id,
            "private": False,
            "closed": "",
            "cpu_millis": int(cpus * 1000),
            "memory_mb": memory_mb,
            "gpus": len(gpus),
            "runtimes": (PYTHON,),
            "free_cpu_millis": int(cpus * 1000),
            "free_memory_mb": memory_mb,
            "free_gpus": tuple(gpus),
            **fields,
        }
    )


def job(id: int, owner: int = 1, wants: Need | None = None, **fields) -> WaitingJob:
    return WaitingJob(id, owner, wants or need(), weight=1e6, **fields)


def queue(*jobs: WaitingJob, now: float = 0) -> Queue:
    waiting = Queue()
    for one in jobs:
        waiting.add(one, now)
    return waiting


def placed(
    waiting: Queue, *machines: Machine, scores=None, now: float = 0, limit: int = 512
) -> list[Placement]:
    return list(plan(waiting, machines, scores or {}, now, RULES, limit=limit).placements)


def ids(placements: Sequence[Placement]) -> list[int]:
    return [placement.job_id for placement in placements]


def where(placements: Sequence[Placement]) -> dict[int, int]:
    return {placement.job_id: placement.worker_id for placement in placements}


# -- order -----------------------------------------------------------------------------------------------


def test_the_older_job_goes_first():
    assert ids(placed(queue(job(2), job(1), job(3)), machine(cpus=2))) == [1, 2]


def test_within_an_owner_priority_goes_before_age():
    waiting = queue(job(1), job(2, priority=5), job(3, priority=-1), job(4, priority=5))
    assert ids(placed(waiting, machine(cpus=3))) == [2, 4, 1]


def test_priority_is_no_way_past_other_owners():
    waiting = queue(*[job(id, 1, priority=100) for id in range(1, 9)], job(9, 2, priority=-100))
    assert 9 in ids(placed(waiting, machine(cpus=2)))


def test_the_owner_who_has_had_the_least_is_next():
    waiting = queue(job(1, 1), job(2, 2))
    assert ids(placed(waiting, machine(cpus=1), scores={1: 5.0})) == [2]
    assert ids(placed(waiting, machine(cpus=1), scores={2: 5.0})) == [1]


def test_owners_alternate_by_what_their_jobs_weigh():
    waiting = queue(
        *[job(id, 1) for id in range(1, 20)],
        *[replace(job(id, 2), weight=3e6) for id in range(20, 40)],
    )
    owners = [1 if id < 20 else 2 for id in ids(placed(waiting, machine(cpus=8)))]
    assert owners.count(1) == 6
    assert owners.count(2) == 2


def test_a_job_that_fits_nowhere_is_stepped_over():
    waiting = queue(job(1, wants=need(64)), job(2, wants=need(gpus=1)), job(3))
    assert ids(placed(waiting, machine())) == [3]


def test_a_head_that_its_own_past_keeps_waiting_holds_up_no_other_job():
    waiting = queue(job(1, excluded=frozenset({1})), job(2))
    assert ids(placed(waiting, machine(1))) == [2]


def test_a_round_ends_at_its_limit_and_says_that_there_is_more():
    waiting = queue(*[job(id) for id in range(1, 9)])
    cut = plan(waiting, [machine(cpus=8)], {}, 0, RULES, limit=3)
    assert ids(cut.placements) == [1, 2, 3]
    assert cut.more
    assert not plan(waiting, [machine(cpus=3)], {}, 0, RULES).more


# -- machines --------------------------------------------------------------------------------------------


def test_the_machine_that_is_filled_best_is_taken():
    assert where(placed(queue(job(1)), machine(1, cpus=8), machine(2, cpus=2), machine(3, cpus=4))) == {1: 2}
    partly = replace(machine(1, cpus=8), free_cpu_millis=1000)
    assert where(placed(queue(job(1)), partly, machine(2, cpus=2))) == {1: 1}


def test_a_machine_with_gpus_is_left_to_those_who_need_them():
    with_gpu, without = machine(1, cpus=1, gpus=["a"]), machine(2, cpus=8)
    assert where(placed(queue(job(1), job(2, wants=need(gpus=1))), with_gpu, without)) == {1: 2, 2: 1}


def test_an_owners_private_machine_is_used_first():
    private = machine(1, cpus=16, owner_id=1, private=True)
    assert where(placed(queue(job(1, 1), job(2, 2)), private, machine(2, cpus=2))) == {1: 1, 2: 2}


def test_gpus_are_whole_and_each_is_given_once():
    waiting = queue(job(1, wants=need(gpus=2)), job(2, wants=need(gpus=1)), job(3, wants=need(gpus=1)))
    given = placed(waiting, machine(cpus=8, gpus=["a", "b", "c"]))
    assert {one.job_id: one.gpus for one in given} == {1: ("a", "b"), 2: ("c",)}


@pytest.mark.parametrize("closed", ["paused", "draining", "unready", "pausing after failures"])
def test_a_machine_that_is_closed_gets_nothing(closed):
    assert placed(queue(job(1)), machine(closed=closed)) == []


def test_a_private_machine_runs_its_owners_jobs_only():
    private = machine(1, cpus=1, owner_id=7, private=True)
    assert ids(placed(queue(job(1, 1), job(2, 7)), private)) == [2]


def test_a_machine_for_some_users_runs_their_jobs_and_its_owners():
    reserved = machine(1, cpus=2, owner_id=7, only_users=frozenset({"ann", "gus"}))
    waiting = queue(job(1, 1, owner_name="bob"), job(2, 2, owner_name="ann"), job(3, 7, owner_name="gus"))
    assert sorted(ids(placed(waiting, reserved))) == [2, 3]


def test_a_machine_for_some_users_is_used_before_one_for_all():
    reserved = machine(2, cpus=8, only_users=frozenset({"ann"}))
    [given] = placed(queue(job(1, owner_name="ann")), machine(1, cpus=1), reserved)
    assert given.worker_id == 2


def test_an_owner_runs_no_more_than_a_user_may():
    rules = Rules(max_running=3)
    waiting = queue(*[job(id, 1) for id in range(1, 6)], job(6, 2))
    decided = plan(waiting, [machine(cpus=16)], {}, 0, rules, running={1: 1, 3: 9})
    assert sorted(ids(decided.placements)) == [1, 2, 6]
    assert not decided.more
    # No machine is kept free for what may not run.
    assert plan(waiting, [FULL], {}, 1000, rules, running={1: 3, 2: 3}).reserved == {}


def test_runtime_python_and_language_must_match():
    ruby = Runtime(name="ruby", python="3.12", languages=["ruby"])
    both = machine(runtimes=(PYTHON, ruby))
    cases = {
        need(language="ruby"): "ruby",
        need(): "default",
        need(python="3.11"): "default",
        need(python="3.12"): None,
        need(runtime="default"): "default",
        need(runtime="ruby"): None,
        need(language="ruby", python="3.12", runtime="ruby"): "ruby",
        need(language="go"): None,
    }
    for wants, runtime in cases.items():
        given = placed(queue(job(1, wants=wants)), both)
        assert [one.runtime for one in given] == ([runtime] if runtime else []), wants


def test_a_machine_on_which_the_job_broke_is_used_only_when_no_other_could_run_it():
    broke = job(1, avoid=frozenset({1}))
    assert where(placed(queue(broke), machine(1, cpus=1), machine(2, cpus=8))) == {1: 2}
    busy = replace(machine(2), free_cpu_millis=0)
    assert placed(queue(broke), machine(1), busy) == []
    assert where(placed(queue(broke), machine(1), machine(2, memory_mb=64))) == {1: 1}


# -- keeping a machine free --------------------------------------------------------------------------------


def test_a_large_job_gets_a_machine_kept_free_after_a_while():
    busy = replace(machine(1, cpus=8), free_cpu_millis=1000)
    waiting = queue(job(1, wants=need(8), priority=-5), now=0)
    for id in range(2, 10):
        waiting.add(job(id, 1), 50)
    early = plan(waiting, [busy], {}, 59, RULES)
    assert ids(early.placements) == [2]
    assert early.reserved == {}
    late = plan(waiting, [busy], {}, 60, RULES)
    assert late.placements == ()
    assert late.reserved == {1: 1}


def test_what_fits_beside_the_kept_part_still_runs():
    large = replace(machine(1, cpus=16), free_cpu_millis=9000)
    waiting = queue(job(1, wants=need(8, memory_mb=100_000)), job(2), job(3, wants=need(2)), now=0)
    big_memory = replace(large, memory_mb=200_000, free_memory_mb=50_000)
    assert ids(placed(waiting, big_memory, now=100)) == []
    roomy = replace(big_memory, free_memory_mb=150_000)
    assert ids(placed(waiting, roomy, now=100)) == [1, 2]


def test_the_machine_that_is_kept_free_is_the_one_that_lacks_least_and_others_go_on():
    near = replace(machine(1, cpus=8), free_cpu_millis=6000)
    far = replace(machine(2, cpus=8), free_cpu_millis=2000)
    waiting = queue(job(1, wants=need(8)), now=0)
    waiting.add(job(2), 100)
    decided = plan(waiting, [near, far], {}, 100, RULES)
    assert decided.reserved == {1: 1}
    assert where(decided.placements) == {2: 2}


def test_an_owner_has_one_machine_kept_free_at_a_time():
    busy = [replace(machine(id, cpus=8), free_cpu_millis=1000) for id in range(1, 9)]
    waiting = queue(job(1, wants=need(8)), job(2, wants=need(7)), job(3, wants=need(6)), now=0)
    assert plan(waiting, busy, {}, 100, RULES).reserved == {1: 1}


def test_what_no_machine_could_run_keeps_none_free():
    waiting = queue(job(1, wants=need(64)), job(2, wants=need(8)), now=0)
    busy = replace(machine(1, cpus=8), free_cpu_millis=1000)
    assert plan(waiting, [busy], {}, 100, RULES).reserved == {2: 1}


def test_being_favoured_is_no_way_around_the_shares():
    """Many shapes that waited long give their owner one placement out of turn in a while, not all of them."""
    shapes = [job(id, 1, need(1, memory_mb=500 + id)) for id in range(1, 50)]
    waiting = queue(*shapes, *[job(id, 2) for id in range(100, 150)], now=0)
    given = placed(waiting, machine(cpus=8), scores={1: 1e12}, now=1000)
    assert sum(one.job_id < 100 for one in given) == 1
    [favoured] = [one for one in given if one.favoured and one.job_id < 100]
    waiting.take(favoured.job_id, 1000, favoured=True)
    again = placed(waiting, machine(cpus=8), scores={1: 1e12}, now=1030)
    assert sum(one.job_id < 100 for one in again) == 0


# -- reasons ---------------------------------------------------------------------------------------------


def why(wants: Need, *machines: Machine, ahead: int = 0, **fields) -> str:
    kept = fields.pop("kept", False)
    return explain(job(1, wants=wants, **fields), machines, ahead, kept=kept)


FULL = replace(machine(1), free_cpu_millis=0, free_memory_mb=0)
HALF = replace(machine(1), free_cpu_millis=2000, free_memory_mb=4096)
RUBY = replace(machine(2), runtimes=(Runtime(name="ruby", python="3.13", languages=["ruby"]),))


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (why(need()), "no worker is connected"),
        (why(need(), machine()), ""),
        (why(need(), machine(), ahead=1), "waits its turn: 1 job is ahead"),
        (why(need(), FULL, ahead=1234), "waits its turn: 1,234 jobs are ahead"),
        (why(need(), FULL), "the only worker that could run it is busy"),
        (why(need(), FULL, replace(FULL, worker_id=2)), "all 2 workers that could run it are busy"),
        (why(need(8), machine(), ahead=9), "needs 8 cores; the largest worker has 4"),
        (why(need(4), HALF), "needs 4 cores; the largest free worker has 2"),
        (
            why(need(4), HALF, kept=True),
            "needs 4 cores; the largest free worker has 2; one is being kept free for it",
        ),
        (why(need(0.5, memory_mb=9000), machine()), "needs 8.79 GiB of memory; the largest worker has 8 GiB"),
        (
            why(need(memory_mb=8192), HALF),
            "needs 8 GiB of memory; the most that one worker has free is 4 GiB",
        ),
        (why(need(gpus=1), machine()), "needs a GPU; no worker has one"),
        (why(need(gpus=2), machine(gpus=["a"])), "needs 2 GPUs; the most that one worker has is 1"),
        (why(need(gpus=1), replace(machine(gpus=["a"]), free_gpus=())), "needs a GPU; all are in use"),
        (
            why(need(python="3.13"), machine()),
            "needs Python 3.13; the fleet offers 3.11",
        ),
        (why(need(python="3.9"), machine(), RUBY), "needs Python 3.9; the fleet offers 3.11, 3.13"),
        (why(need(language="go"), machine(), RUBY), "needs the language go; the fleet offers ruby, python"),
        (why(need(runtime="big"), machine(), RUBY), "needs the runtime big; the fleet offers ruby, default"),
        (
            why(need(python="3.13"), machine(), RUBY),
            "needs python and Python 3.13 together; no worker offers that",
        ),
        (
            why(need(), machine(private=True)),
            "the only workers that could run it run their owners' jobs only",
        ),
        (
            why(need(8, gpus=1), machine(1, cpus=8), machine(2, cpus=1, gpus=["a"])),
            "needs 8 cores, 512 MiB and a GPU in one worker; no worker has all of it",
        ),
        (
            why(need(), machine(closed="paused"), machine(2, closed="paused"), machine(3, closed="draining")),
            "the only 3 workers that could run it take nothing now (1 draining, 2 paused)",
        ),
        (
            why(need(), machine(3, only_users=frozenset({"bob", "ann"})), owner_name="cid"),
            "worker 3, the only one that could run it, takes jobs of ann and bob only",
        ),
        (
            why(
                need(),
                machine(3, only_users=frozenset("abcdef")),
                machine(4, private=True),
                machine(5, only_users=frozenset({"ann"}), closed="paused"),
                machine(6, private=True),
            ),
            "the workers that could run it take jobs of some users only: "
            "worker 3 of a, b, c, d and 2 others; "
            "worker 4 of its owner; worker 5 of ann; and so on",
        ),
        (why(need(), machine(3, only_users=frozenset({"ann"})), owner_name="ann"), ""),
        (
            why(need(), machine(closed="closed", why="outside its hours; it opens at 18:00")),
            "the only worker that could run it takes nothing now "
            "(closed: outside its hours; it opens at 18:00)",
        ),
        (
            why(need(), machine(closed="closed", why="x"), machine(2, closed="paused", why="y")),
            "the only 2 workers that could run it take nothing now (1 closed, 1 paused)",
        ),
        (
            obstacle(job(1), [machine()], running=1234, most=1000).seen_by(5),
            "its owner has 1,234 running, and a user may have 1,000 at once",
        ),
        (obstacle(job(1), [machine()], running=3, most=0).text, ""),
        (
            obstacle(job(1, wants=need(8)), [machine()], running=3, most=3).text,
            "needs 8 cores; the largest worker has 4",
        ),
        (
            why(need(), machine(), excluded=frozenset({1})),
            "the only worker that could run it refused it just now; it will be offered again",
        ),
        (
            why(
                need(4, memory_mb=8192),
                replace(HALF, free_cpu_millis=4000),
                replace(machine(2), free_cpu_millis=1),
            ),
            "needs 4 cores and 8 GiB at once; no worker has all of it free",
        ),
    ],
)
def test_every_reason_reads_like_a_sentence(reason, expected):
    assert reason == expected


# -- the queue -------------------------------------------------------------------------------------------


def test_a_place_in_the_queue_counts_ones_own_jobs_and_the_turns_of_others():
    waiting = queue(*[job(id, 1) for id in range(1, 6)], *[job(id, 2) for id in range(6, 8)])
    third = waiting.job(3)
    assert waiting.ahead(1, third.rank, {1: 0.0, 2: 0.0}) == 2 + 2
    assert waiting.ahead(1, waiting.job(1).rank, {1: 0.0, 2: 9.0}) == 0
    assert waiting.ahead(1, waiting.job(1).rank, {1: 9.0, 2: 0.0}) == 1
    assert waiting.ahead(1, None, {}) == 7
    assert waiting.ahead(3, None, {}) == 2


def test_a_queue_forgets_what_leaves_it():
    waiting = queue(job(1), job(2, 2))
    assert waiting.remove(1).id == 1
    assert waiting.remove(1) is None
    assert 1 not in waiting
    assert [line.owner_id for line in waiting.lines] == [2]
    waiting.add(job(2, 2, priority=9), 0)
    assert len(waiting) == 1
    assert waiting.job(2).priority == 9


# -- shares ----------------------------------------------------------------------------------------------


def test_usage_counts_half_after_a_half_life_and_is_forgotten_in_the_end():
    shares = Shares(100)
    shares.add(1, 800.0, 0)
    assert shares.usage(1, 100) == pytest.approx(400)
    shares.add(1, 100.0, 100)
    assert shares.usage(1, 200) == pytest.approx(250)
    shares.add(2, 800.0, 200, ended_at=0)
    assert shares.usage(2, 200) == pytest.approx(200)
    shares.forget(5000)
    assert shares._usage == {}


def test_what_runs_counts_before_any_usage_is_known():
    scores = Shares(3600).scores([1, 2], {1: 5.0}, 0)
    assert scores[1] > scores[2] == 0
