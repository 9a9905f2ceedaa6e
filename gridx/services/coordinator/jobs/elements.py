"""Elements of an array, page by page, in the order of their indices; with what they wrote."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from gridx.errors import NotFound
from gridx.messages import ElementOutput, ElementOutputs, Job, JobPage, JobState
from gridx.services.coordinator.store import Store
from gridx.services.coordinator.store.records import ArrayRecord, JobRecord

View = Callable[[JobRecord], Job]

PAGE_BYTES: Final = 4 << 20
"""Of output in one page; a page is shorter where more was written."""
MOST_BYTES: Final = 256 << 10
"""Of one element; one that wrote more is read by itself."""


async def page(
    store: Store,
    view: View,
    array: ArrayRecord,
    states: Collection[JobState],
    after: int | None,
    limit: int,
) -> JobPage:
    """Elements from behind the id ``after`` on."""
    records = await store.elements(array, states=states, after=after, limit=limit + 1)
    shown = records[:limit]
    return JobPage(
        jobs=[view(record) for record in shown], next=shown[-1].id if len(records) > limit else None
    )


async def one(store: Store, view: View, array: ArrayRecord, index: int) -> JobPage:
    """The element of an index.

    Raises:
        NotFound: there is none.
    """
    record = await store.element(array, index)
    if record is None:
        raise NotFound(
            f"Array {array.id} has no element {index}.", f"gridx jobs --array {array.id} lists them."
        )
    return JobPage(jobs=[view(record)])


async def outputs(
    store: Store,
    view: View,
    array: ArrayRecord,
    states: Collection[JobState],
    after: int | None,
    limit: int,
) -> ElementOutputs:
    """Elements with what their last attempts wrote, as far as it is little."""
    records = await store.elements(array, states=states, after=after, limit=limit + 1)
    shown: list[JobRecord] = []
    wanted: set[int] = set()
    size = 0
    for record in records[:limit]:
        wrote = record.stdout_bytes + record.stderr_bytes
        if wrote <= MOST_BYTES:
            size += wrote
            if size > PAGE_BYTES:
                break
            wanted.add(record.id)
        shown.append(record)
    found = await store.last_outputs(wanted)
    return ElementOutputs(
        elements=[ElementOutput(view(record), *found.get(record.id, (b"", b""))) for record in shown],
        next=shown[-1].id if len(records) > len(shown) else None,
    )
