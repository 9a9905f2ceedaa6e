"""The machine as it is now: processors, memory, disk, network, GPUs. For the worker and the dashboard."""

from gridx.services.monitor.gpus import Gpus
from gridx.services.monitor.monitor import Monitor

__all__ = ["Gpus", "Monitor"]
