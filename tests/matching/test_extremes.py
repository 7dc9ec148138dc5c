"""Features, correlations and limits at the ends of the range of floats: the right value, or one clear error."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from helpers.direct import no_type_checker  # noqa: F401 - a fixture of all tests here
from sd4match.errors import InputError, NonFiniteError
from sd4match.geometry import Grid, squash_frame
from sd4match.matching import functional
from sd4match.matching.correlation import correlate_maps, nearest_pixels
from sd4match.matching.pck import correct_points, pck
from sd4match.norms import in_range, unit_vectors, vector_norms
from sd4match.structures.tensors import Correlation, FeatureMap, ParameterGroup

GRID = Grid((squash_frame((32, 48), (64, 64)),), (5, 6))
SOURCE, TARGET = (torch.randn(1, 7, 5, 6, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
QUERIES = torch.tensor([[[3.0, 7.0], [40.0, 20.0], [21.5, 11.25]]])
CELLS = torch.tensor([[[0.5, 1.25], [4.0, 3.0]]])
FACTORS = [2.0**-100, 2.0**-80, 2.0**-45, 1.0, 2.0**45, 2.0**80, 2.0**120]


@pytest.mark.parametrize("factor", FACTORS)
def test_matches_do_not_depend_on_the_magnitude_of_features(factor):
    def maps(scale):
        return FeatureMap(SOURCE * scale, GRID), FeatureMap(TARGET * scale, GRID)

    plain, scaled = (correlate_maps(*maps(scale), QUERIES) for scale in (1.0, factor))
    assert torch.equal(plain.values, scaled.values)
    assert torch.equal(nearest_pixels(plain), nearest_pixels(scaled))
    torch.testing.assert_close(maps(factor)[0].norms, maps(1.0)[0].norms * factor)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("factor", FACTORS)
def test_blended_neighbors_do_not_depend_on_the_magnitude_of_features(factor, normalize):
    found = functional.bilinear_nearest_neighbor(SOURCE * factor, TARGET * factor, CELLS, normalize=normalize)
    assert torch.equal(found, functional.bilinear_nearest_neighbor(SOURCE, TARGET, CELLS, normalize=normalize))


def test_norms_out_of_range_do_not_change_the_others():
    mixed = TARGET.clone()
    mixed[..., 0, 0] *= 2.0**100
    mixed[..., 1, 1] = 0.0
    mixed[..., 2, 2] *= 2.0**-100
    found, plain = (functional.correlate(SOURCE, target, CELLS) for target in (mixed, TARGET))
    plain[..., 1, 1] = 0.0  # a cell without features
    assert torch.equal(found, plain)


def test_the_largest_features_have_cosines():
    largest = torch.full((1, 4, 2, 2), 0.9 * torch.finfo(torch.float32).max)
    features = FeatureMap(largest, Grid(GRID.frames, (2, 2)))
    assert features.norms.isinf().all()
    torch.testing.assert_close(correlate_maps(features, features, QUERIES).values, torch.ones(1, 3, 2, 2))
    halves = torch.full((1, 4, 2, 2), 6e4, dtype=torch.float16)
    torch.testing.assert_close(unit_vectors(halves, 1), torch.full_like(halves, 0.5))
    assert unit_vectors(torch.zeros_like(halves), 1).eq(0).all()
    assert vector_norms(torch.tensor([1e-45, 0.0]), 0).item() == pytest.approx(1e-45)
    doubles = torch.tensor([3e200, 4e200], dtype=torch.float64)
    assert vector_norms(doubles, 0).item() == pytest.approx(5e200)


def test_gradients_of_scaled_features_are_finite():
    features = (TARGET * 1e25).requires_grad_()
    functional.correlate(SOURCE, features, CELLS).sum().backward()
    assert features.grad.isfinite().all()
    assert features.grad.abs().sum() > 0


def test_what_is_not_finite_stays_so():
    values, norms = in_range(torch.tensor([[math.nan, 1.0], [math.inf, 1.0]]), 1)
    assert [values.isnan()[0, 0], norms.isnan()[0], norms.isinf()[1]] == [True] * 3
    target = TARGET.clone()
    target[..., 0, 0] = math.nan
    assert functional.correlate(SOURCE, target, CELLS, target_norms=vector_norms(target, 1))[..., 0, 0].isnan().all()


@pytest.mark.parametrize("norm", [-1.0, -math.inf, math.nan])
def test_norms_that_are_none_are_refused(norm):
    norms = vector_norms(TARGET, 1)
    norms[0, 1, 2] = norm
    for function in (functional.correlate, functional.bilinear_nearest_neighbor):
        with pytest.raises(InputError, match="target_norms must be the L2 norms"):
            function(SOURCE, TARGET, CELLS, target_norms=norms)


def test_a_flag_that_is_an_array_is_refused():
    features = FeatureMap(SOURCE, GRID)
    with pytest.raises(InputError, match="normalize must be True or False"):
        correlate_maps(features, features, QUERIES, normalize=np.array([True, False]))


@pytest.mark.parametrize(
    "peak", [(math.nan, 1.0), (-1.0, 0.0), (6.0, 0.0), (0.0, 5.0), (math.inf, 0.0), (1e30, 1e30)], ids=str
)
def test_a_peak_outside_the_map_is_refused(peak):
    correlation, peaks = torch.rand(1, 1, 5, 6), torch.tensor([[peak]])
    with pytest.raises(InputError, match="peak must be cells of the map, x from 0 to 5 and y from 0 to 4"):
        functional.window_soft_argmax(correlation, temperature=0.1, window=3, peak=peaks)
    with pytest.raises(InputError, match="peak must be cells of the map"):
        functional.kernel_soft_argmax(correlation, temperature=0.1, sigma=7.0, peak=peaks)


def test_a_point_without_a_match_may_have_no_peak():
    correlation = torch.full((1, 1, 5, 6), -math.inf)
    peak = functional.nearest_neighbor(correlation)
    found = functional.window_soft_argmax(correlation, temperature=0.1, window=3, peak=peak)
    assert torch.cat([peak, found]).isnan().all()


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("sign", [1, -1])
def test_large_correlations_over_a_tiny_temperature_have_probabilities(sign, learned):
    temperature = torch.tensor(1e-12, requires_grad=True) if learned else 1e-12
    correlation = sign * torch.tensor([[[[1e30, 2e30, 2e30, 0.5e30]]]])
    correlation[..., 0] = -math.inf
    expected = [0, 0.5, 0.5, 0] if sign > 0 else [0, 0, 0, 1]
    assert functional.match_probability(correlation, temperature=temperature).flatten().tolist() == expected
    assert functional.soft_argmax(correlation, temperature=temperature)[0, 0, 0] == (1.5 if sign > 0 else 3)
    with pytest.raises(NonFiniteError, match="give a larger temperature"):
        functional.log_match_probability(correlation, temperature=temperature)


VALUES, SEEN = torch.rand(1, 2, 5, 6), torch.ones(1, 2, dtype=torch.bool)
CALLS = {
    "probability": lambda value: functional.match_probability(VALUES, temperature=value),
    "log": lambda value: functional.log_match_probability(VALUES, temperature=value),
    "soft": lambda value: functional.soft_argmax(VALUES, temperature=value),
    "kernel": lambda value: functional.kernel_soft_argmax(VALUES, temperature=value, sigma=7),
    "sigma": lambda value: functional.kernel_soft_argmax(VALUES, temperature=1, sigma=value),
    "window": lambda value: functional.window_soft_argmax(VALUES, temperature=value, window=3),
    "loss": lambda value: functional.gaussian_cross_entropy(VALUES, CELLS, SEEN, temperature=value),
    "mass": lambda value: functional.probability_mass(VALUES, CELLS, temperature=value),
    "radius": lambda value: functional.probability_mass(VALUES, CELLS, temperature=1, radius=value),
    "best": lambda value: functional.best_cells(VALUES, count=3, radius=value)[0],
    "weights": lambda value: functional.weighted_concatenation([VALUES], [1], [value]),
    "cached": lambda value: Correlation(
        VALUES[:, :2], torch.ones(1, 2, 2), FeatureMap(SOURCE, GRID), FeatureMap(TARGET, GRID)
    ).probability(value),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("number", [Fraction(3, 2), np.float32(1.5), np.float64(1.5)], ids=lambda n: type(n).__name__)
def test_every_sort_of_number_is_taken_as_a_float(name, number):
    assert torch.equal(CALLS[name](number), CALLS[name](1.5))


@pytest.mark.parametrize("name", ["probability", "log", "soft", "kernel", "window", "loss", "mass"])
@pytest.mark.parametrize(
    "temperature",
    [torch.ones(1, device="meta"), torch.ones(1).to_sparse(), torch.ones(1, dtype=torch.float8_e5m2), torch.ones(0)],
    ids=["meta", "sparse", "float8", "none"],
)
def test_temperatures_without_values_are_refused(name, temperature):
    with pytest.raises(InputError, match="temperature"):
        CALLS[name](temperature)
    with pytest.raises(InputError, match="scale"):
        ParameterGroup("group", (), temperature)


def test_correlations_without_values_are_refused():
    nothing = VALUES.to("meta")
    for call in (
        lambda: functional.best_cells(nothing, count=1),
        lambda: functional.match_probability(nothing, temperature=1),
        lambda: functional.correlate(*[SOURCE.to("meta")] * 2, CELLS.to("meta")),
    ):
        with pytest.raises(InputError, match="meta, which holds no values"):
            call()
    assert vector_norms(SOURCE.to("meta"), 1).shape == (1, 5, 6)


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint8, torch.int64, torch.float16])
def test_cells_of_any_sort_of_number_have_a_mass(dtype):
    cells = torch.tensor([[[1, 1], [4, 3]]])
    expected = functional.probability_mass(VALUES, cells.float(), temperature=1.0)
    assert torch.equal(functional.probability_mass(VALUES, cells.to(dtype), temperature=1.0), expected)


@pytest.mark.parametrize("name", ["values", "blocks", "weights"])
def test_generators_are_no_maps(name):
    given = {"values": [SOURCE], "blocks": [1], "weights": [1.0]}
    with pytest.raises(InputError, match=f"{name} must be a tuple or a list"):
        functional.weighted_concatenation(**{**given, name: (value for value in given[name])})


@pytest.mark.parametrize(
    ("alpha", "length", "distance"),
    [(0.07, 100, 7.0), (0.29, 100, 29.0), (0.1, 30, 3.0), (0.15, 140, 21.0), (0.05, 20, 1.0), (0.0, 100, 0.0)],
)
def test_a_point_on_the_limit_counts_only_if_that_is_inclusive(alpha, length, distance):
    truth, guess = torch.zeros(1, 3, 2), torch.zeros(1, 3, 2)
    guess[0, :, 0] = torch.tensor([distance, distance * (1 - 1e-6), distance + 1e-5])
    seen, lengths = torch.ones(1, 3, dtype=torch.bool), torch.tensor([length])
    for inclusive in (True, False):
        for sort in (float, np.float32, np.float64):
            found = correct_points(guess, truth, seen, lengths, alphas=[sort(alpha)], inclusive=inclusive)
            assert found.flatten().tolist() == [inclusive, distance > 0 or inclusive, False], sort


@pytest.mark.parametrize(
    "alphas", [{0.1: 1}, {0.1, 0.2}, frozenset([0.1]), np.ma.masked_array([0.1, 0.2], [True, False])], ids=str
)
def test_alphas_have_an_order(alphas):
    with pytest.raises(InputError, match="alphas must be a sequence of numbers"):
        pck(CELLS, CELLS, SEEN, torch.ones(1), alphas=alphas)
