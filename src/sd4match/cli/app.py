"""Command `sd4match`. Subcommands import their dependencies when they run, so that `--help` is fast."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.core import TyperGroup

import sd4match
from sd4match.cli import (
    cache,
    compare,
    components,
    data,
    demo,
    doctor,
    evaluate,
    extract,
    match,
    models,
    new,
    prompts,
    report,
    reproduce,
    serve,
    sweep,
    train,
)
from sd4match.cli.answer import answering
from sd4match.cli.command import Command, Group
from sd4match.cli.completion import complete

app = typer.Typer(
    name="sd4match",
    help="Semantic matching with a frozen Stable Diffusion whose prompt is learned.",
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


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
app.command("report")(report.command)
app.command("demo")(demo.command)
app.command("app")(serve.command)
app.command("reproduce")(reproduce.command)
app.command("components")(components.command)
app.add_typer(prompts.app, name="prompts")
app.add_typer(sweep.app, name="sweep")
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="models")
app.add_typer(cache.app, name="cache")
app.add_typer(new.app, name="new")
app.command("doctor")(doctor.command)


def _equip(group: typer.Typer, *path: str) -> None:
    """Add examples, completions and, if it returns a document, `--json` to every command of a group."""
    for info in group.registered_commands:
        assert info.callback is not None
        info.cls = Command
        info.callback = answering(info.callback)
        complete(info.callback, " ".join([*path, info.name or info.callback.__name__]))
    for below in group.registered_groups:
        assert below.typer_instance is not None
        below.cls = _with_examples(below.typer_instance.info.cls)
        _equip(below.typer_instance, *path, below.name or "")


def _with_examples(own: object) -> type[TyperGroup]:
    """Return a class of groups with examples, derived from the group's own class if it has one."""
    if isinstance(own, type) and issubclass(own, TyperGroup):
        return own if issubclass(own, Group) else type(own.__name__, (Group, own), {})
    return Group


_equip(app)
