"""Command `sd4match train`, which trains a prompt or resumes a training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sd4match.cli.answer import Document
from sd4match.cli.common import DataOptions, Device, ExperimentOptions, option_groups

if TYPE_CHECKING:
    from sd4match.config.experiment import ExperimentConfig
    from sd4match.training.history import TrainingRun

_DEFAULT_OUTPUT = Path("runs/train")


@option_groups
def command(
    *,
    output: Annotated[
        Path | None, typer.Option(help=f"Folder for prompt.safetensors, report.json, ...; default: {_DEFAULT_OUTPUT}.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Resume the training in this folder.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a training in the output folder.")] = False,
    data: DataOptions,
    steps: Annotated[int | None, typer.Option(min=1, help="Overrides training.steps.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of initial prompt, order of pairs and noise.")] = None,
    track: Annotated[
        list[str] | None, typer.Option(help="Tracker of accelerate, for example tensorboard; may be repeated.")
    ] = None,
    device: Device = "auto",
    options: ExperimentOptions,
) -> Document | None:
    """Train a prompt and keep the best one on validation pairs. SIGTERM and Ctrl-C save the state and stop."""
    import dataclasses

    from sd4match.cli.common import changed, check_output
    from sd4match.cli.run_folder import check_is_free, config_on_disk, find_config, held
    from sd4match.evaluation.run_folders import check_resumed_folder

    if resume is not None:
        _refuse_with_resume(output=output, preset=options.preset, config=options.config, overwrite=overwrite)
        options = dataclasses.replace(options, config=find_config(resume))
    output = resume or output or _DEFAULT_OUTPUT
    changes = [*data.changes(), *changed("training.steps", steps), *changed("seed", seed)]
    config = options.read("single", [*changes, *changed("training.trackers", track)])
    config.require_data()
    check_output(output)
    with held(output):
        if resume is None:
            check_is_free(output, overwrite=overwrite, config=options.config)
        else:
            check_resumed_folder(resume)

        from sd4match.training.stopping import stop_on_signals

        with stop_on_signals() as stop, config_on_disk(config, output):
            run = _train(config, output, device=device, resume=resume is not None, stop=stop)
    return _answer(run, config, output)


def _refuse_with_resume(**options: object) -> None:
    from sd4match.errors import ConfigError

    for name, value in options.items():
        if value:
            raise ConfigError(f"--resume goes on in its own folder with its own config: leave --{name} out")


def _train(
    config: ExperimentConfig, output: Path, *, device: str, resume: bool, stop: Callable[[], bool]
) -> TrainingRun:
    from sd4match.cli.common import prepare_device
    from sd4match.cli.progress import training_progress, waiting
    from sd4match.config.experiment import build_components
    from sd4match.training.run import check_resumable, check_trainable, train
    from sd4match.training.trainer import check_learns

    device = prepare_device(device)
    check_trainable(config)
    if resume:
        check_resumable(config, output)
    with waiting(f"loading {config.backbone.model_name}"):
        components = build_components(config, device=device, cache=config.cache.open())
    check_learns(
        prompt=components.prompt, loss=components.loss, matcher=components.matcher,
        pair_transform=components.pair_transform,
    )  # fmt: skip
    with training_progress(config.training.steps) as callbacks:
        return train(config, components, output, resume=resume, stop=stop, callbacks=callbacks)


def _answer(run: TrainingRun, config: ExperimentConfig, output: Path) -> Document | None:
    """Print the result of the training on the main process, and return it."""
    from sd4match.distributed import Processes
    from sd4match.training.run import resume_command

    if not Processes().is_main:
        return None
    steps, patience = config.training.steps, config.training.patience
    facts: dict[str, object] = {"stopped": run.stopped, "step": run.step, "steps": steps}
    if run.stopped:
        typer.echo(f"Stopped after step {run.step} of {steps}. Go on with: {resume_command(output)}")
        return {**facts, "resume": resume_command(output)}
    early = f" (of {steps}: no better prompt for {patience} validations)" if run.step < steps else ""
    files = [output / "prompt.safetensors", output / "report.json"]
    typer.echo(
        f"Learned for {run.step} steps{early}. "
        f"Best prompt: step {run.best_step}, validation PCK@0.1 {100 * run.best_pck:.1f}. "
        f"Written: {', '.join(map(str, files))}"
    )
    return {**facts, "best_step": run.best_step, "validation_pck@0.1": run.best_pck, "files": files}
