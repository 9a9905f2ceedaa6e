"""Programs of an engine with holes that are known, by their version: what an owner should bring up to date.

A version says what its makers mended. A system's makers mend older ones, too, without a change of the version
that is shown; so this is a reason to look, and never one to refuse jobs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from gridx import safetext

Version = tuple[int, int, int, int]
"""Three numbers, and the number of a candidate; a release comes after all its candidates."""

RELEASE: Final = 1 << 16
_VERSION: Final = re.compile(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,6}))?(?:[-~.+]?rc[-.]?(\d{1,3}))?")

# Of each program: a hole, and the first version of each line of versions that does not have it.
_HOLES: Final[dict[str, tuple[tuple[str, tuple[Version, ...]], ...]]] = {
    "runc": (
        ("CVE-2024-21626", ((1, 1, 12, 0), (1, 2, 0, 0))),
        ("CVE-2025-31133", ((1, 2, 8, 0), (1, 3, 3, 0), (1, 4, 0, 3))),
        ("CVE-2025-52565", ((1, 2, 8, 0), (1, 3, 3, 0), (1, 4, 0, 3))),
        ("CVE-2025-52881", ((1, 2, 8, 0), (1, 3, 3, 0), (1, 4, 0, 3))),
    ),
    "containerd": (("CVE-2022-23648", ((1, 4, 13, 0), (1, 5, 10, 0), (1, 6, 1, 0))),),
}
OLDEST_DOCKER: Final = (20, 10, 0, 0)
"""Older ones let files of images and the copying of files lead out of a container, and know no answer of a
profile of system calls but "not permitted", by which newer programs do not learn to do without one."""


def version_of(text: str) -> Version | None:
    """The first version number in a text; None where there is none."""
    match = _VERSION.search(text)
    if match is None:
        return None
    candidate = int(match[4]) if match[4] else RELEASE
    return int(match[1]), int(match[2]), int(match[3] or 0), candidate


def has(version: Version, mended: tuple[Version, ...]) -> bool:
    """Whether a version has a hole that was mended from these on, each within its line of versions."""
    for first in mended:
        if version[:2] == first[:2]:
            return version < first
    # A line of its own: the ones before the last mended never were, the ones after were so from the start.
    return version[:2] < max(mended)[:2]


def known_holes(components: Iterable[tuple[str, str]]) -> list[str]:
    """A sentence for each program of an engine that may have a known hole.

    Args:
        components: names and versions as the engine tells them.
    """
    found = []
    for name, text in components:
        version = version_of(text)
        if version is None:
            continue
        shown = ".".join(map(str, version[:3]))
        known = name.lower()
        for program, holes in _HOLES.items():
            if program in known:
                named = [hole for hole, mended in holes if has(version, mended)]
                if named:
                    found.append(
                        f"{program} {shown} has known ways out ({', '.join(named)}), unless your system's "
                        "makers mended it: update it."
                    )
        if known == "engine" and version < OLDEST_DOCKER:
            found.append(f"Docker {safetext.line(shown)} is not mended any more: update it.")
    return found
