"""The `sd4match` command. Commands import their dependencies when they run, so that `--help` is fast."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typer.models import CommandInfo

import sd4match
from sd4match.cli import (
    cache,
    compare,
    components,
    data,
    demo,
    evaluate,
    extract,
    match,
    models,
    new,
    prompts,
    serve,
    sweep,
    train,
)
from sd4match.errors import InputError, decimal_of, shown
from sd4match.paths import as_path

app = typer.Typer(
    name="sd4match",
    help="Semantic matching with a frozen Stable Diffusion whose prompt is learned.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class _Command(TyperCommand):
    """Command whose options and arguments say something, and whose paths may begin with ~ even in quotes."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments of a command line.

        Raises:
                InputError: one of them is empty, consists of spaces, or is no path or no number where one is wanted.
        """
        given, *_ = self.make_parser(ctx).parse_args(args=list(args))
        for parameter in self.params:
            for value in _each(given.get(parameter.name or "")):
                if isinstance(value, str) and not value.strip():
                    raise InputError(f"{_name_of(parameter)} is empty: give a value, or leave it out")
                if isinstance(value, str):
                    _check_number(parameter, value)
        rest: list[str] = super().parse_args(ctx, args)
        for parameter in self.params:
            value = ctx.params.get(parameter.name or "")
            paths = [
                as_path(path, what=_name_of(parameter)) if isinstance(path, Path) else path for path in _each(value)
            ]
            if any(isinstance(path, Path) for path in paths):
                ctx.params[parameter.name or ""] = type(value)(paths) if isinstance(value, (list, tuple)) else paths[0]
        return rest


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


def _print_version(is_given: bool) -> None:
    if is_given:
        typer.echo(f"sd4match {sd4match.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Semantic matching with a frozen Stable Diffusion whose prompt is learned."""


app.command("match")(match.command)
app.command("train")(train.command)
app.command("evaluate")(evaluate.command)
app.command("extract")(extract.command)
app.command("compare")(compare.command)
app.command("demo")(demo.command)
app.command("app")(serve.command)
app.command("components")(components.command)
app.add_typer(prompts.app, name="prompts")
app.add_typer(sweep.app, name="sweep")
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="models")
app.add_typer(cache.app, name="cache")
app.add_typer(new.app, name="new")
app.command("doctor")(models.doctor)


def _commands(group: typer.Typer) -> Iterator[CommandInfo]:
    yield from group.registered_commands
    for below in group.registered_groups:
        if below.typer_instance is not None:
            yield from _commands(below.typer_instance)


for _info in _commands(app):
    _info.cls = _Command
