"""Training of an experiment: trainer from a config, files of a run directory, and their resumption."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sd4match.arguments import check_arguments
from sd4match.backbones.pretrained import model_facts
from sd4match.config.experiment import Components, ExperimentConfig, build_dataset, load_config
from sd4match.distributed import Processes
from sd4match.errors import DatasetError, PhotoError, SD4MatchError, TrainingError
from sd4match.evaluation.report import (
    DataSummary,
    Report,
    backbone_entry,
    make_report,
    make_row,
    versions,
    write_report,
)
from sd4match.evaluation.run_folders import (
    CHECKPOINTS,
    CONFIG_FILE,
    CURVE_FILE,
    PROMPT_FILE,
    REPORT_FILES,
    check_resumed_folder,
    check_run_folder,
)
from sd4match.evaluation.scratch import remove_abandoned_folders
from sd4match.interfaces import PairDataset, learns
from sd4match.io.files import remove, write_atomically
from sd4match.io.locks import locked_folder
from sd4match.paths import as_path
from sd4match.prompting.serialization import save_prompt
from sd4match.training.checkpoint import (
    Checkpoint,
    Checkpoints,
    DamagedCheckpointWarning,
    check_same_config,
    check_same_training,
    config_of,
    learned_of,
)
from sd4match.training.history import SELECTION_ALPHA, TrainerCallbacks, TrainingRun
from sd4match.training.metric_logger import check_trackers
from sd4match.training.trainer import Trainer, check_selection_alpha, check_transform_learns
from sd4match.viz.curves import plot_training
from sd4match.viz.figures import figure_to_image, png_bytes

_RESULTS = (PROMPT_FILE, CURVE_FILE, *REPORT_FILES)


@check_arguments
def train(
    config: ExperimentConfig,
    components: Components,
    output: str | Path,
    *,
    prompt_file: str | Path | None = None,
    resume: bool = False,
    stop: Callable[[], bool] = lambda: False,
    callbacks: TrainerCallbacks | None = None,
) -> TrainingRun:
    """Train the components that learn, in place, and write the files of the run.

    The best values so far are on disk at any time, and the state of the training in `output / "checkpoints"`. All
    processes of a run must call this with the same arguments.

    Args:
        config: experiment that the components were built from.
        components: components, of which prompt, matcher or pair transform must have parameters.
        output: folder for config.yaml, losses.csv, validation.csv and checkpoints, and at the end for loss.png and the
            report.
        prompt_file: file of the learned values; None: `output / "prompt.safetensors"`.
        resume: continue from the latest checkpoint in the folder, if there is one; otherwise checkpoints and results in
            it are removed.
        stop: called after every step and during a validation; if it returns True, the state is saved and the run ends.
        callbacks: functions to call during the training.

    Returns:
        The history of the training.

    Raises:
        InputError: the folder holds another kind of run or other files, another run writes to it, or no component that
            matches depend on has parameters.
        ConfigError: fields of the config do not fit together, or differ from those with which the run was started.
        TrainingError: the loss is not finite, no checkpoint can be read, or a file cannot be written.
        DatasetError, PhotoError: a pair cannot be read; the state before its step is saved.

    >>> import tempfile
    >>> from sd4match.config import Components, load_preset
    >>> from sd4match.matching import GaussianCrossEntropy, NearestNeighbor
    >>> from sd4match.prompting import SinglePromptConfig
    >>> from sd4match.testing import FakeBackbone, FakeTextEncoder
    >>> changes = ["training.steps=1", "training.batch_size=2", "data.pairs=4", "data.photos_per_category=4"]
    >>> config = load_preset("mini-single", changes)
    >>> backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    >>> prompt = SinglePromptConfig().build(backbone=backbone)
    >>> components = Components(backbone, prompt, NearestNeighbor(), GaussianCrossEntropy())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     train(config, components, folder).step
    1
    """
    folder = as_path(output, what="output")
    file = None if prompt_file is None else as_path(prompt_file, what="prompt_file")
    Processes().on_main(lambda: _check_folder(folder, resume=resume))
    return train_in_folder(config, components, folder, prompt_file=file, resume=resume, stop=stop, callbacks=callbacks)


def _check_folder(output: Path, *, resume: bool) -> None:
    if resume:
        check_resumed_folder(output, option="the output")
    else:
        check_run_folder(output, "training", option="the output")


def train_in_folder(
    config: ExperimentConfig,
    components: Components,
    output: Path,
    *,
    prompt_file: Path | None = None,
    resume: bool = False,
    stop: Callable[[], bool] = lambda: False,
    callbacks: TrainerCallbacks | None = None,
) -> TrainingRun:
    """Train in a folder that another kind of run, such as a sweep, has checked; see `train`."""
    processes = Processes()
    with ExitStack() as held:
        processes.on_main(lambda: held.enter_context(locked_folder(output)))
        check_trainable(config)
        data = build_dataset(config, "train")
        trainer = Trainer(
            backbone=components.backbone,
            prompt=components.prompt,
            loss=components.loss,
            config=config.training,
            train_data=data,
            validation_data=build_dataset(config, "validation"),
            validation_matcher=config.training.validation_matcher.build(),
            protocol=config.evaluation.protocol,
            validation_batch_size=config.evaluation.batch_size,
            matcher=components.matcher,
            pair_transform=components.pair_transform,
        )
        checkpoints = Checkpoints(
            output / CHECKPOINTS,
            keep=config.training.keep_checkpoints,
            origin=_origin(config, components, data, processes),
        )
        processes.on_main(lambda: _prepare_folder(checkpoints, config, output, resume=resume))
        file = prompt_file or output / PROMPT_FILE

        def save(step: int, pck: float) -> None:
            save_prompt(
                components.prompt,
                file,
                backbone=components.backbone,
                components=components.beside_prompt(),
                details=_details(config, trainer, data, step, pck),
            )

        try:
            run = trainer.fit(
                output, checkpoints=checkpoints, resume=resume, stop=stop, on_best=save, callbacks=callbacks
            )
        except SD4MatchError as error:
            raise type(error)(f"{error}{_how_to_continue(checkpoints, error, output)}") from None

        def write_results() -> None:
            title = f"{config.prompt.kind} prompt"
            curve = plot_training(run.losses, run.validation, excess_losses=run.column("excess_loss"), title=title)
            write_atomically(output / CURVE_FILE, png_bytes(figure_to_image(curve)))
            if not run.stopped:
                save(run.best_step, run.best_pck)
                report = training_report(config, components, trainer.validation_pairs, run)
                write_report(
                    report, output, title=f"Learning {config.prompt.kind}: the best prompt on validation pairs"
                )

        processes.on_main(write_results)
        return run


def check_trainable(config: ExperimentConfig) -> None:
    """Check the conditions of a training, before any weights load.

    Raises:
        ConfigError: the best values could not be selected, a pair transform learns nothing, or a tracker is missing.
    """
    check_selection_alpha(config.evaluation.protocol)
    if config.pair_transform is not None:
        check_transform_learns(config.pair_transform.build())
    check_trackers(config.training.trackers)


def _how_to_continue(checkpoints: Checkpoints, error: SD4MatchError, output: Path) -> str:
    """Return the end of an error message: how to resume, or where the last good state is."""
    steps = checkpoints.steps()
    if not steps or str(checkpoints.folder) in str(error):
        return ""
    if isinstance(error, (DatasetError, PhotoError)):
        return f"; put it right and go on: {resume_command(output)}"
    return f"; the last good state is {checkpoints.path(steps[0])}"


def resume_command(output: Path) -> str:
    """Return the command that resumes a run.

    >>> resume_command(Path("runs/a"))
    'sd4match train --resume runs/a'
    """
    return f"sd4match train --resume {shlex.quote(str(output))}"


def check_resumable(config: ExperimentConfig, output: Path) -> None:
    """Check that a run is resumed with the same config, before any weights load; see `checkpoint.check_same_config`.

    Raises:
        ConfigError: names the fields that differ.
        TrainingError: there are checkpoints, and none can be read.
    """
    checkpoint = _latest(Checkpoints(output / CHECKPOINTS))
    if checkpoint is not None:
        before = config_of(checkpoint.origin, where=str(output))
        check_same_config(
            before, config.model_dump(mode="json"), where=str(output), learned=learned_of(checkpoint.origin)
        )


def _latest(checkpoints: Checkpoints) -> Checkpoint | None:
    """Return the latest checkpoint without the warning of damaged ones, which the resumed training shows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamagedCheckpointWarning)
        return checkpoints.latest()


