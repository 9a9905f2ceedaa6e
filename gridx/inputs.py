"""Files of this machine that are to go into a job: which they are, their names there, what is left out.

Nothing is sent before all of it is known to be there and to be allowed. A folder goes as a whole, but for
what its ``.gridxignore`` names, in the syntax of ``.gitignore``.
"""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

import msgspec

from gridx import filepaths, safetext
from gridx.errors import InvalidField, QuotaExceeded, TooLarge
from gridx.messages import MAX_INPUTS, FilePath, Limits
from gridx.quantities import size_words

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

Specs = list[tuple[PurePosixPath, "GitIgnoreSpec"]]
"""Ignore files with their folders, from the top down."""

IGNORE: Final = ".gridxignore"
ALWAYS: Final = (".git/", "__pycache__/", ".venv/", ".DS_Store", IGNORE)
"""Left out of every folder, unless its own ignore file says otherwise."""
NAMED: Final = 5
"""Files that a refusal names, largest first."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file here, and its path in the job's folder. ``size`` is in bytes, as of the look."""

    source: Path
    path: str
    size: int
    executable: bool


def collect(named: Iterable[str | Path], root: Path | None = None) -> list[Found]:
    """What is meant by these names; nothing is read but folders and ignore files. It blocks on the disk.

    Args:
        named: files and folders as people write them. They keep their path when it is below ``root``, else
            their name alone; ``NAME=PATH`` calls what lies at PATH by another name. ``.`` is all of ``root``.
        root: what names are relative to; None: the working folder.

    Raises:
        TooLarge: they are more than a job may be given.
        InvalidField: something is not there, is no regular file, leads out of its folder, has a name that no
            job may have, or two have one name.
    """
    root = root or Path()
    found: list[Found] = []
    for name in named:
        for file in _meant(str(name), root):
            found.append(file)
            if len(found) > MAX_INPUTS:
                raise TooLarge(
                    f"These are more than the {MAX_INPUTS:,} files that a job may be given; the last of them:"
                    f" {safetext.name(file.path)}.",
                    f"Put them into an archive, or leave some out with {IGNORE}.",
                    limit=MAX_INPUTS,
                )
    if blocked := filepaths.Folder().put_all(file.path for file in found):
        number, why = blocked
        raise InvalidField(
            f"{safetext.name(found[number].path)} {why}.",
            "Give it another name: --input NAME=PATH.",
            field="inputs",
        )
    return found


def check_limits(found: Sequence[Found], limits: Limits) -> None:
    """Refuse what the coordinator would refuse, before anything is sent.

    Raises:
        TooLarge: too many files, or one that is too large.
        QuotaExceeded: together more than one user may have.
    """
    if len(found) > limits.inputs:
        raise TooLarge(
            f"These are {len(found):,} files, and {limits.inputs:,} are allowed.",
            f"Put them into an archive, or leave some out with {IGNORE}.",
            limit=limits.inputs,
        )
    large = [file for file in found if file.size > limits.file_bytes]
    if large:
        raise TooLarge(
            f"{largest(large)}: a file may have {size_words(limits.file_bytes)}.",
            f"Split it, compress it, or leave it out with {IGNORE}.",
            limit=limits.file_bytes,
        )
    if sum(file.size for file in found) > limits.quota_bytes:
        raise no_room(found, limits.used_bytes, limits.quota_bytes)


def no_room(missing: Sequence[Found], used: int, allowed: int) -> QuotaExceeded:
    """The refusal of files that do not fit into what one user may have, with the largest by name."""
    total = sum(file.size for file in missing)
    return QuotaExceeded(
        f"These files have {size_words(total)}, and {size_words(max(0, allowed - used))} of your"
        f" {size_words(allowed)} are free. The largest: {largest(missing)}.",
        "gridx files shows what takes how much; gridx files prune deletes inputs that no job needs,"
        f" gridx files delete ID what a job gave back; {IGNORE} leaves files out.",
        used=used,
        allowed=allowed,
        wanted=total,
    )


def largest(files: Sequence[Found]) -> str:
    """The largest of these files with their sizes, in a line."""
    chosen = sorted(files, key=lambda file: file.size, reverse=True)[:NAMED]
    return ", ".join(f"{safetext.name(file.path)} ({size_words(file.size)})" for file in chosen)


