"""What an evaluation counted, and the averages and intervals that follow from it."""

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
_SAMPLES_AT_ONCE = 200

Shares = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PairCount:
    """Of one pair: how many points are visible, how many of them are correct at each alpha."""

    pair_id: str
    category: str
    visible: int
    correct: tuple[int, ...]
    difficulty: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Skipped:
    """A pair that was left out, and why."""

    pair_id: str
    reason: str


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
    difficulty: tuple[Mapping[str, int], ...] = ()
    """Flags of each pair, where the data set has them."""
    skipped: tuple[Skipped, ...] = ()
    """Pairs whose annotation or photo could not be read."""

    @classmethod
    def of(cls, outcomes: Sequence[PairCount | Skipped], *, alphas: Sequence[float]) -> PairScores:
        """From what became of each pair, in order."""
        counts = [one for one in outcomes if isinstance(one, PairCount)]
        kept = [one for one in counts if one.visible]
        return cls(
            pair_ids=tuple(one.pair_id for one in kept),
            categories=tuple(one.category for one in kept),
            visible=np.array([one.visible for one in kept], dtype=np.int64),
            correct=np.array([one.correct for one in kept], dtype=np.int64).reshape(-1, len(alphas)),
            alphas=tuple(alphas),
            left_out=len(counts) - len(kept),
            difficulty=tuple(dict(one.difficulty) for one in kept) if any(one.difficulty for one in kept) else (),
            skipped=tuple(one for one in outcomes if isinstance(one, Skipped)),
        )

    def __len__(self) -> int:
        return len(self.pair_ids)

    def pck(self, average: Average) -> dict[str, float]:
        """PCK in [0, 1] by alpha.

        >>> scores = PairScores(("a", "b"), ("cat", "cat"), np.array([1, 3]), np.array([[1], [0]]), (0.1,))
        >>> scores.pck("image"), scores.pck("point")
        ({'0.1': 0.5}, {'0.1': 0.25})
        """
        return self._by_alpha(self.averages(average, np.ones((1, len(self))))[0])

    def to_plain(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {
            "pair_ids": list(self.pair_ids),
            "categories": list(self.categories),
            "visible": self.visible.tolist(),
            "correct": self.correct.tolist(),
            "alphas": list(self.alphas),
            "left_out": self.left_out,
            "difficulty": [dict(one) for one in self.difficulty],
            "skipped": [[one.pair_id, one.reason] for one in self.skipped],
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> PairScores:
        """Back from `to_plain`, through JSON too.

        Raises:
            InputError: it is not of that form.

        >>> scores = PairScores(("a",), ("cat",), np.array([1]), np.array([[1]]), (0.1,))
        >>> PairScores.from_plain(scores.to_plain()).pck("image")
        {'0.1': 1.0}
        """
        try:
            ids, alphas = tuple(plain["pair_ids"]), tuple(float(alpha) for alpha in plain["alphas"])
            scores = cls(
                ids, tuple(plain["categories"]), np.array(plain["visible"], dtype=np.int64),
                np.array(plain["correct"], dtype=np.int64).reshape(len(ids), len(alphas)), alphas, plain["left_out"],
                tuple(plain["difficulty"]), tuple(Skipped(*one) for one in plain["skipped"]),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"counts of pairs are damaged ({type(error).__name__}: {error})") from None
        if not len(ids) == len(scores.categories) == len(scores.visible) or len(scores.difficulty) not in (0, len(ids)):
            raise InputError("counts of pairs are damaged: columns of different lengths")
        return scores

    def by_category(self) -> dict[str, dict[str, Any]]:
        """Number of pairs, per-image and per-point PCK of each category."""
        return self._by_group(self.categories)

    def by_difficulty(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The same for each value of each difficulty flag; {} where the data set has none."""
        flags = sorted({flag for one in self.difficulty for flag in one})
        return {flag: self._by_group([str(one.get(flag, "")) for one in self.difficulty]) for flag in flags}

    def _by_group(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        groups = {}
        for name in sorted(set(names)):
            rows = (np.array(names) == name).astype(np.float64)[None]
            groups[name] = {"pairs": int(rows.sum())} | {
                average: self._by_alpha(self.averages(average, rows)[0]) for average in ("image", "point")
            }
        return groups

    def intervals(self, *, samples: int, seed: int) -> dict[Average, dict[str, tuple[float, float]]]:
        """95 % percentile bootstrap over pairs of every average, by alpha."""
        draws: dict[Average, list[Shares]] = {average: [] for average in AVERAGES}
        for weights in resampling(len(self), samples, seed):
            for average, drawn in draws.items():
                drawn.append(self.averages(average, weights))
        return {average: self._percentiles(np.concatenate(drawn)) for average, drawn in draws.items()}

    def _percentiles(self, draws: Shares) -> dict[str, tuple[float, float]]:
        low, high = np.percentile(draws, [2.5, 97.5], axis=0)
        return {f"{a:g}": (float(lo), float(hi)) for a, lo, hi in zip(self.alphas, low, high, strict=True)}

    def averages(self, average: Average, weights: Shares) -> Shares:
        """The average under S weightings of the pairs.

        Args:
            average: which.
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
            return np.asarray((weights @ self._shares) / weights.sum(axis=1, keepdims=True))
        total = np.zeros((len(weights), len(self.alphas)))
        weight = np.zeros((len(weights), 1))
        for name in np.unique(self.categories):
            rows = np.array(self.categories) == name
            inside = weights[:, rows]
            pairs = inside.sum(axis=1, keepdims=True)
            if average == "category":
                mean = inside @ self._shares[rows] / np.maximum(pairs, 1)
                counts = (pairs > 0).astype(np.float64)
            else:
                mean = inside @ self.correct[rows] / np.maximum(inside @ self.visible[rows], 1)[:, None]
                counts = pairs
            total += counts * mean
            weight += counts
        return np.asarray(total / weight)

    @property
    def _shares(self) -> Shares:
        return np.asarray(self.correct / self.visible[:, None])

    def _by_alpha(self, values: Shares) -> dict[str, float]:
        return {f"{alpha:g}": float(value) for alpha, value in zip(self.alphas, values, strict=True)}


def resampling(pairs: int, samples: int, seed: int) -> Iterator[Shares]:
    """How often each pair is drawn in each bootstrap sample, some samples at a time: (s, pairs) each."""
    rng = np.random.default_rng(seed)
    chances = np.full(pairs, 1.0 / pairs)
    for start in range(0, samples, _SAMPLES_AT_ONCE):
        count = min(_SAMPLES_AT_ONCE, samples - start)
        yield rng.multinomial(pairs, chances, size=count).astype(np.float64)


@dataclass(frozen=True)
class Comparison:
    """The difference a - b on the same pairs."""

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
    column_a, column_b = a.alphas.index(alpha), b.alphas.index(alpha)
    draws = np.concatenate(
        [
            a.averages(average, weights)[:, column_a] - b.averages(average, weights)[:, column_b]
            for weights in resampling(len(a), samples, seed)
        ]
    )
    low, high = np.percentile(draws, [2.5, 97.5])
    key = f"{alpha:g}"
    return Comparison(a.pck(average)[key] - b.pck(average)[key], (float(low), float(high)))
