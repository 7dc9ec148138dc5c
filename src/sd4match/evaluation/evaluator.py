"""Evaluation of prompts: extract feature maps, match each pair, count the correct keypoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import get_args, overload

import torch

from sd4match.arguments import check_arguments
from sd4match.checks import check_choice, check_count
from sd4match.config.protocols import EvaluationProtocol
from sd4match.data.checked import check_dataset
from sd4match.data.collate import make_pairs
from sd4match.distributed import Processes
from sd4match.errors import ComponentError, ConfigError, DatasetError, InputError, NonFiniteError, shown
from sd4match.evaluation.counting import (
    Prediction,
    Predictions,
    Progress,
    ShouldStop,
    batches_of_process,
    count_pairs,
    no_progress,
)
from sd4match.evaluation.map_memory import memory_budget
from sd4match.evaluation.photo_maps import PhotoMaps
from sd4match.evaluation.scores import PairScores
from sd4match.evaluation.scratch import scratch_folder
from sd4match.interfaces import Backbone, PairDataset, Prompt, Scope, evaluation_mode
from sd4match.io.cache import Store
from sd4match.matching.checked import checked_matches, checked_pair
from sd4match.paths import as_path
from sd4match.prompting.pairing import pair_maps, preprocessors
from sd4match.structures.pairs import PairRecord
from sd4match.structures.tensors import FeatureMap, MatchFunction, PairFunction, Sampling

_MAP_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_PAIRS_PER_BATCH = 16
"""Pairs that are counted together if their maps exist; a larger number is only marginally faster."""

MapsOfPair = Callable[[PairRecord], tuple[FeatureMap, FeatureMap]]
"""Function from a pair to the maps, (1, C, h, w), of its source and its target."""
_MapsOfPairs = Callable[[Sequence[PairRecord]], Iterator[tuple[FeatureMap, FeatureMap]]]


class Evaluator:
    """Evaluator of prompts on a data set, with one or more matchers that share the extracted features.

    The feature map of a photo is extracted once if the prompt does not depend on pairs, and once per pair if it does.
    Maps stay in memory within a budget, and on disk beyond it. Counts do not depend on the budget, on the order of the
    pairs, or on the number of processes.

    Args:
        backbone: computes feature maps of photos.
        protocol: how cells lie on pixels, how source features are sampled, and when a match is correct.
        matchers: matchers by their names in the result.
        sampling: timestep, ensemble and noise.
        batch_size: photos that are extracted together, at least 1; pairs, for prompts that depend on pairs.
        maps: folder in which all maps are stored and found again, for another matcher or protocol or after an
            interruption; None: maps are deleted at the end.
        scratch: folder in which the temporary folder for feature maps is made; None: the system's default.
        memory: budget in bytes for feature maps of each process; None: half of the free memory of the GPU, or of the
            machine divided by the number of processes.
        map_dtype: data type of stored maps, in memory and on disk: float32, float16 or bfloat16.
        skip_bad: skip pairs whose annotation or photo cannot be read.
        pair_transform: transform of the two maps of a pair, before matching; None: no transform.

    Raises:
        ConfigError: the protocol needs another layout of photos (`frame`, "squash" or "pad") than the backbone's.
        InputError: an argument is of another type, or out of bounds.

    >>> from sd4match.config import get_protocol
    >>> from sd4match.matching import NearestNeighbor
    >>> from sd4match.prompting import EmptyPrompt
    >>> from sd4match.testing import FakeBackbone, FakePairs, FakeTextEncoder
    >>> backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    >>> evaluator = Evaluator(
    ...     backbone=backbone, protocol=get_protocol("sd4match"), matchers={"nearest": NearestNeighbor()},
    ...     sampling=Sampling(timestep=50),
    ... )
    >>> scores = evaluator.evaluate(FakePairs(), EmptyPrompt(backbone=backbone))
    >>> list(scores), len(scores["nearest"]) == len(FakePairs())
    (['nearest'], True)
    """

    @check_arguments
    def __init__(
        self,
        *,
        backbone: Backbone,
        protocol: EvaluationProtocol,
        matchers: Mapping[str, MatchFunction],
        sampling: Sampling,
        batch_size: int = 8,
        maps: str | Path | None = None,
        scratch: str | Path | None = None,
        memory: int | None = None,
        map_dtype: torch.dtype = torch.float32,
        skip_bad: bool = False,
        pair_transform: PairFunction | None = None,
    ) -> None:
        check_count("batch_size", batch_size)
        if memory is not None:
            check_count("memory", memory, 0)
        if map_dtype not in _MAP_DTYPES:
            raise InputError(f"map_dtype must be one of {', '.join(map(str, _MAP_DTYPES))}, not {shown(map_dtype)}")
        if not matchers:
            raise InputError("matchers must hold one matcher or more, by name")
        check_frame(protocol, backbone.spec.frame)
        self.backbone = backbone
        self.protocol = protocol
        self.matchers = dict(matchers)
        self.sampling = sampling
        self.batch_size = batch_size
        self.maps = None if maps is None else as_path(maps, what="maps")
        self.scratch = None if scratch is None else as_path(scratch, what="scratch")
        self.memory = memory_budget(backbone.device, processes=Processes().count) if memory is None else memory
        self.map_dtype = map_dtype
        self.skip_bad = skip_bad
        self.pair_transform = pair_transform

    @overload
    def evaluate(
        self, dataset: PairDataset, prompt: Prompt, *, progress: Progress = ..., should_stop: None = None
    ) -> dict[str, PairScores]: ...

    @overload
    def evaluate(
        self, dataset: PairDataset, prompt: Prompt, *, progress: Progress = ..., should_stop: ShouldStop
    ) -> dict[str, PairScores] | None: ...

    @torch.no_grad()
    @check_arguments
    def evaluate(
        self,
        dataset: PairDataset,
        prompt: Prompt,
        *,
        progress: Progress = no_progress,
        should_stop: ShouldStop | None = None,
    ) -> dict[str, PairScores] | None:
        """Match every pair and count the correct points.

        Args:
            dataset: pairs; the same in all processes.
            prompt: prompt of any scope.
            progress: called after each batch; see `counting.Progress`.
            should_stop: called before each batch. If it returns True in any process, all stop at the end of the
                current phase, extraction or matching.

        Returns:
            Scores by name of the matcher, whose `pck("image")` is the PCK; None if the evaluation was stopped.

        Raises:
            DatasetError, PhotoError: there is no pair, or an annotation or a photo cannot be read and `skip_bad` is
                False.
            NonFiniteError: features or predicted points are not finite.
            ComponentError: a custom component raises another error, or returns a value that its interface does not
                allow.
        """
        check_dataset(dataset)
        check_choice(f"scope of {type(prompt).__name__}", prompt.scope, get_args(Scope))
        with evaluation_mode(prompt, self.pair_transform, *self.matchers.values()):
            return self._evaluate(dataset, prompt, progress, should_stop)

    def _evaluate(
        self, dataset: PairDataset, prompt: Prompt, progress: Progress, should_stop: ShouldStop | None
    ) -> dict[str, PairScores] | None:
        if prompt.scope == "pair":
            batches: Sequence[Sequence[int]] = batches_of_process(dataset, self.batch_size)
            return self._count(dataset, self._extract_pairs(dataset, prompt), batches, progress, should_stop)
        with self._store() as store:
            maps = PhotoMaps(
                backbone=self.backbone, prompt=prompt, sampling=self.sampling, dataset=dataset,
                batch_size=self.batch_size, store=store, keep=self.maps is not None, budget=self.memory,
                dtype=self.map_dtype,
            )  # fmt: skip
            if not maps.extract_all(skip_bad=self.skip_bad, progress=progress, should_stop=should_stop):
                return None
            starts = range(0, len(maps.order), _PAIRS_PER_BATCH)
            batches = [maps.order[start : start + _PAIRS_PER_BATCH] for start in starts]
            return self._count(dataset, _one_by_one(maps.of_pair), batches, progress, should_stop)

    @torch.no_grad()
    @check_arguments
    def count(
        self, dataset: PairDataset, maps: MapsOfPair, *, progress: Progress = no_progress
    ) -> dict[str, PairScores]:
        """Match every pair on given maps and count the correct points.

        Args:
            dataset: pairs.
            maps: function from a pair to its two maps, (1, C, h, w) each.
            progress: called after each batch.

        Returns:
            Counts by name of the matcher.

        Raises:
            DatasetError, PhotoError: an annotation or a photo cannot be read and `skip_bad` is False.
            NonFiniteError: features or predicted points are not finite.
            ComponentError: a custom component raises another error, or returns a value that its interface does not
                allow.
        """
        with evaluation_mode(self.pair_transform, *self.matchers.values()):
            scores = self._count(dataset, _one_by_one(maps), batches_of_process(dataset, _PAIRS_PER_BATCH), progress)
        assert scores is not None
        return scores

    def _count(
        self,
        dataset: PairDataset,
        maps: _MapsOfPairs,
        batches: Sequence[Sequence[int]],
        progress: Progress,
        should_stop: ShouldStop | None = None,
    ) -> dict[str, PairScores] | None:
        def predict(records: Sequence[PairRecord]) -> Iterator[Predictions]:
            for record, (source, target) in zip(records, maps(records), strict=True):
                yield self._match(record, source, target)

        return count_pairs(
            dataset, predict, self.protocol, list(self.matchers), batches=batches, skip_bad=self.skip_bad,
            progress=progress, should_stop=should_stop,
        )  # fmt: skip

    def _match(self, record: PairRecord, source: FeatureMap, target: FeatureMap) -> Predictions:
        """Return the predictions of every matcher from one correlation."""
        _check_sizes(record, source, target)
        if self.pair_transform is not None:
            source, target = checked_pair(self.pair_transform, source, target)
        query_points = torch.from_numpy(record.source_points)[None].to(source.values)
        correlation = self.protocol.correlate(source, target, query_points)
        predictions = {}
        for name, matcher in self.matchers.items():
            try:
                matches = checked_matches(matcher, correlation)
            except (ComponentError, NonFiniteError, InputError) as error:
                raise type(error)(f"matcher {shown(name)}, pair {shown(record.pair_id)}: {error}") from error
            predictions[name] = Prediction(matches.points[0], matches.valid[0])
        return predictions

    def _extract_pairs(self, dataset: PairDataset, prompt: Prompt) -> _MapsOfPairs:
        """Return a function that extracts the maps of some pairs under a prompt that depends on both photos."""
        prepare = preprocessors(self.backbone, prompt)

        def maps(records: Sequence[PairRecord]) -> Iterator[tuple[FeatureMap, FeatureMap]]:
            pairs = make_pairs(records, dataset, prepare)
            source, target = pair_maps(self.backbone, prompt, pairs.source, pairs.target, self.sampling)
            for row in range(len(pairs)):
                yield source[row : row + 1], target[row : row + 1]

        return maps

    @contextmanager
    def _store(self) -> Iterator[Store]:
        """Provide a store that all processes share, and delete it at the end unless `maps` names its folder."""
        if self.maps is not None:
            yield Store(self.maps)
            return
        processes = Processes()
        with ExitStack() as stack:  # the main process makes and removes the folder
            folder = processes.on_main(lambda: stack.enter_context(scratch_folder(self.scratch)))
            yield Store(folder)


def _one_by_one(maps: MapsOfPair) -> _MapsOfPairs:
    return lambda records: (maps(record) for record in records)


def check_frame(protocol: EvaluationProtocol, frame: str) -> None:
    """Check that a protocol is defined on photos in the frame of the backbone.

    Raises:
        ConfigError: the frames differ; the message names both.
    """
    if protocol.frame != frame:
        raise ConfigError(
            f"protocol {protocol.name!r} needs photos in the layout frame = {protocol.frame!r}; "
            f"this backbone has frame = {frame!r}"
        )


def _check_sizes(record: PairRecord, source: FeatureMap, target: FeatureMap) -> None:
    """Check that photos have the size of their annotation, to which its points refer.

    Raises:
        DatasetError: a size differs; the message names the photo.
    """
    for name, features, annotated in (
        (record.source_id, source, record.source_size),
        (record.target_id, target, record.target_size),
    ):
        height, width = features.grid.frames[0].original_size
        if (height, width) != tuple(annotated):
            raise DatasetError(
                f"{name} is {width} x {height} pixels, but its annotation says {annotated[1]} x {annotated[0]}"
            )