def can_resume(config: ExperimentConfig, output: Path) -> bool:
    """Return whether a folder holds a training with exactly this config that can be resumed."""
    try:
        checkpoint = _latest(Checkpoints(output / CHECKPOINTS))
    except SD4MatchError:
        return False
    return checkpoint is not None and checkpoint.origin.get("config") == config.model_dump(mode="json")


def training_report(
    config: ExperimentConfig, components: Components, validation_pairs: PairDataset, run: TrainingRun
) -> Report:
    """Return a report of the validation pairs under the best prompt, with a summary of the training.

    Convention: validation uses the training's sampling and its validation matcher, not those of the evaluation.

    Args:
        config: the experiment.
        components: built from it.
        validation_pairs: pairs of the validation.
        run: a training that is over.
    """
    assert run.best_scores is not None
    matcher = (config.matcher if learns(components.matcher) else config.training.validation_matcher).kind
    return make_report(
        config=config,
        data=validation_pairs,
        results=[make_row(config.prompt.kind, run.best_scores, config, matcher=matcher)],
        backbone=backbone_entry(config, components.backbone),
        wall_seconds=run.seconds,
        extra={"split": "validation", "training": _summary(config, run)},
    )


def _summary(config: ExperimentConfig, run: TrainingRun) -> dict[str, Any]:
    """Return the description of the training in a report, as JSON values."""
    assert run.batch_split is not None
    return {
        "steps": run.step,
        "stopped_early": run.step < config.training.steps,
        "best_step": run.best_step,
        f"best_validation_pck@{SELECTION_ALPHA:g}": run.best_pck,
        "validation": [{"step": step, f"pck@{SELECTION_ALPHA:g}": pck} for step, pck in run.validation],
        "first_loss": run.rows[0][0] if run.rows else None,
        "last_loss": run.last().get("loss"),
        "last_excess_loss": run.last().get("excess_loss"),
        "log_values": run.log_values(),
        "batch": run.batch_split.describe(),
    }


