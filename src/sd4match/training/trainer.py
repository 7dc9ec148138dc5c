"""Learning a prompt: built parts in, the best prompt on validation out."""

from __future__ import annotations

import copy
import csv
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from sd4match.backbones.cached import cached
from sd4match.config import TrainingSettings
from sd4match.data.collate import join_views, make_pairs
from sd4match.data.subset import first
from sd4match.errors import InputError, TrainingError
from sd4match.evaluation.evaluator import Evaluator, Rule
from sd4match.matching.correlation import correlate_maps
from sd4match.measurement import Measurement
from sd4match.prompting.pairing import pair_prompts, wanted_views
from sd4match.protocols import Backbone, Matcher, MatchingLoss, PairDataset, Prepare, PromptProvider
from sd4match.types import FeatureMap, Keypoints, PairBatch, PromptEmbedding, Sampling, TrainingNoise

SELECTION_ALPHA = 0.1
"""The prompt that is kept is the one with the best validation PCK at this alpha, per image."""


@dataclass
class TrainingRun:
    """What happened."""

    losses: list[float] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    """(step, per-image PCK at `SELECTION_ALPHA`); step 0 is the prompt before training."""
    best_step: int = 0
    best_pck: float = -math.inf
    seconds: float = 0.0


class Trainer:
    """Composes a backbone, a prompt that learns, a loss and two data sets; knows no kinds.

    Each step: a batch of pairs, prompts for both sides, one extraction of all photos, correlation, loss, and a step of
    Adam on the prompt's parameter groups. The backbone stays frozen. At step 0, every `validate_every` steps and at the
    end the prompt is measured on validation pairs; the best one is what remains.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        prompt: PromptProvider,
        loss: MatchingLoss,
        settings: TrainingSettings,
        train_data: PairDataset,
        validation_data: PairDataset,
        validation_matcher: Matcher,
        measurement: Measurement,
    ) -> None:
        check_learns(prompt)
        self.backbone = cached(backbone)
        self.prompt = prompt
        self.loss = loss
        self.settings = settings
        self.train_data = train_data
        validation = settings.sampling.sampling(settings.seed)
        self.validation_pairs = first(validation_data, settings.validation_pairs)
        rule = Rule(measurement, validation_matcher)
        self.evaluator = Evaluator(backbone=self.backbone, rules={"validation": rule}, sampling=validation)

    def fit(
        self,
        output: Path | None = None,
        *,
        on_step: Callable[[int, float], None] = lambda step, loss: None,
        on_best: Callable[[int, float], None] = lambda step, pck: None,
    ) -> TrainingRun:
        """Learn, and leave the best prompt in the provider.

        Args:
            output: folder for `losses.csv` and `validation.csv`.
            on_step: called after each step with its number and loss.
            on_best: called when validation finds a better prompt, which the provider then holds.

        Raises:
            TrainingError: the loss is not finite.
        """
        accelerator = Accelerator(cpu=not torch.cuda.is_available())
        groups = self.prompt.parameter_groups()
        optimizer = torch.optim.Adam(
            [
                {"params": group.parameters, "lr": self.settings.learning_rate * group.scale, "scale": group.scale}
                for group in groups
            ]
        )
        views = wanted_views(self.backbone, self.prompt)
        batches = _Batches(self.train_data, views, self.settings, accelerator.process_index)
        run, started = TrainingRun(), time.perf_counter()
        self._validate(0, run, on_best)
        best = copy.deepcopy(self._state())
        for step, pairs in enumerate(DataLoader(batches, batch_size=None), start=1):
            loss = self._loss(pairs, step, accelerator.process_index)
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss.item()} at step {step}; a lower training.learning_rate may help"
                )
            optimizer.zero_grad(set_to_none=True)
            accelerator.backward(loss)
            self._average_gradients(accelerator)
            self._set_learning_rate(optimizer, step)
            optimizer.step()
            run.losses.append(loss.item())
            on_step(step, loss.item())
            if step % self.settings.validate_every == 0 or step == self.settings.steps:
                self._validate(step, run, on_best)
                if run.best_step == step:
                    best = copy.deepcopy(self._state())
        assert isinstance(self.prompt, nn.Module)
        self.prompt.load_state_dict(best)
        run.seconds = time.perf_counter() - started
        if output is not None and accelerator.is_main_process:
            _write_csv(output / "losses.csv", ("step", "loss"), enumerate(run.losses, start=1))
            _write_csv(output / "validation.csv", ("step", f"pck@{SELECTION_ALPHA:g}"), run.validation)
        return run

    def _state(self) -> dict[str, Tensor]:
        assert isinstance(self.prompt, nn.Module)
        return self.prompt.state_dict()

    def _loss(self, pairs: PairBatch, step: int, process: int) -> Tensor:
        count = 2 * len(pairs)
        sampling = Sampling(
            self.settings.sampling.timestep,
            self.settings.sampling.ensemble_size,
            TrainingNoise(self.settings.seed, step, process * count),
            self.settings.sampling.posterior,
        )
        source_prompt, target_prompt = pair_prompts(self.prompt, pairs.source, pairs.target)
        source, target = self._extract(pairs, source_prompt, target_prompt, sampling)
        device = source.values.device
        source_points, target_points = (
            Keypoints(side.points.to(device), side.visible.to(device))
            for side in (pairs.source_points, pairs.target_points)
        )
        loss = self.loss(correlate_maps(source, target, source_points.points), target_points)
        if self.settings.both_directions:
            loss = (loss + self.loss(correlate_maps(target, source, target_points.points), source_points)) / 2
        return loss

    def _extract(
        self, pairs: PairBatch, source: PromptEmbedding, target: PromptEmbedding, sampling: Sampling
    ) -> tuple[FeatureMap, FeatureMap]:
        """One extraction of all photos of a batch: sources first, then targets."""
        views = join_views(pairs.source.views["backbone"], pairs.target.views["backbone"])
        prompts = PromptEmbedding(torch.cat([source.values, target.values]))
        maps = self.backbone.extract(self.backbone.encode(views), prompts, sampling)
        return maps[: len(pairs)], maps[len(pairs) :]

    def _average_gradients(self, accelerator: Accelerator) -> None:
        """Mean over processes; a parameter that no process used (a category of no pair) stays without a gradient."""
        if accelerator.num_processes == 1:
            return
        parameters = [parameter for group in self.prompt.parameter_groups() for parameter in group.parameters]
        used = torch.tensor([float(one.grad is not None) for one in parameters], device=accelerator.device)
        for parameter, processes in zip(parameters, accelerator.reduce(used, "sum").tolist(), strict=True):
            if processes:
                own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = accelerator.reduce(own, "mean")

    def _set_learning_rate(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        settings = self.settings
        share = 1.0
        if settings.schedule == "cosine":
            share = 0.1 + 0.45 * (1 + math.cos(math.pi * (step - 1) / settings.steps))
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * group["scale"] * share

    def _validate(self, step: int, run: TrainingRun, on_best: Callable[[int, float], None]) -> None:
        scores = self.evaluator.evaluate(self.validation_pairs, self.prompt)["validation"]
        value = scores.pck("image")[f"{SELECTION_ALPHA:g}"]
        run.validation.append((step, value))
        if value > run.best_pck:
            run.best_step, run.best_pck = step, value
            on_best(step, value)


def check_learns(prompt: PromptProvider) -> None:
    """Refuse a prompt with which there is nothing to do.

    Raises:
        InputError: it has no parameters.
    """
    if not isinstance(prompt, nn.Module) or not prompt.parameter_groups():
        raise InputError(
            f"{type(prompt).__name__} has nothing to learn; choose a prompt that learns, for example single"
        )


class _Batches(Dataset[PairBatch]):
    """The pairs of each step, drawn from (seed, step) alone; processes take alternate ones."""

    def __init__(
        self, data: PairDataset, views: Mapping[str, Prepare], settings: TrainingSettings, process: int
    ) -> None:
        self.data = data
        self.views = views
        self.settings = settings
        self.process = process

    def __len__(self) -> int:
        return self.settings.steps

    def __getitem__(self, index: int) -> PairBatch:
        if not 0 <= index < len(self):
            raise IndexError(index)
        rng = np.random.default_rng([self.settings.seed, index, self.process])
        chosen = rng.choice(
            len(self.data), size=self.settings.batch_size, replace=len(self.data) < self.settings.batch_size
        )
        return make_pairs([self.data[int(i)] for i in chosen], self.data, self.views)


def _write_csv(path: Path, header: tuple[str, str], rows: Iterable[tuple[int, float]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows((step, f"{value:.6f}") for step, value in rows)
