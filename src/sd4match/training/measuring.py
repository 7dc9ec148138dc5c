"""Measurements that survive a kill: trainings are resumed, and existing scores are read instead of measured."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sd4match.backbones.cached import cached
from sd4match.checks import check_number
from sd4match.config.experiment import ExperimentConfig, build_components, build_dataset
from sd4match.data.config import Split
from sd4match.distributed import Processes
from sd4match.documents import read_json
from sd4match.errors import InputError, shown
from sd4match.evaluation.run import chosen_pairs, evaluate_prompts
from sd4match.evaluation.run_folders import PROMPT_FILE, SCORES_FILE, check_run_folder, check_sweep_folder
from sd4match.evaluation.scores import PairScores
from sd4match.hashing import digest
from sd4match.interfaces import Backbone, PairDataset, learns
from sd4match.io.files import write_atomically
from sd4match.paths import exists, resolved
from sd4match.training.history import TrainerCallbacks
from sd4match.training.run import can_resume, train_in_folder
from sd4match.version import __version__

_FIXED_PROMPTS = ("none", "empty", "text")
"""Kinds of prompts without parameters."""


class DamagedScoresWarning(UserWarning):
    """Warning that scores of an earlier run cannot be read, and the prompt is measured again."""


@dataclass
class SweepCallbacks:
    """Functions that a sweep calls with the name of a row; the defaults do nothing."""

    on_start: Callable[[str], None] = lambda name: None
    """Called before a row is trained or measured, or its scores are read."""
    on_step: Callable[[str, int], None] = lambda name, step: None
    """Called after every training step with its number."""
    on_evaluation_progress: Callable[[str, int, int], None] = lambda name, done, total: None
    """Called during an evaluation with the number of finished photos or pairs and the number of all."""


@dataclass(frozen=True)
class Job:
    """Experiment and folders of one row.

    Args:
        config: experiment that is evaluated.
        folder: folder of the scores.
        prompt_file: file of a learned prompt, which is only evaluated; None: the experiment's prompt is trained, if it
            learns.
        training: experiment of the training, if it is not `config`.
        trained_in: folder of the training, if it is not `folder`. Rows with the same folder share one training.
    """

    config: ExperimentConfig
    folder: Path
    prompt_file: Path | None = None
    training: ExperimentConfig | None = None
    trained_in: Path | None = None

    @property
    def own_training(self) -> tuple[ExperimentConfig, Path]:
        """Experiment and folder of the training."""
        return self.training or self.config, self.trained_in or self.folder

    def check(self) -> None:
        """Check, before any work is done, that the folders hold only earlier measurements.

        Raises:
            InputError: a folder holds other files.
        """
        config, trained_in = self.own_training
        for folder in dict.fromkeys([trained_in, self.folder] if self.prompt_file is None else [self.folder]):
            check_sweep_folder(folder, can_resume=partial(can_resume, config, folder))


@dataclass(frozen=True)
class MeasuredScores:
    """Scores of a row, and the seconds of its training and measurement."""

    scores: PairScores
    seconds: float


@dataclass
class Bench:
    """Runner of jobs, one after the other, with one backbone in memory at a time.

    All processes of a run must call the same methods in the same order; the main one writes.

    Args:
        split: split that is measured.
        device: device of all computations.
        callbacks: functions to call during the work.
    """

    split: Split = "test"
    device: str | torch.device = "cpu"
    callbacks: SweepCallbacks = field(default_factory=SweepCallbacks)
    _loaded: tuple[ExperimentConfig, Backbone] | None = None
    _data: tuple[ExperimentConfig, PairDataset] | None = None
    _trained: dict[Path, Path | None] = field(default_factory=dict)

    def measure(self, name: str, job: Job) -> MeasuredScores:
        """Return the scores of a job; read them if they exist, otherwise measure and write them."""
        processes = Processes()
        self.callbacks.on_start(name)
        origin = _origin(job, self.backbone(job.config), self.split)
        found = processes.on_main(lambda: read_scores(job.folder, origin))
        return found or self._measure(name, job, origin, processes)

    def backbone(self, config: ExperimentConfig) -> Backbone:
        """Return the backbone of an experiment, and load it unless it is in memory."""
        if self._loaded is None or (self._loaded[0].backbone, self._loaded[0].cache) != (config.backbone, config.cache):
            self._loaded = None  # frees memory for the next one
            self._loaded = config, cached(config.backbone.build(device=self.device), config.cache.open())
        return self._loaded[1]

    def pairs(self, config: ExperimentConfig) -> PairDataset:
        """Return the pairs that an experiment measures."""

        def chosen(config: ExperimentConfig) -> tuple[Any, ...]:
            return config.data, config.evaluation.categories, config.evaluation.limit

        if self._data is None or chosen(self._data[0]) != chosen(config):
            self._data = config, chosen_pairs(config, build_dataset(config, self.split))
        return self._data[1]

    def trained(self, name: str, job: Job) -> Path | None:
        """Return the file of the learned values of a job, after training if necessary; None if nothing learns."""
        if job.prompt_file is not None:
            return job.prompt_file
        config, folder = job.own_training
        if folder not in self._trained:
            self._trained[folder] = self._train(name, config, folder)
        return self._trained[folder]

    def _train(self, name: str, config: ExperimentConfig, folder: Path) -> Path | None:
        backbone = self.backbone(config)
        components = build_components(config, backbone=backbone)
        if not any(map(learns, (components.prompt, components.matcher, components.pair_transform))):
            return None
        processes = Processes()

        def begin() -> bool:
            resume = can_resume(config, folder)
            if not resume or not exists(folder / SCORES_FILE):
                _write_scores(folder, _origin(Job(config, folder), backbone, self.split))
            return resume

        train_in_folder(
            config, components, folder, resume=processes.on_main(begin),
            callbacks=TrainerCallbacks(on_step=lambda run: self.callbacks.on_step(name, run.step)),
        )  # fmt: skip
        return folder / PROMPT_FILE

    def _measure(self, name: str, job: Job, origin: Mapping[str, Any], processes: Processes) -> MeasuredScores:
        started = time.perf_counter()
        if job.own_training[1] != job.folder or job.prompt_file is not None:  # otherwise `_train` writes them
            processes.on_main(lambda: _write_scores(job.folder, origin))
        file = self.trained(name, job)
        if file is None:
            processes.on_main(lambda: _write_scores(job.folder, origin))
        config = job.config.with_learned(file)
        components = build_components(config, backbone=self.backbone(config), prompt_file=file)
        found = evaluate_prompts(
            config,
            components,
            self.pairs(config),
            {name: components.prompt},
            scratch=job.folder,
            progress=lambda name, what, done, total: self.callbacks.on_evaluation_progress(name, done, total),
        )
        measurement = MeasuredScores(found[0].scores, round(time.perf_counter() - started, 1))
        content = {**origin, "seconds": measurement.seconds, "scores": measurement.scores.to_json()}
        processes.on_main(lambda: _write_scores(job.folder, content))
        return processes.from_main(measurement)


def may_learn(config: ExperimentConfig) -> bool:
    """Return whether a training may change an experiment, judged before its model is loaded."""
    transform = config.pair_transform
    beside = (config.matcher.build(), None if transform is None else transform.build())
    return config.prompt.kind not in _FIXED_PROMPTS or any(map(learns, beside))


def row_record(job: Job, first: ExperimentConfig, output: Path) -> dict[str, Any]:
    """Return the description of the experiment of a row in the report of a sweep, from which it can be built again.

    Args:
        job: job of the row, after it was measured.
        first: experiment of the report.
        output: folder of the report.

    Returns:
        `config`: sections of the row's config that differ from the report's; `prompt_config`; `prompt_file`: path of
        the trained file relative to the folder of the report, whole path of a given one, or None.
    """
    own, shared = (config.model_dump(mode="json") for config in (job.config, first))
    file = None if job.prompt_file is None else str(resolved(job.prompt_file))
    learned = job.own_training[1] / PROMPT_FILE
    if file is None and may_learn(job.config) and exists(learned):
        file = learned.relative_to(output).as_posix()
    return {
        "config": {name: value for name, value in own.items() if value != shared[name]},
        "prompt_config": own["prompt"],
        "prompt_file": file,
    }


def check_jobs(output: Path, jobs: Mapping[str, Job]) -> None:
    """Check, before any work is done, that a run replaces no other files.

    Args:
        output: folder of the report.
        jobs: jobs by the names of their rows.

    Raises:
        InputError: the folder, or that of a job, holds other files than an earlier run of this kind.
    """
    check_run_folder(output, "sweep")
    for job in jobs.values():
        job.check()


def _origin(job: Job, backbone: Backbone, split: Split) -> dict[str, Any]:
    """Return the values that scores depend on; scores of the same origin need not be measured again."""
    training, _ = job.own_training
    return {
        "config": job.config.model_dump(mode="json"),
        "split": split,
        "fingerprint": backbone.fingerprint,
        "library_version": __version__,
        "training": None if training == job.config else training.model_dump(mode="json"),
        "prompt": None if job.prompt_file is None else digest(job.prompt_file.read_bytes()),
    }


def read_scores(folder: Path, origin: Mapping[str, Any]) -> MeasuredScores | None:
    """Read the scores that an earlier run wrote; None if there are none, or they are of another origin or damaged."""
    file = folder / SCORES_FILE
    if not exists(file):
        return None
    try:
        content = read_json(file, what="scores")
        if not isinstance(content, dict):
            raise InputError(f"must hold fields, not {shown(content)}")
        if "scores" not in content or any(content.get(field) != value for field, value in origin.items()):
            return None
        if not isinstance(content["scores"], dict):
            raise InputError(f"scores must be fields, not {shown(content['scores'])}")
        return MeasuredScores(
            PairScores.from_json(content["scores"]), check_number("seconds", content.get("seconds"), 0.0)
        )
    except InputError as error:
        warnings.warn(f"{file} is damaged: {error}; the prompt is measured again", DamagedScoresWarning, stacklevel=3)
        return None


def _write_scores(folder: Path, content: Mapping[str, Any]) -> None:
    write_atomically(folder / SCORES_FILE, (json.dumps(content, allow_nan=False) + "\n").encode())
