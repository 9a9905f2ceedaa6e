"""Why a job waits, in words: what it needs that the fleet does not have, or whose turn it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from gridx.messages import Runtime
from gridx.services.coordinator.scheduler.machines import Machine, Need, could_run, runtime_for
from gridx.services.coordinator.scheduler.queue import WaitingJob

SHOWN_NAMES: Final = 4
SHOWN_WORKERS: Final = 3


def explain(job: WaitingJob, machines: Sequence[Machine], ahead: int, *, kept: bool = False) -> str:
    """Why a job is not running yet; empty when it could start at once.

    Args:
        machines: the connected workers, those that take nothing now included.
        ahead: how many jobs are ahead of it.
        kept: a machine is being kept free for it.
    """
    return obstacle(job, machines, kept=kept).seen_by(ahead)


class Obstacle(NamedTuple):
    """What is in the way of all jobs of a shape.

    ``passes``: it goes away by itself as the jobs ahead are served; where there are any, they are the reason.
    ``never``: as the fleet is now it does not go away, however long one waits.
    """

    text: str
    passes: bool
    never: bool = False

    def seen_by(self, ahead: int) -> str:
        """The reason for a job that has so many ahead of it."""
        if not self.passes or not ahead:
            return self.text
        return f"waits its turn: {ahead:,} {'job is' if ahead == 1 else 'jobs are'} ahead"


def obstacle(
    job: WaitingJob, machines: Sequence[Machine], *, kept: bool = False, running: int = 0, most: int = 0
) -> Obstacle:
    """What is in the way; the text is empty when nothing is.

    Args:
        machines, kept: as for :func:`explain`.
        running: how many of the owner's jobs have a machine.
        most: how many may; 0: as many as fit.
    """
    if not machines:
        return Obstacle("no worker is connected", False, never=True)
    able = [machine for machine in machines if could_run(job.need, machine, job.owner_id, job.owner_name)]
    if not able:
        return Obstacle(_never(job, machines), False, never=True)
    if 0 < most <= running:
        return Obstacle(f"its owner has {running:,} running, and a user may have {most:,} at once", False)
    allowed = [machine for machine in able if machine.worker_id not in job.excluded]
    if not allowed:
        return Obstacle(f"{_only(len(able))} refused it just now; it will be offered again", False)
    taking = [machine for machine in allowed if not machine.closed]
    if not taking:
        if len(allowed) == 1 and allowed[0].why:
            state = f"{allowed[0].closed}: {allowed[0].why}"
            return Obstacle(f"{_only(1)} takes nothing now ({state})", False)
        states = Counter(machine.closed for machine in allowed)
        listed = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        takes = "takes" if len(allowed) == 1 else "take"
        return Obstacle(f"{_only(len(allowed))} {takes} nothing now ({listed})", False)
    untried = [machine for machine in taking if machine.worker_id not in job.avoid] or taking
    return _not_yet(job.need, untried, kept)


def _not_yet(need: Need, machines: Sequence[Machine], kept: bool) -> Obstacle:
    fits = any(
        need.cpu_millis <= machine.free_cpu_millis
        and need.memory_mb <= machine.free_memory_mb
        and need.gpus <= len(machine.free_gpus)
        for machine in machines
    )
    if fits:
        return Obstacle("", True)
    tail = "; one is being kept free for it" if kept else ""
    most_cpu = max(machine.free_cpu_millis for machine in machines)
    most_memory = max(machine.free_memory_mb for machine in machines)
    most_gpus = max(len(machine.free_gpus) for machine in machines)
    if need.gpus > most_gpus:
        free = f"the most that one worker has free is {most_gpus}" if most_gpus else "all are in use"
        return Obstacle(f"needs {_gpus(need.gpus)}; {free}{tail}", False)
    if 0 < most_cpu < need.cpu_millis and most_memory > 0:
        has = f"the largest free worker has {_number(most_cpu)}"
        return Obstacle(f"needs {_cores(need.cpu_millis)}; {has}{tail}", False)
    if 0 < most_memory < need.memory_mb and most_cpu > 0:
        has = f"the most that one worker has free is {_memory(most_memory)}"
        return Obstacle(f"needs {_memory(need.memory_mb)} of memory; {has}{tail}", False)
    if most_cpu >= need.cpu_millis and most_memory >= need.memory_mb:
        return Obstacle(f"needs {_what(need)} at once; no worker has all of it free{tail}", False)
    if len(machines) == 1:
        return Obstacle(f"the only worker that could run it is busy{tail}", not kept)
    return Obstacle(f"all {len(machines)} workers that could run it are busy{tail}", not kept)


def _never(job: WaitingJob, machines: Sequence[Machine]) -> str:
    """What no connected worker has, however idle."""
    need = job.need
    runtimes = [runtime for machine in machines for runtime in machine.runtimes]
    wanted = _runtime_missing(need, runtimes)
    if wanted:
        return wanted
    most_gpus = max(machine.gpus for machine in machines)
    if need.gpus > most_gpus:
        has = f"the most that one worker has is {most_gpus}" if most_gpus else "no worker has one"
        return f"needs {_gpus(need.gpus)}; {has}"
    most_cpu = max(machine.cpu_millis for machine in machines)
    if need.cpu_millis > most_cpu:
        return f"needs {_cores(need.cpu_millis)}; the largest worker has {_number(most_cpu)}"
    most_memory = max(machine.memory_mb for machine in machines)
    if need.memory_mb > most_memory:
        return f"needs {_memory(need.memory_mb)} of memory; the largest worker has {_memory(most_memory)}"
    others = [machine for machine in machines if could_run(need, machine, machine.owner_id)]
    if others:
        return _of_others(others)
    return f"needs {_what(need)} in one worker; no worker has all of it"


def _of_others(machines: Sequence[Machine]) -> str:
    """Whose jobs the machines take that could run it."""
    if all(machine.private for machine in machines):
        return "the only workers that could run it run their owners' jobs only"
    if len(machines) == 1:
        whose = _whose(machines[0])
        return f"worker {machines[0].worker_id}, the only one that could run it, takes jobs of {whose} only"
    shown = [f"worker {machine.worker_id} of {_whose(machine)}" for machine in machines[:SHOWN_WORKERS]]
    more = "; and so on" if len(machines) > SHOWN_WORKERS else ""
    return f"the workers that could run it take jobs of some users only: {'; '.join(shown)}{more}"


def _whose(machine: Machine) -> str:
    if machine.private:
        return "its owner"
    names = sorted(machine.only_users)
    if len(names) > SHOWN_NAMES:
        return f"{', '.join(names[:SHOWN_NAMES])} and {len(names) - SHOWN_NAMES} others"
    return _and(names)


def _runtime_missing(need: Need, runtimes: Sequence[Runtime]) -> str:
    if not runtimes:
        return "no worker offers a runtime"
    if runtime_for(need, tuple(runtimes)):
        return ""
    if need.runtime is not None and all(runtime.name != need.runtime for runtime in runtimes):
        return f"needs the runtime {need.runtime}; the fleet offers {_listed(r.name for r in runtimes)}"
    if all(need.language not in runtime.languages for runtime in runtimes):
        offered = _listed(language for runtime in runtimes for language in runtime.languages)
        return f"needs the language {need.language}; the fleet offers {offered}"
    if need.python is not None and all(runtime.python != need.python for runtime in runtimes):
        offered = _listed(runtime.python for runtime in runtimes)
        return f"needs Python {need.python}; the fleet offers {offered}"
    wanted = [need.language]
    if need.python is not None:
        wanted.append(f"Python {need.python}")
    if need.runtime is not None:
        wanted.append(f"the runtime {need.runtime}")
    return f"needs {_and(wanted)} together; no worker offers that"


def _only(count: int) -> str:
    return (
        "the only worker that could run it" if count == 1 else f"the only {count} workers that could run it"
    )


def _number(cpu_millis: int) -> str:
    return f"{cpu_millis / 1000:g}"


def _cores(cpu_millis: int) -> str:
    return f"{_number(cpu_millis)} {'core' if cpu_millis == 1000 else 'cores'}"


def _memory(memory_mb: int) -> str:
    return f"{memory_mb / 1024:.3g} GiB" if memory_mb >= 1024 else f"{memory_mb} MiB"


def _gpus(gpus: int) -> str:
    return "a GPU" if gpus == 1 else f"{gpus} GPUs"


def _what(need: Need) -> str:
    parts = [_cores(need.cpu_millis), _memory(need.memory_mb)]
    if need.gpus:
        parts.append(_gpus(need.gpus))
    if need.runtime:
        parts.append(f"the runtime {need.runtime}")
    if need.python:
        parts.append(f"Python {need.python}")
    return _and(parts)


def _and(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def _listed(names: Iterable[str]) -> str:
    """Each once, in order; versions by their numbers."""
    return ", ".join(sorted(set(names), key=lambda name: (len(name), name))) or "none"
