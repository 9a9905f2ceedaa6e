"""How long a round of placement takes: 20,000 waiting jobs, 100 workers.

    python benchmarks/bench_scheduler.py

Medians of several runs, in milliseconds. "Full" is what happens most: everything is busy, and the round finds
out that it has nothing to do. "Hostile" is an owner who gives each job a shape of its own.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable

from gridx.messages import Runtime
from gridx.services.coordinator.scheduler import Machine, Need, Queue, Rules, WaitingJob, explain, plan

JOBS = 20_000
WORKERS = 100
OWNERS = 20
RUNS = 7
RULES = Rules()
PYTHON = Runtime(name="default", python="3.11", languages=["python"])


def fleet(free: Callable[[int], int], cores: int = 16) -> list[Machine]:
    return [
        Machine(
            worker_id=id,
            owner_id=id % OWNERS,
            private=id % 10 == 0,
            closed="",
            cpu_millis=cores * 1000,
            memory_mb=cores * 4096,
            gpus=2 if id % 20 == 0 else 0,
            runtimes=(PYTHON,),
            free_cpu_millis=free(id) * 1000,
            free_memory_mb=free(id) * 4096,
            free_gpus=(f"{id}-a", f"{id}-b") if id % 20 == 0 and free(id) else (),
        )
        for id in range(1, WORKERS + 1)
    ]


def queue(shapes: int, owners: int = OWNERS) -> Queue:
    rng = random.Random(1)
    needs = [
        Need(
            rng.choice([500, 1000, 2000, 4000]) + shape // 1000,
            256 + shape % 1000,
            int(rng.random() < 0.02),
            "python",
            None,
            None,
        )
        for shape in range(shapes)
    ]
    waiting = Queue()
    for id in range(1, JOBS + 1):
        need = needs[id % shapes] if shapes == JOBS else rng.choice(needs)
        waiting.add(WaitingJob(id, id % owners, need, rng.choice([0, 0, 0, 5]), 1e6), 0)
    return waiting


def measure(name: str, waiting: Queue, machines: list[Machine], now: float = 1.0, limit: int = 512) -> None:
    times: list[float] = []
    placed = 0
    for _ in range(RUNS):
        begin = time.perf_counter()
        placed = len(plan(waiting, machines, {}, now, RULES, limit=limit).placements)
        times.append((time.perf_counter() - begin) * 1000)
    each = f", {statistics.median(times) * 1000 / placed:.0f} us each" if placed else ""
    print(f"{name:58} {statistics.median(times):8.2f} ms  {placed:5} placed{each}")


def main() -> None:
    few, many = queue(20), queue(JOBS, owners=1)
    print(f"{JOBS:,} waiting jobs, {WORKERS} workers")
    measure("full, 20 shapes of 20 owners", few, fleet(lambda _: 0))
    measure("one core of one worker got free", few, fleet(lambda id: int(id == 50)))
    measure("a core of each worker got free", few, fleet(lambda _: 1))
    measure("all idle, a round of 512", few, fleet(lambda _: 16))
    measure("full, waited long: machines are kept free", few, fleet(lambda _: 0), now=1000)
    measure("hostile: 20,000 shapes, full", many, fleet(lambda _: 0))
    measure("hostile: 20,000 shapes, a core of each free", many, fleet(lambda _: 1))
    scattered = fleet(lambda _: 1)
    measure("hostile: 20,000 shapes, waited long", many, scattered, now=1000)

    waiting = queue(20)
    begin = time.perf_counter()
    for id in range(JOBS + 1, JOBS + 1001):
        waiting.add(WaitingJob(id, id % OWNERS, Need(1000, 512, 0, "python", None, None)), 1.0)
    print(f"{'adding a job':58} {(time.perf_counter() - begin) * 1000:8.2f} us")
    machines = fleet(lambda _: 0)
    jobs = list(waiting)[:1000]
    begin = time.perf_counter()
    for job in jobs:
        explain(job, machines, waiting.ahead(job.owner_id, job.rank, {}))
    print(f"{'a reason and a place, nothing cached':58} {(time.perf_counter() - begin) * 1000:8.2f} us")
    begin = time.perf_counter()
    for job in jobs:
        waiting.take(job.id, 1.0)
    print(f"{'taking a job out':58} {(time.perf_counter() - begin) * 1000:8.2f} us")


if __name__ == "__main__":
    main()
