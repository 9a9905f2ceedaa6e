"""How many jobs a second the store carries through their whole life, every step committed with an fsync.

    python benchmarks/bench_store.py [--jobs 4000] [--flight 64] [--batch 1] [--folder DIR]

Each job is submitted, assigned, started and finished (settled, released). ``--flight`` callers do so side by
side; ``--batch`` jobs go into one submit and one assign.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from gridx.clock import SystemClock
from gridx.messages import AttemptState, JobState
from gridx.services.coordinator.ledger import Prices, cost, hold, settlement
from gridx.services.coordinator.store import Store
from gridx.services.coordinator.store.records import End, NewAttempt, NewJob, OutputChunk

PRICES = Prices(core_hour=1_000_000, gib_hour=100_000, gpu_hour=10_000_000, fee_ppm=10_000)
HOLD = hold(PRICES, 1000, 512, 0, 300)
JOB = NewJob(
    code="print('hello')",
    language="python",
    name="bench",
    args=[],
    env={},
    cpu_millis=1000,
    memory_mb=512,
    gpus=0,
    timeout_s=300,
    priority=0,
    max_attempts=3,
    runtime=None,
    python=None,
    prices=PRICES,
    hold=HOLD,
)
PAID = settlement(HOLD, cost(PRICES, 1000, 512, 0, 1500), PRICES.fee_ppm)
END = End(
    JobState.SUCCEEDED, AttemptState.SUCCEEDED, exit_code=0, charged_ms=1500, charge=PAID.charge, fee=PAID.fee
)


async def timed(what: str, rounds: int, each: Callable[[], Awaitable[object]], unit: str) -> None:
    spans = []
    for _ in range(rounds):
        begin = time.perf_counter()
        await each()
        spans.append((time.perf_counter() - begin) * 1000)
    spans.sort()
    p50, p99 = statistics.median(spans), spans[int(len(spans) * 0.99)]
    print(f"{what:34} p50 {p50:7.2f} ms   p99 {p99:7.2f} ms {unit}")


async def run(folder: Path, jobs: int, flight: int, batch: int) -> None:
    store = await Store.open(folder / "grid.db", clock=SystemClock())
    try:
        await measure(store, jobs, flight, batch)
        await timed("close and open", 1, lambda: reopen(store, folder), "")
    finally:
        await store.close()


async def measure(store: Store, jobs: int, flight: int, batch: int) -> None:
    ann = await store.create_user("ann", "-", grant=10**15)
    bob = await store.create_user("bob", "-")
    worker = await store.join_worker(bob.id, "a" * 32, name="bench", version="0")
    left = jobs

    async def carry() -> None:
        nonlocal left
        while left > 0:
            left -= batch
            made = await store.submit(ann.id, [JOB] * batch, max_queued=10**9)
            placed = await store.assign([NewAttempt(job.id, worker.id, (), "default") for job in made.jobs])
            ids = [attempt.id for attempt in placed if attempt]
            await asyncio.gather(*(store.start_attempt(id_, runtime="default") for id_ in ids))
            await store.append_output([OutputChunk(id_, "stdout", 0, b"hello\n") for id_ in ids])
            await asyncio.gather(*(store.finish_attempt(id_, END) for id_ in ids))

    begin = time.perf_counter()
    await asyncio.gather(*(carry() for _ in range(flight)))
    span = time.perf_counter() - begin
    print(f"{jobs / span:10,.0f} jobs/s, submit to settlement ({flight} in flight, batches of {batch})")

    left = jobs
    begin = time.perf_counter()

    async def submit_only() -> None:
        nonlocal left
        while left > 0:
            left -= batch
            await store.submit(ann.id, [JOB] * batch, max_queued=10**9)

    await asyncio.gather(*(submit_only() for _ in range(flight)))
    print(f"{jobs / (time.perf_counter() - begin):10,.0f} jobs/s submitted alone ({jobs:,} then wait)")

    await timed("one submit, alone", 200, lambda: store.submit(ann.id, [JOB], max_queued=10**9), "")
    await timed("read a job", 500, lambda: store.job(jobs // 2), "")
    await timed("read a page of 50", 200, lambda: store.job_page(user_id=ann.id), "")
    await timed(
        "read a page of 50 of two states",
        100,
        lambda: store.job_page(user_id=ann.id, states=[JobState.SUCCEEDED, JobState.QUEUED]),
        "",
    )
    await timed(
        "search, nothing found",
        20,
        lambda: store.job_page(user_id=None, text="nowhere"),
        f"of {2 * jobs:,} jobs",
    )
    await timed("read a balance", 500, lambda: store.balance(ann.id), "")
    await timed("audit", 1, store.audit, f"of {2 * jobs:,} jobs")
    report = await store.audit()
    print("audit:", "ok" if report.ok else report.findings)


async def reopen(store: Store, folder: Path) -> None:
    await store.close()
    again = await Store.open(folder / "grid.db", clock=SystemClock())
    await again.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=4000)
    parser.add_argument("--flight", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument(
        "--folder", type=Path, help="where the database lies meanwhile; default: a temporary one"
    )
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        asyncio.run(run(Path(folder), chosen.jobs, chosen.flight, chosen.batch))


if __name__ == "__main__":
    main()
