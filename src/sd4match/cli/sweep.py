"""Commands `sd4match sweep`, which train and evaluate many experiments, with one report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from sd4match.cli.answer import Document
from sd4match.cli.common import (
    DataOptions,
    Device,
    ExperimentOptions,
    PromptFile,
    Set,
    SplitName,
    changed,
    option_groups,
    read_config,
)

if TYPE_CHECKING:
    from sd4match.cli.progress import Bars
    from sd4match.config.experiment import ExperimentConfig
    from sd4match.training.measuring import SweepCallbacks

_PLOT, _MADE_BY = "sweep.png", "sd4match sweep"


class _Sweeps(TyperGroup):
    """Group in which the name of the command `fields` may be left out: `sweep FIELD=a,b,c`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the name `fields` unless the first argument is a command or --help."""
        named = not args or args[0] in self.commands or args[0] == "--help"
        parsed: list[str] = super().parse_args(ctx, args if named else ["fields", *args])
        return parsed


app = typer.Typer(
    cls=_Sweeps, help="Many experiments, one table: `sweep FIELD=a,b,c`, or `sweep prompts`.", no_args_is_help=True,
    rich_markup_mode=None, subcommand_metavar="FIELD=VALUES... | COMMAND [ARGS]...",
)  # fmt: skip


@app.callback()
def root() -> None:
    """Many experiments, one table: `sd4match sweep FIELD=a,b,c`, or `sd4match sweep prompts`."""


@app.command("fields", short_help="One experiment with other values of any fields, FIELD=a,b,c; needs no name.")
@option_groups
def fields(
    *,
    swept: Annotated[
        list[str],
        typer.Argument(
            metavar="FIELD=VALUES...",
            help="a,b,c or start:stop:step, with its stop if a step hits it; several fields give every combination.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder for the report and one folder per row.")] = Path(
        "runs/sweep-fields"
    ),
    prompt: PromptFile = None,
    data: DataOptions,
    split: SplitName = "test",
    steps: Annotated[int | None, typer.Option(min=1, help="Overrides training.steps.")] = None,
    device: Device = "auto",
    options: ExperimentOptions,
) -> Document | None:
    """Evaluate an experiment with every combination of values of some fields, after training what learns.

    The name of the command may be left out:

    sd4match sweep evaluation.sampling.timestep=0:500:50 --preset single --prompt FILE

    sd4match sweep learning_rate=0.001,0.01 seed=0,1,2 --preset single

    Started again with the same output, it continues where it stopped.
    """
    changes = [*data.changes(), *changed("training.steps", steps)]
    options.read("single", changes)  # for --show-config, and for errors of the experiment itself

    from sd4match.cli.common import check_output, check_split, prepare_device
    from sd4match.cli.progress import progress_bar
    from sd4match.cli.run_folder import held
    from sd4match.distributed import Processes
    from sd4match.evaluation.report import write_report
    from sd4match.evaluation.run_folders import earlier_report
    from sd4match.evaluation.tables import to_summary
    from sd4match.io.pictures import check_png, png_of
    from sd4match.training.field_sweep import field_rows, measure_rows, plot_sweep
    from sd4match.training.measuring import check_jobs

    def read(more: list[str]) -> ExperimentConfig:
        return read_config(
            preset=options.preset, config=options.config, backbone=options.backbone, dtype=options.dtype,
            overrides=[*changes, *(options.overrides or ()), *more], default="single",
        )  # fmt: skip

    checked_split = check_split(split)
    check_output(output)
    found, rows = field_rows(output, swept, read, prompt=prompt)
    rows[0].job.config.require_data()
    is_main = Processes().is_main
    with held(output):
        Processes().on_main(lambda: check_jobs(output, {row.name: row.job for row in rows}))
        check_png(output / _PLOT, made_by=_MADE_BY)
        replaced = earlier_report(output)
        device = prepare_device(device)
        with progress_bar(visible=is_main) as bar:
            callbacks = _callbacks(bar, {row.name: row.job.config for row in rows}, "all rows")
            report = measure_rows(output, found, rows, split=checked_split, device=device, callbacks=callbacks)
            bar.update(bar.task_ids[0], completed=len(rows))
        if not is_main:
            return None
        title = f"Sweep over {', '.join(field.path for field in found)}, {split} split"
        plot = plot_sweep(report, title=title)
        figures = {} if plot is None else {_PLOT: png_of(plot, made_by=_MADE_BY)}
        write_report(report, output, title=title, figures=figures)
    typer.echo(to_summary(report, title=title))
    files = [output / name for name in ("report.json", "report.md", *figures)]
    typer.echo(f"Written: {', '.join(map(str, files))}, and a folder for each row")
    if replaced:
        typer.echo(replaced)
    return {**report.to_json(), "files": files}


@app.command("prompts", short_help="Every kind of prompt, with one seed and one number of steps.")
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
) -> Document | None:
    """Train every kind of prompt with one seed and one number of steps, and evaluate all on the same pairs.

    Started again with the same output, it continues where it stopped.
    """
    from sd4match.cli.common import check_output, check_split, prepare_device
    from sd4match.cli.progress import progress_bar
    from sd4match.cli.run_folder import held
    from sd4match.distributed import Processes
    from sd4match.evaluation.report import write_report
    from sd4match.evaluation.run_folders import earlier_report
    from sd4match.evaluation.tables import to_summary
    from sd4match.training.measuring import check_jobs
    from sd4match.training.sweep import PROMPTS, prompt_jobs, sweep_configs, sweep_prompts

    checked_split = check_split(split)
    check_output(output)
    names = tuple(dict.fromkeys(only or PROMPTS))
    variants = dict(_variant(text) for text in variant or [])
    changes = [*data.changes(), *(overrides or []), *changed("training.steps", steps)]
    configs = sweep_configs(names, variants, model=model, seed=seed, overrides=changes)
    for config in configs.values():
        config.require_data()
    is_main = Processes().is_main
    with held(output):
        Processes().on_main(lambda: check_jobs(output, prompt_jobs(output, configs)))
        replaced = earlier_report(output)
        device = prepare_device(device)
        with progress_bar(visible=is_main) as bar:
            report = sweep_prompts(
                output, model=model, names=names, variants=variants, seed=seed, overrides=changes, split=checked_split,
                device=device, callbacks=_callbacks(bar, configs, "all prompts"),
            )  # fmt: skip
            bar.update(bar.task_ids[0], completed=len(configs))
        if not is_main:
            return None
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


def _callbacks(bar: Bars, configs: dict[str, ExperimentConfig], what: str) -> SweepCallbacks:
    """Return callbacks that show all rows as one task of a bar, and the current one as another."""
    from sd4match.training.measuring import SweepCallbacks

    names = list(configs)
    rows = bar.add_task(what, total=len(names))
    current = bar.add_task("")

    def on_start(name: str) -> None:
        bar.update(rows, completed=names.index(name))
        bar.reset(current, description=name, total=configs[name].training.steps)

    def on_evaluation_progress(name: str, done: int, total: int) -> None:
        bar.update(current, description=f"evaluating {name}", completed=done, total=total)

    return SweepCallbacks(
        on_start=on_start,
        on_step=lambda name, step: bar.update(current, completed=step),
        on_evaluation_progress=on_evaluation_progress,
    )
