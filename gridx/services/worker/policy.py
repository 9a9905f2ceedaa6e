"""What the owner of the machine allows now, and why something else is refused, in words.

Pure: the worker checks every assignment against its own caps, whatever the coordinator believes of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from gridx import safetext
from gridx.filepaths import Folder
from gridx.messages import MAX_CODE_BYTES, Assignment, Gpu, Offer

State = Literal["online", "paused", "closed", "draining", "unready"]


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether the worker takes new attempts, or why not.

    Attributes:
        paused: the coordinator said so.
        paused_here: somebody at the machine said so.
        closed: which of its owner's rules does not hold now; empty when all do.
        unready: why the sandbox cannot run anything now; empty when it can.
    """

    paused: bool = False
    paused_here: bool = False
    draining: bool = False
    closed: str = ""
    unready: str = ""

    @property
    def state(self) -> State:
        """The strongest reason wins: who leaves is not merely paused."""
        if self.draining:
            return "draining"
        if self.paused or self.paused_here:
            return "paused"
        if self.closed:
            return "closed"
        return "unready" if self.unready else "online"

    @property
    def reason(self) -> str:
        """Why nothing new is taken; empty when it is."""
        return {
            "draining": "it finishes what runs and then leaves",
            "paused": "at the machine, by its owner" if self.paused_here else "it is paused",
            "closed": self.closed,
            "unready": self.unready,
            "online": "",
        }[self.state]

    @property
    def wanted(self) -> bool:
        """Whether nothing is taken because somebody wants it so: what comes then is given back."""
        return self.state in ("draining", "paused", "closed")


@dataclass(frozen=True, slots=True)
class Caps:
    """What is offered at most. None: all there is."""

    cpu_millis: int | None = None
    memory_mb: int | None = None
    gpus: tuple[str, ...] | None = None

    def of_cpu(self, found_millis: int) -> int:
        """Thousandths of a core that are offered of those that were found."""
        return found_millis if self.cpu_millis is None else min(found_millis, self.cpu_millis)

    def of_memory(self, found_mb: int) -> int:
        """MiB that are offered of those that were found."""
        return found_mb if self.memory_mb is None else min(found_mb, self.memory_mb)

    def of_gpus(self, found: Iterable[Gpu]) -> list[Gpu]:
        """GPUs that are offered of those that were found."""
        return [gpu for gpu in found if self.gpus is None or gpu.uuid in self.gpus]


def refusal(
    assignment: Assignment, *, offer: Offer, held: Collection[Assignment], owner: str, standing: Standing
) -> str:
    """Why this worker does not run an assignment; empty when it does.

    Args:
        offer: what this worker offers.
        held: assignments that it is running.
        owner: whose worker this is.
    """
    if standing.state != "online":
        return takes_nothing(standing)
    if (offer.own_jobs_only or not offer.isolated) and assignment.owner.lower() != owner.lower():
        why = "its owner wants it so" if offer.own_jobs_only else "its sandbox is no wall"
        return f"the worker runs jobs of {owner} only: {why}"
    users = {name.casefold() for name in (*offer.only_users, owner)}
    if offer.only_users and assignment.owner.casefold() not in users:
        return f"the worker does not run jobs of {assignment.owner}: its owner has named others"
    return _misfit(assignment, offer) or _no_room(assignment, offer, held)


def takes_nothing(standing: Standing) -> str:
    """Why nothing new is taken, as a sentence about the worker."""
    return f"the worker takes nothing new: {standing.reason}"


def _misfit(assignment: Assignment, offer: Offer) -> str:
    """What no waiting would mend."""
    size = len(assignment.code.encode("utf-8", "surrogatepass"))
    if size > MAX_CODE_BYTES:
        return f"the program has {size:,} bytes; the worker takes {MAX_CODE_BYTES:,}"
    runtime = next((known for known in offer.runtimes if known.name == assignment.runtime), None)
    if runtime is None:
        return f"the worker has no runtime {assignment.runtime}"
    if assignment.language not in runtime.languages:
        return f"the runtime {runtime.name} does not run {assignment.language}"
    if found := Folder().put_all(file.path for file in assignment.inputs):
        number, why = found
        return f"the input {safetext.line(assignment.inputs[number].path, limit=80)} {why}"
    unknown = sorted(set(assignment.gpus) - {gpu.uuid for gpu in offer.gpus})
    if unknown:
        return f"the worker does not offer the GPU {unknown[0]}"
    if len(set(assignment.gpus)) != len(assignment.gpus):
        return "the same GPU is asked for twice"
    return ""


def _no_room(assignment: Assignment, offer: Offer, held: Collection[Assignment]) -> str:
    """What is taken by others."""
    cpu_millis = offer.cpu_millis - sum(other.cpu_millis for other in held)
    if assignment.cpu_millis > cpu_millis:
        return f"needs {_cores(assignment.cpu_millis)} cores; {_cores(max(cpu_millis, 0))} are free"
    memory_mb = offer.memory_mb - sum(other.memory_mb for other in held)
    if assignment.memory_mb > memory_mb:
        return f"needs {assignment.memory_mb:,} MiB of memory; {max(memory_mb, 0):,} are free"
    busy = sorted(set(assignment.gpus) & {uuid for other in held for uuid in other.gpus})
    if busy:
        return f"the GPU {busy[0]} is in use"
    return ""


def _cores(millis: int) -> str:
    return f"{millis / 1000:.3f}".rstrip("0").rstrip(".")
