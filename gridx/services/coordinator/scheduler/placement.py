"""One round of placement: whose turn it is, which machine fits best, and what is kept free for whom.

The owner who has had the least is next; of that owner's jobs the one of highest priority, then the oldest. It
gets the machine that it fills best. A job that fits nowhere is stepped over, so that it holds up nobody.

Stepping over alone would starve large jobs: small ones would take each core as it gets free. So a shape of
which nothing was placed for ``reserve_after_s`` gets one machine kept free: what it needs there is withheld
from all others, and running jobs do the rest by ending. An owner has one such machine at a time, and one such
placement per ``reserve_after_s``, so that this cannot be used to get around the shares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from typing import Final

from gridx.services.coordinator.scheduler.machines import Machine, Need, could_run, runtime_for
from gridx.services.coordinator.scheduler.queue import Group, Line, Queue, Rank, Shape

PLACEMENTS_A_ROUND: Final = 512
"""More than that wait for the next round, so that a round does not hold up the event loop."""

MISSES_A_ROUND: Final = 256
"""Shapes of one owner that may fail to fit in a round before the owner's turn is over."""

_MB_PER_CPU_MILLI: Final = 4
"""What a thousandth of a core weighs against memory when machines are compared."""
_MB_PER_GPU: Final = 1 << 17


@dataclass(frozen=True, slots=True)
class Rules:
    """How fair share forgets, when a waiting shape gets a machine kept free, how much one owner may run.

    ``max_running``: jobs of one owner that may run at once; 0: as many as fit.
    """

    half_life_s: float = 3600.0
    reserve_after_s: float = 60.0
    max_running: int = 0


@dataclass(frozen=True, slots=True)
class Placement:
    """One job on one machine. ``favoured``: it was kept free for this job."""

    job_id: int
    worker_id: int
    gpus: tuple[str, ...]
    runtime: str
    favoured: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What a round decided.

    Attributes:
        reserved: by job, the worker that is kept free for it.
        more: the round was cut short; another one would place more.
    """

    placements: tuple[Placement, ...]
    reserved: Mapping[int, int]
    more: bool


class _Room:
    """What is left of a machine in this round."""

    __slots__ = ("cpu", "gpu_ids", "gpus", "machine", "memory", "reserved")

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.cpu = machine.free_cpu_millis
        self.memory = machine.free_memory_mb
        self.gpu_ids = list(machine.free_gpus)
        self.gpus = len(self.gpu_ids)
        """Free GPUs less those that are kept for somebody; may be negative."""
        self.reserved = False

    def fits(self, need: Need) -> bool:
        return need.cpu_millis <= self.cpu and need.memory_mb <= self.memory and need.gpus <= self.gpus

    def withhold(self, need: Need) -> None:
        self.cpu -= need.cpu_millis
        self.memory -= need.memory_mb
        self.gpus -= need.gpus

    def left_by(self, need: Need) -> tuple[bool, int, int]:
        """What would stay unused; the smallest is the best fit.

        A machine that takes jobs of some users only comes first, since the others cannot use it, and one
        without GPUs before one that has some to spare.
        """
        return (
            not self.machine.reserved,
            self.gpus - need.gpus,
            (self.cpu - need.cpu_millis) * _MB_PER_CPU_MILLI + self.memory - need.memory_mb,
        )

    def missing_for(self, need: Need) -> int:
        """How much has to get free before the need fits; it only falls while the machine is kept free."""
        return (
            max(0, need.cpu_millis - self.cpu) * _MB_PER_CPU_MILLI
            + max(0, need.memory_mb - self.memory)
            + max(0, need.gpus - self.gpus) * _MB_PER_GPU
        )


@dataclass(slots=True)
class _Turn:
    """An owner's standing in the round: the groups that may still be served, and how far each has been."""

    line: Line
    heads: list[tuple[Rank, Group, int]]
    misses: int = 0


def plan(
    queue: Queue,
    machines: Sequence[Machine],
    scores: Mapping[int, float],
    now: float,
    rules: Rules,
    *,
    running: Mapping[int, int] | None = None,
    limit: int = PLACEMENTS_A_ROUND,
) -> Plan:
    """Decide one round. Nothing is changed: the caller takes what was placed out of the queue.

    Args:
        machines: the connected workers, with what is free on each.
        scores: by owner, what they have had; see ``Shares.scores``.
        now: monotonic seconds.
        running: by owner, how many of their jobs have a machine; it matters where ``rules`` limit that.
    """
    return _Round(queue, machines, scores, now, rules, running or {}).run(limit)


