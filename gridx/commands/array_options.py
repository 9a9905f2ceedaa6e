"""How many elements an array has, and what each is given, as a command line says it."""

from __future__ import annotations

import functools
import glob
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from gridx.commands.quantities import CREDITS
from gridx.errors import InvalidField
from gridx.messages import MAX_ARRAY, ArraySpec, InputFile

if TYPE_CHECKING:
    from gridx.client import Client
    from gridx.client_sending import Progress

AT_ONCE: Final = 1000
"""Files that are looked at and sent together; one job may be given about as many."""

_OPTIONS: Final[tuple[Callable[[Callable[..., Any]], Callable[..., Any]], ...]] = (
    click.option(
        "--args", "lines", metavar="FILE", help="An element for each line: its arguments (- for stdin)."
    ),
    click.option(
        "--range", "span", metavar="A-B", help="An element for each number, which is its argument and index."
    ),
    click.option(
        "--each",
        multiple=True,
        metavar="PATTERN",
        help="An element for each file, its input and argument; quote it: 'data/*.csv'.",
    ),
    click.option("--count", type=click.IntRange(1, MAX_ARRAY), metavar="N", help="So many alike elements."),
    click.option(
        "--max-fails",
        type=click.IntRange(0, MAX_ARRAY),
        metavar="N",
        help="With more failed than this, cancel those that wait.",
    ),
    click.option(
        "--max-credits",
        type=CREDITS,
        metavar="CREDITS",
        help="What all may cost together; elements start while it lasts.",
    ),
)
_FIELDS: Final = ("lines", "span", "each", "count", "max_fails", "max_credits")


@dataclass(frozen=True)
class Elements:
    """What was asked for; ``files`` are sent when the array is submitted."""

    spec: ArraySpec | None
    files: Sequence[str] = ()

    async def with_files(self, grid: Client, progress: Progress | None = None) -> ArraySpec | None:
        """The array with its files sent, one to an element."""
        if not self.files or self.spec is None:
            return self.spec
        inputs: list[list[InputFile]] = []
        for at in range(0, len(self.files), AT_ONCE):
            sent = await grid.upload_inputs(self.files[at : at + AT_ONCE], progress=progress)
            inputs += [[one] for one in sent]
        return ArraySpec(inputs=inputs, max_fails=self.spec.max_fails, max_credits=self.spec.max_credits)


def array_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--args``, ``--range``, ``--each``, ``--count`` and the bounds; the command gets ``elements``."""

    @functools.wraps(function)
    def call(*positional: Any, **given: Any) -> Any:
        fields = {name: given.pop(name) for name in _FIELDS}
        return function(*positional, elements=elements_of(**fields), **given)

    wrapped: Callable[..., Any] = call
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


def elements_of(
    *,
    lines: str | None,
    span: str | None,
    each: tuple[str, ...],
    count: int | None,
    max_fails: int | None,
    max_credits: int | None,
) -> Elements:
    """The array that a command line describes; none without any of these options.

    Raises:
        UsageError: more than one says how many elements there are, or a bound stands alone.
        InvalidField: a file cannot be read, a line is no line of arguments, a range is none.
    """
    named = [
        name
        for name, given in (("--args", lines), ("--range", span), ("--each", each), ("--count", count))
        if given
    ]
    bounds: dict[str, Any] = {"max_fails": max_fails, "max_credits": max_credits}
    if len(named) > 1:
        raise click.UsageError(f"{' and '.join(named)} both say how many elements there are. Name one.")
    if not named:
        if max_fails is not None or max_credits is not None:
            raise click.UsageError(
                "--max-fails and --max-credits are for arrays: --args, --range, --each, --count."
            )
        return Elements(None)
    if lines:
        return Elements(ArraySpec(args=_checked(_arguments(lines), "--args"), **bounds))
    if span:
        first, last = _span(span)
        args = [[str(number)] for number in _checked(range(first, last + 1), "--range")]
        return Elements(ArraySpec(args=args, first=first, **bounds))
    if each:
        files = _checked(_files(each), "--each")
        return Elements(ArraySpec(count=len(files), **bounds), files)
    return Elements(ArraySpec(count=count, **bounds))


def _checked(found: Any, option: str) -> Any:
    if not found:
        raise InvalidField(f"{option} names no element.", "An array has at least one.", field="array")
    if len(found) > MAX_ARRAY:
        raise InvalidField(
            f"{option} names {len(found):,} elements; an array has at most {MAX_ARRAY:,}.",
            "Let one element do the work of several.",
            field="array",
        )
    return found


def _arguments(source: str) -> list[list[str]]:
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidField(
            f"{source} cannot be read: {error.strerror}.",
            "Name a file with a line for each element.",
            field="array",
        ) from None
    except UnicodeDecodeError:
        raise InvalidField(f"{source} is not UTF-8 text.", "Save it as UTF-8.", field="array") from None
    found: list[list[str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise InvalidField(
                f"{source}, line {number}: {error}.".replace("..", "."),
                "Quote arguments as in a shell: 'two words'.",
                field="array",
            ) from None
        if words:
            found.append(words)
    return found


def _span(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,15})-(\d{1,15})", text.strip(), re.ASCII)
    if not found or int(found[1]) > int(found[2]):
        raise InvalidField(
            f"{text!r} is no range.", "Write the first and the last number: 0-999.", field="array"
        )
    return int(found[1]), int(found[2])


def _files(patterns: Sequence[str]) -> list[str]:
    """Regular files, each once, in order of their names."""
    found: dict[str, None] = {}
    for pattern in patterns:
        # A path's own glob takes no absolute patterns.
        named = glob.glob(pattern, recursive=True)  # noqa: PTH207
        matches = sorted(name for name in named if Path(name).is_file())
        if not matches:
            raise InvalidField(
                f"No file is named like {pattern}.", "Quote the pattern: --each 'data/*.csv'.", field="array"
            )
        found.update(dict.fromkeys(matches))
    return list(found)
