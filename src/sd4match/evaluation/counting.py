"""Counts of correct points from pairs and predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from sd4match.config.protocols import EvaluationProtocol
from sd4match.data.checked import check_dataset, read_pair
from sd4match.data.collate import pad_points
from sd4match.distributed import Processes
from sd4match.errors import ComponentError, DatasetError, NonFiniteError, PhotoError, SD4MatchError, shown
from sd4match.evaluation.scores import PairCount, PairScores, Skipped, check_alphas
from sd4match.interfaces import PairDataset
from sd4match.structures.pairs import PairRecord


class Prediction(NamedTuple):
    """Prediction for one pair."""

    points: Tensor
    """(N, 2), in original pixels of the target photo."""
    valid: Tensor | None = None
    """(N,), False where a point is predicted to have no match; None: all True."""


Predictions = Mapping[str, Tensor | Prediction]
"""Predictions for one pair by name of the predictor; in a tensor, all points have a match."""
Predict = Callable[[Sequence[PairRecord]], Iterable[Predictions]]
"""Function from several pairs to the predictions for each."""
Progress = Callable[[str, int, int], None]
"""Function of the counted unit ("photos", "pairs"), the number of finished ones and the number of all."""
ShouldStop = Callable[[], bool]
"""Function that is called between batches; True stops an evaluation."""

_Outcomes = dict[tuple[str, int], PairCount | Skipped]
"""Counts by name of the predictor and index of the pair."""


def no_progress(what: str, done: int, total: int) -> None:
    """Do nothing."""


def count_pairs(
    dataset: PairDataset,
    predict: Predict,
    protocol: EvaluationProtocol,
    names: Sequence[str],
    *,
    batches: Sequence[Sequence[int]],
    skip_bad: bool = False,
    progress: Progress = no_progress,
    should_stop: ShouldStop | None = None,
) -> dict[str, PairScores] | None:
    """Count the correct points of every predictor. All processes return the counts of all pairs.

    Args:
        dataset: pairs.
        predict: predictions of every predictor.
        protocol: which points count as correct.
        names: names of the predictors.
        batches: indices of the pairs of this process, in the order in which they are predicted; the pairs of a batch
            are predicted and counted together. Scores are in the order of the data set.
        skip_bad: skip pairs whose annotation or photo cannot be read, and list them in the scores.
        progress: called after each batch.
        should_stop: called before each batch; if one process stops, all return None.

    Returns:
        Counts by predictor; None if the evaluation was stopped.

    Raises:
        DatasetError, PhotoError: there is no pair, or an annotation or a photo cannot be read; the message names file
            and pair.
        NonFiniteError: a predicted point of a visible point is not finite; the message names predictor and pair.
        ComponentError: a predictor or the data set answers what it must not; the message names it.
    """
    check_dataset(dataset)
    check_alphas(protocol.alphas)
    processes = Processes()
    counter = _Counter(dataset, predict, protocol, tuple(names), skip_bad=skip_bad)
    failure: SD4MatchError | None = None
    stopped = False
    done = 0
    try:
        for indices in batches:
            if should_stop is not None and should_stop():
                stopped = True
                break
            counter.count(indices)
            done += len(indices)
            progress("pairs", min(done * processes.count, len(dataset)), len(dataset))
    except SD4MatchError as error:
        failure = error
    processes.together(failure)
    if processes.any(stopped):
        return None
    outcomes: _Outcomes = dict(processes.gather(list(counter.outcomes.items())))
    return {
        name: PairScores.of([outcomes[name, index] for index in range(len(dataset))], alphas=protocol.alphas)
        for name in names
    }


def batches_of_process(dataset: PairDataset, batch_size: int) -> list[range]:
    """Return this process's share of the batches of consecutive pairs, independent of the number of processes."""
    pairs = range(len(dataset))
    return list(Processes().share([pairs[start : start + batch_size] for start in pairs[::batch_size]]))


