"""A job as a command line describes it: the program, its arguments, what it asks for, what it waits for."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from gridx.commands.files import output_option
from gridx.commands.quantities import DURATION, JOB_ID, MEMORY, VARIABLE
from gridx.errors import InvalidField, TooLarge
from gridx.languages import language_of
from gridx.messages import MAX_CODE_BYTES, Dependency, JobSpec, decode, encode

_OPTIONS: Final[tuple[Callable[[Callable[..., Any]], Callable[..., Any]], ...]] = (
    click.option("-c", "--code", metavar="CODE", help="The program itself, in place of FILE."),
    click.option("--name", metavar="TEXT", help="What to call the job; else the file's name."),
    click.option("--cpus", type=float, metavar="N", help="Cores, also a fraction (1)."),
    click.option(
        "--memory", "memory_mb", type=MEMORY, metavar="SIZE", help="Memory, like 512M or 1.5G (512M)."
    ),
    click.option("--gpus", type=int, metavar="N", help="Whole GPUs (0)."),
    click.option(
        "--timeout", "timeout_s", type=DURATION, metavar="TIME", help="Longest run, like 90s, 5m, 2h (5m)."
    ),
    click.option(
        "--env", type=VARIABLE, multiple=True, metavar="KEY=VALUE", help="A variable; may be repeated."
    ),
    click.option("--priority", type=int, metavar="N", help="Among one's own jobs: -100 to 100 (0)."),
    click.option("--max-attempts", type=int, metavar="N", help="Tries, when machines fail (3)."),
    click.option(
        "--retries", type=int, metavar="N", help="More runs, each paid, when the program fails (0)."
    ),
    click.option(
        "--retry-delay",
        "retry_delay_s",
        type=DURATION,
        metavar="TIME",
        help="Pause before the first retry, like 30s; then twice as long each time (5s).",
    ),
    click.option(
        "--language",
        metavar="NAME",
        help="python, bash, javascript or what else the fleet offers; else as FILE ends: .py, .sh, .js.",
    ),
    click.option("--runtime", metavar="NAME", help="Which image; else any that fits."),
    click.option("--python", metavar="3.N", help="Which Python; else any."),
    output_option,
    click.option(
        "--after",
        type=JOB_ID,
        multiple=True,
        metavar="ID",
        help="Start when this job or array has succeeded; may be repeated.",
    ),
    click.option(
        "--after-any",
        type=JOB_ID,
        multiple=True,
        metavar="ID",
        help="Start when this job or array has ended, however; may be repeated.",
    ),
)


def spec_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """FILE or ``-`` or ``-c``, arguments after it, and what the job asks for; the command gets a ``spec``."""

    @functools.wraps(function)
    def call(*positional: Any, words: tuple[str, ...], **given: Any) -> Any:
        fields = {option: given.pop(option) for option in _FIELDS}
        return function(*positional, spec=spec_of(words, **fields), **given)

    wrapped: Callable[..., Any] = click.argument("words", nargs=-1, metavar="FILE [-- ARGUMENT...]")(call)
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


OPTIONS: Final = {
    "cpus": ("--cpus", ""),
    "memory_mb": ("--memory", " MiB"),
    "timeout_s": ("--timeout", " seconds"),
    "retry_delay_s": ("--retry-delay", " seconds"),
}
"""What a field is called on the command line, and its unit; others are called like their field."""

_FIELDS: Final = (
    "code",
    "name",
    "language",
    "cpus",
    "memory_mb",
    "gpus",
    "timeout_s",
    "env",
    "priority",
    "max_attempts",
    "retries",
    "retry_delay_s",
    "runtime",
    "python",
    "outputs",
    "after",
    "after_any",
)


def spec_of(
    words: tuple[str, ...],
    *,
    code: str | None,
    name: str | None,
    language: str | None = None,
    env: tuple[tuple[str, str], ...],
    after: tuple[int, ...] = (),
    after_any: tuple[int, ...] = (),
    **asked: Any,
) -> JobSpec:
    """The job that a command line describes.

    Raises:
        UsageError: no program was named.
        InvalidField: it cannot be read, or a value is out of range.
    """
    if code is None:
        if not words:
            raise click.UsageError("Which program? Name a FILE, or - for stdin, or give -c CODE.")
        source, *words_left = words
        code = _read(source)
        name = name if name is not None else ("stdin" if source == "-" else Path(source).name)
        language = language or language_of(source)
    else:
        words_left = list(words)
    if len(code.encode("utf-8", "surrogatepass")) > MAX_CODE_BYTES:
        raise TooLarge(
            f"The program has more than {MAX_CODE_BYTES:,} bytes.",
            "Send a smaller one, and let it make its data itself.",
        )
    fields = {key: value for key, value in asked.items() if value not in (None, ())}
    waits_for = [Dependency(job_id=one) for one in after]
    waits_for += [Dependency(job_id=one, when="end") for one in after_any]
    spec = JobSpec(
        code=code,
        name=name or "",
        language=language or "python",
        args=words_left,
        env=dict(env),
        after=waits_for,
        **fields,
    )
    try:
        return decode(encode(spec), JobSpec)
    except InvalidField as error:
        raise _of_option(error) from None
    except UnicodeEncodeError:
        raise InvalidField(
            "The job holds characters that are not Unicode.", "Use UTF-8.", field="args"
        ) from None


def _of_option(error: InvalidField) -> InvalidField:
    """The refusal of a field in the words of the command line."""
    field = str(error.details.get("field", ""))
    option, unit = OPTIONS.get(field, (f"--{field}".replace("_", "-"), ""))
    if field.partition("[")[0] == "args":
        option = "ARGUMENT"
    words = error.message.removeprefix(f"{field}: ").removesuffix(".")
    return InvalidField(
        f"{option} {words}{unit if words[-1:].isdigit() else ''}.",
        "--help shows all options.",
        field=field,
    )


def _read(source: str) -> str:
    try:
        data = sys.stdin.buffer.read(MAX_CODE_BYTES + 1) if source == "-" else Path(source).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise InvalidField(
            f"{source} cannot be read: {error.strerror}.", "Name a file.", field="code"
        ) from None
    except UnicodeDecodeError:
        raise InvalidField(f"{source} is not UTF-8 text.", "Save it as UTF-8.", field="code") from None
