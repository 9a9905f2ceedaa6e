"""The waiting jobs, indexed the way a round walks them: by owner, then by shape, then by priority and age.

A round looks at shapes, not at jobs: twenty thousand alike jobs that have to wait cost as much as one.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from gridx.services.coordinator.scheduler.machines import Need

_NONE: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class WaitingJob:
    """A queued job as the scheduler sees it.

    Attributes:
        owner_name: folded, for machines that take jobs of some users only.
        weight: what it costs in an hour, in microcredits: how much it counts in fair share.
        avoid: workers on which it broke; used only when no other could run it.
        excluded: workers that refused it a moment ago; not used.
        array_id: of which array it is an element; 0: of none.
    """

    id: int
    owner_id: int
    need: Need
    priority: int = 0
    weight: float = 1.0
    avoid: frozenset[int] = _NONE
    excluded: frozenset[int] = _NONE
    owner_name: str = ""
    array_id: int = 0

    @property
    def rank(self) -> Rank:
        """Its place among its owner's jobs: higher priority first, then the older one."""
        return Rank(-self.priority, self.id)

    @property
    def shape(self) -> Shape:
        """What makes jobs alike to the scheduler."""
        return Shape(self.need, self.avoid, self.excluded)


class Rank(NamedTuple):
    """Order within an owner; the smaller goes first. Ids grow with time, and so stand for age."""

    minus_priority: int
    job_id: int


class Shape(NamedTuple):
    """Jobs of one shape can run on the same machines."""

    need: Need
    avoid: frozenset[int]
    excluded: frozenset[int]


@dataclass(slots=True)
class Group:
    """An owner's waiting jobs of one shape, in order.

    Attributes:
        unserved_since: when the group began to wait, or last had a job placed; monotonic seconds.
    """

    owner_id: int
    owner_name: str
    shape: Shape
    unserved_since: float
    ranks: list[Rank] = field(default_factory=list)


@dataclass(slots=True)
class Line:
    """All that waits of one owner.

    Attributes:
        favoured_at: when one of its jobs last got a machine that was kept free for it.
    """

    owner_id: int
    owner_name: str = ""
    groups: dict[Shape, Group] = field(default_factory=dict)
    ranks: list[Rank] = field(default_factory=list)
    favoured_at: float = float("-inf")


class Queue:
    """The waiting jobs. Adding, removing and asking for a place cost the logarithm of their number."""

    def __init__(self) -> None:
        self._jobs: dict[int, WaitingJob] = {}
        self._lines: dict[int, Line] = {}
        self._unseen: dict[int, dict[int, tuple[Rank, int]]] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, job_id: int) -> bool:
        return job_id in self._jobs

    def __iter__(self) -> Iterator[WaitingJob]:
        return iter(self._jobs.values())

    def get(self, job_id: int) -> WaitingJob | None:
        """The job, if it waits."""
        return self._jobs.get(job_id)

    def job(self, job_id: int) -> WaitingJob:
        """The job; KeyError when it does not wait."""
        return self._jobs[job_id]

    @property
    def lines(self) -> Collection[Line]:
        """What waits, by owner; owners with nothing waiting are not there."""
        return self._lines.values()

    def waiting_of(self, owner_id: int) -> int:
        """How many jobs of an owner wait."""
        line = self._lines.get(owner_id)
        return len(line.ranks) if line else 0

    def add(self, job: WaitingJob, now: float) -> None:
        """Let a job wait; one that waits already is replaced (its shape may have changed)."""
        if job.id in self._jobs:
            self.remove(job.id)
        self._jobs[job.id] = job
        line = self._lines.get(job.owner_id)
        if line is None:
            line = self._lines[job.owner_id] = Line(job.owner_id, job.owner_name)
        group = line.groups.get(job.shape)
        if group is None:
            group = line.groups[job.shape] = Group(job.owner_id, job.owner_name, job.shape, now)
        insort(group.ranks, job.rank)
        insort(line.ranks, job.rank)

    def remove(self, job_id: int) -> WaitingJob | None:
        """Take a job out; None when it does not wait."""
        job = self._jobs.pop(job_id, None)
        if job is None:
            return None
        line = self._lines[job.owner_id]
        group = line.groups[job.shape]
        del group.ranks[bisect_left(group.ranks, job.rank)]
        del line.ranks[bisect_left(line.ranks, job.rank)]
        if not group.ranks:
            del line.groups[job.shape]
        if not line.ranks:
            del self._lines[job.owner_id]
        return job

    def take(self, job_id: int, now: float, *, favoured: bool = False) -> WaitingJob | None:
        """Take a job out because it was placed; its group has been served."""
        job = self.remove(job_id)
        line = self._lines.get(job.owner_id) if job else None
        if job and line:
            if favoured:
                line.favoured_at = now
            if (group := line.groups.get(job.shape)) is not None:
                group.unserved_since = now
        return job

    def unseen(self, owner_id: int, key: int, rank: Rank | None, count: int) -> None:
        """Count jobs of an owner that wait but are not put in the queue yet, for the places of others.

        Args:
            key: what they belong to; said again, it replaces what was said before.
            rank: of the first of them.
            count: how many; 0: none any more.
        """
        mine = self._unseen.setdefault(owner_id, {})
        if count and rank is not None:
            mine[key] = (rank, count)
        else:
            mine.pop(key, None)
        if not mine:
            del self._unseen[owner_id]

    def _unseen_of(self, owner_id: int, rank: Rank | None = None) -> int:
        return sum(
            count for first, count in self._unseen.get(owner_id, {}).values() if rank is None or first < rank
        )

    def ahead(self, owner_id: int, rank: Rank | None, scores: Mapping[int, float]) -> int:
        """How many jobs are ahead of a place, if all jobs were of one size.

        An owner's own order is exact; other owners are taken to alternate with this one, and the one that has
        had less goes first.

        Args:
            rank: the place within the owner's own jobs; None: behind all of them.
            scores: by owner, what they have had; see ``Shares.scores``.
        """
        mine = self._lines.get(owner_id)
        own = 0
        if mine is not None:
            own = len(mine.ranks) if rank is None else bisect_left(mine.ranks, rank)
        own += self._unseen_of(owner_id, rank)
        me = (scores.get(owner_id, 0.0), owner_id)
        return own + sum(
            min(
                len(line.ranks) + self._unseen_of(line.owner_id),
                own + ((scores.get(line.owner_id, 0.0), line.owner_id) < me),
            )
            for line in self._lines.values()
            if line.owner_id != owner_id
        )
