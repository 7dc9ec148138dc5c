"""Results of several seeds: means over seeds and pairs, with bootstrap intervals over both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sd4match.checks import LARGEST_SEED, check_count
from sd4match.errors import InputError
from sd4match.evaluation.scores import Fractions, PairScores, check_samples, resampling

SAMPLES = 2000
"""Bootstrap samples, as many as those of an evaluation."""


@dataclass(frozen=True)
class Estimate:
    """Mean over seeds and pairs.

    Args:
        mean: mean, in the unit of the values.
        ci95: 95 % bootstrap interval of the mean over seeds and pairs.
        by_seed: mean of each seed.
    """

    mean: float
    ci95: tuple[float, float]
    by_seed: tuple[float, ...]


def image_values(seeds: Sequence[PairScores], *, alpha: float = 0.1) -> Fractions:
    """Return the PCK of each pair in [0, 1], (S, P) for S seeds.

    Raises:
        InputError: there is no seed, the seeds are of different pairs, or alpha was not measured.
    """
    if not seeds:
        raise InputError("a mean over seeds needs one seed or more")
    for scores in seeds:
        if scores.pair_ids != seeds[0].pair_ids:
            raise InputError("the seeds are of different pairs")
        if alpha not in scores.alphas:
            raise InputError(f"alpha {alpha:g} was not measured; known: {', '.join(map(str, scores.alphas))}")
    return np.stack([scores.correct[:, scores.alphas.index(alpha)] / scores.visible for scores in seeds])


def difference_values(a: Fractions, b: Fractions) -> Fractions:
    """Return the differences a - b of each seed and pair, (S, P).

    Args:
        a: (S, P), or (1, P) for values that are the same with every seed.
        b: likewise, of the same seeds.

    Raises:
        InputError: they are of different numbers of seeds, neither of which is 1, or of pairs.

    >>> difference_values(np.array([[0.5], [1.0]]), np.array([[0.25]])).ravel().tolist()
    [0.25, 0.75]
    """
    if a.shape[1] != b.shape[1] or (len(a) != len(b) and 1 not in (len(a), len(b))):
        raise InputError(f"values of {a.shape} and {b.shape} seeds and pairs cannot be paired")
    return np.asarray(a - b)


def estimate(values: Fractions, *, samples: int = SAMPLES, seed: int = 0) -> Estimate:
    """Return the mean of values and its interval: the bootstrap draws seeds, and the same pairs for all seeds.

    Args:
        values: (S, P), of S seeds and P pairs.
        samples: number of bootstrap samples.
        seed: seed of the bootstrap.

    Raises:
        InputError: a number is beyond its bounds, or there are no values.

    >>> estimate(np.array([[0.25, 0.25], [0.25, 0.25]]))
    Estimate(mean=0.25, ci95=(0.25, 0.25), by_seed=(0.25, 0.25))
    """
    check_samples(samples)
    check_count("the seed of the bootstrap", seed, 0, LARGEST_SEED - 1)
    if values.ndim != 2 or not values.size:
        raise InputError(f"values must be of one seed and one pair at least, not {values.shape}")
    seeds, pairs = values.shape
    drawn = zip(resampling(seeds, samples, seed), resampling(pairs, samples, seed + 1), strict=True)
    means = [((rows @ values) * columns).sum(axis=1) / (seeds * pairs) for rows, columns in drawn]
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return Estimate(float(values.mean()), (float(low), float(high)), tuple(map(float, values.mean(axis=1))))


def by_category(seeds: Sequence[PairScores], *, alpha: float = 0.1) -> dict[str, Estimate]:
    """Return the PCK of each category over seeds and pairs, per image.

    Raises:
        InputError: as `image_values`.
    """
    values, names = image_values(seeds, alpha=alpha), np.array(seeds[0].categories)
    return {str(name): estimate(values[:, names == name]) for name in np.unique(names)}
