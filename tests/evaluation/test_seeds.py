"""Means over seeds and pairs, and their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from sd4match.errors import InputError
from sd4match.evaluation.scores import PairScores
from sd4match.evaluation.seeds import difference_values, estimate, image_values


def scores(correct, pair_ids=("a", "b"), visible=(4, 4)):
    counts = np.array(correct, dtype=np.int64)
    return PairScores(pair_ids, ("x",) * len(pair_ids), np.array(visible), counts, (0.05, 0.1))


def test_values_are_those_of_one_threshold_by_seed_and_pair():
    seeds = [scores([[0, 2], [1, 4]]), scores([[0, 4], [0, 4]])]
    assert image_values(seeds).tolist() == [[0.5, 1.0], [1.0, 1.0]]
    assert image_values(seeds, alpha=0.05).tolist() == [[0.0, 0.25], [0.0, 0.0]]


def test_the_interval_is_over_pairs_and_seeds():
    found = estimate(np.array([[0.5, 1.0], [1.0, 1.0]]))
    assert found.mean == 0.875
    assert found.by_seed == (0.75, 1.0)
    assert found.ci95 == (0.5, 1.0)  # seed 0 and pair "a" alone, to the other ones
    only_pairs = estimate(np.array([[0.0, 1.0]] * 2))
    assert only_pairs.ci95 == (0.0, 1.0)
    assert estimate(np.array([[0.25, 0.5]]), seed=3) == estimate(np.array([[0.25, 0.5]]), seed=3)


def test_a_difference_is_of_the_same_pairs_and_seeds():
    a, b = np.array([[0.5, 1.0], [1.0, 1.0]]), np.array([[0.25, 0.5]])
    assert difference_values(a, b).tolist() == [[0.25, 0.5], [0.75, 0.5]]
    assert estimate(difference_values(a, a)).ci95 == (0.0, 0.0)
    for other in (np.zeros((3, 2)), np.zeros((2, 3))):
        with pytest.raises(InputError, match="cannot be paired"):
            difference_values(a, other)


def test_what_has_no_mean_is_refused():
    with pytest.raises(InputError, match="one seed or more"):
        image_values([])
    with pytest.raises(InputError, match="different pairs"):
        image_values([scores([[0, 1], [0, 1]]), scores([[0, 1], [0, 1]], ("a", "c"))])
    with pytest.raises(InputError, match=r"alpha 0\.2 was not measured; known: 0\.05, 0\.1"):
        image_values([scores([[0, 1], [0, 1]])], alpha=0.2)
    with pytest.raises(InputError, match="one seed and one pair"):
        estimate(np.zeros((0, 2)))
    with pytest.raises(InputError, match="bootstrap samples"):
        estimate(np.zeros((1, 2)), samples=0)
    with pytest.raises(InputError, match="seed of the bootstrap"):
        estimate(np.zeros((1, 2)), seed=-1)
