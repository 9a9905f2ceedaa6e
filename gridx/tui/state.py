"""What the dashboard knows of the grid: folded from what was read and from the events that followed.

Pure: values in, values out, and a list of what changed since the screen last looked. Everything is bounded,
so a dashboard that is left open for weeks does not grow.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from gridx.clock import Clock
from gridx.messages import (
    Balance,
    CreditsChanged,
    Event,
    Job,
    JobChanged,
    OutputArrived,
    Ready,
    User,
    Worker,
    WorkerChanged,
)

MAX_JOBS: Final = 4000
MAX_WORKERS: Final = 2000
MAX_OUTPUT_EVENTS: Final = 4000
HISTORY: Final = 240
"""Samples of a machine that are kept for its graphs."""
GPU_HISTORY: Final = 120
MAX_GPU_HISTORIES: Final = 16
"""GPUs of one machine whose past is kept."""
STALE_S: Final = 6.0
"""A sample older than this is called stale; workers send one every two seconds."""


class Trace:
    """The newest values of one metric, in four bytes each; what the card does not tell is 0."""

    def __init__(self) -> None:
        self.values = array("f")

    def append(self, value: float | None) -> None:
        """Add the newest, and let the oldest go where there are enough."""
        self.values.append(value or 0.0)
        if len(self.values) > GPU_HISTORY:
            del self.values[0]


@dataclass(slots=True)
class GpuHistory:
    """The newest samples of one GPU."""

    load: Trace = field(default_factory=Trace)
    memory: Trace = field(default_factory=Trace)
    celsius: Trace = field(default_factory=Trace)
    watts: Trace = field(default_factory=Trace)


@dataclass(slots=True)
class History:
    """The newest samples of one machine: processor, memory and GPUs as fractions, rates in bytes a second."""

    cpu: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    memory: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    gpu: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    receive: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    send: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    disk_read: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    disk_write: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    gpus: dict[str, GpuHistory] = field(default_factory=dict)
    """By the cards' UUIDs."""


@dataclass(slots=True)
class Machine:
    """A worker, when it was last heard of, and how it has been doing."""

    worker: Worker
    at: float
    """Monotonic time at which ``worker`` arrived."""
    sampled_at: float | None = None
    history: History = field(default_factory=History)

    def seen_s(self, now: float) -> float | None:
        """Seconds since its last sign of life, as the coordinator counts them."""
        if self.worker.last_seen_s is None:
            return None
        return self.worker.last_seen_s + (now - self.at)

    def stale_s(self, now: float) -> float | None:
        """How old its sample is, if that is too old; None while it is fresh or there is none."""
        if self.sampled_at is None or now - self.sampled_at < STALE_S:
            return None
        return now - self.sampled_at


@dataclass(frozen=True, slots=True)
class Link:
    """The connection to the coordinator."""

    connected: bool = False
    since: float = 0.0
    """Monotonic time since when it is as it is."""
    reason: str = ""
    """Why there is none; empty before the first try has ended."""


@dataclass(slots=True)
class Changes:
    """What is new since the last look."""

    jobs: set[int] = field(default_factory=set)
    workers: set[int] = field(default_factory=set)
    balance: bool = False
    link: bool = False
    reread: bool = False
    """Everything was read anew: after a connection, what one watches may have gaps."""
    ended: list[Job] = field(default_factory=list)
    """One's own jobs that were seen to end."""
    output: list[OutputArrived] = field(default_factory=list)
    output_lost: bool = False
    """More output came than is kept; it has to be read by offset."""

    def __bool__(self) -> bool:
        return bool(
            self.jobs or self.workers or self.balance or self.link or self.reread or self.ended or self.output
        )


