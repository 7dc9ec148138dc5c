"""One training from a config: the files it leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sd4match import registry
from sd4match.config import Components, ExperimentConfig, build_dataset
from sd4match.errors import ConfigError
from sd4match.evaluation.report import backbone_entry
from sd4match.files import write_atomically
from sd4match.prompting.artifact import save_prompt
from sd4match.training.trainer import Trainer, TrainingRun
from sd4match.viz.curves import plot_training


def learn(
    config: ExperimentConfig,
    parts: Components,
    output: Path,
    *,
    prompt_file: Path | None = None,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    on_best: Callable[[int, float], None] = lambda step, pck: None,
) -> TrainingRun:
    """Learn `parts.prompt` in place, and write it, the config, the losses and their curve.

    The best prompt so far is on disk at any time.

    Args:
        config: what `parts` were built from.
        parts: with a prompt that learns.
        output: folder for config.yaml, losses.csv, validation.csv, loss.png.
        prompt_file: where the prompt goes; `output / "prompt.safetensors"`, if not given.
        on_step: called after each step with its number and loss.
        on_best: called with step and validation PCK when a better prompt was found.
    """
    if config.pair_transform is not None:
        raise ConfigError("pair_transform is for matching; a prompt is learned on the maps themselves: leave it out")
    data = build_dataset(config, "train")
    trainer = Trainer(
        backbone=parts.backbone,
        prompt=parts.prompt,
        loss=parts.loss,
        settings=config.training,
        train_data=data,
        validation_data=build_dataset(config, "validation"),
        validation_matcher=registry.matchers.build(config.training.validation_matcher),
        measurement=config.evaluation.measurement,
    )
    write_atomically(output / "config.yaml", config.to_yaml().encode())

    def keep(step: int, pck: float) -> None:
        details = {
            "backbone": backbone_entry(config, parts.backbone)["name"],
            "layer": parts.backbone.spec.layer,
            "training_timestep": config.training.sampling.timestep,
            "evaluation_timestep": config.evaluation.sampling.timestep,
            "loss": config.loss.model_dump(mode="json"),
            "data": config.data.model_dump(mode="json"),
            "categories": list(data.categories),
            "seed": config.training.seed,
            "step": step,
            "validation_pck@0.1": pck,
        }
        file = prompt_file or output / "prompt.safetensors"
        save_prompt(parts.prompt, file, backbone=parts.backbone, details=details)
        on_best(step, pck)

    run = trainer.fit(output, on_step=on_step, on_best=keep)
    plot_training(run.losses, run.validation, output / "loss.png", title=f"{config.prompt.kind} prompt")
    return run
