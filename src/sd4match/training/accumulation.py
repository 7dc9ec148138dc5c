"""Gradient of one step: forward and backward pass of a process's pairs, in micro-batches that fit into memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from itertools import pairwise

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor

from sd4match.backbones.cached import CachedBackbone
from sd4match.config.sections import TrainingConfig
from sd4match.errors import ComponentError, TrainingError
from sd4match.interfaces import MatchingLoss, Prompt
from sd4match.interfaces.calls import describe_component
from sd4match.matching.checked import checked_loss, checked_matches, checked_pair
from sd4match.matching.correlation import correlate_maps
from sd4match.prompting.pairing import pair_maps
from sd4match.structures.pairs import PairBatch
from sd4match.structures.tensors import FeatureMap, Keypoints, MatchFunction, PairFunction, TrainingNoise
from sd4match.training.batches import Batches, BatchSplit, MicroBatch


@dataclass(frozen=True)
class LossTotals:
    """Sums over the pairs that have a visible point, from which the means of a step are computed."""

    pairs: float = 0.0
    loss: float = 0.0
    excess_loss: float = 0.0
    """Sum of the loss minus its lower bound."""

    def __add__(self, other: LossTotals) -> LossTotals:
        return LossTotals(*(own + more for own, more in zip(astuple(self), astuple(other), strict=True)))


class GradientAccumulator:
    """Accumulator of the gradient of the *summed* loss of a process's pairs in the parameters.

    It is a sum because micro-batches and processes may hold different numbers of pairs with visible points; the caller
    adds the sums up and divides.

    Args:
        backbone: frozen.
        prompt: learned or not.
        loss: mean over the pairs that have a visible point.
        matcher: matcher whose matches the loss takes; None if it takes none.
        pair_transform: transform of both maps that learns; None if there is none.
        config: sampling, seed, directions.
        batches: pairs of every step.
        split: split of the pairs; halved when memory runs out.
        precision: "no" or "bf16", precision of the forward pass up to the feature maps.
        on_split: called when the split changes.
    """

    def __init__(
        self,
        *,
        backbone: CachedBackbone,
        prompt: Prompt,
        loss: MatchingLoss,
        matcher: MatchFunction | None = None,
        pair_transform: PairFunction | None = None,
        config: TrainingConfig,
        batches: Batches,
        split: BatchSplit,
        precision: str = "no",
        on_split: Callable[[BatchSplit], None] = lambda split: None,
    ) -> None:
        self.backbone = backbone
        self.prompt = prompt
        self.loss = loss
        self.matcher = matcher
        self.pair_transform = pair_transform
        self.config = config
        self.batches = batches
        self.split = split
        self.precision = precision
        self.on_split = on_split

    def accumulate(self, step: int, process: int, *, reset: Callable[[], None]) -> LossTotals:
        """Compute the gradient of all pairs that a process has in a step.

        Args:
            step: number of the step, from 1.
            process: index of this process.
            reset: discards gradients and restores random generators; called before each attempt.

        Returns:
            Sums over the pairs of this process.

        Raises:
            TrainingError: memory does not suffice for one pair.
            ComponentError: a component raises an error, or the loss is no scalar or has no gradient.
            DatasetError, PhotoError: a pair cannot be read.
        """
        while True:
            reset()
            try:
                return self._accumulate(step, process)
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                if self.split.per_device == 1:
                    raise TrainingError(
                        f"memory does not suffice for one pair at step {step}; backbone.gradient_checkpointing=true, "
                        "training.mixed_precision=bf16 or a smaller backbone.image_size may help"
                    ) from None
            reset()
            clear_device_cache(garbage_collection=True)
            self.split = self.split.halved()
            self.on_split(self.split)

    def _accumulate(self, step: int, process: int) -> LossTotals:
        ranges = self.split.indices(process)
        micro_batches = [MicroBatch(step, indices) for indices in ranges]
        following = MicroBatch(step + 1, ranges[0])
        totals = (self._backward(own, then) for own, then in pairwise([*micro_batches, following]))
        return sum(totals, start=LossTotals())

    def _backward(self, micro_batch: MicroBatch, then: MicroBatch) -> LossTotals:
        """Run forward and backward pass of a micro-batch, while the next one is loaded."""
        pairs = self.batches.load(micro_batch, then=then)
        source, target = self._maps(pairs, micro_batch)
        device = source.values.device
        queries, truth = (
            Keypoints(side.points.to(device), side.visible.to(device))
            for side in (pairs.source_points, pairs.target_points)
        )
        loss, lower_bound = self._loss(source, target, queries, truth)
        if self.config.both_directions:
            back_loss, back_lower_bound = self._loss(target, source, truth, queries)
            loss, lower_bound = (loss + back_loss) / 2, (lower_bound + back_lower_bound) / 2
        count = float(truth.visible.any(dim=-1).sum())
        if count:
            (loss * count).backward()
        return LossTotals(count, loss.item() * count, (loss.item() - lower_bound) * count)

    def _maps(self, pairs: PairBatch, micro_batch: MicroBatch) -> tuple[FeatureMap, FeatureMap]:
        """Return the maps of sources and targets under their prompts, from one extraction, and transformed."""
        batch_size, indices = self.split.batch_size, micro_batch.indices
        noise = TrainingNoise(
            self.config.seed, micro_batch.step, (*indices, *(batch_size + index for index in indices))
        )
        sampling = replace(self.config.sampling.sampling(), noise=noise)
        with torch.autocast(self.backbone.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            source, target = pair_maps(self.backbone, self.prompt, pairs.source, pairs.target, sampling)
        if self.pair_transform is None:
            return source, target
        return checked_pair(self.pair_transform, source, target)

    def _loss(
        self, source: FeatureMap, target: FeatureMap, queries: Keypoints, truth: Keypoints
    ) -> tuple[Tensor, float]:
        """Return the loss of matching `queries` from one side to the other, and its lower bound (0 if it has none)."""
        correlation = correlate_maps(source, target, queries.points)
        matches = None if self.matcher is None else checked_matches(self.matcher, correlation)
        answer = checked_loss(self.loss, correlation, truth, matches)
        if bool(truth.visible.any()) and not answer.value.requires_grad:
            name = describe_component("loss", self.loss)
            raise ComponentError(
                f"{name} has no gradient: it must follow from the correlation, or from the matches of a matcher that "
                "learns, without detaching them"
            )
        return answer.value, 0.0 if answer.lower_bound is None else answer.lower_bound.item()
