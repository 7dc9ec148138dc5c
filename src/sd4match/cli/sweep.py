"""`sd4match sweep`: train and evaluate many experiments, with one report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sd4match.cli.answer import Document
from sd4match.cli.common import DataOptions, Device, Set, SplitName, option_groups

if TYPE_CHECKING:
    from sd4match.cli.progress import Bars
    from sd4match.config.experiment import ExperimentConfig
    from sd4match.training.sweep import SweepCallbacks

app = typer.Typer(help="Many experiments, one table.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def root() -> None:
    """Many experiments, one table."""


@app.command("prompts")
@option_groups
def prompts(
    *,
    output: Annotated[Path, typer.Option(help="Folder for the report and one folder per prompt.")] = Path(
        "runs/sweep-prompts"
    ),
    model: Annotated[str, typer.Option(help="Model of the experiments: mini, sd1-5 or sd2-1.")] = "mini",
    only: Annotated[list[str] | None, typer.Option(help="Only this experiment; may be repeated.")] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="NAME={FIELDS}",
            help="One more row: a component, 'lora={kind: lora, rank: 4}', or any fields of an experiment, "
            "'short={training: {steps: 50}}'; may be repeated.",
        ),
    ] = None,
    data: DataOptions,
    split: SplitName = "test",
    seed: Annotated[int, typer.Option(min=0, help="Seed of initial prompts, order of pairs and noise.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Overrides training.steps.")] = None,
    device: Device = "auto",
    overrides: Set = None,
) -> Document:
    """Train every kind of prompt with one seed and one number of steps, and evaluate all on the same pairs.

    Started again with the same output, it continues where it stopped.
    """
    from sd4match.cli.common import changed, check_output, check_split, prepare_device
    from sd4match.cli.progress import progress_bar
    from sd4match.cli.run_folder import held
    from sd4match.evaluation.report import write_report
    from sd4match.evaluation.run_folders import earlier_report
    from sd4match.evaluation.tables import to_summary
    from sd4match.training.sweep import PROMPTS, check_sweep_output, sweep_configs, sweep_prompts

    checked_split = check_split(split)
    check_output(output)
    names = tuple(dict.fromkeys(only or PROMPTS))
    variants = dict(_variant(text) for text in variant or [])
    changes = [*data.changes(), *(overrides or []), *changed("training.steps", steps)]
    configs = sweep_configs(names, variants, model=model, seed=seed, overrides=changes)
    for config in configs.values():
        config.require_data()
    with held(output):
        check_sweep_output(output, configs)
        replaced = earlier_report(output)
        device = prepare_device(device)
        with progress_bar() as bar:
            report = sweep_prompts(
                output, model=model, names=names, variants=variants, seed=seed, overrides=changes, split=checked_split,
                device=device, callbacks=_callbacks(bar, configs),
            )  # fmt: skip
            bar.update(bar.task_ids[0], completed=len(configs))
        title = f"Prompts on {model}, {split} split"
        write_report(report, output, title=title)
    typer.echo(to_summary(report, title=title))
    typer.echo(f"Written: {output / 'report.json'}, {output / 'report.md'}, and a folder for each prompt")
    if replaced:
        typer.echo(replaced)
    return {**report.to_json(), "files": [output / "report.json", output / "report.md"]}


def _variant(text: str) -> tuple[str, Any]:
    """Return name and fields of an option NAME={FIELDS}."""
    from sd4match.documents import parse_yaml
    from sd4match.errors import ConfigError, InputError, shown

    name, equals, fields = text.partition("=")
    if not equals or not name.strip():
        raise InputError(f"--with is NAME={{FIELDS}}, for example 'lora={{kind: lora, rank: 4}}', not {shown(text)}")
    return name.strip(), parse_yaml(fields, what=f"the fields in --with {shown(text)}", error=ConfigError)


def _callbacks(bar: Bars, configs: dict[str, ExperimentConfig]) -> SweepCallbacks:
    """Return callbacks that show all prompts as one task of a bar, and the current one as another."""
    from sd4match.training.sweep import SweepCallbacks

    names = list(configs)
    prompts = bar.add_task("all prompts", total=len(names))
    current = bar.add_task("")

    def on_start(name: str) -> None:
        bar.update(prompts, completed=names.index(name))
        bar.reset(current, description=name, total=configs[name].training.steps)

    def on_evaluation_progress(name: str, done: int, total: int) -> None:
        bar.update(current, description=f"evaluating {name}", completed=done, total=total)

    return SweepCallbacks(
        on_start=on_start,
        on_step=lambda name, step: bar.update(current, completed=step),
        on_evaluation_progress=on_evaluation_progress,
    )
