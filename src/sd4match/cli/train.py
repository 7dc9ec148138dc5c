"""`sd4match train`: learn a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sd4match.cli.common import BackboneName, ConfigFile, Dataset, Device, Dtype, Preset, Root, Set, ShowConfig

if TYPE_CHECKING:
    from sd4match.config import Components, ExperimentConfig
    from sd4match.training.trainer import TrainingRun


def command(
    output: Annotated[
        Path, typer.Option(help="Folder for prompt.safetensors, the config, CSVs and the loss curve.")
    ] = Path("runs/train"),
    preset: Preset = None,
    dataset: Dataset = None,
    root: Root = None,
    config: ConfigFile = None,
    backbone: BackboneName = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of training.steps.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of training.seed.")] = None,
    device: Device = "auto",
    dtype: Dtype = None,
    overrides: Set = None,
    show: ShowConfig = False,
) -> None:
    """Learn a prompt; the best one on validation is kept."""
    from sd4match.cli.common import (
        check_output,
        data_changes,
        pick_device,
        quiet_libraries,
        read_config,
        show_config,
    )

    changes = [*data_changes(dataset, root), *(overrides or ())]
    changes += [f"training.steps={steps}"] if steps is not None else []
    changes += [f"training.seed={seed}"] if seed is not None else []
    settings = read_config(
        preset=preset, config=config, overrides=changes, default="single", backbone=backbone, dtype=dtype
    )
    if show:
        show_config(settings)

    from sd4match.config import build
    from sd4match.training.trainer import check_learns

    check_output(output)
    where = pick_device(device)
    quiet_libraries()
    parts = build(settings, device=where)
    check_learns(parts.prompt)
    run = learn(settings, parts, output)
    typer.echo(
        f"Best prompt: step {run.best_step}, validation PCK@0.1 {100 * run.best_pck:.1f}. "
        f"Written: {output / 'prompt.safetensors'}"
    )


def learn(config: ExperimentConfig, parts: Components, output: Path, *, prompt_file: Path | None = None) -> TrainingRun:
    """`training.run.learn` under a progress bar."""
    from sd4match.cli.common import progress_bar
    from sd4match.training.run import learn

    with progress_bar() as bar:
        task = bar.add_task("learning the prompt", total=config.training.steps)
        return learn(
            config,
            parts,
            output,
            prompt_file=prompt_file,
            on_step=lambda step, loss: bar.update(task, completed=step),
            on_best=lambda step, pck: bar.update(task, description=f"learning (best {100 * pck:.1f} at {step})"),
        )
