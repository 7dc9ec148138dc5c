"""Calibration of scores: share of correct matches among those of a score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from sd4match.arguments import check_arguments, check_fields
from sd4match.checks import check_count, check_number
from sd4match.config.protocols import EvaluationProtocol, get_protocol
from sd4match.errors import InputError, ShapeError
from sd4match.interfaces import PairDataset
from sd4match.pipeline import Progress, SemanticMatcher

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_PAIRS_AT_ONCE = 256
"""Number of pairs whose photos are in memory at once."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Scores of matches, and flags of those that are correct.

    Convention: scores depend on the matcher's temperature and on the size of the feature map, so a calibration applies
    to one matcher and resolution.

    Args:
        scores: (N,), in [0, 1].
        correct: (N,), booleans.

    Raises:
        ShapeError: there is not one flag for each score.
        InputError: there is no match, or a score is outside [0, 1].

    >>> Calibration(np.array([0.1, 0.2, 0.9]), np.array([False, True, True])).table(bins=2)
    [(0.0, 0.5, 2, 0.5), (0.5, 1.0, 1, 1.0)]
    """

    scores: npt.NDArray[np.float64]
    """(N,), in [0, 1]."""
    correct: npt.NDArray[np.bool_]
    """(N,)."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.scores.ndim != 1 or self.scores.shape != self.correct.shape or self.correct.dtype != np.bool_:
            raise ShapeError(f"expected scores (N,) and flags (N,), got {self.scores.shape} and {self.correct.shape}")
        if not len(self.scores) or not ((self.scores >= 0) & (self.scores <= 1)).all():
            raise InputError("a calibration needs one match or more, with scores in [0, 1]")

    @check_arguments
    def table(self, *, bins: int = 10) -> list[tuple[float, float, int, float]]:
        """Return the share of correct matches in equally wide bins of scores.

        Args:
            bins: number of bins, from 1 to 1000.

        Returns:
            (low, high, number of matches, share of correct ones) of each bin that has a match.

        Raises:
            InputError: the number of bins is out of bounds.
        """
        check_count("bins", bins, 1, 1000)
        number = np.minimum((self.scores * bins).astype(int), bins - 1)
        counts, hits = (np.bincount(number, weights, bins) for weights in (None, self.correct.astype(float)))
        return [
            (index / bins, (index + 1) / bins, int(counts[index]), float(hits[index] / counts[index]))
            for index in range(bins)
            if counts[index]
        ]

    @check_arguments
    def threshold_for(self, precision: float) -> float:
        """Return the smallest score from which on at least `precision` of the matches are correct, for `Threshold`.

        Args:
            precision: wanted share of correct matches, in [0, 1].

        Raises:
            InputError: the precision is out of bounds, or no threshold reaches it.

        >>> Calibration(np.array([0.1, 0.2, 0.9]), np.array([False, True, True])).threshold_for(1.0)
        0.2
        """
        check_number("precision", precision, 0.0, 1.0)
        order = np.argsort(-self.scores, kind="stable")
        scores, hits = self.scores[order], np.cumsum(self.correct[order])
        last_of_equals = np.append(np.diff(scores) != 0, True)
        reached = last_of_equals & (hits / np.arange(1, len(hits) + 1) >= precision)
        if not reached.any():
            raise InputError(f"no threshold keeps matches of which {precision:g} are correct")
        return float(scores[np.flatnonzero(reached)[-1]])

    @check_arguments
    def plot(self, *, bins: int = 10, title: str = "") -> Figure:
        """Plot the share of correct matches, and the number of matches, against the score.

        Args:
            bins: number of equally wide bins of scores, from 1 to 1000.
            title: text above the plot.
        """
        from sd4match.viz.curves import plot_calibration

        return plot_calibration(self.table(bins=bins), title=title)


@check_arguments
def calibrate(
    matcher: SemanticMatcher,
    data: PairDataset,
    *,
    protocol: EvaluationProtocol | None = None,
    alpha: float = 0.1,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> Calibration:
    """Match the visible points of a data set, and return their scores and which of them are correct.

    Args:
        matcher: matcher to calibrate.
        data: pairs with true points.
        protocol: rule of correct matches; None: the matcher's, or "sd4match".
        alpha: threshold of PCK, > 0.
        batch_size: as in `SemanticMatcher.match_pairs`.
        progress: function of the number of matched pairs and the number of all pairs.

    Raises:
        DatasetError, PhotoError: the data set cannot be read.
        InputError: no pair has a visible point.

    >>> from sd4match.data import SyntheticConfig
    >>> data = SyntheticConfig(split="test", pairs=4).build()
    >>> calibrate(SemanticMatcher.from_preset("mini-empty"), data).scores.ndim
    1
    """
    protocol = (protocol or matcher.protocol or get_protocol("sd4match")).derive(alphas=(alpha,))
    records = [record for record in data if record.visible.any()]
    scores, correct = [], []
    for first in range(0, len(records), _PAIRS_AT_ONCE):
        some = records[first : first + _PAIRS_AT_ONCE]
        pairs = [
            (data.photo(record.source_id), data.photo(record.target_id), record.source_points[record.visible])
            for record in some
        ]
        categories = [(record.sides[0][1], record.sides[1][1]) for record in some]

        def report(done: int, _: int, first: int = first) -> None:
            if progress is not None:
                progress(first + done, len(records))

        results = matcher.match_pairs(pairs, category=categories, batch_size=batch_size, progress=report)
        for record, result in zip(some, results, strict=True):
            truth = record.target_points[record.visible][result.indices]
            flags = protocol.correct(
                torch.from_numpy(result.target_points)[None], torch.from_numpy(truth)[None],
                torch.ones(1, len(truth), dtype=torch.bool), photo_sizes=[record.target_size],
                boxes=[record.target_box], reference=data.reference,
            )  # fmt: skip
            scores.append(result.scores)
            correct.append(flags[0, :, 0].numpy())
    if not records:
        raise InputError("no pair of the data set has a visible point")
    return Calibration(np.concatenate(scores), np.concatenate(correct))
