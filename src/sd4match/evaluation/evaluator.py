"""Feature maps, then pairs, then counts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from sd4match.data.collate import make_images, make_pairs, pad_points
from sd4match.evaluation.scores import PairScores
from sd4match.matching.correlation import correlate_maps
from sd4match.measurement import Measurement
from sd4match.prompting.pairing import pair_prompts, wanted_views
from sd4match.protocols import Backbone, Matcher, PairDataset, PairRecord, PromptProvider
from sd4match.types import FeatureMap, Sampling

Predict = Callable[[Sequence[PairRecord]], Tensor]
"""Pairs -> (B, N, 2) predictions in original pixels of the target photos, N padded as `pad_points` does."""

_PhotoKey = tuple[str, str | None]


class Evaluator:
    """Measures a prompt on a data set with a backbone and a matcher.

    A photo's feature map is computed once if the prompt's scope allows, and once a pair if it does not. Maps are kept
    up to `max_bytes`, the longest unused ones dropped first.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        matcher: Matcher,
        measurement: Measurement,
        sampling: Sampling,
        batch_size: int = 8,
        max_bytes: int = 1 << 30,
    ) -> None:
        self.backbone = backbone
        self.matcher = matcher
        self.measurement = measurement
        self.sampling = sampling
        self.batch_size = batch_size
        self.max_bytes = max_bytes

    def evaluate(
        self,
        dataset: PairDataset,
        prompt: PromptProvider,
        *,
        limit: int | None = None,
        progress: Callable[[int], None] = lambda pairs: None,
    ) -> PairScores:
        """Match every pair and count.

        Args:
            dataset: pairs with boxes.
            prompt: any provider.
            limit: only the first so many pairs.
            progress: called with the number of pairs just done.
        """
        kept = _KeptMaps(self.max_bytes)

        def predict(records: Sequence[PairRecord]) -> Tensor:
            if prompt.scope == "pair":
                maps = self._maps_of_pairs(dataset, records, prompt)
            else:
                maps = self._maps_of_photos(dataset, records, prompt, kept)
            points = pad_points([record.source_points for record in records]).float()
            return self.matcher(correlate_maps(*maps, points.to(maps[0].values))).points.cpu()

        return score(dataset, predict, self.measurement, limit=limit, batch_size=self.batch_size, progress=progress)

    @torch.no_grad()
    def _maps_of_pairs(
        self, dataset: PairDataset, records: Sequence[PairRecord], prompt: PromptProvider
    ) -> tuple[FeatureMap, FeatureMap]:
        pairs = make_pairs(records, dataset, wanted_views(self.backbone, prompt))
        prompts = pair_prompts(prompt, pairs.source, pairs.target)
        source, target = (
            self.backbone.extract(self.backbone.encode(images.views["backbone"]), embedding, self.sampling)
            for images, embedding in zip((pairs.source, pairs.target), prompts, strict=True)
        )
        return source, target

    @torch.no_grad()
    def _maps_of_photos(
        self, dataset: PairDataset, records: Sequence[PairRecord], prompt: PromptProvider, kept: _KeptMaps
    ) -> tuple[FeatureMap, FeatureMap]:
        sources: list[_PhotoKey] = [(record.source_id, record.category) for record in records]
        targets: list[_PhotoKey] = [(record.target_id, record.category) for record in records]
        missing = [key for key in dict.fromkeys([*sources, *targets]) if key not in kept]
        if missing:
            photos = [dataset.photo(image_id) for image_id, _ in missing]
            images = make_images(photos, [category for _, category in missing], wanted_views(self.backbone, prompt))
            latents = self.backbone.encode(images.views["backbone"])
            kept.add(missing, self.backbone.extract(latents, prompt(images), self.sampling))
        maps = kept.stack(sources), kept.stack(targets)
        kept.trim()
        return maps


class _KeptMaps:
    """Feature maps by photo, the longest unused first."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._maps: OrderedDict[_PhotoKey, FeatureMap] = OrderedDict()
        self._bytes = 0

    def __contains__(self, key: _PhotoKey) -> bool:
        return key in self._maps

    def add(self, keys: Sequence[_PhotoKey], maps: FeatureMap) -> None:
        for row, key in enumerate(keys):
            self._maps[key] = maps[row : row + 1]
            self._bytes += self._maps[key].values[0].nbytes

    def stack(self, keys: Sequence[_PhotoKey]) -> FeatureMap:
        found = [self._maps[key] for key in keys]
        for key in keys:
            self._maps.move_to_end(key)
        frames = tuple(frame for one in found for frame in one.frames)
        return FeatureMap(torch.cat([one.values for one in found]), frames, found[0].alignment, found[0].groups)

    def trim(self) -> None:
        while self._bytes > self.max_bytes and self._maps:
            _, dropped = self._maps.popitem(last=False)
            self._bytes -= dropped.values[0].nbytes


def score(
    dataset: PairDataset,
    predict: Predict,
    measurement: Measurement,
    *,
    limit: int | None = None,
    batch_size: int = 8,
    progress: Callable[[int], None] = lambda pairs: None,
) -> PairScores:
    """Count what any predictor gets right, model or not."""
    ids: list[str] = []
    categories: list[str] = []
    visible_counts: list[int] = []
    correct_counts: list[list[int]] = []
    left_out = 0
    for records in _batches(dataset, limit, batch_size):
        visible = pad_points([record.visible for record in records])
        correct = measurement.correct(
            predict(records),
            pad_points([record.target_points for record in records]).float(),
            visible,
            photo_sizes=[dataset.photo(record.target_id).size for record in records],
            boxes=[record.target_box for record in records],
        )
        for record, seen, right in zip(records, visible.sum(1).tolist(), correct.sum(1).tolist(), strict=True):
            if not seen:
                left_out += 1
                continue
            ids.append(record.pair_id)
            categories.append(record.category or "")
            visible_counts.append(seen)
            correct_counts.append(right)
        progress(len(records))
    alphas = measurement.alphas
    return PairScores(
        tuple(ids),
        tuple(categories),
        np.array(visible_counts, dtype=np.int64),
        np.array(correct_counts, dtype=np.int64).reshape(-1, len(alphas)),
        alphas,
        left_out,
    )


def _batches(dataset: PairDataset, limit: int | None, size: int) -> Iterable[list[PairRecord]]:
    count = len(dataset) if limit is None else min(limit, len(dataset))
    for start in range(0, count, size):
        yield [dataset[index] for index in range(start, min(start + size, count))]
