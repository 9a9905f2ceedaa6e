"""The filter of the job list: words, ``state:``, ``owner:``, ``worker:``.

Words are looked for in names, ids, owners, workers and reasons, without regard to case; all have to be found.
A state may be shortened as long as something begins with it: ``state:q,run``.
"""

from __future__ import annotations

from dataclasses import dataclass

from gridx.messages import Job, JobState
from gridx.tui.look import STATE_WORDS


@dataclass(frozen=True, slots=True)
class JobFilter:
    """What a job has to be to be shown; the empty one shows all."""

    words: tuple[str, ...] = ()
    states: frozenset[JobState] = frozenset()
    owner: str = ""
    worker: str = ""
    unknown: tuple[str, ...] = ()
    """States that were asked for and do not exist; nothing is filtered by them."""

    def __bool__(self) -> bool:
        return bool(self.words or self.states or self.owner or self.worker)

    def shows(self, job: Job) -> bool:
        """Whether the job passes."""
        if self.states and job.state not in self.states:
            return False
        if self.owner and not job.owner.casefold().startswith(self.owner):
            return False
        if self.worker and self.worker not in job.worker_name.casefold():
            return False
        if not self.words:
            return True
        text = f"{job.id} {job.name} {job.owner} {job.worker_name} {job.reason}".casefold()
        return all(word in text for word in self.words)


def parse_filter(text: str) -> JobFilter:
    """What was typed as a filter; anything is a filter, nothing is an error."""
    words: list[str] = []
    states: set[JobState] = set()
    unknown: list[str] = []
    owner = worker = ""
    for part in text.casefold().split():
        key, colon, value = part.partition(":")
        if colon and key in ("state", "s"):
            for name in filter(None, value.split(",")):
                found = [known for word, known in STATE_WORDS.items() if word.startswith(name)]
                if not found:
                    unknown.append(name)
                for known in found:
                    states |= known
        elif colon and key in ("owner", "o"):
            owner = value
        elif colon and key in ("worker", "w"):
            worker = value
        else:
            words.append(part)
    return JobFilter(tuple(words), frozenset(states), owner, worker, tuple(unknown))
