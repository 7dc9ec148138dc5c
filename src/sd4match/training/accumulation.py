"""The gradient of one step: forward and backward of a process's share of the batch, in pieces that memory holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass
from itertools import pairwise

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor

from sd4match.backbones.cached import CachedBackbone
from sd4match.config.sections import TrainingSettings
from sd4match.errors import TrainingError
from sd4match.interfaces import KnowsFloor, MatchingLoss, PromptProvider
from sd4match.matching.correlation import correlate_maps
from sd4match.prompting.pairing import pair_maps
from sd4match.structures.pairs import PairBatch
from sd4match.structures.tensors import FeatureMap, Keypoints, Sampling, TrainingNoise
from sd4match.training.batches import Batches, BatchPlan, Piece


@dataclass(frozen=True)
class Sums:
    """Over the pairs that have a visible point: what the mean of a step is taken of."""

    pairs: float = 0.0
    loss: float = 0.0
    excess: float = 0.0

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(one + two for one, two in zip(astuple(self), astuple(other), strict=True)))


class Gradient:
    """Leaves the gradient of the *summed* loss of a process's pairs in the parameters.

    A sum, because pieces and processes may hold different numbers of pairs that count; who adds them up divides.

    Args:
        backbone: frozen.
        prompt: one that learns.
        loss: the mean over the pairs that have a visible point.
        settings: sampling, directions.
        batches: the pairs of every step.
        plan: how they are cut; cut smaller where memory runs out.
        precision: "no" or "bf16", of the forward pass up to the feature maps.
        on_plan: called when the plan changes.
    """

    def __init__(
        self,
        *,
        backbone: CachedBackbone,
        prompt: PromptProvider,
        loss: MatchingLoss,
        settings: TrainingSettings,
        batches: Batches,
        plan: BatchPlan,
        precision: str = "no",
        on_plan: Callable[[BatchPlan], None] = lambda plan: None,
    ) -> None:
        self.backbone = backbone
        self.prompt = prompt
        self.loss = loss
        self.settings = settings
        self.batches = batches
        self.plan = plan
        self.precision = precision
        self.on_plan = on_plan

    def accumulate(self, step: int, process: int, *, begin: Callable[[], None]) -> Sums:
        """All pieces of a process's share of a step.

        Args:
            step: from 1.
            process: number of this one.
            begin: forgets gradients and whatever else a try left; called before each.

        Raises:
            TrainingError: memory does not suffice for one pair.
            DatasetError, PhotoError: a pair cannot be read.
        """
        while True:
            begin()
            try:
                return self._pieces(step, process)
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                if self.plan.per_device == 1:
                    raise TrainingError(
                        f"memory does not suffice for one pair at step {step}; backbone.gradient_checkpointing=true, "
                        "training.mixed_precision=bf16 or a smaller backbone.image_size may help"
                    ) from None
            begin()
            clear_device_cache(garbage_collection=True)
            self.plan = self.plan.smaller()
            self.on_plan(self.plan)

    def _pieces(self, step: int, process: int) -> Sums:
        own = self.plan.places(process)
        pieces = [(step, places) for places in own]
        return sum((self._piece(*pair) for pair in pairwise([*pieces, (step + 1, own[0])])), start=Sums())

    def _piece(self, piece: Piece, then: Piece) -> Sums:
        """Forward and backward of some of the step's pairs, while the next ones are loaded."""
        step, places = piece
        pairs = self.batches.pairs(piece, then=then)
        source, target = self._maps(pairs, step, places)
        device = source.values.device
        queries, truth = (
            Keypoints(side.points.to(device), side.visible.to(device))
            for side in (pairs.source_points, pairs.target_points)
        )
        loss, floor = self._compare(source, target, queries, truth)
        if self.settings.both_directions:
            back_loss, back_floor = self._compare(target, source, truth, queries)
            loss, floor = (loss + back_loss) / 2, (floor + back_floor) / 2
        count = float(truth.visible.any(dim=-1).sum())
        if count:
            (loss * count).backward()
        return Sums(count, loss.item() * count, (loss.item() - floor) * count)

    def _maps(self, pairs: PairBatch, step: int, places: range) -> tuple[FeatureMap, FeatureMap]:
        """Sources and targets under their prompts, in one extraction."""
        settings, batch = self.settings.sampling, self.plan.batch_size
        noise = TrainingNoise(self.settings.seed, step, (*places, *(batch + place for place in places)))
        sampling = Sampling(settings.timestep, settings.ensemble_size, noise, settings.posterior)
        kind = next((weights.device.type for weights in self.backbone.parameters()), "cpu")
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            return pair_maps(self.backbone, self.prompt, pairs.source, pairs.target, sampling)

    def _compare(
        self, source: FeatureMap, target: FeatureMap, queries: Keypoints, truth: Keypoints
    ) -> tuple[Tensor, float]:
        """The loss from one side to the other, and what it cannot fall below."""
        correlation = correlate_maps(source, target, queries.points)
        floor = self.loss.floor(correlation, truth).item() if isinstance(self.loss, KnowsFloor) else 0.0
        return self.loss(correlation, truth), floor
