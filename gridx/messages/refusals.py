"""A decoder's complaint in words: what a field must be, without patterns and without names of types."""

from __future__ import annotations

import re
from typing import Any, Final, get_args

from msgspec import Meta

from gridx.messages import bounds, files

KINDS: Final = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
UNITS: Final = {"str": "characters", "array": "elements", "object": "entries"}
BOUNDS: Final = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}


def _pattern(kind: Any) -> str:
    return next(
        note.pattern for note in get_args(kind) if isinstance(note, Meta) and note.pattern is not None
    )


PATTERNS: Final = {
    repr(_pattern(kind)): words
    for kind, words in (
        (bounds.UserName, "1 to 64 letters, digits and . _ @ -, with a letter or digit first"),
        (bounds.Line, "one line of text without control characters"),
        (bounds.Text, "text without NUL characters"),
        (bounds.EnvName, "letters, digits and _, with no digit first"),
        (bounds.RuntimeName, "1 to 64 small letters, digits and . _ -, with a letter or digit first"),
        (bounds.PythonVersion, "a version like 3.11"),
        (bounds.GpuUuid, "1 to 96 letters, digits and -"),
        (bounds.Identity, "32 hexadecimal digits"),
        (files.Digest, "64 small hexadecimal digits"),
        (
            files.FilePath,
            "a path below the job's folder, with / between its parts: no . or .. part, no : or \\, no "
            "control character, no / at either end, no part over 255 characters",
        ),
    )
}

_RANGE: Final = re.compile(r"Expected `[a-z]+` ([<>]=?) (\S+)")
_LENGTH: Final = re.compile(r"Expected `([a-z]+)` of length ([<>]=?) (\S+)")
_REGEX: Final = re.compile(r"Expected `str` matching regex (.+)", re.DOTALL)
_TYPE: Final = re.compile(r"Expected `([a-z| ]+)`, got `([a-z]+)`")


def in_words(complaint: str) -> str:
    """What msgspec said of a field, as the rest of a sentence; what is not known here stays as it is."""
    if match := _RANGE.fullmatch(complaint):
        return f"must be {BOUNDS[match[1]]} {match[2]}"
    if match := _LENGTH.fullmatch(complaint):
        return f"must have {BOUNDS[match[2]]} {match[3]} {UNITS.get(match[1], 'elements')}"
    if (match := _REGEX.fullmatch(complaint)) and match[1] in PATTERNS:
        return f"must be {PATTERNS[match[1]]}"
    if match := _TYPE.fullmatch(complaint):
        wanted = " or ".join(KINDS.get(kind, kind) for kind in match[1].split(" | "))
        return f"must be {wanted}, not {KINDS.get(match[2], match[2])}"
    if complaint.startswith("Object contains unknown field `"):
        return "is not a field that is known here"
    if complaint.startswith("Object missing required field `"):
        return "is missing"
    return complaint