class GridState:
    """The grid as one user sees it."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.user: User | None = None
        self.version = ""
        self.balance: Balance | None = None
        self.jobs: dict[int, Job] = {}
        self.machines: dict[int, Machine] = {}
        self.link = Link(since=clock.monotonic())
        self._changes = Changes()

    @property
    def admin(self) -> bool:
        """Whether one sees everything."""
        return self.user is not None and self.user.role == "admin"

    def take(self) -> Changes:
        """What changed since this was last called."""
        changes, self._changes = self._changes, Changes()
        return changes

    # -- folding -----------------------------------------------------------------------------------------

    def fold(self, event: Event) -> None:
        """Take one event in."""
        match event:
            case JobChanged(job=job):
                self.put_jobs([job])
            case WorkerChanged(worker=worker):
                self.put_worker(worker)
            case CreditsChanged(balance=balance):
                if self.user is None or balance.user == self.user.username:
                    self.put_balance(balance)
            case OutputArrived():
                output = self._changes.output
                if len(output) < MAX_OUTPUT_EVENTS:
                    output.append(event)
                else:
                    self._changes.output_lost = True
            case Ready(user=user, version=version):
                self.user, self.version = user, version
                self._changes.link = True

    def put_jobs(self, jobs: Iterable[Job]) -> None:
        """Take jobs in; an ended job stays ended, whatever an older answer says."""
        for job in jobs:
            old = self.jobs.get(job.id)
            if old is not None and old.state.ended and not job.state.ended:
                continue
            if old == job:
                continue
            self.jobs[job.id] = job
            self._changes.jobs.add(job.id)
            # Of an array its own end is told, and not that of each element.
            mine = self.user is not None and job.owner == self.user.username and job.array_id is None
            if mine and job.state.ended and old is not None and not old.state.ended:
                self._changes.ended.append(job)
        if len(self.jobs) > MAX_JOBS:
            oldest_first = sorted(self.jobs, key=lambda id_: (not self.jobs[id_].state.ended, id_))
            for id_ in oldest_first[: len(self.jobs) - MAX_JOBS * 9 // 10]:
                del self.jobs[id_]

    def put_worker(self, worker: Worker) -> None:
        """Take a worker in, with its sample."""
        now = self.clock.monotonic()
        machine = self.machines.get(worker.id)
        if machine is None:
            if len(self.machines) >= MAX_WORKERS:
                return
            machine = self.machines[worker.id] = Machine(worker, now)
        old, machine.worker, machine.at = machine.worker, worker, now
        sample = worker.sample
        if sample is not None and (sample != old.sample or machine.sampled_at is None):
            machine.sampled_at = now
            remember(machine.history, worker)
        self._changes.workers.add(worker.id)

    def put_workers(self, workers: Iterable[Worker]) -> None:
        """Take the whole fleet in; who is not in it is gone."""
        present = set()
        for worker in workers:
            self.put_worker(worker)
            present.add(worker.id)
        for gone in self.machines.keys() - present:
            del self.machines[gone]
            self._changes.workers.add(gone)

    def put_balance(self, balance: Balance) -> None:
        """Take one's own balance in."""
        self.balance = balance
        self._changes.balance = True

    def connected(self) -> None:
        """The connection stands, and everything was read."""
        self.link = Link(True, self.clock.monotonic())
        self._changes.link = self._changes.reread = True

    def disconnected(self, reason: str) -> None:
        """The connection broke, or another try failed; it counts from the first of them."""
        since = self.link.since if not self.link.connected else self.clock.monotonic()
        self.link = Link(False, since, reason)
        self._changes.link = True

    def touch_jobs(self, ids: Iterable[int]) -> None:
        """Have these jobs looked at again."""
        self._changes.jobs.update(ids)


def remember(history: History, worker: Worker) -> None:
    """Add a worker's sample to its history."""
    sample = worker.sample
    if sample is None:
        return
    cpu = sample.cpu_percent
    history.cpu.append(sum(cpu) / len(cpu) / 100 if cpu else 0.0)
    total = sample.memory_total_bytes
    history.memory.append(sample.memory_used_bytes / total if total else 0.0)
    busy = [gpu.utilisation_percent for gpu in sample.gpus if gpu.utilisation_percent is not None]
    history.gpu.append(sum(busy) / len(busy) / 100 if busy else 0.0)
    history.receive.append(sample.net_rx_bps)
    history.send.append(sample.net_tx_bps)
    history.disk_read.append(sample.disk_read_bps)
    history.disk_write.append(sample.disk_write_bps)
    if len(sample.gpus) > len(history.gpus) or history.gpus.keys() - {gpu.uuid for gpu in sample.gpus}:
        kept = [gpu.uuid for gpu in sample.gpus[:MAX_GPU_HISTORIES]]
        history.gpus = {uuid: history.gpus.get(uuid) or GpuHistory() for uuid in kept}
    for gpu in sample.gpus:
        past = history.gpus.get(gpu.uuid)
        if past is not None:
            total = gpu.memory_total_bytes or 0
            past.load.append((gpu.utilisation_percent or 0) / 100)
            past.memory.append((gpu.memory_used_bytes or 0) / total if total else 0)
            past.celsius.append(gpu.temperature_c)
            past.watts.append(gpu.power_w)