class _Counter:
    """Counter of the points of batches of pairs."""

    def __init__(
        self,
        dataset: PairDataset,
        predict: Predict,
        protocol: EvaluationProtocol,
        names: tuple[str, ...],
        *,
        skip_bad: bool,
    ) -> None:
        self.outcomes: _Outcomes = {}
        self._dataset = dataset
        self._predict = predict
        self._protocol = protocol
        self._names = names
        self._skip_bad = skip_bad

    def count(self, indices: Sequence[int]) -> None:
        """Predict and count some pairs."""
        records: dict[int, PairRecord] = {}
        for index in indices:
            with self._naming_pair(index):
                records[index] = read_pair(self._dataset, index)
        predictions: dict[int, Predictions] = {}
        try:
            predictions = dict(zip(records, self._predict(list(records.values())), strict=True)) if records else {}
        except (DatasetError, PhotoError):  # predict each alone, to find the pair that fails
            for index, record in records.items():
                with self._naming_pair(index):
                    (predictions[index],) = self._predict([record])
        if predictions:
            self._compare({index: records[index] for index in predictions}, list(predictions.values()))

    @contextmanager
    def _naming_pair(self, index: int) -> Iterator[None]:
        """Add the pair's name to an error in its data, or record the pair as skipped."""
        try:
            yield
        except (DatasetError, PhotoError) as error:
            pair = self._dataset.keys[index].pair_id
            if not self._skip_bad:
                raise type(error)(f"pair {pair}: {error}") from None
            for name in self._names:
                self.outcomes[name, index] = Skipped(pair, str(error))

    def _compare(self, records: Mapping[int, PairRecord], predictions: Sequence[Predictions]) -> None:
        """Count the pairs of all predictors at once."""
        repeated = [record for _ in self._names for record in records.values()]
        checked = [
            _checked(name, pair, record)
            for name in self._names
            for record, pair in zip(records.values(), predictions, strict=True)
        ]
        visible = pad_points([record.visible for record in repeated])
        valid = pad_points([flags for _, flags in checked])
        correct = self._protocol.correct(
            pad_points([points for points, _ in checked]),
            pad_points([record.target_points for record in repeated]).double(),
            visible,
            photo_sizes=[record.target_size for record in repeated],
            boxes=[record.target_box for record in repeated],
            reference=self._dataset.reference,
        )
        keys = [(name, index) for name in self._names for index in records]
        correct = correct & valid[..., None]  # every visible point has a match, so a rejection is wrong
        accepted = (visible & valid).sum(1).tolist()
        counts = zip(keys, repeated, visible.sum(1).tolist(), correct.sum(1).tolist(), accepted, strict=True)
        for key, record, num_visible, num_correct, num_accepted in counts:
            self.outcomes[key] = PairCount(
                record.pair_id, record.category or "", num_visible, tuple(num_correct), record.difficulty, num_accepted
            )


def _checked(
    name: str, predictions: Predictions, record: PairRecord
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return the points (N, 2) that a predictor predicts for a pair, and whether they have a match, (N,).

    Raises:
        ComponentError: they are no points of this pair.
        NonFiniteError: that of a visible point is not finite.
    """
    where = f"{shown(name)} on pair {shown(record.pair_id)}"
    found = predictions.get(name)
    points, valid = found if isinstance(found, Prediction) else (found, None)
    if not isinstance(points, Tensor) or points.shape != record.target_points.shape or points.is_complex():
        what = f"{points.dtype} {tuple(points.shape)}" if isinstance(points, Tensor) else shown(points)
        raise ComponentError(f"{where} must predict points {record.target_points.shape}, not {what}")
    array: npt.NDArray[np.float64] = points.detach().cpu().double().numpy()
    if not np.isfinite(array[record.visible]).all():
        raise NonFiniteError(
            f"{where} predicts points that are not finite: the feature maps or its temperature overflow; "
            "backbone.dtype=float32 or bfloat16 may help"
        )
    return array, np.ones(len(array), dtype=bool) if valid is None else valid.cpu().numpy()
