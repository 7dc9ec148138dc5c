"""The functional core on small inputs whose results are known: masks, borders, precisions and defaults."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import normalize

from helpers import references
from sd4match.errors import InputError, NonFiniteError, ShapeError
from sd4match.geometry import Grid, pad_frame, pixels_to_cells, squash_frame, to_photo
from sd4match.matching import BilinearNearestNeighbor, functional
from sd4match.matching.correlation import correlate_maps, matches_from_cells, matches_from_points, nearest_pixels
from sd4match.matching.functional.sampling import bilinear_corners, gather_cells
from sd4match.matching.functional.upsampled import interpolated_norm, upsampled_nearest_neighbor
from sd4match.structures.tensors import FeatureMap
from sd4match.testing import pretend_accelerator, random_correlation

INF = math.inf


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# arg-max over interpolated pixels


def literal_pixels(queries, features, columns, rows, mask):
    """Interpolate every pixel, and take the best of those whose nearest cell is in the mask."""
    found = []
    for query in queries:
        best, where = -INF, (math.nan, math.nan)
        for y, row in enumerate(rows.tolist()):
            for x, column in enumerate(columns.tolist()):
                feature = references.lerp_feature(features, column, row).double()
                cosine = float(query.double() @ feature / (query.double().norm() * feature.norm()))
                if mask[round(min(max(row, 0), mask.shape[0] - 1)), round(min(max(column, 0), mask.shape[1] - 1))]:
                    best, where = (cosine, (x, y)) if cosine > best else (best, where)
        found.append(where)
    return found


@pytest.mark.parametrize(("size", "width", "height"), [((3, 4), 9, 7), ((1, 5), 11, 4), ((5, 1), 3, 12)])
def test_pixels_outside_a_mask_are_no_matches(size, width, height):
    features, queries = randn(6, *size), randn(11, 6, seed=1)
    columns, rows = torch.linspace(-0.7, size[1] - 0.4, width), torch.linspace(-0.7, size[0] - 0.4, height)
    mask = torch.rand(size, generator=torch.Generator().manual_seed(2)) > 0.4
    assert 0 < mask.sum() < mask.numel()
    for flags in (mask, torch.ones_like(mask), ~mask):
        found = upsampled_nearest_neighbor(queries, features, columns, rows, mask=flags)
        expected = literal_pixels(queries, features, columns, rows, flags)
        assert [tuple(map(int, pair)) for pair in found.tolist()] == expected
    assert torch.equal(
        upsampled_nearest_neighbor(queries, features, columns, rows),
        upsampled_nearest_neighbor(queries, features, columns, rows, mask=torch.ones_like(mask)),
    )
    nothing = upsampled_nearest_neighbor(queries, features, columns, rows, mask=torch.zeros_like(mask))
    assert nothing.isnan().all()
    for wrong, error in (
        (mask[:, 1:], ShapeError),
        (mask[1:], ShapeError),
        (mask[None], ShapeError),
        (mask.float(), InputError),
    ):
        with pytest.raises(error, match="mask must be"):
            upsampled_nearest_neighbor.__wrapped__(queries, features, columns, rows, mask=wrong)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_pixels_have_the_precision_of_the_map(dtype):
    features, queries = randn(6, 3, 4).to(dtype), randn(2, 6, seed=1)
    found = upsampled_nearest_neighbor(queries, features, torch.linspace(0, 3, 9), torch.linspace(0, 2, 7))
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert interpolated_norm(features, torch.zeros(1), torch.zeros(1)).dtype == dtype


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (3, 1), (3, 4)])
def test_norms_between_cells_are_those_of_interpolated_features(size):
    features = randn(5, *size)
    columns, rows = torch.linspace(-0.5, size[1] - 0.5, 9), torch.linspace(-0.5, size[0] - 0.5, 8)
    expected = [[float(references.lerp_feature(features.double(), x, y).norm()) for x in columns.tolist()]
                for y in rows.tolist()]  # fmt: skip
    torch.testing.assert_close(interpolated_norm(features, columns, rows), torch.tensor(expected))
    whole = interpolated_norm(features, torch.arange(size[1]).float(), torch.arange(size[0]).float())
    torch.testing.assert_close(whole, features.norm(dim=0))


@pytest.mark.parametrize("factor", [2.0**-100, 2.0**-45, 2.0**-20, 2.0**45, 2.0**100])
def test_pixels_do_not_depend_on_the_magnitude(factor):
    features, queries = randn(6, 3, 4), randn(5, 6, seed=1)
    features[0, 0, 0] = 0
    columns, rows = torch.linspace(0, 3, 9), torch.linspace(0, 2, 7)
    plain = upsampled_nearest_neighbor(queries, features, columns, rows)
    assert torch.equal(upsampled_nearest_neighbor(queries, features * factor, columns, rows), plain)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        *[(name, torch.zeros(3, device="meta"), InputError) for name in ("columns", "rows")],
        ("features", torch.zeros(6, 3, 4, device="meta"), InputError),
        *[(name, torch.tensor([0.0, math.nan]), InputError) for name in ("columns", "rows")],
        *[(name, torch.tensor([INF, 0.0]), InputError) for name in ("columns", "rows")],
        *[(name, torch.zeros(2, 2), ShapeError) for name in ("columns", "rows")],
        *[(name, torch.zeros(0), ShapeError) for name in ("columns", "rows")],
        *[(name, torch.zeros(2, dtype=torch.int64), InputError) for name in ("columns", "rows")],
        ("features", torch.zeros(6, 3, 4, dtype=torch.int64), InputError),
    ],
)
def test_pixels_that_lie_nowhere_are_refused(name, value, error):
    arguments = {"features": randn(6, 3, 4), "columns": torch.zeros(3), "rows": torch.zeros(2), name: value}
    with pytest.raises(error, match=r"columns|rows|features"):
        interpolated_norm.__wrapped__(**arguments)
    arguments["target_features"] = arguments.pop("features")
    with pytest.raises(error, match=r"columns|rows|features|queries"):
        upsampled_nearest_neighbor.__wrapped__(randn(2, 6), **arguments)


def test_queries_of_pixels_are_checked():
    for queries, error in ((randn(2, 5), ShapeError), (torch.zeros(2, 6, dtype=torch.int64), InputError),
                           (torch.zeros(2, 6, device="meta"), InputError)):  # fmt: skip
        with pytest.raises(error, match=r"queries|target_features"):
            upsampled_nearest_neighbor.__wrapped__(queries, randn(6, 3, 4), torch.zeros(3), torch.zeros(2))


def test_queries_of_pixels_are_where_the_map_is():
    with (
        pretend_accelerator() as device,
        pytest.raises(InputError, match="queries is on pretend:0, and target_features"),
    ):
        upsampled_nearest_neighbor(randn(2, 6).to(device), randn(6, 3, 4), torch.zeros(3), torch.zeros(2))


@pytest.mark.parametrize("masked", [False, True])
def test_nearest_pixels_are_found_in_each_photo_by_its_own_frame_and_mask(masked):
    frames = (squash_frame((20, 30), (6, 9)), pad_frame((20, 30), 10))
    for alignment, offset in (("centers", None), ("corners", None), ("patch", 0.5)):
        grids = [Grid((frame,), (3, 4), alignment, offset) for frame in frames]
        for number, grid in enumerate(grids):
            source, target = (FeatureMap(randn(1, 6, 3, 4, seed=seed + number), grid) for seed in (0, 5))
            mask = torch.rand(1, 3, 4, generator=torch.Generator().manual_seed(number)) > 0.5
            target = FeatureMap(target.values, grid, mask=mask if masked else None)
            queries = torch.tensor([[[3.0, 4.0], [20.0, 10.0]]])
            correlation = correlate_maps(source, target, queries)
            found = grid.frames[0], nearest_pixels(correlation)
            height, width = frames[number].model_size
            pixels = torch.arange(10, dtype=torch.float64)[:, None].expand(-1, 2)[None]
            cells = pixels_to_cells(pixels[0], (height, width), (3, 4), alignment=alignment, offset=offset)
            query = functional.sample_bilinear(source.values, correlation.query_cells)[0]
            expected = literal_pixels(query, target.values[0], cells[:width, 0], cells[:height, 1],
                                      mask[0] if masked else torch.ones(3, 4, dtype=torch.bool))  # fmt: skip
            torch.testing.assert_close(found[1], to_photo(torch.tensor([expected]).float(), grid.frames))


# matches of authors


def test_matches_of_authors_have_points_and_scores():
    correlation = random_correlation()
    cells = torch.rand(2, 3, 2, generator=torch.Generator().manual_seed(0)) * 7
    found = matches_from_cells(cells, correlation, temperature=0.1)
    points = correlation.target.grid.to_pixels(cells)
    expected = functional.probability_mass(correlation.values, cells, temperature=0.1)
    torch.testing.assert_close(found.points, points)
    torch.testing.assert_close(found.scores, expected)
    again = matches_from_points(points, correlation, temperature=0.1)
    assert torch.equal(again.points, points)
    torch.testing.assert_close(again.scores, expected)
    for call in (matches_from_cells, matches_from_points):
        for wrong in (cells[:1], cells[:, :2]):
            with pytest.raises(ShapeError, match="must be"):
                call(wrong, correlation, temperature=0.1)
        with pytest.raises(InputError, match="temperature"):
            call(cells, correlation, temperature=0.0)


# probabilities


def test_the_mass_is_of_cells_within_the_radius():
    probability = torch.arange(20.0).reshape(1, 1, 4, 5) / 190
    for (x, y), radius, cells in (
        ((1.0, 2.0), 1.0, [(x, y) for x in (0, 1, 2) for y in (1, 2, 3)]),
        ((1.0, 2.0), 0.99, [(1, 2)]),
        ((1.5, 2.0), 0.5, [(1, 2), (2, 2)]),
        ((0.0, 0.0), 0.0, [(0, 0)]),
        ((4.0, 3.0), None, [(3, 2), (3, 3), (4, 2), (4, 3)]),
        ((9.0, 9.0), 1.0, []),
        ((2.0, 2.0), 9.0, [(x, y) for x in range(5) for y in range(4)]),
    ):
        options = {} if radius is None else {"radius": radius}
        found = functional.mass_around(torch.tensor([[[x, y]]]), probability, **options)
        assert found.item() == pytest.approx(sum(probability[0, 0, row, column].item() for column, row in cells))
    assert functional.mass_around(torch.zeros(1, 1, 2), torch.full((1, 1, 1, 1), 1.5)).item() == 1.0
    flat = torch.zeros(1, 1, 9, 9)
    assert functional.probability_mass(flat, torch.full((1, 1, 2), 4.0), temperature=1.0).item() == pytest.approx(1 / 9)
    one = functional.probability_mass(flat, torch.full((1, 1, 2), 4.0), temperature=1.0, radius=0.5)
    assert one.item() == pytest.approx(1 / 81)


@pytest.mark.parametrize("learned", [False, True])
def test_impossible_and_overflowing_cells_have_their_probabilities(learned):
    def temperature(value):
        return torch.tensor(value, requires_grad=True) if learned else value

    found = functional.match_probability(torch.tensor([[[[0.0, 1.0, -INF]]]]), temperature=temperature(0.5))
    assert found.flatten().tolist() == pytest.approx([1 / (1 + math.e**2), math.e**2 / (1 + math.e**2), 0.0])
    log = functional.log_match_probability(torch.tensor([[[[0.0, 1.0, -INF]]]]), temperature=temperature(0.5))
    assert log.flatten().tolist() == pytest.approx([-math.log(1 + math.e**2), 2 - math.log(1 + math.e**2), -INF])
    mixed = torch.tensor([[[[3e38, 2e38]], [[0.0, 1.0]]]])  # of which the first alone overflows
    found = functional.match_probability(mixed, temperature=temperature(0.5))
    assert found[0, 0].flatten().tolist() == [1.0, 0.0]
    assert found[0, 1].flatten().tolist() == pytest.approx([1 / (1 + math.e**2), math.e**2 / (1 + math.e**2)])
    with pytest.raises(NonFiniteError, match="logarithms"):
        functional.log_match_probability(torch.tensor([[[[-1e38, 1e38]], [[0, 1]]]]), temperature=temperature(1e-10))
    nothing = functional.match_probability(torch.full((1, 1, 1, 2), -INF), temperature=temperature(0.5))
    assert nothing.isnan().all()


def test_a_learned_temperature_has_its_gradient_at_impossible_cells():
    temperature = torch.tensor([0.5], requires_grad=True)
    values = torch.tensor([[[[0.0, 1.0, -INF]]]])
    functional.match_probability(values, temperature=temperature)[..., 1].sum().backward()
    p = math.e**2 / (1 + math.e**2)
    assert temperature.grad.item() == pytest.approx(-p * (1 - p) / 0.25)
    for wrong in (torch.ones(2), torch.ones(1, 1)):
        with pytest.raises(ShapeError, match="a number or a tensor of one"):
            functional.match_probability(values, temperature=wrong)


# arg-max and its soft forms


def test_damped_cells_stay_impossible_and_suppressed_ones_count_as_0():
    values = torch.tensor([[[[-INF, 0.0, 1.0, 0.0, -1.0, -INF]]]])
    kernel = functional.kernel_soft_argmax(values, temperature=0.5, sigma=2.0)
    damped = [math.exp(-((x - 2) ** 2) / 8) * values[0, 0, 0, x].item() for x in range(1, 5)]
    weights = [math.exp(value / 0.5) for value in damped]
    assert kernel[0, 0, 0].item() == pytest.approx(sum(x * w for x, w in enumerate(weights, 1)) / sum(weights))
    window = functional.window_soft_argmax(values, temperature=0.5, window=3)
    weights = [1.0, math.e**2, 1.0, 1.0]  # -1 is outside, where it counts as 0
    assert window[0, 0, 0].item() == pytest.approx(sum(x * w for x, w in enumerate(weights, 1)) / sum(weights))
    assert kernel[0, 0, 1].item() == window[0, 0, 1].item() == 0.0
    narrow = functional.kernel_soft_argmax(values, temperature=0.5, sigma=0.1)  # whose Gaussian underflows to 0
    weights = [1.0, math.e**2, 1.0, 1.0]
    assert narrow[0, 0, 0].item() == pytest.approx(sum(x * w for x, w in enumerate(weights, 1)) / sum(weights))


@pytest.mark.parametrize("form", ["kernel", "window"])
def test_a_known_peak_is_used(form):
    values, peak = randn(2, 3, 5, 6), torch.tensor([0.0, 4.0]).expand(2, 3, 2).clone()
    call = {
        "kernel": lambda values, **peak: functional.kernel_soft_argmax(values, temperature=0.1, sigma=1.0, **peak),
        "window": lambda values, **peak: functional.window_soft_argmax(values, temperature=0.1, window=3, **peak),
    }[form]
    y, x = torch.arange(5.0)[:, None], torch.arange(6.0)
    factor = {"kernel": torch.exp(-(x**2 + (y - 4) ** 2) / 2), "window": (x <= 1) & (y >= 3)}[form]
    torch.testing.assert_close(call(values, peak=peak), functional.soft_argmax(values * factor, temperature=0.1))
    for corner in ((0.0, 0.0), (5.0, 0.0), (0.0, 4.0), (5.0, 4.0)):
        call(values, peak=torch.tensor(corner).expand(2, 3, 2))
    for outside in ((-0.1, 0.0), (5.1, 0.0), (0.0, -0.1), (0.0, 4.1)):
        peak[1, 2] = torch.tensor(outside)
        with pytest.raises(InputError, match=r"x from 0 to 5 and y from 0 to 4, not \["):
            call(values, peak=peak)
    values[0, 0], peak[0, 0], peak[1, 2] = -INF, math.nan, torch.tensor([0.0, 0.0])
    assert call(values, peak=peak)[0, 0].isnan().all()
    peak[0, 0] = torch.tensor([math.nan, 1.0])
    assert call(values, peak=peak)[0, 0].isnan().all()
    values[0, 1], peak[0, 1] = -INF, torch.tensor([-1.0, 0.0])  # a point without a match, but a number
    with pytest.raises(InputError, match="peak must be cells"):
        call(values, peak=peak)
    peak[0, 1] = math.nan
    assert call(values, peak=peak)[0, 1].isnan().all()
    peak[1, 2] = math.nan  # a point that has a match
    with pytest.raises(InputError, match="peak must be cells"):
        call(values, peak=peak)


def test_several_cells_are_apart_and_end():
    values = torch.tensor([[[[5.0, 4.0, 3.0], [2.0, 1.0, 0.0]]], [[[0.0, 1.0, 2.0], [3.0, 4.0, -INF]]]])
    found, scores = functional.best_cells(values, count=4, radius=1.0)
    assert found[0, 0].nan_to_num(-1).tolist() == [[0, 0], [2, 0], [-1, -1], [-1, -1]]
    assert scores[0, 0].tolist() == [5.0, 3.0, -INF, -INF]
    assert found[1, 0].nan_to_num(-1).tolist() == [[1, 1], [-1, -1], [-1, -1], [-1, -1]]
    found, scores = functional.best_cells(values, count=6, radius=0.5)
    assert scores[1, 0].tolist() == [4.0, 3.0, 2.0, 1.0, 0.0, -INF]
    assert found[1, 0, :2].tolist() == [[1, 1], [0, 1]]
    assert functional.best_cells(values.half(), count=1)[1].dtype == torch.float32


def test_several_cells_are_found_where_the_correlation_is():
    values = randn(2, 3, 5, 6)
    with pretend_accelerator() as device:
        found = functional.best_cells(values.to(device), count=4)
        for one, expected in zip(found, functional.best_cells(values, count=4), strict=True):
            assert one.device == device
            assert torch.equal(one.cpu(), expected)


def test_blended_neighbors_keep_to_masks_and_magnitudes():
    source, target = randn(2, 6, 3, 4), randn(2, 6, 4, 5, seed=1)
    mask = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(2)) > 0.5
    cells = torch.tensor([[[0.25, 1.5], [2.0, 1.0]]] * 2)
    for normalized in (True, False):
        found = functional.bilinear_nearest_neighbor(source, target, cells, normalize=normalized, target_mask=mask)
        index, weight = bilinear_corners(cells, 3, 4)
        for row in range(2):
            values = target[row].flatten(1)
            values = normalize(values, dim=0) if normalized else values
            for point in range(2):
                corners = source[row].flatten(1)[:, index[row, point]].T @ values
                best = corners.masked_fill(~mask[row].flatten(), -INF).argmax(dim=1)
                expected = (torch.stack([best % 5, best // 5], -1) * weight[row, point, :, None]).sum(0)
                torch.testing.assert_close(found[row, point], expected)
    for wrong in (mask[:1], mask[:, :3], mask[..., :4]):
        with pytest.raises(ShapeError, match="target_mask must be"):
            functional.bilinear_nearest_neighbor.__wrapped__(source, target, cells, target_mask=wrong)
    with pytest.raises(InputError, match="target_mask must be"):
        functional.bilinear_nearest_neighbor.__wrapped__(source, target, cells, target_mask=mask.float())


def test_the_blending_matcher_keeps_to_the_mask():
    made = random_correlation()
    mask = torch.zeros(2, 8, 8, dtype=torch.bool)
    mask[:, 2, 5] = True
    target = FeatureMap(made.target.values, made.target.grid, mask=mask)
    found = BilinearNearestNeighbor()(correlate_maps(made.source, target, made.query_points))
    torch.testing.assert_close(target.grid.to_cells(found.points), torch.tensor([5.0, 2.0]).expand(2, 3, 2))


def test_products_of_the_largest_features_do_not_overflow():
    source, target = randn(1, 16, 3, 4), randn(1, 16, 4, 5, seed=1)
    cells = torch.tensor([[[0.25, 1.5], [2.0, 1.0]]])
    plain, large = (functional.bilinear_nearest_neighbor(source, target * factor, cells, normalize=False)
                    for factor in (1.0, 2.0**125))  # fmt: skip
    assert torch.equal(plain, large)


# sampling and the loss


def test_corners_of_cells_are_in_reading_order():
    index, weight = bilinear_corners(torch.tensor([[1.25, 0.5], [3.0, 2.0], [-1.0, 9.0], [math.nan, 1.0]]), 3, 4)
    assert index.tolist() == [[1, 2, 5, 6], [11, 11, 11, 11], [8, 9, 8, 9], [0, 1, 4, 5]]
    torch.testing.assert_close(weight, torch.tensor([[0.375, 0.125, 0.375, 0.125], *[[1.0, 0.0, 0.0, 0.0]] * 3]))


def test_cells_are_gathered_with_and_without_a_gradient():
    maps, index = randn(2, 3, 2, 4), torch.tensor([[0, 5, 7], [1, 1, 6]])
    expected = torch.stack([maps[row].flatten(1)[:, index[row]].T for row in range(2)])
    assert torch.equal(gather_cells(maps, index), expected)
    assert torch.equal(gather_cells(maps.clone().requires_grad_(), index), expected)


def test_the_default_kernel_is_7():
    values, seen = randn(1, 1, 9, 9), torch.ones(1, 1, dtype=torch.bool)
    cells = torch.full((1, 1, 2), 4.0)
    for call in (functional.gaussian_cross_entropy, functional.gaussian_cross_entropy_with_bound):
        found, expected = (call(values, cells, seen, temperature=0.5, **size) for size in ({}, {"kernel_size": 7}))
        assert str(found) == str(expected)
    assert functional.smoothed_target(cells, map_size=(9, 9)).weights.shape == (49,)
    target = functional.smoothed_target(cells, map_size=(9, 9), kernel_size=3)
    assert target.weights.tolist() == pytest.approx(
        [math.exp(-2 * (x * x + y * y)) * 2 / math.pi for x in (-1, 0, 1) for y in (-1, 0, 1)]
    )


def test_true_cells_at_the_border_are_left_out():
    places = torch.tensor([[[0.0, 1.0], [1.0, 0.0], [3.0, 1.0], [1.0, 2.0], [0.1, 0.1], [2.9, 1.9]]])
    target = functional.smoothed_target(places, map_size=(3, 4), kernel_size=3)
    assert target.inside[0, :, 4].tolist() == [False] * 4 + [True] * 2
    assert target.inside[0, 0].tolist() == [False] * 6 + [False, True, False]
    assert functional.smoothed_target(places, map_size=(1, 1), kernel_size=3).inside.sum() == 0
    for wrong in ((3,), (3, 4, 5), (0, 4), "34", 3):
        with pytest.raises(InputError, match="map_size"):
            functional.smoothed_target.__wrapped__(places, map_size=wrong)


def test_impossible_cells_elsewhere_do_not_leave_a_point_out():
    values, seen = randn(1, 1, 9, 9), torch.ones(1, 1, dtype=torch.bool)
    values[..., 0, 0] = -INF
    deep = values.masked_fill(values == -INF, -1e3)
    found, expected = (
        functional.gaussian_cross_entropy(each, torch.full((1, 1, 2), 5.0), seen, temperature=0.5, kernel_size=3)
        for each in (values, deep)
    )
    assert found > 0
    torch.testing.assert_close(found, expected)
    target = functional.smoothed_target(torch.full((1, 1, 2), 5.0, dtype=torch.float64), map_size=(9, 9))
    assert target.weights.dtype == target.cells.dtype == torch.float64


def test_one_coordinate_that_is_not_finite_is_refused():
    values, seen = randn(1, 2, 5, 5), torch.ones(1, 2, dtype=torch.bool)
    cells = torch.tensor([[[1.0, 1.0], [2.0, math.nan]]])
    with pytest.raises(InputError, match="finite"):
        functional.gaussian_cross_entropy(values, cells, seen, temperature=0.1)
    seen[0, 1] = False
    assert functional.gaussian_cross_entropy(values, cells, seen, temperature=0.1).isfinite()


# reduction


def test_blocks_of_maps_are_normalized_together():
    maps = [randn(2, channels, 3, 4, seed=channels) for channels in (1, 2, 3)]
    found = functional.weighted_concatenation(maps, [2, 1], [0.5, -2.0])
    expected = torch.cat([0.5 * normalize(torch.cat(maps[:2], 1), dim=1), -2 * normalize(maps[2], dim=1)], 1)
    torch.testing.assert_close(found, expected)
    for odd in (maps[1][:1], maps[1][:, :, :2], maps[1][..., :2]):
        with pytest.raises(ShapeError, match=r"values\[1\] must be"):
            functional.weighted_concatenation.__wrapped__([maps[0], odd], [2], [1.0])
    for values, blocks, weights in (([], [], []), (maps, [2], [1.0]), (maps, [3], []), (maps, [2, 1], [1.0]),
                                    (maps, [3, 0], [1.0, 1.0]), (maps[:1], [2], [1.0])):  # fmt: skip
        with pytest.raises(InputError, match="blocks"):
            functional.weighted_concatenation(values, blocks, weights)
