"""The functional core against its slow literal versions, and where numbers go bad."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import references
from helpers.strategies import correlation_values
from sd4match.errors import InputError, ShapeError
from sd4match.matching import functional
from sd4match.testing import cells, values, visibility

TEMPERATURES = st.sampled_from([0.02, 0.04, 0.15, 1.0])


@st.composite
def feature_pairs(draw):
    batch, channels = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    source = draw(values((batch, channels, draw(st.integers(1, 5)), draw(st.integers(1, 6)))))
    target = draw(values((batch, channels, draw(st.integers(1, 6)), draw(st.integers(1, 5)))))
    queries = draw(cells(batch, draw(st.integers(1, 3)), tuple(source.shape[2:]), margin=0.7))
    return source, target, queries


@given(feature_pairs(), st.booleans())
def test_correlate_equals_reference(maps, normalize):
    source, target, queries = maps
    values = functional.correlate(source, target, queries, normalize=normalize)
    expected = references.correlate(source, target, queries, normalize)
    torch.testing.assert_close(values.double(), expected, atol=1e-5, rtol=1e-5)


@given(feature_pairs())
def test_known_norms_and_known_peaks_change_nothing(maps):
    source, target, queries = maps
    values = functional.correlate(source, target, queries)
    norms = torch.linalg.vector_norm(target, dim=1)
    assert torch.equal(functional.correlate(source, target, queries, target_norms=norms), values)
    peak = functional.nearest_neighbor(values)
    assert torch.equal(
        functional.kernel_soft_argmax(values, temperature=0.04, sigma=7.0, peak=peak),
        functional.kernel_soft_argmax(values, temperature=0.04, sigma=7.0),
    )
    assert torch.equal(
        functional.window_soft_argmax(values, temperature=0.04, window=3, peak=peak),
        functional.window_soft_argmax(values, temperature=0.04, window=3),
    )


def test_a_cell_without_features_matches_nothing_and_keeps_gradients_finite():
    source, target = torch.zeros(1, 3, 2, 2, requires_grad=True), torch.zeros(1, 3, 2, 2, requires_grad=True)
    values = functional.correlate(source, target, torch.tensor([[[0.5, 0.5]]]))
    assert torch.equal(values, torch.zeros(1, 1, 2, 2))
    values.sum().backward()
    assert source.grad.isfinite().all()
    assert target.grad.isfinite().all()


@given(feature_pairs())
def test_normalized_correlation_is_a_cosine(maps):
    values = functional.correlate(*maps)
    assert values.abs().max() <= 1 + 1e-5


def test_correlate_at_a_whole_cell_finds_that_cell():
    torch.manual_seed(0)
    features = torch.randn(1, 16, 7, 9)
    values = functional.correlate(features, features, torch.tensor([[[5.0, 2.0]]]))
    assert functional.nearest_neighbor(values).tolist() == [[[5.0, 2.0]]]
    assert values[0, 0, 2, 5] == pytest.approx(1.0)


def test_sampling_equals_grid_sample_with_aligned_corners():
    torch.manual_seed(0)
    maps, places = torch.randn(2, 3, 5, 8), torch.rand(2, 6, 2) * torch.tensor([9.0, 6.0]) - 1
    grid = places / torch.tensor([7.0, 4.0]) * 2 - 1
    expected = torch.nn.functional.grid_sample(maps, grid[:, :, None], align_corners=True, padding_mode="border")
    torch.testing.assert_close(functional.sample_bilinear(maps, places), expected[..., 0].transpose(1, 2))


@given(correlation_values(), TEMPERATURES)
def test_arg_max_and_soft_arg_max_equal_reference(values, temperature):
    hard = functional.nearest_neighbor(values)
    soft = functional.soft_argmax(values, temperature=temperature)
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            assert tuple(hard[i, j].tolist()) == references.arg_max(values[i, j])
            assert soft[i, j].tolist() == pytest.approx(references.soft_arg_max(values[i, j], temperature), abs=1e-4)


@given(correlation_values(max_side=7), TEMPERATURES, st.sampled_from([1.0, 3.0, 7.0]), st.sampled_from([1, 3, 5, 15]))
def test_kernel_and_window_equal_reference(values, temperature, sigma, window):
    kernel = functional.kernel_soft_argmax(values, temperature=temperature, sigma=sigma)
    windowed = functional.window_soft_argmax(values, temperature=temperature, window=window)
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            plane = values[i, j]
            expected = references.kernel_soft_arg_max(plane, temperature, sigma)
            assert kernel[i, j].tolist() == pytest.approx(expected, abs=1e-4)
            expected = references.window_soft_arg_max(plane, temperature, window)
            assert windowed[i, j].tolist() == pytest.approx(expected, abs=1e-4)


@given(feature_pairs())
def test_bilinear_nearest_neighbor_equals_reference(maps):
    source, target, queries = maps
    found = functional.bilinear_nearest_neighbor(source, target, queries)
    # Two cells of equal similarity are a coin toss of rounding: leave such draws out.
    for i in range(source.shape[0]):
        for j in range(queries.shape[1]):
            x, y = queries[i, j].tolist()
            expected = references.bilinear_arg_max(source[i], target[i], x, y)
            near = found[i, j].tolist() == pytest.approx(expected, abs=1e-3)
            assert near or _has_tie(source[i], target[i], x, y)


def _has_tie(source, target, x, y):
    _, h, w = source.shape
    x0, y0 = math.floor(min(max(x, 0), w - 1)), math.floor(min(max(y, 0), h - 1))
    corners = torch.tensor([[[cx, cy] for cx in (x0, min(x0 + 1, w - 1)) for cy in (y0, min(y0 + 1, h - 1))]]).float()
    top = references.correlate(source[None], target[None], corners).flatten(2).topk(2, dim=-1).values
    return bool((top[..., 0] - top[..., 1] < 1e-6).any())


@st.composite
def loss_inputs(draw):
    values = draw(correlation_values(max_batch=3, max_points=3))
    batch, points = values.shape[:2]
    places = draw(cells(batch, points, tuple(values.shape[2:]), margin=1.0))
    return values, places, draw(visibility(batch, points))


@given(loss_inputs(), st.sampled_from([0.04, 0.15, 1.0]))
def test_loss_equals_the_reference_form(inputs, temperature):
    values, places, seen = inputs
    loss = functional.gaussian_cross_entropy(values, places, seen, temperature=temperature)
    expected = references.gaussian_cross_entropy(values, places, seen, temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-5, abs=1e-5)


@given(loss_inputs(), st.sampled_from([1e-4, 0.04]), st.sampled_from([1.0, 50.0]))
def test_loss_and_gradient_are_finite_whatever_comes(inputs, temperature, scale):
    values, places, seen = inputs
    values = (values * scale).requires_grad_()
    loss = functional.gaussian_cross_entropy(values, places, seen, temperature=temperature)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(values.grad).all()
    assert (values.grad[~seen] == 0).all()


@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 1e30])
def test_invisible_true_cellsare_inert(garbage):
    torch.manual_seed(0)
    source, target = torch.randn(2, 4, 6, 6, requires_grad=True), torch.randn(2, 4, 6, 6, requires_grad=True)
    queries, places = torch.rand(2, 3, 2) * 5, torch.rand(2, 3, 2) * 5
    seen = torch.tensor([[True, True, False], [True, False, False]])
    results = []
    for fill in (0.0, garbage):
        q, p = torch.where(seen[..., None], queries, fill), torch.where(seen[..., None], places, fill)
        loss = functional.gaussian_cross_entropy(functional.correlate(source, target, q), p, seen, temperature=0.04)
        results.append((loss, *torch.autograd.grad(loss, (source, target))))
    for clean, dirty in zip(*results, strict=True):
        torch.testing.assert_close(clean, dirty)


def test_no_visible_point_gives_zero_with_zero_gradient():
    values = torch.randn(2, 3, 5, 5, requires_grad=True)
    loss = functional.gaussian_cross_entropy(
        values, torch.zeros(2, 3, 2), torch.zeros(2, 3, dtype=torch.bool), temperature=0.04
    )
    loss.backward()
    assert loss.item() == 0.0
    assert (values.grad == 0).all()


def test_pairs_without_true_cellsdo_not_dilute_the_mean():
    torch.manual_seed(0)
    values, places = torch.randn(3, 2, 9, 9), torch.rand(3, 2, 2) * 8
    seen = torch.tensor([[True, True], [False, False], [True, False]])
    both = functional.gaussian_cross_entropy(values, places, seen, temperature=0.15)
    kept = functional.gaussian_cross_entropy(values[[0, 2]], places[[0, 2]], seen[[0, 2]], temperature=0.15)
    torch.testing.assert_close(both, kept)


@pytest.mark.parametrize("place", [(0.0, 0.0), (8.0, 8.0), (0.0, 4.0), (8.5, 3.0), (-5.0, 3.0)])
def test_targets_at_and_beyond_the_border(place):
    values = torch.randn(1, 1, 9, 9, requires_grad=True)
    places = torch.tensor([[place]])
    seen = torch.ones(1, 1, dtype=torch.bool)
    loss = functional.gaussian_cross_entropy(values, places, seen, temperature=0.04)
    loss.backward()
    assert loss.item() == pytest.approx(
        references.gaussian_cross_entropy(values.detach(), places, seen, 0.04), rel=1e-5, abs=1e-5
    )
    assert torch.isfinite(values.grad).all()


def test_without_normalization_large_features_stay_finite():
    torch.manual_seed(0)
    source, target = (torch.randn(1, 64, 8, 8) * 100).requires_grad_(), torch.randn(1, 64, 8, 8) * 100
    values = functional.correlate(source, target, torch.tensor([[[3.2, 4.1]]]), normalize=False)
    loss = functional.gaussian_cross_entropy(
        values, torch.tensor([[[2.0, 2.5]]]), torch.ones(1, 1, dtype=torch.bool), temperature=0.04
    )
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(source.grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_maps_are_computed_in_float32(dtype):
    torch.manual_seed(0)
    source, target = torch.randn(1, 32, 8, 8).to(dtype).requires_grad_(), torch.randn(1, 32, 8, 8).to(dtype)
    queries = torch.tensor([[[3.3, 4.6]]])
    values = functional.correlate(source, target, queries)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, functional.correlate(source.float(), target.float(), queries))
    loss = functional.gaussian_cross_entropy(values, queries, torch.ones(1, 1, dtype=torch.bool), temperature=1e-4)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(source.grad).all()


def test_zero_features_have_finite_gradients():
    source = torch.zeros(1, 4, 3, 3, requires_grad=True)
    functional.correlate(source, torch.zeros(1, 4, 3, 3), torch.ones(1, 1, 2)).sum().backward()
    assert torch.isfinite(source.grad).all()


@given(correlation_values())
def test_gradients_agree_with_finite_differences(values):
    values = values[:1, :1, :3, :3].double().requires_grad_()
    places, seen = torch.full((1, 1, 2), 1.3, dtype=torch.float64), torch.ones(1, 1, dtype=torch.bool)
    assert torch.autograd.gradcheck(
        lambda v: functional.gaussian_cross_entropy(v, places, seen, temperature=0.5), (values,), atol=1e-4
    )
    assert torch.autograd.gradcheck(lambda v: functional.soft_argmax(v, temperature=0.5), (values,), atol=1e-4)


@given(correlation_values())
def test_probability_mass_is_a_share(values):
    places = functional.nearest_neighbor(values)
    mass = functional.probability_mass(values, places, temperature=0.1)
    assert ((mass >= 0) & (mass <= 1)).all()
    everything = functional.probability_mass(values, places, temperature=0.1, radius=100.0)
    torch.testing.assert_close(everything, torch.ones_like(everything))


@given(correlation_values(), st.integers(0, 10))
def test_batching_changes_nothing(values, seed):
    order = torch.randperm(values.shape[0], generator=torch.Generator().manual_seed(seed))
    whole = functional.kernel_soft_argmax(values, temperature=0.04, sigma=7.0)
    torch.testing.assert_close(functional.kernel_soft_argmax(values[order], temperature=0.04, sigma=7.0), whole[order])


def test_temperature_may_be_learned():
    temperature = torch.tensor(0.1, requires_grad=True)
    seen = torch.ones(1, 1, dtype=torch.bool)
    loss = functional.gaussian_cross_entropy(
        torch.randn(1, 1, 9, 9), torch.full((1, 1, 2), 4.0), seen, temperature=temperature
    )
    loss.backward()
    assert temperature.grad is not None


def test_bad_arguments_are_named():
    values, seen = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, dtype=torch.bool)
    with pytest.raises(InputError, match="temperature"):
        functional.soft_argmax(values, temperature=0.0)
    with pytest.raises(InputError, match="sigma"):
        functional.kernel_soft_argmax(values, temperature=0.1, sigma=-1.0)
    with pytest.raises(InputError, match="window"):
        functional.window_soft_argmax(values, temperature=0.1, window=4)
    with pytest.raises(InputError, match="kernel_size"):
        functional.gaussian_cross_entropy(values, torch.zeros(1, 1, 2), seen, temperature=0.1, kernel_size=6)
    with pytest.raises(ShapeError, match="expected source"):
        functional.correlate.__wrapped__(torch.zeros(1, 3, 4, 4), torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 2))


@given(st.data())
def test_the_loss_never_falls_below_its_bound(data):
    values = data.draw(correlation_values(min_side=4))
    batch, points, height, width = values.shape
    true_cells = data.draw(cells(batch, points, (height, width), margin=2.0))
    visible = data.draw(visibility(batch, points))
    temperature = data.draw(st.sampled_from([0.004, 0.04, 1.0]))
    loss, bound = functional.gaussian_cross_entropy_with_bound(values, true_cells, visible, temperature=temperature)
    assert torch.equal(loss, functional.gaussian_cross_entropy(values, true_cells, visible, temperature=temperature))
    assert loss >= bound - 1e-5
    assert bound >= 0


@given(st.integers(0, 10), st.integers(0, 8), st.sampled_from([3, 5, 7]))
def test_the_bound_is_reached_by_the_target_itself(x, y, kernel_size):
    """At a whole cell, by the map whose probabilities are the target's weights."""
    places = torch.tensor([[[float(x), float(y)]]])
    visible = torch.ones(1, 1, dtype=torch.bool)
    target = functional.smoothed_target(places, map_size=(9, 11), kernel_size=kernel_size)
    best = torch.full((1, 1, 9, 11), -1e4)
    for (column, row), weight, inside in zip(
        target.cells[0, 0].int().tolist(), target.weights, target.inside[0, 0], strict=True
    ):
        if inside:
            best[0, 0, row, column] = weight.log()
    loss, bound = functional.gaussian_cross_entropy_with_bound(
        best, places, visible, temperature=1.0, kernel_size=kernel_size
    )
    assert loss.item() == pytest.approx(bound.item(), abs=1e-4)
