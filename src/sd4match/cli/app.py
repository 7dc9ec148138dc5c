"""The `sd4match` command. Commands import their dependencies when they run, so that `--help` is fast."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typer.models import CommandInfo

import sd4match
from sd4match.cli import cache, compare, data, demo, evaluate, extract, match, models, prompts, sweep, train
from sd4match.errors import InputError

app = typer.Typer(
    name="sd4match",
    help="Semantic matching with a frozen Stable Diffusion whose prompt is learned.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class _Command(TyperCommand):
    """Command whose options and arguments say something: an empty one is an error, not one that was left out."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments of a command line.

        Raises:
            InputError: one of them is empty, or consists of spaces.
        """
        given, *_ = self.make_parser(ctx).parse_args(args=list(args))
        for parameter in self.params:
            values = given.get(parameter.name or "")
            for value in values if isinstance(values, (list, tuple)) else [values]:
                if isinstance(value, str) and not value.strip():
                    name = (
                        parameter.opts[0] if parameter.param_type_name == "option" else (parameter.name or "").upper()
                    )
                    raise InputError(f"{name} is empty: give a value, or leave it out")
        return super().parse_args(ctx, args)


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
app.add_typer(prompts.app, name="prompts")
app.add_typer(sweep.app, name="sweep")
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="models")
app.add_typer(cache.app, name="cache")
app.command("doctor")(models.doctor)


def _commands(group: typer.Typer) -> Iterator[CommandInfo]:
    yield from group.registered_commands
    for below in group.registered_groups:
        if below.typer_instance is not None:
            yield from _commands(below.typer_instance)


for _info in _commands(app):
    _info.cls = _Command
