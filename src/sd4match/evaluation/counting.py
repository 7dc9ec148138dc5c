"""Pairs and predictions -> counts of correct points, whatever made the predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from sd4match.config.protocols import Measurement
from sd4match.data.collate import pad_points
from sd4match.distributed import Processes
from sd4match.errors import DatasetError, PhotoError, SD4MatchError
from sd4match.evaluation.scores import PairCount, PairScores, Skipped
from sd4match.interfaces import PairDataset
from sd4match.structures.pairs import PairRecord

Predictions = Mapping[str, Tensor]
"""By the name of a rule: (B, N, 2) in original pixels of the target photos, N padded as `pad_points` does."""
Predict = Callable[[Sequence[PairRecord]], Predictions]
Progress = Callable[[str, int, int], None]
"""Called with what is counted ("photos", "pairs"), how many are done, and how many there are."""


def no_progress(what: str, done: int, total: int) -> None:
    """Says nothing."""


@dataclass(frozen=True)
class _Counted:
    """What became of one pair under one rule."""

    place: int
    rule: str
    outcome: PairCount | Skipped


def count_pairs(
    dataset: PairDataset,
    predict: Predict,
    measurements: Mapping[str, Measurement],
    *,
    batch_size: int = 8,
    skip_bad: bool = False,
    progress: Progress = no_progress,
) -> dict[str, PairScores]:
    """Count what a predictor gets right, by rule. Every process takes its share of the batches; all get the whole
    answer.

    Args:
        dataset: pairs.
        predict: pairs -> predictions of every rule.
        measurements: by the names that `predict` uses.
        batch_size: pairs that are predicted together. Batches do not depend on the number of processes.
        skip_bad: leave out pairs whose annotation or photo cannot be read, and say so in the scores.
        progress: called after each batch.

    Raises:
        DatasetError, PhotoError: an annotation or a photo cannot be read; the message names file and pair.
    """
    processes = Processes()
    found: list[_Counted] = []
    failure: SD4MatchError | None = None
    starts = range(0, len(dataset), batch_size)
    try:
        for start in processes.mine(starts):
            places = range(start, min(start + batch_size, len(dataset)))
            found += _count_batch(dataset, places, predict, measurements, skip_bad=skip_bad)
            progress("pairs", places.stop, len(dataset))
    except SD4MatchError as error:
        failure = error
    processes.together(failure)
    merged = {(one.rule, one.place): one.outcome for one in processes.gather(found)}
    return {
        rule: PairScores.of(
            [outcome for (name, _), outcome in sorted(merged.items(), key=lambda item: item[0]) if name == rule],
            alphas=chosen.alphas,
        )
        for rule, chosen in measurements.items()
    }


def _count_batch(
    dataset: PairDataset,
    places: range,
    predict: Predict,
    measurements: Mapping[str, Measurement],
    *,
    skip_bad: bool,
) -> Iterator[_Counted]:
    records: dict[int, PairRecord] = {}
    skipped: dict[int, Skipped] = {}
    for place in places:
        with _named(dataset, place, skipped if skip_bad else None):
            records[place] = dataset[place]
    batches = [records]
    try:
        predictions = [predict(list(records.values()))] if records else []
    except (DatasetError, PhotoError):  # find out which pair it is
        batches, predictions = [], []
        for place, record in records.items():
            with _named(dataset, place, skipped if skip_bad else None):
                predictions.append(predict([record]))
                batches.append({place: record})
    for batch, predicted in zip(batches, predictions, strict=False):
        for measurement in dict.fromkeys(measurements[rule] for rule in predicted):
            alike = {rule: points for rule, points in predicted.items() if measurements[rule] == measurement}
            yield from _compare(list(batch.items()), alike, measurement, dataset)
    for place, outcome in skipped.items():
        for rule in measurements:
            yield _Counted(place, rule, outcome)


@contextmanager
def _named(dataset: PairDataset, place: int, skipped: dict[int, Skipped] | None) -> Iterator[None]:
    """Puts the pair's name before an error of its data, or takes it down as a pair that is left out."""
    try:
        yield
    except (DatasetError, PhotoError) as error:
        name = dataset.keys[place].pair_id
        if skipped is None:
            raise type(error)(f"pair {name}: {error}") from None
        skipped[place] = Skipped(name, str(error))


def _compare(
    records: Sequence[tuple[int, PairRecord]], predicted: Predictions, measurement: Measurement, dataset: PairDataset
) -> Iterator[_Counted]:
    """Counts of the rules that share a measurement, all at once."""
    every = [record for _, record in records] * len(predicted)
    visible = pad_points([record.visible for record in every])
    correct = measurement.correct(
        torch.cat([points.cpu().double() for points in predicted.values()]),
        pad_points([record.target_points for record in every]).double(),
        visible,
        photo_sizes=[record.target_size for record in every],
        boxes=[record.target_box for record in every],
        reference=dataset.reference,
    )
    asked = [(place, rule) for rule in predicted for place, _ in records]
    counts = zip(asked, every, visible.sum(1).tolist(), correct.sum(1).tolist(), strict=True)
    for (place, rule), record, seen, right in counts:
        yield _Counted(
            place, rule, PairCount(record.pair_id, record.category or "", seen, tuple(right), record.difficulty)
        )
