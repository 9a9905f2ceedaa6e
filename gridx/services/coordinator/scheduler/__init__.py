"""Which job next, on which worker, and why not: pure, values in, values out.

``plan`` decides one round, ``explain`` says why a job waits, ``Queue`` and ``Shares`` are the indexed state
that both read. Nothing here knows a clock, a socket or the store.
"""

from gridx.services.coordinator.scheduler.machines import Machine, Need, could_run, runtime_for
from gridx.services.coordinator.scheduler.placement import Placement, Plan, Rules, plan
from gridx.services.coordinator.scheduler.queue import Queue, Rank, WaitingJob
from gridx.services.coordinator.scheduler.reasons import Obstacle, explain, obstacle
from gridx.services.coordinator.scheduler.shares import Shares

__all__ = [
    "Machine",
    "Need",
    "Obstacle",
    "Placement",
    "Plan",
    "Queue",
    "Rank",
    "Rules",
    "Shares",
    "WaitingJob",
    "could_run",
    "explain",
    "obstacle",
    "plan",
    "runtime_for",
]
