"""Jobs by name: ``17``, or ``17[3]`` (``17.3`` where a shell would mind) for an element by its index."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from gridx.client import Client

_MAX: Final = 2**53


@dataclass(frozen=True, slots=True)
class JobRef:
    """A job or array by its number; or the element of an array, by its index."""

    number: int
    index: int | None = None


class JobName(click.ParamType[JobRef]):
    """The name of a job, an array or an element."""

    name = "job"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> JobRef:
        """What it names; anything else is wrong usage."""
        if isinstance(value, JobRef):
            return value
        found = re.fullmatch(r"(\d{1,16})(?:\[(\d{1,16})\]|\.(\d{1,16}))?", str(value), re.ASCII)
        if not found or not 1 <= int(found[1]) <= _MAX:
            self.fail(
                f"{value!r} is not an id: a whole number, like 12; an element of an array is 12[0].",
                param,
                ctx,
            )
        index = found[2] or found[3]
        return JobRef(int(found[1]), None if index is None else int(index))


JOB: Final = JobName()


async def number_of(grid: Client, ref: JobRef) -> int:
    """The number of what was named. Raises NotFound where an array has no such element."""
    return ref.number if ref.index is None else (await grid.element(ref.number, ref.index)).id
