"""Classes of commands and groups, with checks of arguments and with examples below the help."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typer.core import TyperCommand, TyperGroup

from sd4match.cli.examples import EXAMPLES, NOTES
from sd4match.errors import InputError, decimal_of, shown
from sd4match.paths import as_path


class Command(TyperCommand):
    """Command that refuses empty arguments, and whose paths may begin with ~ even in quotes."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments of a command line.

        Raises:
                InputError: an argument is empty, consists of spaces, or is no path or number where that is needed.
        """
        if not ctx.resilient_parsing:  # a line that is being completed may hold anything
            self._check_words(ctx, args)
        rest: list[str] = super().parse_args(ctx, args)
        for parameter in self.params:
            value = ctx.params.get(parameter.name or "")
            paths = [
                as_path(path, what=_name_of(parameter)) if isinstance(path, Path) else path for path in _each(value)
            ]
            if any(isinstance(path, Path) for path in paths):
                ctx.params[parameter.name or ""] = type(value)(paths) if isinstance(value, (list, tuple)) else paths[0]
        return rest

    def _check_words(self, ctx: Any, args: list[str]) -> None:
        given, *_ = self.make_parser(ctx).parse_args(args=list(args))
        for parameter in self.params:
            for value in _each(given.get(parameter.name or "")):
                if isinstance(value, str) and not value.strip():
                    raise InputError(f"{_name_of(parameter)} is empty: give a value, or leave it out")
                if isinstance(value, str):
                    _check_number(parameter, value)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples of the command."""
        _write_examples(ctx, formatter)


class Group(TyperGroup):
    """Group of commands with examples below its help."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples of the group."""
        _write_examples(ctx, formatter)


def _write_examples(ctx: Any, formatter: Any) -> None:
    """Write the examples of a command without wrapping, so that they can be copied."""
    names = []
    while ctx.parent is not None:
        names.append(ctx.info_name)
        ctx = ctx.parent
    path = " ".join(reversed(names))
    with formatter.section("Examples"):
        for comment, line in EXAMPLES.get(path, ()):
            formatter.write(f"  # {comment}\n  sd4match {line}\n")
    for title, text in NOTES.get(path, {}).items():
        with formatter.section(title):
            formatter.write_text(text)


def _check_number(parameter: Any, text: str) -> None:
    """Refuse a number that is not written in the digits 0 to 9, such as 1_000."""
    descriptor = getattr(parameter, "type_descriptor", None)
    kind = str(parameter.type.name if descriptor is None else getattr(descriptor.annotation, "__name__", ""))
    if kind.startswith("float") and math.isnan(decimal_of(text)):
        raise InputError(f"{_name_of(parameter)} must be a number such as 2.5, not {shown(text)}")
    if kind.startswith("int") and not re.fullmatch(r"[-+]?[0-9]+", text):
        raise InputError(f"{_name_of(parameter)} must be a whole number such as 5, not {shown(text)}")


def _each(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else [value]


def _name_of(parameter: Any) -> str:
    return str(parameter.opts[0] if parameter.param_type_name == "option" else (parameter.name or "").upper())
