"""Measuring a prompt: feature maps first, then pairs, then counts."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import torch
from torch import nn

from sd4match.data.collate import make_pairs, pad_points
from sd4match.errors import ConfigError, DatasetError, SD4MatchError
from sd4match.evaluation.counting import Predictions, Progress, count, no_progress
from sd4match.evaluation.maps import PhotoMaps
from sd4match.evaluation.processes import Processes
from sd4match.evaluation.scores import PairScores
from sd4match.measurement import Measurement
from sd4match.prompting.pairing import pair_prompts, wanted_views
from sd4match.protocols import Backbone, Matcher, PairDataset, PairRecord, PairTransform, PromptProvider
from sd4match.store import Store
from sd4match.types import FeatureMap, Sampling

SCRATCH_PREFIX = ".sd4match-maps-"
"""Of the temporary folders of maps; one that stays behind is of a process that was killed."""


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
        batch_size: photos, and pairs, that go through together.
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
            return self._count(dataset, _PairMaps(self.backbone, prompt, self.sampling, dataset), progress)
        with self._store() as store:
            maps = PhotoMaps(
                backbone=self.backbone, prompt=prompt, sampling=self.sampling, store=store, dataset=dataset,
                batch_size=self.batch_size, max_bytes=self.max_bytes,
            )  # fmt: skip
            maps.make_all(skip_bad=self.skip_bad, progress=progress)
            return self._count(dataset, _MapsOfPhotos(maps), progress)

    def _count(
        self, dataset: PairDataset, maps: _PairMaps | _MapsOfPhotos, progress: Progress
    ) -> dict[str, PairScores]:
        weights = next(self.backbone.parameters(), None) if isinstance(self.backbone, nn.Module) else None

        def predict(records: Sequence[PairRecord]) -> Predictions:
            source, target = maps(records)
            _check_sizes(records, source, target)
            points = pad_points([record.source_points for record in records]).float()
            if weights is not None:
                source, target = (replace(m, values=m.values.to(weights.device)) for m in (source, target))
            if self.pair_transform is not None:
                source, target = self.pair_transform(source, target)
            return self._match(source, target, points.to(source.values))

        measurements = {name: rule.measurement for name, rule in self.rules.items()}
        return count(
            dataset, predict, measurements, batch_size=self.batch_size, skip_bad=self.skip_bad, progress=progress
        )

    def _match(self, source: FeatureMap, target: FeatureMap, points: torch.Tensor) -> Predictions:
        """Predictions of every rule; rules that differ in their matcher alone share a correlation."""
        found = {}
        by_measurement = sorted(self.rules.items(), key=lambda item: item[1].measurement.model_dump_json())
        for measurement, rules in groupby(by_measurement, key=lambda item: item[1].measurement):
            correlation = measurement.correlate(source, target, points)
            for name, rule in rules:
                found[name] = rule.matcher(correlation).points.cpu()
        return found

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
    """Maps of pairs from maps of photos."""

    def __init__(self, maps: PhotoMaps) -> None:
        self.maps = maps

    def __call__(self, records: Sequence[PairRecord]) -> tuple[FeatureMap, FeatureMap]:
        sources, targets = zip(*(record.sides for record in records), strict=True)
        return self.maps.of(sources), self.maps.of(targets)


class _PairMaps:
    """Maps of pairs under a prompt that both photos decide."""

    def __init__(self, backbone: Backbone, prompt: PromptProvider, sampling: Sampling, dataset: PairDataset) -> None:
        self.backbone = backbone
        self.prompt = prompt
        self.sampling = sampling
        self.dataset = dataset

    def __call__(self, records: Sequence[PairRecord]) -> tuple[FeatureMap, FeatureMap]:
        pairs = make_pairs(records, self.dataset, wanted_views(self.backbone, self.prompt))
        prompts = pair_prompts(self.prompt, pairs.source, pairs.target)
        source, target = (
            self.backbone.extract(self.backbone.encode(images.views["backbone"]), embedding, self.sampling)
            for images, embedding in zip((pairs.source, pairs.target), prompts, strict=True)
        )
        return source, target


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


def _check_sizes(records: Sequence[PairRecord], source: FeatureMap, target: FeatureMap) -> None:
    """Points mean nothing on a photo of another size than the annotation's."""
    for row, record in enumerate(records):
        for name, frame, said in (
            (record.source_id, source.frames[row], record.source_size),
            (record.target_id, target.frames[row], record.target_size),
        ):
            if tuple(frame.original_size) != tuple(said):
                height, width = frame.original_size
                raise DatasetError(
                    f"{name} is {width} x {height} pixels, but its annotation says {said[1]} x {said[0]}"
                )