def _meant(text: str, root: Path) -> Iterator[Found]:
    """The files that one name means."""
    new, equals, old = text.partition("=")
    source, called = root / text, ""
    if equals and new and old and not os.path.lexists(source):
        source, called = root / old, new.rstrip("/")
    if not called:
        called = _own_name(source, root)
    try:
        about = source.stat()
    except OSError as error:
        raise _unusable(source, error.strerror or "it cannot be read") from None
    except ValueError:
        raise _unusable(source, "no file has such a name") from None
    if stat.S_ISREG(about.st_mode):
        yield _file(source, _checked(called or source.name), about)
    elif stat.S_ISDIR(about.st_mode):
        for file in _walk(source, PurePosixPath(), []):
            inside = file.relative_to(source).as_posix()
            if not called and inside.partition("/")[0] in filepaths.RESERVED:
                continue
            yield _file(file, _checked(f"{called}/{inside}" if called else inside), file.stat())
    else:
        raise _unusable(source, "it is no regular file")


def _own_name(source: Path, root: Path) -> str:
    """Path below ``root``, or the name alone of what lies elsewhere; empty for ``root`` itself."""
    here = Path(os.path.normpath(root.absolute()))
    there = Path(os.path.normpath(source.absolute()))
    return there.relative_to(here).as_posix().removeprefix(".") if there.is_relative_to(here) else there.name


def _file(source: Path, path: str, about: os.stat_result) -> Found:
    return Found(source, path, about.st_size, bool(about.st_mode & stat.S_IXUSR))


def _walk(top: Path, below: PurePosixPath, specs: Specs) -> Iterator[Path]:
    """The files of a folder, in order of their names."""
    specs = [*specs, *_ignored(top, below)]
    try:
        entries = sorted(os.scandir(top / below), key=lambda entry: entry.name)
    except OSError as error:
        raise _unusable(top / below, error.strerror or "it cannot be read") from None
    for entry in entries:
        inside = below / entry.name
        folder = entry.is_dir(follow_symlinks=False)
        if _leaves_out(specs, inside, folder):
            continue
        path = Path(entry.path)
        if folder:
            yield from _walk(top, inside, specs)
        elif entry.is_file() and (not entry.is_symlink() or _stays_inside(path, top)):
            yield path
        else:
            why = "it leads out of the folder, or nowhere" if entry.is_symlink() else "it is no regular file"
            if entry.is_symlink() and entry.is_dir():
                why = "it is a link to a folder"
            raise InvalidField(
                f"{safetext.name(path)} cannot go along: {why}.",
                f"Leave it out: write its name into {IGNORE}.",
                field="inputs",
            )


def _stays_inside(link: Path, top: Path) -> bool:
    try:
        return link.resolve(strict=True).is_relative_to(top.resolve(strict=True))
    except (OSError, RuntimeError):
        return False


def _ignored(top: Path, below: PurePosixPath) -> Specs:
    """What the ignore file of a folder leaves out, by paths relative to that folder."""
    from pathspec import GitIgnoreSpec  # here: only who sends a folder needs it

    lines: list[str] = [] if below.parts else list(ALWAYS)
    path = top / below / IGNORE
    try:
        lines += path.read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        if below.parts:
            return []
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InvalidField(
            f"{safetext.name(path)} cannot be read: {why}.", "Mend it.", field="inputs"
        ) from None
    try:
        return [(below, GitIgnoreSpec.from_lines(lines))]
    except ValueError as error:
        raise InvalidField(
            f"{safetext.name(path)}: {safetext.line(str(error))}.",
            "It is written like .gitignore.",
            field="inputs",
        ) from None


def _leaves_out(specs: Specs, path: PurePosixPath, folder: bool) -> bool:
    """Whether the nearest ignore file that says anything of a path leaves it out."""
    for below, spec in reversed(specs):
        said = spec.check_file(path.relative_to(below).as_posix() + ("/" if folder else "")).include
        if said is not None:
            return said
    return False


def _checked(path: str) -> str:
    """A path as a job may have it."""
    try:
        return msgspec.convert(path, FilePath)
    except (msgspec.ValidationError, UnicodeEncodeError):
        raise InvalidField(
            f"{safetext.name(path)} is no name that a file of a job may have.",
            "Paths are relative and without '..'; no backslash, colon or control character; each part has at"
            " most 255 characters.",
            field="inputs",
        ) from None


def _unusable(source: Path, why: str) -> InvalidField:
    close: list[str] = []
    with suppress(OSError, ValueError):
        if not os.path.lexists(source):
            names = [path.name for path in source.parent.iterdir()]
            close = difflib.get_close_matches(source.name, names, 1)
    hint = (
        f"Did you mean {safetext.name(close[0])}?" if close else "Name a file or a folder; nothing was sent."
    )
    return InvalidField(f"{safetext.name(source)} cannot be sent: {why}.", hint, field="inputs")
