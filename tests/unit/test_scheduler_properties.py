"""What holds for any queue and any fleet: capacity, constraints, reasons, shares, and that nobody starves."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gridx.messages import Runtime
from gridx.services.coordinator.scheduler import (
    Machine,
    Need,
    Placement,
    Queue,
    Rules,
    Shares,
    WaitingJob,
    could_run,
    explain,
    plan,
)

# How long an example takes is the machine's affair.
settings.register_profile("any speed", deadline=None)
settings.load_profile("any speed")

RULES = Rules(half_life_s=600, reserve_after_s=60)
RUNTIMES = (
    Runtime(name="default", python="3.11", languages=["python"]),
    Runtime(name="new", python="3.13", languages=["python"]),
    Runtime(name="ruby", python="3.11", languages=["ruby"]),
)

needs = st.builds(
    Need,
    cpu_millis=st.integers(1, 16).map(lambda n: n * 500),
    memory_mb=st.integers(1, 64).map(lambda n: n * 128),
    gpus=st.integers(0, 2),
    language=st.sampled_from(["python", "python", "python", "ruby"]),
    runtime=st.sampled_from([None, None, None, "new"]),
    python=st.sampled_from([None, None, "3.11", "3.13"]),
)
names = st.sampled_from(["user 1", "user 2", "user 3", "user 4"])
few = st.frozensets(st.integers(1, 5), max_size=2)


@st.composite
def machines(draw: st.DrawFn) -> list[Machine]:
    found = []
    for id in range(1, draw(st.integers(0, 5)) + 1):
        cpu = draw(st.integers(0, 16)) * 500
        memory = draw(st.integers(0, 64)) * 128
        gpus = [f"gpu-{id}-{number}" for number in range(draw(st.integers(0, 3)))]
        # An offer may have shrunk below what runs: free may be negative.
        found.append(
            Machine(
                worker_id=id,
                owner_id=draw(st.integers(1, 4)),
                private=draw(st.booleans()),
                closed=draw(st.sampled_from(["", "", "", "paused"])),
                cpu_millis=cpu,
                memory_mb=memory,
                gpus=len(gpus),
                runtimes=tuple(draw(st.lists(st.sampled_from(RUNTIMES), unique_by=lambda r: r.name))),
                free_cpu_millis=draw(st.integers(-1000, cpu)),
                free_memory_mb=draw(st.integers(-128, memory)),
                free_gpus=tuple(gpus[draw(st.integers(0, len(gpus))) :]),
                only_users=draw(st.one_of(st.just(frozenset()), st.frozensets(names, max_size=2))),
            )
        )
    return found


@st.composite
def queues(draw: st.DrawFn) -> Queue:
    waiting = Queue()
    for id in range(1, draw(st.integers(0, 30)) + 1):
        owner_id = draw(st.integers(1, 4))
        waiting.add(
            WaitingJob(
                id=id,
                owner_id=owner_id,
                owner_name=f"user {owner_id}",
                need=draw(needs),
                priority=draw(st.integers(-2, 2)),
                weight=draw(st.floats(1, 1e7)),
                avoid=draw(few) if draw(st.booleans()) else frozenset(),
                excluded=draw(few) if draw(st.booleans()) else frozenset(),
            ),
            draw(st.floats(0, 200)),
        )
    return waiting


@given(queues(), machines(), st.floats(0, 300), st.integers(1, 40))
def test_a_plan_keeps_every_limit(waiting, fleet, now, limit):
    decided = plan(waiting, fleet, {}, now, RULES, limit=limit)
    by_id = {machine.worker_id: machine for machine in fleet}
    assert len(decided.placements) <= limit
    assert len({one.job_id for one in decided.placements}) == len(decided.placements)
    used: Counter[tuple[int, str]] = Counter()
    given_gpus: set[str] = set()
    for one in decided.placements:
        job, machine = waiting.job(one.job_id), by_id[one.worker_id]
        assert not machine.closed
        assert could_run(job.need, machine, job.owner_id, job.owner_name)
        assert machine.worker_id not in job.excluded
        if machine.worker_id in job.avoid:
            others = [
                other
                for other in fleet
                if not other.closed
                and other.worker_id not in job.avoid | job.excluded
                and could_run(job.need, other, job.owner_id, job.owner_name)
            ]
            assert not others
        runtime = next(r for r in machine.runtimes if r.name == one.runtime)
        assert job.need.language in runtime.languages
        assert job.need.python in (None, runtime.python)
        assert job.need.runtime in (None, runtime.name)
        used[one.worker_id, "cpu"] += job.need.cpu_millis
        used[one.worker_id, "memory"] += job.need.memory_mb
        assert len(one.gpus) == job.need.gpus
        assert set(one.gpus) <= set(machine.free_gpus)
        assert given_gpus.isdisjoint(one.gpus)
        given_gpus.update(one.gpus)
    for machine in fleet:
        assert used[machine.worker_id, "cpu"] <= max(0, machine.free_cpu_millis)
        assert used[machine.worker_id, "memory"] <= max(0, machine.free_memory_mb)


@given(queues(), machines(), st.floats(0, 300))
def test_what_is_not_placed_has_a_reason(waiting, fleet, now):
    decided = plan(waiting, fleet, {}, now, RULES)
    left = _after(fleet, waiting, decided.placements)
    for one in decided.placements:
        waiting.take(one.job_id, now)
    for job in waiting:
        ahead = waiting.ahead(job.owner_id, job.rank, {})
        assert 0 <= ahead < len(waiting)
        reason = explain(job, left, ahead, kept=job.id in decided.reserved)
        # Only a job that is held back for one whose machine is kept free may be left where there is room.
        assert reason or decided.reserved or job.avoid


@given(queues(), machines(), st.floats(0, 300))
def test_nothing_that_fits_is_left_while_nothing_is_kept_free(waiting, fleet, now):
    decided = plan(waiting, fleet, {}, now, RULES)
    if decided.reserved:
        return
    left = _after(fleet, waiting, decided.placements)
    placed = {one.job_id for one in decided.placements}
    for job in waiting:
        if job.id in placed or job.avoid:
            continue
        for machine in left:
            fits = (
                not machine.closed
                and could_run(job.need, machine, job.owner_id, job.owner_name)
                and machine.worker_id not in job.excluded
                and job.need.cpu_millis <= machine.free_cpu_millis
                and job.need.memory_mb <= machine.free_memory_mb
                and job.need.gpus <= len(machine.free_gpus)
            )
            assert not fits


@given(queues(), machines(), st.floats(0, 300))
def test_a_plan_is_the_same_each_time_and_changes_nothing(waiting, fleet, now):
    before = [line.ranks[:] for line in waiting.lines]
    assert plan(waiting, fleet, {}, now, RULES) == plan(waiting, fleet, {}, now, RULES)
    assert [line.ranks for line in waiting.lines] == before


@given(
    queues(),
    machines(),
    st.floats(0, 300),
    st.integers(1, 5),
    st.lists(st.integers(0, 6), min_size=4, max_size=4),
)
def test_nobody_runs_more_than_a_user_may_and_nobody_less_for_it(waiting, fleet, now, most, running):
    has = dict(enumerate(running, 1))
    rules = Rules(RULES.half_life_s, RULES.reserve_after_s, max_running=most)
    decided = plan(waiting, fleet, {}, now, rules, running=has)
    given = Counter(waiting.job(one.job_id).owner_id for one in decided.placements)
    assert all(has[owner] + count <= most for owner, count in given.items())
    # A limit that nobody reaches changes nothing.
    far = Rules(RULES.half_life_s, RULES.reserve_after_s, max_running=1000)
    assert plan(waiting, fleet, {}, now, far, running=has) == plan(waiting, fleet, {}, now, RULES)


def _after(fleet: list[Machine], waiting: Queue, placements: tuple[Placement, ...]) -> list[Machine]:
    """The fleet with these placements running."""
    left = {machine.worker_id: machine for machine in fleet}
    for one in placements:
        machine, need = left[one.worker_id], waiting.job(one.job_id).need
        left[one.worker_id] = replace(
            machine,
            free_cpu_millis=machine.free_cpu_millis - need.cpu_millis,
            free_memory_mb=machine.free_memory_mb - need.memory_mb,
            free_gpus=tuple(uuid for uuid in machine.free_gpus if uuid not in one.gpus),
        )
    return list(left.values())


@dataclass
class Grid:
    """A fleet on which jobs run for a time and end."""

    fleet: list[Machine]
    waiting: Queue = field(default_factory=Queue)
    shares: Shares = field(default_factory=lambda: Shares(RULES.half_life_s))
    now: float = 0.0
    running: dict[int, tuple[WaitingJob, Placement, float]] = field(default_factory=dict)
    started: Counter[int] = field(default_factory=Counter)

    def round(self, run_s: float) -> set[int]:
        running: Counter[int] = Counter()
        for job, _, _ in self.running.values():
            running[job.owner_id] += job.weight
        scores = self.shares.scores([line.owner_id for line in self.waiting.lines], running, self.now)
        decided = plan(self.waiting, self._free(), scores, self.now, RULES)
        for one in decided.placements:
            job = self.waiting.take(one.job_id, self.now, favoured=one.favoured)
            self.running[job.id] = (job, one, self.now + run_s)
            self.started[job.owner_id] += 1
        return {one.job_id for one in decided.placements}

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for job, _, until in list(self.running.values()):
            if until <= self.now:
                del self.running[job.id]
                self.shares.add(job.owner_id, job.weight * seconds / 3600, self.now)

    def _free(self) -> list[Machine]:
        free = {machine.worker_id: machine for machine in self.fleet}
        for job, one, _ in self.running.values():
            machine = free[one.worker_id]
            free[one.worker_id] = replace(
                machine,
                free_cpu_millis=machine.free_cpu_millis - job.need.cpu_millis,
                free_memory_mb=machine.free_memory_mb - job.need.memory_mb,
                free_gpus=tuple(uuid for uuid in machine.free_gpus if uuid not in one.gpus),
            )
        return list(free.values())


def idle(fleet: list[Machine]) -> list[Machine]:
    return [
        replace(
            machine,
            closed="",
            free_cpu_millis=machine.cpu_millis,
            free_memory_mb=machine.memory_mb,
            free_gpus=tuple(f"gpu-{machine.worker_id}-{n}" for n in range(machine.gpus)),
        )
        for machine in fleet
    ]


@settings(max_examples=50)
@given(queues(), machines())
def test_every_job_that_some_machine_could_run_runs_in_the_end(waiting, fleet):
    grid = Grid(idle(fleet), waiting)
    runnable = {
        job.id
        for job in waiting
        if any(
            could_run(job.need, machine, job.owner_id, job.owner_name)
            and machine.worker_id not in job.excluded
            for machine in grid.fleet
        )
    }
    for _ in range(len(runnable) + 1):
        runnable -= grid.round(10)
        grid.pass_time(10)
    assert not runnable


@settings(max_examples=25)
@given(st.integers(2, 8), st.integers(-2, 2), st.integers(0, 1))
def test_a_large_job_runs_however_many_small_ones_keep_coming(cores, priority, owner):
    """Small jobs of equal or higher priority arrive for ever, as many as the machine can take."""
    pool = idle(
        [Machine(1, 9, False, "", cores * 1000, 8192, 0, RUNTIMES, 0, 0, ())],
    )
    grid = Grid(pool)
    grid.waiting.add(WaitingJob(1, 1 + owner, Need(cores * 1000, 64, 0, "python", None, None), priority), 0)
    id = 2
    for step in range(60):
        for _ in range(cores):
            grid.waiting.add(WaitingJob(id, 1, Need(1000, 64, 0, "python", None, None), priority=2), grid.now)
            id += 1
        if 1 in grid.round(5 + step % 7):
            return
        grid.pass_time(5)
    raise AssertionError("the large job starved")


@settings(max_examples=20)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=5), st.integers(16, 24))
def test_owners_come_to_have_alike(sizes, cores):
    """Owners with endless work get the same core time, whatever the size of their jobs.

    The machine is large against one job: where it is not, what fits beside what decides.
    """
    pool = idle([Machine(1, 99, False, "", cores * 1000, 1 << 20, 0, RUNTIMES, 0, 0, ())])
    grid = Grid(pool)
    consumed: Counter[int] = Counter()
    id = 0
    for _ in range(400):
        for owner, size in enumerate(sizes):
            while grid.waiting.waiting_of(owner) < cores:
                id += 1
                need = Need(size * 1000, 64, 0, "python", None, None)
                grid.waiting.add(WaitingJob(id, owner, need, weight=size * 1e6), grid.now)
        grid.round(10)
        for job, _, _ in grid.running.values():
            consumed[job.owner_id] += job.need.cpu_millis
        grid.pass_time(10)
    fair = sum(consumed.values()) / len(sizes)
    assert all(abs(consumed[owner] - fair) <= 0.35 * fair for owner in range(len(sizes)))


@settings(max_examples=20)
@given(st.integers(1, 6))
def test_an_owner_who_comes_late_soon_has_a_share(slots):
    pool = idle([Machine(1, 99, False, "", slots * 1000, 1 << 20, 0, RUNTIMES, 0, 0, ())])
    grid = Grid(pool)
    for id in range(1, 3000):
        grid.waiting.add(WaitingJob(id, 1, Need(1000, 64, 0, "python", None, None), weight=1e6), 0)
    for _ in range(100):
        grid.round(10)
        grid.pass_time(10)
    for id in range(3000, 4000):
        grid.waiting.add(WaitingJob(id, 2, Need(1000, 64, 0, "python", None, None), weight=1e6), grid.now)
    grid.started.clear()
    grid.round(10)
    assert grid.started[2] >= 1
