"""The types of the commands' arguments: ``1.5G``, ``5m``, ``2.5`` credits, ``KEY=VALUE``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import click

from gridx.credits import parse_credits
from gridx.errors import InvalidField
from gridx.quantities import parse_mebibytes, parse_seconds


class Quantity(click.ParamType[int]):
    """A whole number in a unit of its own, which ``parse`` reads from a text."""

    def __init__(self, name: str, parse: Callable[[str], int]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number; what cannot be read is wrong usage."""
        if isinstance(value, int):
            return value
        try:
            return self._parse(str(value))
        except InvalidField as error:
            self.fail(str(error), param, ctx)


class Variable(click.ParamType[tuple[str, str]]):
    """``KEY=VALUE``."""

    name = "KEY=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Name and value of an environment variable."""
        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII):
            self.fail(f"{value!r} is not KEY=VALUE.", param, ctx)
        return name, text


DURATION: Final = Quantity("duration", parse_seconds)
MEMORY: Final = Quantity("size", parse_mebibytes)
CREDITS: Final = Quantity("credits", parse_credits)
VARIABLE: Final = Variable()


class Number(click.ParamType[int]):
    """The number of a job, of a worker or of an entry."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number; anything else is wrong usage."""
        text = str(value)
        if not re.fullmatch(r"[0-9]{1,16}", text, re.ASCII) or not 1 <= int(text) <= 2**53:
            self.fail(f"{value!r} is not an id: a whole number, like 12.", param, ctx)
        return int(text)


JOB_ID: Final = Number()
