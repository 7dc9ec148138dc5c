"""`sd4match train`: learn a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sd4match.cli.common import BackboneName, ConfigFile, Device, Dtype, Preset, Set, ShowConfig

if TYPE_CHECKING:
    from sd4match.config import Components, ExperimentConfig
    from sd4match.training.trainer import TrainingRun


def command(
    output: Annotated[
        Path, typer.Option(help="Folder for prompt.safetensors, the config, CSVs and the loss curve.")
    ] = Path("runs/train"),
    preset: Preset = None,
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
    from sd4match.cli.common import pick_device, quiet_libraries, read_config, show_config

    changes = list(overrides or ())
    changes += [f"training.steps={steps}"] if steps is not None else []
    changes += [f"training.seed={seed}"] if seed is not None else []
    settings = read_config(
        preset=preset, config=config, overrides=changes, default="mini-single", backbone=backbone, dtype=dtype
    )
    if show:
        show_config(settings)

    from sd4match.config import build
    from sd4match.errors import InputError

    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is a file; give a folder")
    where = pick_device(device)
    quiet_libraries()
    parts = build(settings, device=where)
    run = learn(settings, parts, output, prompt_file=output / "prompt.safetensors")
    typer.echo(
        f"Best prompt: step {run.best_step}, validation PCK@0.1 {100 * run.best_pck:.1f}. "
        f"Written: {output / 'prompt.safetensors'}"
    )


def learn(config: ExperimentConfig, parts: Components, output: Path, *, prompt_file: Path) -> TrainingRun:
    """Train with a progress bar and write prompt, config, CSVs and curve; the best prompt is on disk at any time."""
    from sd4match import registry
    from sd4match.cli.common import backbone_entry, progress_bar
    from sd4match.config import build_dataset
    from sd4match.measurement import measurement
    from sd4match.prompting.artifact import save_prompt
    from sd4match.training.trainer import Trainer
    from sd4match.viz.curves import plot_training

    trainer = Trainer(
        backbone=parts.backbone,
        prompt=parts.prompt,
        loss=parts.loss,
        settings=config.training,
        train_data=build_dataset(config, "train"),
        validation_data=build_dataset(config, "validation"),
        validation_matcher=registry.matchers.build(config.training.validation_matcher),
        measurement=measurement(config.evaluation.measurement),
    )
    output.mkdir(parents=True, exist_ok=True)
    (output / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    with progress_bar() as bar:
        task = bar.add_task("learning the prompt", total=config.training.steps)

        def on_best(step: int, pck: float) -> None:
            bar.update(task, description=f"learning (best {100 * pck:.1f} at {step})")
            details = {
                "backbone": backbone_entry(config, parts.backbone)["name"],
                "layer": getattr(config.backbone, "layer", None),
                "training_timestep": config.training.sampling.timestep,
                "evaluation_timestep": config.evaluation.sampling.timestep,
                "loss": config.loss.model_dump(mode="json"),
                "data": config.data.model_dump(mode="json"),
                "seed": config.training.seed,
                "step": step,
                "validation_pck@0.1": pck,
            }
            save_prompt(parts.prompt, prompt_file, backbone=parts.backbone, details=details)

        run = trainer.fit(output, on_step=lambda step, loss: bar.update(task, completed=step), on_best=on_best)
    plot_training(run.losses, run.validation, output / "loss.png", title=f"{config.prompt.kind} prompt")
    return run
