"""Counts of an evaluation, and the averages and confidence intervals that follow from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sd4match.errors import InputError

Average = Literal["image", "point", "category", "category_point"]
"""Mean over pairs; over points; over categories of the mean over their pairs; or over categories, weighted by their
numbers of pairs, of the mean over their points (SD+DINO's)."""

AVERAGES: tuple[Average, ...] = ("image", "point", "category", "category_point")
_SAMPLES_PER_CHUNK = 200

Fractions = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PairCount:
    """Number of visible points of one pair, and of correct ones at each alpha."""

    pair_id: str
    category: str
    visible: int
    correct: tuple[int, ...]
    difficulty: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Skipped:
    """A pair that was skipped because it cannot be read, with the reason."""

    pair_id: str
    reason: str


@dataclass(frozen=True, eq=False)
class PairScores:
    """Counts of every pair. Compared by identity, since it holds arrays.

    Args:
        pair_ids: of the P pairs that have a visible point, in the order of the data set.
        categories: of each pair.
        visible: (P,), number of visible points.
        correct: (P, A), number of correct points at each alpha.
        alphas: (A,).
        left_out: number of pairs without a visible point.
        difficulty: flags of each pair, where the data set has them; () otherwise.
        skipped: pairs whose annotation or photo cannot be read.
    """

    pair_ids: tuple[str, ...]
    categories: tuple[str, ...]
    visible: npt.NDArray[np.int64]
    correct: npt.NDArray[np.int64]
    alphas: tuple[float, ...]
    left_out: int = 0
    difficulty: tuple[Mapping[str, int], ...] = ()
    skipped: tuple[Skipped, ...] = ()

    @classmethod
    def of(cls, outcomes: Sequence[PairCount | Skipped], *, alphas: Sequence[float]) -> PairScores:
        """Collect the outcomes of all pairs, in order."""
        counts = [outcome for outcome in outcomes if isinstance(outcome, PairCount)]
        counted = [count for count in counts if count.visible]
        has_difficulty = any(count.difficulty for count in counted)
        return cls(
            pair_ids=tuple(count.pair_id for count in counted),
            categories=tuple(count.category for count in counted),
            visible=np.array([count.visible for count in counted], dtype=np.int64),
            correct=np.array([count.correct for count in counted], dtype=np.int64).reshape(-1, len(alphas)),
            alphas=tuple(alphas),
            left_out=len(counts) - len(counted),
            difficulty=tuple(dict(count.difficulty) for count in counted) if has_difficulty else (),
            skipped=tuple(outcome for outcome in outcomes if isinstance(outcome, Skipped)),
        )

    def __len__(self) -> int:
        return len(self.pair_ids)

    def pck(self, average: Average) -> dict[str, float]:
        """Return PCK in [0, 1] by alpha.

        Raises:
            InputError: there is no pair with a visible point.

        >>> scores = PairScores(("a", "b"), ("cat", "cat"), np.array([1, 3]), np.array([[1], [0]]), (0.1,))
        >>> scores.pck("image"), scores.pck("point")
        ({'0.1': 0.5}, {'0.1': 0.25})
        """
        return self._by_alpha(self.averages(average, np.ones((1, len(self))))[0])

    def to_json(self) -> dict[str, Any]:
        """Return JSON-able values; inverse of `from_json`."""
        return {
            "pair_ids": list(self.pair_ids),
            "categories": list(self.categories),
            "visible": self.visible.tolist(),
            "correct": self.correct.tolist(),
            "alphas": list(self.alphas),
            "left_out": self.left_out,
            "difficulty": [dict(flags) for flags in self.difficulty],
            "skipped": [[pair.pair_id, pair.reason] for pair in self.skipped],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PairScores:
        """Rebuild the counts from `to_json`.

        Raises:
            InputError: a column is missing, of another length than the others, or holds impossible counts.

        >>> scores = PairScores(("a",), ("cat",), np.array([1]), np.array([[1]]), (0.1,))
        >>> PairScores.from_json(scores.to_json()).pck("image")
        {'0.1': 1.0}
        """
        try:
            ids, alphas = tuple(values["pair_ids"]), tuple(float(alpha) for alpha in values["alphas"])
            scores = cls(
                ids, tuple(values["categories"]), np.array(values["visible"], dtype=np.int64),
                np.array(values["correct"], dtype=np.int64).reshape(len(ids), len(alphas)), alphas,
                int(values["left_out"]), tuple(map(dict, values["difficulty"])),
                tuple(Skipped(*pair) for pair in values["skipped"]),
            )  # fmt: skip
        except KeyError as error:
            raise InputError(f"counts of pairs are damaged: no column {error}") from None
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"counts of pairs are damaged ({type(error).__name__}: {error})") from None
        if not len(ids) == len(scores.categories) == len(scores.visible) or len(scores.difficulty) not in (0, len(ids)):
            raise InputError("counts of pairs are damaged: columns of different lengths")
        if not all(0 < alpha < float("inf") for alpha in alphas):
            raise InputError(f"counts of pairs are damaged: alphas {alphas} are not positive")
        if (scores.visible < 1).any() or (scores.correct < 0).any() or (scores.visible < scores.correct.T).any():
            raise InputError("counts of pairs are damaged: each pair needs 0 <= correct <= visible and visible >= 1")
        return scores

    def by_category(self) -> dict[str, dict[str, Any]]:
        """Return number of pairs, per-image and per-point PCK of each category."""
        return self._by_group(self.categories)

    def by_difficulty(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return the same for each value of each difficulty flag; {} where the data set has none."""
        flags = sorted({flag for values in self.difficulty for flag in values})
        return {flag: self._by_group([str(values.get(flag, "")) for values in self.difficulty]) for flag in flags}

    def _by_group(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        groups = {}
        for name in sorted(set(names)):
            rows = (np.array(names) == name).astype(np.float64)[None]
            groups[name] = {"pairs": int(rows.sum())} | {
                average: self._by_alpha(self.averages(average, rows)[0]) for average in ("image", "point")
            }
        return groups

    def intervals(self, *, samples: int, seed: int) -> dict[Average, dict[str, tuple[float, float]]]:
        """Return 95 % intervals of every average, by alpha: percentile bootstrap over pairs.

        Args:
            samples: number of bootstrap samples.
            seed: of the bootstrap.
        """
        draws: dict[Average, list[Fractions]] = {average: [] for average in AVERAGES}
        for weights in resampling(len(self), samples, seed):
            for average, drawn in draws.items():
                drawn.append(self.averages(average, weights))
        return {average: self._percentiles(np.concatenate(drawn)) for average, drawn in draws.items()}

    def _percentiles(self, draws: Fractions) -> dict[str, tuple[float, float]]:
        low, high = np.percentile(draws, [2.5, 97.5], axis=0)
        return {f"{a:g}": (float(lo), float(hi)) for a, lo, hi in zip(self.alphas, low, high, strict=True)}

    def averages(self, average: Average, weights: Fractions) -> Fractions:
        """Return the average under S weightings of the pairs.

        Args:
            average: kind of average.
            weights: (S, P), how often each pair counts.

        Returns:
            (S, A).

        Raises:
            InputError: there is no pair with a visible point.
        """
        if len(self) == 0:
            raise InputError("no pair has a visible point, so there is no PCK")
        if average == "point":
            return np.asarray((weights @ self.correct) / (weights @ self.visible)[:, None])
        if average == "image":
            return np.asarray((weights @ self._fractions) / weights.sum(axis=1, keepdims=True))
        total = np.zeros((len(weights), len(self.alphas)))
        weight = np.zeros((len(weights), 1))
        for name in np.unique(self.categories):
            rows = np.array(self.categories) == name
            inside = weights[:, rows]
            pairs = inside.sum(axis=1, keepdims=True)
            if average == "category":
                mean = inside @ self._fractions[rows] / np.maximum(pairs, 1)
                counts = (pairs > 0).astype(np.float64)
            else:
                mean = inside @ self.correct[rows] / np.maximum(inside @ self.visible[rows], 1)[:, None]
                counts = pairs
            total += counts * mean
            weight += counts
        return np.asarray(total / weight)

    @property
    def _fractions(self) -> Fractions:
        return np.asarray(self.correct / self.visible[:, None])

    def _by_alpha(self, values: Fractions) -> dict[str, float]:
        return {f"{alpha:g}": float(value) for alpha, value in zip(self.alphas, values, strict=True)}


def resampling(pairs: int, samples: int, seed: int) -> Iterator[Fractions]:
    """Iterate over chunks (s, pairs) of bootstrap samples: how often each pair is drawn in each of s samples."""
    rng = np.random.default_rng(seed)
    chances = np.full(pairs, 1.0 / pairs)
    for start in range(0, samples, _SAMPLES_PER_CHUNK):
        count = min(_SAMPLES_PER_CHUNK, samples - start)
        yield rng.multinomial(pairs, chances, size=count).astype(np.float64)


@dataclass(frozen=True)
class PairedDifference:
    """Difference a - b on the same pairs, with its 95 % interval."""

    difference: float
    ci95: tuple[float, float]


def compare(
    a: PairScores, b: PairScores, *, average: Average, alpha: float, samples: int, seed: int
) -> PairedDifference:
    """Return the difference a - b with a paired bootstrap: both are resampled by the same pairs.

    Args:
        a: counts.
        b: counts of the same pairs in the same order.
        average: kind of average.
        alpha: threshold, one of those of both counts.
        samples: number of bootstrap samples.
        seed: of the bootstrap.

    Raises:
        InputError: the two are not of the same pairs, or alpha was not measured.
    """
    if a.pair_ids != b.pair_ids:
        raise InputError("a paired comparison needs the same pairs in the same order on both sides")
    if alpha not in a.alphas or alpha not in b.alphas:
        raise InputError(f"alpha {alpha} was not measured; known: {', '.join(map(str, a.alphas))}")
    column_a, column_b = a.alphas.index(alpha), b.alphas.index(alpha)
    draws = np.concatenate(
        [
            a.averages(average, weights)[:, column_a] - b.averages(average, weights)[:, column_b]
            for weights in resampling(len(a), samples, seed)
        ]
    )
    low, high = np.percentile(draws, [2.5, 97.5])
    key = f"{alpha:g}"
    return PairedDifference(a.pck(average)[key] - b.pck(average)[key], (float(low), float(high)))