def _origin(
    config: ExperimentConfig, components: Components, data: PairDataset, processes: Processes
) -> dict[str, Any]:
    """Return the origin of every checkpoint of the training; see `checkpoint.check_same_training`."""
    return {
        "config": config.model_dump(mode="json"),
        "fingerprint": components.backbone.fingerprint,
        "pairs": DataSummary.of(data).pair_list_digest,
        "versions": versions(),
        "processes": processes.count,
        "learned": sorted(components.beside_prompt()),
    }


def _prepare_folder(checkpoints: Checkpoints, config: ExperimentConfig, output: Path, *, resume: bool) -> None:
    """Check that the folder holds this training, or remove the results of another one; write the config."""
    checkpoint = _latest(checkpoints) if resume else None
    if checkpoint is not None:
        check_same_training(checkpoint.origin, checkpoints.origin, where=str(output))
    elif not resume:
        checkpoints.clear()
        for name in _RESULTS:
            remove(output / name, error=TrainingError)
    checkpoints.remove_temporary_files()
    remove_abandoned_folders(output)
    if not _says(output / CONFIG_FILE, config):  # do not change a file with comments of the user
        write_atomically(output / CONFIG_FILE, config.to_yaml().encode())


def _says(file: Path, config: ExperimentConfig) -> bool:
    try:
        return load_config(file) == config
    except SD4MatchError:
        return False


def _details(config: ExperimentConfig, trainer: Trainer, data: PairDataset, step: int, pck: float) -> dict[str, Any]:
    """Return the description of the training in a prompt file."""
    return {
        **model_facts(config.backbone.model_name),
        "backbone": backbone_entry(config, trainer.backbone)["name"],
        "layer": trainer.backbone.spec.layer,
        "training_timestep": config.training.sampling.timestep,
        "evaluation_timestep": config.evaluation.sampling.timestep,
        "loss": config.loss.model_dump(mode="json"),
        **{f"learned_{name}": value for name, value in trainer.loss.log_values().items()},
        "data": config.require_data().model_dump(mode="json"),
        "categories": list(data.categories),
        "seed": config.training.seed,
        "step": step,
        f"validation_pck@{SELECTION_ALPHA:g}": pck,
    }
