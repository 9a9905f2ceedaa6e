"""The languages that sandboxes know: the program's file, and the command that runs it.

One supervisor serves them all. A runtime declares which of them it speaks; where it does not, what is there
is looked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Language:
    """How a program in a language is run.

    Attributes:
        file: the program's name in the job's folder.
        command: what runs it, by name; empty for Python, which the supervisor itself is.
        sparse: its interpreter maps far more memory than it uses: a limit of what is mapped means nothing.
    """

    file: str
    command: tuple[str, ...] = ()
    sparse: bool = False


LANGUAGES: Final = {
    "python": Language("job.py"),
    "bash": Language("job.sh", ("bash", "--")),
    "javascript": Language("job.js", ("node",), sparse=True),
}


def spoken(has: Callable[[str], bool]) -> list[str]:
    """The languages for which everything is there.

    Args:
        has: whether a program can be run by its name.
    """
    return [name for name, language in LANGUAGES.items() if not language.command or has(language.command[0])]
