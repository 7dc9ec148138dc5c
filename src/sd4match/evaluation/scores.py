"""What an evaluation counted, and the averages and intervals that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sd4match.errors import InputError

Average = Literal["image", "point", "category"]
"""Mean over pairs, over points, or over categories of the mean over their pairs."""

AVERAGES: tuple[Average, ...] = ("image", "point", "category")


@dataclass(frozen=True)
class PairScores:
    """Counts of every pair; pairs without a visible point are only counted."""

    pair_ids: tuple[str, ...]
    categories: tuple[str, ...]
    visible: npt.NDArray[np.int64]
    """(P,): visible points."""
    correct: npt.NDArray[np.int64]
    """(P, A): correct ones at each alpha."""
    alphas: tuple[float, ...]
    left_out: int = 0
    """Pairs without a visible point."""

    def __len__(self) -> int:
        return len(self.pair_ids)

    def pck(self, average: Average) -> dict[str, float]:
        """PCK in [0, 1] by alpha.

        >>> scores = PairScores(("a", "b"), ("cat", "cat"), np.array([1, 3]), np.array([[1], [0]]), (0.1,))
        >>> scores.pck("image"), scores.pck("point")
        ({'0.1': 0.5}, {'0.1': 0.25})
        """
        values = self._averages(average, np.ones((1, len(self))))[0]
        return {f"{alpha:g}": float(value) for alpha, value in zip(self.alphas, values, strict=True)}

    def to_plain(self) -> dict[str, Any]:
        """As JSON-able values."""
        return asdict(self) | {"visible": self.visible.tolist(), "correct": self.correct.tolist()}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> PairScores:
        """Back from `to_plain`, through JSON too.

        >>> scores = PairScores(("a",), ("cat",), np.array([1]), np.array([[1]]), (0.1,))
        >>> PairScores.from_plain(scores.to_plain()).pck("image")
        {'0.1': 1.0}
        """
        return cls(
            tuple(plain["pair_ids"]), tuple(plain["categories"]), np.array(plain["visible"], dtype=np.int64),
            np.array(plain["correct"], dtype=np.int64), tuple(plain["alphas"]), plain["left_out"],
        )  # fmt: skip

    def by_category(self) -> dict[str, dict[str, float]]:
        """Per-image PCK of each category."""
        names = np.array(self.categories)
        share = self.correct / self.visible[:, None]
        return {
            str(name): {f"{a:g}": float(v) for a, v in zip(self.alphas, share[names == name].mean(axis=0), strict=True)}
            for name in np.unique(names)
        }

    def interval(self, average: Average, *, samples: int, seed: int) -> dict[str, tuple[float, float]]:
        """95 % percentile bootstrap over pairs, by alpha."""
        draws = self._averages(average, resampling(len(self), samples, seed))
        low, high = np.nanpercentile(draws, [2.5, 97.5], axis=0)
        return {f"{a:g}": (float(lo), float(hi)) for a, lo, hi in zip(self.alphas, low, high, strict=True)}

    def _averages(self, average: Average, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(S, A): the average under S weightings (S, P) of the pairs."""
        if len(self) == 0:
            raise InputError("no pair has a visible point, so there is no PCK")
        if average == "point":
            return np.asarray((weights @ self.correct) / (weights @ self.visible)[:, None])
        share = self.correct / self.visible[:, None]
        if average == "image":
            return np.asarray((weights @ share) / weights.sum(axis=1, keepdims=True))
        names = np.array(self.categories)
        means = []
        for name in np.unique(names):
            rows = names == name
            total = weights[:, rows].sum(axis=1, keepdims=True)
            means.append(np.where(total > 0, (weights[:, rows] @ share[rows]) / np.maximum(total, 1), np.nan))
        return np.asarray(np.nanmean(np.stack(means), axis=0))


def resampling(pairs: int, samples: int, seed: int) -> npt.NDArray[np.float64]:
    """(samples, pairs): how often each pair is drawn in each bootstrap sample."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(pairs, np.full(pairs, 1.0 / pairs), size=samples).astype(np.float64)


@dataclass(frozen=True)
class Comparison:
    """The difference a - b of two prompts on the same pairs."""

    difference: float
    ci95: tuple[float, float]


def compare(a: PairScores, b: PairScores, *, average: Average, alpha: float, samples: int, seed: int) -> Comparison:
    """Paired bootstrap: both are resampled by the same pairs, so what pairs share cancels.

    Raises:
        InputError: the two are not of the same pairs, or alpha was not measured.
    """
    if a.pair_ids != b.pair_ids:
        raise InputError("a paired comparison needs the same pairs in the same order on both sides")
    if alpha not in a.alphas or alpha not in b.alphas:
        raise InputError(f"alpha {alpha} was not measured; known: {', '.join(map(str, a.alphas))}")
    weights = resampling(len(a), samples, seed)
    column_a, column_b = a.alphas.index(alpha), b.alphas.index(alpha)
    draws = a._averages(average, weights)[:, column_a] - b._averages(average, weights)[:, column_b]
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    key = f"{alpha:g}"
    return Comparison(a.pck(average)[key] - b.pck(average)[key], (float(low), float(high)))


def describe(scores: PairScores, *, samples: int, seed: int) -> Mapping[str, object]:
    """The part of a report that one evaluation fills."""
    return {
        "pairs": len(scores),
        "pairs_without_visible_points": scores.left_out,
        "points": int(scores.visible.sum()),
        "pck": {average: scores.pck(average) for average in AVERAGES},
        "ci95": {a: scores.interval(a, samples=samples, seed=seed) for a in AVERAGES},
        "by_category": scores.by_category(),
    }
