"""One training from a config: the files it leaves, and going on from them."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sd4match import registry
from sd4match.config.experiment import Components, ExperimentConfig, build_dataset
from sd4match.distributed import Processes
from sd4match.errors import ConfigError, DatasetError, PhotoError, SD4MatchError, TrainingError
from sd4match.evaluation.evaluator import SCRATCH_PREFIX
from sd4match.evaluation.report import backbone_entry, data_entry, make_report, result, versions, write_report
from sd4match.interfaces import HasReadings, PairDataset
from sd4match.io.files import remove, write_atomically
from sd4match.prompting.serialization import save_prompt
from sd4match.training.checkpoint import Checkpoints, check_same_settings, check_same_training
from sd4match.training.history import SELECTION_ALPHA, TrainingRun, Watch
from sd4match.training.metric_logger import check_trackers
from sd4match.training.trainer import Trainer
from sd4match.viz.curves import plot_training

CONFIG_FILE = "config.yaml"
"""Beside a training: what it is of."""
_RESULTS = ("prompt.safetensors", "loss.png", "report.json", "report.md", "report.csv", "report.tex")


def learn(
    config: ExperimentConfig,
    parts: Components,
    output: Path,
    *,
    prompt_file: Path | None = None,
    resume: bool = False,
    stop: Callable[[], bool] = lambda: False,
    watch: Watch | None = None,
) -> TrainingRun:
    """Learn `parts.prompt` in place, and write everything that belongs to it.

    The best prompt so far is on disk at any time, and the state in `output / "checkpoints"`. All processes of a run
    must call this with the same arguments.

    Args:
        config: what `parts` were built from.
        parts: with a prompt that learns.
        output: folder for config.yaml, losses.csv, validation.csv, checkpoints; at the end loss.png and report.json.
        prompt_file: where the prompt goes; `output / "prompt.safetensors"`, if not given.
        resume: go on from the last checkpoint there, if there is one; otherwise they and older results are removed.
        stop: asked after every step; if it says yes, the state is kept and the run ends.
        watch: what is told of the way.

    Raises:
        ConfigError: settings that do not go together, or that differ from those that the run was started with.
        TrainingError: the loss is not finite, no checkpoint can be read, or a file cannot be written.
        DatasetError, PhotoError: a pair cannot be read; what was learned before it is kept.
    """
    if config.pair_transform is not None:
        raise ConfigError("pair_transform is for matching; a prompt is learned on the maps themselves: leave it out")
    check_trackers(config.training.trackers)
    data, processes = build_dataset(config, "train"), Processes()
    trainer = Trainer(
        backbone=parts.backbone,
        prompt=parts.prompt,
        loss=parts.loss,
        settings=config.training,
        train_data=data,
        validation_data=build_dataset(config, "validation"),
        validation_matcher=registry.matchers.build(config.training.validation_matcher),
        measurement=config.evaluation.measurement,
        validation_batch_size=config.evaluation.batch_size,
    )
    checkpoints = Checkpoints(
        output / "checkpoints", keep=config.training.keep_checkpoints, origin=_origin(config, parts, data, processes)
    )
    processes.on_main(lambda: _prepare(checkpoints, config, output, resume=resume))
    file = prompt_file or output / "prompt.safetensors"

    def keep_prompt(step: int, pck: float) -> None:
        save_prompt(parts.prompt, file, backbone=parts.backbone, details=_details(config, parts, data, step, pck))

    try:
        run = trainer.fit(
            output, checkpoints=checkpoints, resume=resume, stop=stop, on_best=keep_prompt, watch=watch or Watch()
        )
    except SD4MatchError as error:
        raise type(error)(f"{error}{_what_is_left(checkpoints, error, output)}") from None

    def finish() -> None:
        plot_training(
            run.losses, run.validation, output / "loss.png", excess=run.column("excess"),
            title=f"{config.prompt.kind} prompt",
        )  # fmt: skip
        if not run.stopped:
            keep_prompt(run.best_step, run.best_pck)
            report = training_report(config, parts, trainer.validation_pairs, run)
            write_report(report, output, title=f"Learning {config.prompt.kind}: the best prompt on validation pairs")

    processes.on_main(finish)
    return run


def _what_is_left(checkpoints: Checkpoints, error: SD4MatchError, output: Path) -> str:
    """The end of an error line: what is not lost."""
    kept = checkpoints.steps()
    if not kept or str(checkpoints.folder) in str(error):
        return ""
    if isinstance(error, (DatasetError, PhotoError)):
        return f"; put it right and go on: {resume_command(output)}"
    return f"; the last good state is {checkpoints.path(kept[0])}"


def resume_command(output: Path) -> str:
    """What to type to go on."""
    return f"sd4match train --resume {shlex.quote(str(output))}"


def check_resumable(config: ExperimentConfig, output: Path) -> None:
    """Refuse to go on with other settings, before any weights load; see `checkpoint.check_same_settings`."""
    found = Checkpoints(output / "checkpoints").latest()
    if found is not None:
        check_same_settings(found.origin["config"], config.model_dump(mode="json"), where=str(output))


def can_go_on(config: ExperimentConfig, output: Path) -> bool:
    """Whether a folder holds a training with this very config, from which it can go on."""
    try:
        found = Checkpoints(output / "checkpoints").latest()
    except SD4MatchError:
        return False
    return found is not None and found.origin.get("config") == config.model_dump(mode="json")


def training_report(
    config: ExperimentConfig, parts: Components, validation_pairs: PairDataset, run: TrainingRun
) -> dict[str, Any]:
    """A report of the validation pairs under the best prompt, with what happened in the training.

    Convention: validation is measured at the training's sampling, with its validation matcher.
    """
    assert run.best_scores is not None
    assert run.plan is not None
    settings = config.training
    return make_report(
        config=config,
        data=validation_pairs,
        results=[result(config.prompt.kind, run.best_scores, config, matcher=settings.validation_matcher.kind)],
        backbone=backbone_entry(config, parts.backbone),
        wall_seconds=run.seconds,
        extra={
            "split": "validation",
            "training": {
                "steps": run.step,
                "stopped_early": run.step < settings.steps,
                "best_step": run.best_step,
                f"best_validation_pck@{SELECTION_ALPHA:g}": run.best_pck,
                "validation": [{"step": step, f"pck@{SELECTION_ALPHA:g}": pck} for step, pck in run.validation],
                "first_loss": run.rows[0][0] if run.rows else None,
                "last_loss": run.last().get("loss"),
                "last_excess": run.last().get("excess"),
                "readings": run.readings(),
                "batch": run.plan.describe(),
            },
        },
    )


def _origin(config: ExperimentConfig, parts: Components, data: PairDataset, processes: Processes) -> dict[str, Any]:
    """What a checkpoint says of where it comes from."""
    return {
        "config": config.model_dump(mode="json"),
        "fingerprint": parts.backbone.fingerprint,
        "pairs": data_entry(data)["pair_list_digest"],
        "versions": versions(),
        "processes": processes.count,
    }


def _prepare(checkpoints: Checkpoints, config: ExperimentConfig, output: Path, *, resume: bool) -> None:
    """Leave nothing of another training in the folder, or make sure that it is this one."""
    found = checkpoints.latest() if resume else None
    if found is not None:
        check_same_training(found.origin, checkpoints.origin, where=str(output))
    elif not resume:
        checkpoints.clear()
        for name in _RESULTS:
            remove(output / name, error=TrainingError)
    checkpoints.tidy()
    for leftover in output.glob(f"{SCRATCH_PREFIX}*"):  # of a process that was killed while it validated
        shutil.rmtree(leftover, ignore_errors=True)
    write_atomically(output / CONFIG_FILE, config.to_yaml().encode())


def _details(config: ExperimentConfig, parts: Components, data: PairDataset, step: int, pck: float) -> dict[str, Any]:
    """What a prompt file says of its training."""
    readings = parts.loss.readings() if isinstance(parts.loss, HasReadings) else {}
    return {
        "backbone": backbone_entry(config, parts.backbone)["name"],
        "layer": parts.backbone.spec.layer,
        "training_timestep": config.training.sampling.timestep,
        "evaluation_timestep": config.evaluation.sampling.timestep,
        "loss": config.loss.model_dump(mode="json"),
        **{f"learned_{name}": value for name, value in readings.items()},
        "data": config.data.model_dump(mode="json"),
        "categories": list(data.categories),
        "seed": config.training.seed,
        "step": step,
        f"validation_pck@{SELECTION_ALPHA:g}": pck,
    }
