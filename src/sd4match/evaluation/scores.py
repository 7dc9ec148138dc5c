"""Counts of an evaluation, and the averages and confidence intervals that follow from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from sd4match.arguments import check_arguments, check_fields
from sd4match.checks import LARGEST_SEED, check_choice, check_count, check_number
from sd4match.errors import InputError, ShapeError, is_unicode, shown

Average = Literal["image", "point", "category", "category_point"]
"""Average of PCK: over pairs; over points; over categories of the mean over their pairs; or over categories, weighted
by their numbers of pairs, of the mean over their points (SD+DINO's)."""

AVERAGES: tuple[Average, ...] = get_args(Average)
MOST_SAMPLES = 100_000
"""Largest number of bootstrap samples; more would change no displayed digit."""
_LARGEST_COUNT = 10**9
_LARGEST_ALPHA = 1e6
_SAMPLES_PER_CHUNK = 200

Fractions = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PairCount:
    """Number of visible points of one pair, of those that the matcher accepts, and of correct ones at each alpha.

    Raises:
        InputError: it is not 0 <= correct <= kept <= visible.
    """

    pair_id: str
    category: str
    visible: int
    correct: tuple[int, ...]
    difficulty: Mapping[str, int] = field(default_factory=dict)
    kept: int | None = None
    """Number of visible points that the matcher accepts; None: all."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_count(f"pair {shown(self.pair_id)}: visible", self.visible, 0, _LARGEST_COUNT)
        if self.kept is None:
            object.__setattr__(self, "kept", self.visible)
        kept = check_count(f"pair {shown(self.pair_id)}: kept", self.kept, 0, self.visible)
        for correct in self.correct:
            check_count(f"pair {shown(self.pair_id)}: correct", correct, 0, kept)


def check_samples(samples: object) -> int:
    """Return a number of bootstrap samples.

    Raises:
        InputError: it is not a whole number from 1 to `MOST_SAMPLES`.

    >>> check_samples(2000)
    2000
    """
    return check_count("the number of bootstrap samples", samples, 1, MOST_SAMPLES)


def check_alphas(alphas: Sequence[object]) -> tuple[float, ...]:
    """Return thresholds as numbers.

    Raises:
        InputError: there is none, one is not a positive number, or two of them have the same name in results.

    >>> check_alphas([0.05, 0.1])
    (0.05, 0.1)
    """
    checked = tuple(check_number("alpha", alpha, 0.0, _LARGEST_ALPHA) for alpha in alphas)
    if not checked or 0.0 in checked or len({f"{alpha:g}" for alpha in checked}) < len(checked):
        raise InputError(f"alphas must be positive, and different in six digits, not {shown(list(alphas))}")
    return checked


@dataclass(frozen=True)
class Skipped:
    """Pair that was skipped because it cannot be read, with the reason."""

    pair_id: str
    reason: str

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, eq=False)
class PairScores:
    """Counts of correct points of every pair, from which PCK and its intervals follow (Eq. 8).

    Objects hold arrays and are compared by identity.

    Args:
        pair_ids: ids of the P pairs that have a visible point, in the order of the data set.
        categories: category of each pair.
        visible: (P,), number of visible points, at least 1.
        correct: (P, A), number of correct points at each alpha.
        alphas: (A,), thresholds, > 0 and different.
        left_out: number of pairs without a visible point.
        difficulty: flags of each pair, if the data set has them; () otherwise.
        skipped: pairs whose annotation or photo cannot be read.
        kept: (P,), number of visible points that the matcher accepts; None: all.

    Raises:
        ShapeError: columns are of different lengths.
        InputError: a pair is listed twice, counts are impossible, or alphas are not positive and different.

    >>> scores = PairScores(("a", "b"), ("cat", "dog"), np.array([4, 2]), np.array([[3], [1]]), (0.1,))
    >>> scores.pck("image")
    {'0.1': 0.625}
    """

    pair_ids: tuple[str, ...]
    categories: tuple[str, ...]
    visible: npt.NDArray[np.int64]
    correct: npt.NDArray[np.int64]
    alphas: tuple[float, ...]
    left_out: int = 0
    difficulty: tuple[Mapping[str, int], ...] = ()
    skipped: tuple[Skipped, ...] = ()
    kept: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        pairs, alphas = len(_texts(self.pair_ids, "pair_ids")), check_alphas(self.alphas)
        _texts(self.categories, "categories")
        if len(self.categories) != pairs or len(self.difficulty) not in (0, pairs):
            raise ShapeError(f"columns of different lengths: {pairs} pairs, {len(self.categories)} categories, "
                             f"{len(self.difficulty)} difficulties")  # fmt: skip
        for name, column, shape in (
            ("visible", self.visible, (pairs,)),
            ("correct", self.correct, (pairs, len(alphas))),
            ("kept", self.visible if self.kept is None else self.kept, (pairs,)),
        ):
            if column.shape != shape or column.dtype.kind not in "iu":
                raise ShapeError(f"{name} must be whole numbers {shape}, not {column.dtype} {column.shape}")
        if len(set(self.pair_ids)) < pairs:
            raise InputError(f"the pair {shown(_first_repeated(self.pair_ids))} is listed twice")
        by_alpha = self.correct[:, np.argsort(alphas)]
        impossible = (self.visible < 1) | (by_alpha < 0).any(axis=1) | (by_alpha > self.visible[:, None]).any(axis=1)
        impossible |= (np.diff(by_alpha, axis=1) < 0).any(axis=1)
        if self.kept is not None:
            impossible |= (self.kept > self.visible) | (by_alpha > self.kept[:, None]).any(axis=1)
        if impossible.any():
            raise InputError(
                f"the pair {shown(self.pair_ids[int(impossible.argmax())])} needs visible >= 1 and "
                "0 <= correct <= kept <= visible, correct not falling with alpha"
            )
        check_count("left_out", self.left_out, 0, _LARGEST_COUNT)

    @classmethod
    @check_arguments
    def of(cls, outcomes: Sequence[PairCount | Skipped], *, alphas: Sequence[float]) -> PairScores:
        """Collect the outcomes of all pairs.

        Args:
            outcomes: counts of each pair, or the reason why it was skipped, in the order of the data set.
            alphas: thresholds of the counts.

        Raises:
            ShapeError: a pair has another number of counts than there are alphas.
            InputError: a pair is listed twice, counts are impossible, or alphas are not positive and different.
        """
        counts = [outcome for outcome in outcomes if isinstance(outcome, PairCount)]
        for count in counts:
            if len(count.correct) != len(alphas):
                raise ShapeError(
                    f"pair {shown(count.pair_id)} has {len(count.correct)} counts of correct points, but there are "
                    f"{len(alphas)} alphas"
                )
        counted = [count for count in counts if count.visible]
        rejects = any(count.kept != count.visible for count in counted)
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
            kept=np.array([count.kept for count in counted], dtype=np.int64) if rejects else None,
        )

    def __len__(self) -> int:
        return len(self.pair_ids)

    def pck(self, average: Average) -> dict[str, float]:
        """Return PCK by alpha.

        Args:
            average: "image" (mean over pairs), "point" (over points), "category" (over categories of the mean over
                their pairs), or "category_point" (over categories, weighted by pairs, of the mean over their points).

        Returns:
            PCK in [0, 1] by alpha, for example {"0.1": 0.5}.

        Raises:
            InputError: there is no pair with a visible point, or the average is unknown.

        >>> scores = PairScores(("a", "b"), ("cat", "cat"), np.array([1, 3]), np.array([[1], [0]]), (0.1,))
        >>> scores.pck("image"), scores.pck("point")
        ({'0.1': 0.5}, {'0.1': 0.25})
        """
        return self._by_alpha(self.averages(average, np.ones((1, len(self))))[0])

    @property
    def coverage(self) -> float:
        """Share of the visible points that the matcher accepts; 1 if it rejects none."""
        self._require_pairs()
        return 1.0 if self.kept is None else float(self.kept.sum() / self.visible.sum())

    def pck_of_kept(self) -> dict[str, float]:
        """Return the share of correct points among the accepted ones, by alpha; 0 if none is accepted.

        Raises:
            InputError: there is no pair with a visible point.

        >>> scores = PairScores(("a",), ("cat",), np.array([4]), np.array([[1]]), (0.1,), kept=np.array([2]))
        >>> scores.coverage, scores.pck_of_kept()
        (0.5, {'0.1': 0.5})
        """
        self._require_pairs()
        kept = self.visible if self.kept is None else self.kept
        return self._by_alpha(self.correct.sum(axis=0) / max(int(kept.sum()), 1))

    def to_json(self) -> dict[str, Any]:
        """Return values that JSON can represent; inverse of `from_json`."""
        kept = {} if self.kept is None else {"kept": self.kept.tolist()}
        return {
            "pair_ids": list(self.pair_ids),
            "categories": list(self.categories),
            "visible": self.visible.tolist(),
            "correct": self.correct.tolist(),
            "alphas": list(self.alphas),
            "left_out": self.left_out,
            "difficulty": [dict(flags) for flags in self.difficulty],
            "skipped": [[pair.pair_id, pair.reason] for pair in self.skipped],
            **kept,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PairScores:
        """Rebuild the counts from the values of `to_json`.

        Args:
            values: mapping from `to_json`.

        Raises:
            InputError: a column is missing, of another length than the others, or holds impossible counts.

        >>> scores = PairScores(("a",), ("cat",), np.array([1]), np.array([[1]]), (0.1,))
        >>> PairScores.from_json(scores.to_json()).pck("image")
        {'0.1': 1.0}
        """
        try:
            alphas = check_alphas(_column(values, "alphas"))
            return cls(
                pair_ids=_texts(_column(values, "pair_ids"), "pair_ids"),
                categories=_texts(_column(values, "categories"), "categories"),
                visible=np.array(_counts(_column(values, "visible"), "visible"), dtype=np.int64),
                correct=_table(_column(values, "correct"), width=len(alphas)),
                alphas=alphas,
                left_out=check_count("left_out", values.get("left_out"), 0, _LARGEST_COUNT),
                difficulty=tuple(_flags(flags) for flags in _column(values, "difficulty")),
                skipped=tuple(_skipped(pair) for pair in _column(values, "skipped")),
                kept=np.array(_counts(_column(values, "kept"), "kept"), dtype=np.int64) if "kept" in values else None,
            )
        except InputError as error:
            raise InputError(f"counts of pairs are damaged: {error}") from None

    def by_category(self) -> dict[str, dict[str, Any]]:
        """Return number of pairs, per-image and per-point PCK of each category.

        Raises:
            InputError: there is no pair with a visible point.
        """
        return self._by_group(self.categories)

    def by_difficulty(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return number of pairs and PCK for each value of each difficulty flag; {} if the data set has none."""
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

    @check_arguments
    def intervals(self, *, samples: int, seed: int) -> dict[Average, dict[str, tuple[float, float]]]:
        """Return 95 % intervals of every average, by alpha: percentile bootstrap over pairs.

        Args:
            samples: number of bootstrap samples, from 1 to 100,000.
            seed: seed of the bootstrap, at least 0.

        Returns:
            (low, high) by alpha, by average.

        Raises:
            InputError: there is no pair with a visible point, or a number is out of bounds.
        """
        self._require_pairs()
        draws: dict[Average, list[Fractions]] = {average: [] for average in AVERAGES}
        for weights in resampling(len(self), samples, seed):
            for average, drawn in draws.items():
                drawn.append(self.averages(average, weights))
        return {average: self._percentiles(np.concatenate(drawn)) for average, drawn in draws.items()}

    def _percentiles(self, draws: Fractions) -> dict[str, tuple[float, float]]:
        low, high = np.percentile(draws, [2.5, 97.5], axis=0)
        return {f"{a:g}": (float(lo), float(hi)) for a, lo, hi in zip(self.alphas, low, high, strict=True)}

    @check_arguments
    def category_intervals(self, *, samples: int, seed: int) -> dict[str, dict[str, tuple[float, float]]]:
        """Return 95 % intervals of the per-image PCK of each category that has two pairs or more, by alpha.

        Args:
            samples: number of bootstrap samples, from 1 to 100,000.
            seed: seed of the bootstrap, at least 0.

        Raises:
            InputError: there is no pair with a visible point, or a number is out of bounds.

        >>> scores = PairScores(("a", "b", "c"), ("cat", "cat", "dog"), np.full(3, 2), np.full((3, 1), 1), (0.1,))
        >>> scores.category_intervals(samples=10, seed=0)
        {'cat': {'0.1': (0.5, 0.5)}}
        """
        self._require_pairs()
        found = {}
        for name in sorted(set(self.categories)):
            fractions = self._fractions[np.array(self.categories) == name]
            if len(fractions) > 1:
                draws = [weights @ fractions / len(fractions) for weights in resampling(len(fractions), samples, seed)]
                found[name] = self._percentiles(np.concatenate(draws))
        return found

    def averages(self, average: Average, weights: Fractions) -> Fractions:
        """Return the average under S weightings of the pairs.

        Args:
            average: kind of average, as in `pck`.
            weights: (S, P), how often each pair counts.

        Returns:
            (S, A).

        Raises:
            InputError: there is no pair with a visible point.
        """
        self._require_pairs()
        check_choice("average", average, AVERAGES)
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

    def _require_pairs(self) -> None:
        if len(self) == 0:
            first = f", the first because of: {self.skipped[0].reason}" if self.skipped else ""
            raise InputError(
                f"no pair has a visible point, so there is no PCK ({self.left_out} pairs have none, "
                f"{len(self.skipped)} were skipped{first})"
            )

    @property
    def _fractions(self) -> Fractions:
        return np.asarray(self.correct / self.visible[:, None])

    def _by_alpha(self, values: Fractions) -> dict[str, float]:
        return {f"{alpha:g}": float(value) for alpha, value in zip(self.alphas, values, strict=True)}


def resampling(pairs: int, samples: int, seed: int) -> Iterator[Fractions]:
    """Iterate over chunks (s, pairs) of bootstrap samples: how often each pair is drawn in each of s samples.

    Raises:
        InputError: a number is out of bounds.
    """
    check_count("the number of pairs", pairs)
    check_samples(samples)
    check_count("the seed of the bootstrap", seed, 0, LARGEST_SEED)
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


@check_arguments
def compare(
    a: PairScores, b: PairScores, *, average: Average, alpha: float, samples: int, seed: int
) -> PairedDifference:
    """Return the difference a - b with a paired bootstrap: both are resampled by the same pairs.

    Args:
        a: counts.
        b: counts of the same pairs in the same order.
        average: kind of average, as in `PairScores.pck`.
        alpha: threshold, one of those of both counts.
        samples: number of bootstrap samples, from 1 to 100,000.
        seed: seed of the bootstrap, at least 0.

    Returns:
        Difference of PCK and its 95 % interval.

    Raises:
        InputError: the pairs differ, alpha was not measured, or a number is out of bounds.

    >>> def scores(correct):
    ...     return PairScores(("a", "b"), ("cat", "cat"), np.array([2, 2]), np.array([[correct], [correct]]), (0.1,))
    >>> compare(scores(2), scores(1), average="image", alpha=0.1, samples=100, seed=0)
    PairedDifference(difference=0.5, ci95=(0.5, 0.5))
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


def _column(values: Mapping[str, Any], name: str) -> list[Any]:
    if name not in values:
        raise InputError(f"no column {name!r}")
    column = values[name]
    if not isinstance(column, list):
        raise InputError(f"{name} must be a list, not {shown(column)}")
    return column


def _texts(values: Sequence[object], name: str) -> tuple[str, ...]:
    for value in values:
        if not isinstance(value, str) or not is_unicode(value):
            raise InputError(f"{name} must be texts, not {shown(value)}")
    return tuple(map(str, values))


def _counts(values: Sequence[object], name: str) -> list[int]:
    return [check_count(name, value, 0, _LARGEST_COUNT) for value in values]


def _table(rows: Sequence[object], *, width: int) -> npt.NDArray[np.int64]:
    """Return the counts of correct points, (P, width)."""
    for row in rows:
        if not isinstance(row, list) or len(row) != width:
            raise InputError(f"correct must hold {width} numbers for each pair, one per alpha, not {shown(row)}")
    counts = [_counts(row, "correct") for row in rows if isinstance(row, list)]
    return np.array(counts, dtype=np.int64).reshape(len(rows), width)


def _flags(flags: object) -> dict[str, int]:
    if not isinstance(flags, Mapping) or not all(isinstance(name, str) for name in flags):
        raise InputError(f"difficulty must be a mapping of flags for each pair, not {shown(flags)}")
    return {
        name: check_count(f"difficulty {shown(name)}", value, -_LARGEST_COUNT, _LARGEST_COUNT)
        for name, value in flags.items()
    }


def _skipped(pair: object) -> Skipped:
    if not isinstance(pair, list) or len(pair) != 2:
        raise InputError(f"skipped must hold a pair and a reason each, not {shown(pair)}")
    return Skipped(*_texts(pair, "skipped"))


def _first_repeated(names: Sequence[str]) -> str:
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
