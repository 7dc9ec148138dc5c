"""Measuring a prompt: feature maps first, then pairs, then counts."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sd4match.config.protocols import Measurement
from sd4match.data.collate import make_pairs, pad_points
from sd4match.distributed import Processes
from sd4match.errors import ConfigError, DatasetError, SD4MatchError
from sd4match.evaluation.counting import Predictions, Progress, count_pairs, no_progress
from sd4match.evaluation.photo_maps import PhotoMaps
from sd4match.evaluation.scores import PairScores
from sd4match.interfaces import Backbone, FindsPlaces, Matcher, PairDataset, PairTransform, PromptProvider, ReadsCorners
from sd4match.io.cache import Store
from sd4match.prompting.pairing import pair_maps, wanted_views
from sd4match.structures.pairs import PairRecord
from sd4match.structures.tensors import FeatureMap, Sampling

SCRATCH_PREFIX = ".sd4match-maps-"
"""Of the temporary folders of maps; one that stays behind is of a process that was killed."""


_PAIRS_AT_ONCE = 16
"""Whose maps are there already: more would be faster by little, and hold twice as many maps in memory."""

MapsOfPairs = Callable[[Sequence[PairRecord]], Iterable[tuple[FeatureMap, FeatureMap]]]
"""Some pairs -> the maps, (1, C, h, w), of the source and of the target of each."""


@dataclass(frozen=True)
class Rule:
    """A way to find matches and a way to count them."""

    measurement: Measurement
    matcher: Matcher


class Evaluator:
    """Measures prompts on a data set with a backbone, under several rules on the same features.

    A photo's feature map is made once if the prompt's scope allows, and once a pair if it does not. Maps are kept on
    disk, so memory does not grow with the data set. Any number of processes gives the same counts.

    Args:
        backbone: as built.
        rules: matchers and measurements, by the names that the answer gives them.
        sampling: timestep, ensemble, noise.
        batch_size: photos, and pairs, that go through the backbone together.
        maps: a folder in which maps stay and are found again (for another matcher, another measurement, or after a
        stop).
            Without it they are removed at the end.
        scratch: the folder in which that temporary folder is made; the system's, if not given.
        max_bytes: of maps in memory.
        skip_bad: leave out pairs whose annotation or photo cannot be read.
        pair_transform: of the two maps of a pair, before they are matched.

    Raises:
        ConfigError: a rule counts on photos in another frame than the backbone's.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        rules: Mapping[str, Rule],
        sampling: Sampling,
        batch_size: int = 8,
        maps: Path | None = None,
        scratch: Path | None = None,
        max_bytes: int = 1 << 30,
        skip_bad: bool = False,
        pair_transform: PairTransform | None = None,
    ) -> None:
        for rule in rules.values():
            check_frame(rule.measurement, backbone.spec.frame)
        self.backbone = backbone
        self.rules = dict(rules)
        self._by_measurement = {
            measurement: [name for name, rule in rules.items() if rule.measurement == measurement]
            for measurement in dict.fromkeys(rule.measurement for rule in rules.values())
        }
        self.sampling = sampling
        self.batch_size = batch_size
        self.maps = maps
        self.scratch = scratch
        self.max_bytes = max_bytes
        self.skip_bad = skip_bad
        self.pair_transform = pair_transform

    @torch.no_grad()
    def evaluate(
        self, dataset: PairDataset, prompt: PromptProvider, *, progress: Progress = no_progress
    ) -> dict[str, PairScores]:
        """Match every pair and count.

        Args:
            dataset: pairs; all processes must be given the same.
            prompt: any provider.
            progress: called on the way; see `counting.Progress`.

        Returns:
            Counts by rule.

        Raises:
            DatasetError, PhotoError: an annotation or a photo cannot be read, and `skip_bad` is off.
        """
        if prompt.scope == "pair":
            return self._count(
                dataset, _PairMaps(self.backbone, prompt, self.sampling, dataset), self.batch_size, progress
            )
        weights = next(self.backbone.parameters(), None) if isinstance(self.backbone, nn.Module) else None
        with self._store() as store:
            maps = PhotoMaps(
                backbone=self.backbone, prompt=prompt, sampling=self.sampling, store=store, dataset=dataset,
                batch_size=self.batch_size, max_bytes=self.max_bytes,
                device=None if weights is None else weights.device,
            )  # fmt: skip
            maps.make_all(skip_bad=self.skip_bad, progress=progress)
            return self.count(dataset, _MapsOfPhotos(maps), progress=progress)

    @torch.no_grad()
    def count(
        self, dataset: PairDataset, maps: MapsOfPairs, *, progress: Progress = no_progress
    ) -> dict[str, PairScores]:
        """Match every pair on given maps, whoever made them, and count; returns and raises as `evaluate`.

        Args:
            dataset: pairs; all processes must be given the same.
            maps: of some pairs; in the backbone's frame.
            progress: called after each batch.
        """
        return self._count(dataset, maps, max(_PAIRS_AT_ONCE, self.batch_size), progress)

    def _count(
        self, dataset: PairDataset, maps: MapsOfPairs, batch_size: int, progress: Progress
    ) -> dict[str, PairScores]:
        def predict(records: Sequence[PairRecord]) -> Predictions:
            pairs = []
            for record, (source, target) in zip(records, maps(records), strict=True):
                _check_sizes(record, source, target)
                pairs.append((source, target) if self.pair_transform is None else self.pair_transform(source, target))
            sources, targets = (FeatureMap.joined(side) for side in zip(*pairs, strict=True))
            points = pad_points([record.source_points for record in records])
            return dict(self._match(sources, targets, points.to(pairs[0][0].values)))

        measurements = {name: rule.measurement for name, rule in self.rules.items()}
        return count_pairs(
            dataset, predict, measurements, batch_size=batch_size, skip_bad=self.skip_bad, progress=progress
        )

    def _match(self, source: FeatureMap, target: FeatureMap, points: Tensor) -> Iterator[tuple[str, Tensor]]:
        """What every rule finds; rules that differ in their matcher alone share a correlation."""
        for measurement, rules in self._by_measurement.items():
            matchers = {name: self.rules[name].matcher for name in rules}
            corners = any(isinstance(matcher, ReadsCorners) for matcher in matchers.values())
            correlation = measurement.correlate(source, target, points, corners=corners)
            for name, matcher in matchers.items():
                found = matcher.places(correlation) if isinstance(matcher, FindsPlaces) else matcher(correlation).points
                yield name, found.cpu()

    def _make_scratch(self) -> str:
        try:
            return tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=self.scratch)
        except OSError as error:
            raise SD4MatchError(f"cannot make a folder for feature maps: {error}") from None

    @contextmanager
    def _store(self) -> Iterator[Store]:
        if self.maps is not None:
            yield Store(self.maps)
            return
        processes = Processes()
        folder = processes.on_main(self._make_scratch)
        try:
            yield Store(Path(folder))
        finally:
            if processes.is_main:
                shutil.rmtree(folder, ignore_errors=True)


