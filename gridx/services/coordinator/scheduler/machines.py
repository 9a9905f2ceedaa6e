"""What a job needs and what a machine has: the two sides that a placement brings together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from gridx.messages import Runtime


class Need(NamedTuple):
    """What a job asks of a machine. Jobs of one need are alike to the scheduler: it is their shape."""

    cpu_millis: int
    memory_mb: int
    gpus: int
    language: str
    runtime: str | None
    python: str | None


@dataclass(frozen=True, slots=True)
class Machine:
    """A connected worker as a round sees it.

    Attributes:
        private: it runs its owner's jobs only.
        closed: why it takes nothing new now ("paused", "draining"); empty when it does.
        why: the reason for that, in words for people.
        only_users: folded names of the users whose jobs it takes, its owner among them; none: everybody's.
    """

    worker_id: int
    owner_id: int
    private: bool
    closed: str
    cpu_millis: int
    memory_mb: int
    gpus: int
    runtimes: tuple[Runtime, ...]
    free_cpu_millis: int
    free_memory_mb: int
    free_gpus: tuple[str, ...]
    only_users: frozenset[str] = frozenset()
    why: str = ""

    @property
    def reserved(self) -> bool:
        """Whether it takes jobs of some users and not of others."""
        return self.private or bool(self.only_users)

    def takes(self, owner_id: int, owner: str) -> bool:
        """Whether its owner lets it run jobs of this user; ``owner`` is the folded name."""
        if self.owner_id == owner_id:
            return True
        return not self.private and (not self.only_users or owner in self.only_users)


def runtime_for(need: Need, runtimes: tuple[Runtime, ...]) -> str | None:
    """The first runtime that is the one asked for, or speaks the language in the wanted Python."""
    for runtime in runtimes:
        if (
            need.language in runtime.languages
            and need.runtime in (None, runtime.name)
            and need.python in (None, runtime.python)
        ):
            return runtime.name
    return None


def could_run(need: Need, machine: Machine, owner_id: int, owner: str = "") -> bool:
    """Whether the machine could run such a job of this owner if it were idle and took jobs."""
    return (
        need.cpu_millis <= machine.cpu_millis
        and need.memory_mb <= machine.memory_mb
        and need.gpus <= machine.gpus
        and machine.takes(owner_id, owner)
        and runtime_for(need, machine.runtimes) is not None
    )
