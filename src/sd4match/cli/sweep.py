"""`sd4match sweep`: many experiments, one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sd4match.cli.common import CacheLimit, Device, Set

app = typer.Typer(help="Many experiments, one table.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def root() -> None:
    """Many experiments, one table."""


@app.command("prompts")
def prompts(
    output: Annotated[Path, typer.Option(help="Folder for the report and for each prompt's files.")] = Path(
        "runs/sweep-prompts"
    ),
    on: Annotated[str, typer.Option(help="The model whose presets are taken, for example mini or sd2-1.")] = "mini",
    only: Annotated[list[str] | None, typer.Option(help="Only this preset; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of initial prompts, order of pairs and noise.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of training.steps.")] = None,
    split: Annotated[str, typer.Option(help="What is measured: train, validation or test.")] = "test",
    cache_limit: CacheLimit = None,
    device: Device = "auto",
    overrides: Set = None,
) -> None:
    """Learn every kind of prompt with one seed and one number of steps, and measure all on the same pairs.

    Started again with the same output, it goes on where it stopped.
    """
    from sd4match.cli.common import cache_changes, check_output, pick_device, progress_bar, quiet_libraries
    from sd4match.errors import ConfigError
    from sd4match.evaluation.report import write_report
    from sd4match.evaluation.tables import to_summary
    from sd4match.training.sweep import PROMPTS, Progress, sweep_config, sweep_prompts

    if split not in ("train", "validation", "test"):
        raise ConfigError(f"--split must be train, validation or test, not {split!r}")
    check_output(output)
    names = tuple(only or PROMPTS)
    changes = [*cache_changes(cache_limit), *(overrides or [])]
    changes += [f"training.steps={steps}"] if steps is not None else []
    configs = {name: sweep_config(f"{on}-{name}", seed, changes) for name in names}
    where = pick_device(device)
    quiet_libraries()
    with progress_bar() as bar:
        whole = bar.add_task("all prompts", total=len(names))
        current = bar.add_task("")

        def started(name: str) -> None:
            bar.update(whole, completed=names.index(name))
            bar.reset(current, description=name, total=configs[name].training.steps)

        def measured(name: str, done: int, total: int) -> None:
            bar.update(current, description=f"measuring {name}", completed=done, total=total)

        report = sweep_prompts(
            output, model=on, names=names, seed=seed, overrides=changes, split=split, device=where,  # type: ignore[arg-type]
            progress=Progress(
                on_start=started, on_step=lambda name, step: bar.update(current, completed=step), on_measured=measured
            ),
        )  # fmt: skip
        bar.update(whole, completed=len(names))
    title = f"Prompts on {on}, {split} split"
    write_report(report, output, title=title)
    typer.echo(to_summary(report, title=title))
    typer.echo(f"Written: {output / 'report.json'}, {output / 'report.md'}, and a folder for each prompt")
