"""Machines: what they offer, how they are, and how the grid sees them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from gridx.messages.bounds import (
    Count,
    Gauge,
    GpuUuid,
    Id,
    Line,
    Microcredits,
    Percent,
    PythonVersion,
    RuntimeName,
    UserName,
    Wire,
)


class Gpu(Wire, frozen=True):
    """One whole GPU that a worker offers."""

    uuid: GpuUuid
    name: Line
    memory_mb: Annotated[int, Meta(ge=0, le=16 << 20)]


class GpuSample(Wire, frozen=True):
    """One GPU now; a metric that the card does not offer is null."""

    uuid: GpuUuid
    name: Line
    utilisation_percent: Percent | None
    memory_used_bytes: Count | None
    memory_total_bytes: Count | None
    temperature_c: Annotated[float, Meta(ge=-100, le=1000)] | None
    power_w: Annotated[float, Meta(ge=0, le=100_000)] | None
    power_limit_w: Annotated[float, Meta(ge=0, le=100_000)] | None = None
    """What it may draw at most, as it is set now."""


class MachineSample(Wire, frozen=True):
    """A machine now. Rates are bytes a second since the sample before; ``load`` is the 1-minute average."""

    cpu_percent: Annotated[list[Percent], Meta(max_length=4096)]
    """Per logical core."""
    load: Gauge | None
    memory_used_bytes: Count
    memory_total_bytes: Count
    swap_used_bytes: Count
    disk_used_bytes: Count
    disk_total_bytes: Count
    disk_read_bps: Gauge
    disk_write_bps: Gauge
    net_rx_bps: Gauge
    net_tx_bps: Gauge
    gpus: Annotated[list[GpuSample], Meta(max_length=64)]


class Runtime(Wire, frozen=True):
    """What a sandbox can run: an image (or the machine's interpreter) with its Python and languages."""

    name: RuntimeName
    python: PythonVersion
    languages: Annotated[list[Line], Meta(max_length=32)]
    image: Line = ""
    digest: Line = ""


class Offer(Wire, frozen=True):
    """What a worker puts at the grid's disposal."""

    cpu_millis: Annotated[int, Meta(ge=0, le=4_096_000)]
    """Thousandths of a core."""
    memory_mb: Annotated[int, Meta(ge=0, le=64 << 20)]
    gpus: Annotated[list[Gpu], Meta(max_length=64)] = []
    runtimes: Annotated[list[Runtime], Meta(max_length=64)] = []
    sandbox: Literal["docker", "process"] = "docker"
    isolated: bool = True
    """False where the sandbox is no wall; such a worker is given its own owner's jobs only."""
    own_jobs_only: bool = False
    only_users: Annotated[list[UserName], Meta(max_length=100)] = []
    """Whose jobs it takes beside its owner's; none named: everybody's."""
    rules: Annotated[list[Line], Meta(max_length=16)] = []
    """What else its owner allows, in words: hours, load, presence, power. The worker itself sees to it."""
    warnings: Annotated[list[Line], Meta(max_length=32)] = []


class Worker(Wire, frozen=True):
    """A worker as the grid sees it. ``free_*`` is computed from the attempts that live on it."""

    id: Id
    name: str
    owner: str
    state: Literal["online", "offline", "paused", "closed", "draining", "unready"]
    """``paused``: somebody said so. ``closed``: what its owner allows is not so now; it opens by itself."""
    state_reason: str = ""
    offer: Offer | None = None
    free_cpu_millis: int = 0
    free_memory_mb: int = 0
    free_gpus: list[str] = []
    jobs: list[int] = []
    last_seen_s: float | None = None
    """Seconds since its last sign of life; null when it has not been seen since the coordinator started."""
    joined_at: datetime | None = None
    version: str = ""
    sample: MachineSample | None = None
    earned: Microcredits = 0


class PauseOrder(Wire, frozen=True):
    """How a worker is paused: what runs there goes on, or is given back at once."""

    give_back: bool = False


class WorkerPage(Wire, frozen=True):
    """The fleet."""

    workers: list[Worker]


class Health(Wire, frozen=True):
    """Whether the coordinator serves; open to everybody, so it says little."""

    status: Literal["ok", "stopping"]
    version: str
    protocol: int