class _Round:
    def __init__(
        self,
        queue: Queue,
        machines: Sequence[Machine],
        scores: Mapping[int, float],
        now: float,
        rules: Rules,
        running: Mapping[int, int],
    ) -> None:
        self.queue = queue
        self.now = now
        self.rules = rules
        self.rooms = [_Room(machine) for machine in machines if not machine.closed]
        self._public = [room for room in self.rooms if not room.machine.reserved]
        self._own: dict[int, list[_Room]] = {}
        self._named: dict[str, list[_Room]] = {}
        for room in self.rooms:
            if room.machine.reserved:
                self._own.setdefault(room.machine.owner_id, []).append(room)
            if not room.machine.private:
                for name in room.machine.only_users:
                    self._named.setdefault(name, []).append(room)
        self._rooms: dict[int, list[_Room]] = {}
        self._most = rules.max_running
        self._running = {line.owner_id: running.get(line.owner_id, 0) for line in queue.lines}
        self.scores = {line.owner_id: scores.get(line.owner_id, 0.0) for line in queue.lines}
        self.placements: list[Placement] = []
        self.placed: set[int] = set()
        self.reserved: dict[int, int] = {}
        self._speaking: dict[tuple[str, str | None, str | None], set[int]] = {}
        self._blocked: set[tuple[Shape, int]] = set()
        self._last_room: dict[tuple[Shape, int], _Room] = {}
        self._look()

    def run(self, limit: int) -> Plan:
        if self.rooms:
            self._favour_the_starved(limit)
            more = self._take_turns(limit)
        else:
            more = False
        return Plan(tuple(self.placements), self.reserved, more)

    # -- turns -------------------------------------------------------------------------------------------

    def _take_turns(self, limit: int) -> bool:
        order = [(self.scores[line.owner_id], line.owner_id) for line in self.queue.lines]
        heapify(order)
        lines = {line.owner_id: line for line in self.queue.lines}
        turns: dict[int, _Turn] = {}
        while order and self._most_cpu > 0 and self._most_memory > 0:
            if len(self.placements) >= limit:
                return True
            owner_id = order[0][1]
            if self._has_its_most(owner_id):
                heappop(order)
                continue
            turn = turns.get(owner_id)
            if turn is None:
                line = lines[owner_id]
                heads = [(group.ranks[0], group, 0) for group in line.groups.values()]
                heapify(heads)
                turn = turns[owner_id] = _Turn(line, heads)
            if self._serve(turn):
                heapreplace(order, (self.scores[owner_id], owner_id))
            else:
                heappop(order)
        return False

    def _serve(self, turn: _Turn) -> bool:
        """Place one job of the owner; False when none of its jobs can be placed in this round."""
        heads = turn.heads
        while heads:
            rank, group, index = heads[0]
            if rank.job_id in self.placed:
                self._step(heads, group, index)
                continue
            room = self._find(group)
            if room is None:
                turn.misses += 1
                heappop(heads)
                if turn.misses >= MISSES_A_ROUND:
                    heads.clear()
                continue
            self._place(rank.job_id, group.shape.need, room)
            self._step(heads, group, index)
            return True
        return False

    @staticmethod
    def _step(heads: list[tuple[Rank, Group, int]], group: Group, index: int) -> None:
        """Go on to the group's next job."""
        if index + 1 < len(group.ranks):
            heapreplace(heads, (group.ranks[index + 1], group, index + 1))
        else:
            heappop(heads)

    # -- machines ----------------------------------------------------------------------------------------

    def _look(self) -> None:
        """The most of each that any one machine has free: what is above it need not be looked for."""
        self._looked_at = len(self.placements)
        self._most_cpu = max((room.cpu for room in self.rooms), default=0)
        self._most_memory = max((room.memory for room in self.rooms), default=0)
        self._most_gpus = max((room.gpus for room in self.rooms), default=0)

    def _has_its_most(self, owner_id: int) -> bool:
        """Whether the owner may have nothing more running."""
        return 0 < self._most <= self._running[owner_id]

    def _rooms_of(self, group: Group) -> list[_Room]:
        """The machines that take jobs of the group's owner."""
        found = self._rooms.get(group.owner_id)
        if found is None:
            own = self._own.get(group.owner_id, [])
            named = [
                room
                for room in self._named.get(group.owner_name, ())
                if room.machine.owner_id != group.owner_id
            ]
            # Owners who have no machine of their own have one list in common.
            found = self._rooms[group.owner_id] = own + named + self._public if own or named else self._public
        return found

    def _speakers(self, need: Need) -> set[int]:
        """The workers that have a runtime for this need; few needs differ in this."""
        key = (need.language, need.runtime, need.python)
        found = self._speaking.get(key)
        if found is None:
            found = self._speaking[key] = {
                room.machine.worker_id
                for room in self.rooms
                if runtime_for(need, room.machine.runtimes) is not None
            }
        return found

    def _able(self, group: Group) -> list[_Room]:
        """The machines that could run the group's jobs if they were idle."""
        need, avoid, excluded = group.shape
        able = [
            room
            for room in self._rooms_of(group)
            if room.machine.worker_id not in excluded
            and could_run(need, room.machine, group.owner_id, group.owner_name)
        ]
        if avoid:
            able = [room for room in able if room.machine.worker_id not in avoid] or able
        return able

    def _fitting(self, group: Group) -> list[_Room]:
        """The machines on which the group's next job could begin now."""
        need, avoid, excluded = group.shape
        if avoid:
            return [room for room in self._able(group) if room.fits(need)]
        # What is free is looked at first: it mostly decides, and is never more than there is.
        speakers = self._speakers(need)
        return [
            room
            for room in self._rooms_of(group)
            if room.fits(need)
            and room.machine.worker_id in speakers
            and room.machine.worker_id not in excluded
        ]

    def _find(self, group: Group) -> _Room | None:
        """The machine that the group's next job fills best; None when it fits nowhere now."""
        need = group.shape.need
        if (
            need.cpu_millis > self._most_cpu
            or need.memory_mb > self._most_memory
            or need.gpus > self._most_gpus
        ):
            return None
        # Owners for whom no machine is reserved are alike.
        key = group.shape, 0 if self._rooms_of(group) is self._public else group.owner_id
        if key in self._blocked:
            return None
        # The machine that was the best fit a moment ago is fuller now, and so an even better one.
        room = self._last_room.get(key)
        if room is not None and room.fits(need):
            return room
        fitting = self._fitting(group)
        if not fitting:
            # Within a round machines only fill up.
            self._blocked.add(key)
            if self._looked_at != len(self.placements):
                self._look()
            return None
        best = self._last_room[key] = _best(fitting, need)
        return best

    def _place(self, job_id: int, need: Need, room: _Room, *, favoured: bool = False) -> None:
        runtime = runtime_for(need, room.machine.runtimes)
        assert runtime is not None
        room.withhold(need)
        gpus = tuple(room.gpu_ids.pop(0) for _ in range(need.gpus))
        self.placed.add(job_id)
        self.placements.append(Placement(job_id, room.machine.worker_id, gpus, runtime, favoured))
        job = self.queue.job(job_id)
        self._running[job.owner_id] += 1
        self.scores[job.owner_id] += job.weight * self.rules.half_life_s / 3600

    # -- keeping a machine free --------------------------------------------------------------------------

    def _favour_the_starved(self, limit: int) -> None:
        after_s = self.rules.reserve_after_s
        spare = max(1, len(self.rooms) // 4)
        waiting = [line for line in self.queue.lines if self.now - line.favoured_at >= after_s]
        waiting.sort(key=lambda line: (self.scores[line.owner_id], line.owner_id))
        for line in waiting:
            if not spare or len(self.placements) >= limit:
                break
            if self._has_its_most(line.owner_id):
                continue
            starved = [group for group in line.groups.values() if self.now - group.unserved_since >= after_s]
            starved.sort(key=lambda group: (group.unserved_since, group.ranks[0]))
            for group in starved:
                rooms = [room for room in self._able(group) if not room.reserved]
                if rooms:
                    spare -= self._favour(group, rooms)
                    break
        self._look()

    def _favour(self, group: Group, rooms: list[_Room]) -> bool:
        """Place the group's next job at once where it fits, else keep the nearest machine free for it."""
        need = group.shape.need
        job_id = group.ranks[0].job_id
        fitting = [room for room in rooms if room.fits(need)]
        if fitting:
            self._place(job_id, need, _best(fitting, need), favoured=True)
            return False
        nearest = min(rooms, key=lambda room: (room.missing_for(need), room.machine.worker_id))
        nearest.withhold(need)
        nearest.reserved = True
        self.reserved[job_id] = nearest.machine.worker_id
        return True


def _best(rooms: Sequence[_Room], need: Need) -> _Room:
    return min(rooms, key=lambda room: (room.left_by(need), room.machine.worker_id))