class _MapsOfPhotos:
    """Maps of pairs whose photos have maps of their own."""

    def __init__(self, maps: PhotoMaps) -> None:
        self.maps = maps

    def __call__(self, records: Sequence[PairRecord]) -> Iterator[tuple[FeatureMap, FeatureMap]]:
        for record in records:
            source, target = record.sides
            yield self.maps.of(*source), self.maps.of(*target)


class _PairMaps:
    """Maps of pairs under a prompt that both photos decide."""

    def __init__(self, backbone: Backbone, prompt: PromptProvider, sampling: Sampling, dataset: PairDataset) -> None:
        self.backbone = backbone
        self.prompt = prompt
        self.sampling = sampling
        self.dataset = dataset

    def __call__(self, records: Sequence[PairRecord]) -> Iterator[tuple[FeatureMap, FeatureMap]]:
        pairs = make_pairs(records, self.dataset, wanted_views(self.backbone, self.prompt))
        source, target = pair_maps(self.backbone, self.prompt, pairs.source, pairs.target, self.sampling)
        for row in range(len(pairs)):
            yield source[row : row + 1], target[row : row + 1]


def check_frame(measurement: Measurement, frame: str) -> None:
    """Refuse a measurement of photos in another frame.

    Raises:
        ConfigError: names both.
    """
    if measurement.view != frame:
        raise ConfigError(
            f"measurement {measurement.name!r} counts on photos that are put into the model's image by view = "
            f"{measurement.view!r}; this backbone has frame = {frame!r}"
        )


def _check_sizes(record: PairRecord, source: FeatureMap, target: FeatureMap) -> None:
    """Points mean nothing on a photo of another size than the annotation's."""
    for name, features, said in (
        (record.source_id, source, record.source_size),
        (record.target_id, target, record.target_size),
    ):
        height, width = features.frames[0].original_size
        if (height, width) != tuple(said):
            raise DatasetError(f"{name} is {width} x {height} pixels, but its annotation says {said[1]} x {said[0]}")
