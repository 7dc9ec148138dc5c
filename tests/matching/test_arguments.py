"""What the functional core and PCK refuse: each message names the argument."""

# ruff: noqa: C408, E501 - tables

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from helpers.direct import no_type_checker  # noqa: F401 - a fixture of all tests here
from sd4match.errors import InputError, NonFiniteError, ShapeError
from sd4match.matching import functional
from sd4match.matching.correlation import matches_from_cells, matches_from_points
from sd4match.matching.pck import correct_points, pck
from sd4match.testing import random_correlation

MAPS, VALUES, CELLS = torch.rand(2, 4, 5, 6), torch.rand(2, 3, 5, 6), torch.rand(2, 3, 2)
SEEN, NORMS, NAN, INF = torch.ones(2, 3, dtype=torch.bool), torch.rand(2, 5, 6), math.nan, math.inf
ODD_TENSORS = {
    "numpy": (lambda tensor: tensor.numpy(), InputError),
    "none": (lambda tensor: None, InputError),
    "list": (lambda tensor: tensor.tolist(), InputError),
    "rank": (lambda tensor: tensor[0], ShapeError),
    "more": (lambda tensor: tensor[None], ShapeError),
    "batch": (lambda tensor: tensor[:1], ShapeError),
    "complex": (lambda tensor: tensor.to(torch.complex64), InputError),
    "sparse": (lambda tensor: tensor.to_sparse(), InputError),
    "meta": (lambda tensor: tensor.to("meta"), InputError),
    "points": (lambda tensor: tensor[:, :2], ShapeError),
}
FUNCTIONS = {
    "correlate": (functional.correlate, dict(source_features=MAPS, target_features=MAPS, query_cells=CELLS, target_norms=NORMS)),
    "bilinear": (functional.bilinear_nearest_neighbor, dict(source_features=MAPS, target_features=MAPS, query_cells=CELLS, target_norms=NORMS)),
    "kernel": (functional.kernel_soft_argmax, dict(correlation=VALUES, peak=CELLS, temperature=0.1, sigma=7.0)),
    "window": (functional.window_soft_argmax, dict(correlation=VALUES, peak=CELLS, temperature=0.1, window=3)),
    "mass": (functional.probability_mass, dict(correlation=VALUES, cells=CELLS, temperature=0.1)),
    "around": (functional.mass_around, dict(cells=CELLS, probability=VALUES)),
    "loss": (functional.gaussian_cross_entropy, dict(correlation=VALUES, target_cells=CELLS, visible=SEEN, temperature=0.1)),
    "sample": (functional.sample_bilinear, dict(maps=MAPS, cells=CELLS)),
    "pca": (functional.co_pca, dict(source=MAPS, target=MAPS, components=2)),
    "pck": (pck, dict(predicted=CELLS, target=CELLS, visible=SEEN, reference_length=torch.ones(2), alphas=(0.1,))),
}  # fmt: skip
TENSORS = [(name, argument) for name, (_, values) in FUNCTIONS.items() for argument in values
           if isinstance(values[argument], torch.Tensor)]  # fmt: skip


@pytest.mark.parametrize("oddity", ODD_TENSORS)
@pytest.mark.parametrize(("name", "argument"), TENSORS)
def test_a_tensor_of_another_sort_is_refused(name, argument, oddity):
    function, arguments = FUNCTIONS[name]
    function(**arguments)
    change, error = ODD_TENSORS[oddity]
    if oddity == "points" and (name == "sample" or argument in ("query_cells", "reference_length")):
        return  # of which there may be any number
    changed = change(arguments[argument])
    if changed is None and argument in ("target_norms", "peak"):
        return
    with pytest.raises(error, match=r"must|expected|is on"):
        function(**{**arguments, argument: changed})


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_maps_of_integers_or_booleans_are_refused(name, dtype):
    function, arguments = FUNCTIONS[name]
    for argument, value in arguments.items():
        is_map = isinstance(value, torch.Tensor) and value.dim() == 4
        if is_map or (argument == "visible" and dtype == torch.int64):
            with pytest.raises(InputError, match=r"must be a tensor of (floating-point numbers|booleans)"):
                function(**{**arguments, argument: value.to(dtype)})
        elif dtype == torch.bool and isinstance(value, torch.Tensor) and argument != "visible":
            with pytest.raises(InputError, match=argument):
                function(**{**arguments, argument: value.to(dtype)})


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        *[(name, {"temperature": value}, "temperature") for name in ("kernel", "window", "mass", "loss")
          for value in (0, -1.0, NAN, INF, 1e-300, "1", None, True, torch.tensor(-1.0), torch.ones(6), torch.tensor(1))],
        *[("kernel", {"sigma": value}, "sigma") for value in (0, -1.0, NAN, INF, 1e-200, "7", None)],
        *[("window", {"window": value}, "window") for value in (0, -1, 2, 2.5, NAN, 3.0, "3", None, True, 10**9 + 1)],
        *[("loss", {"kernel_size": value}, "kernel_size") for value in (1, 6, 7.5, 0, -7, NAN, None, 100001)],
        *[("mass", {"radius": value}, "radius") for value in (-1, NAN, INF, "1", None)],
        *[("pca", {"components": value}, "components") for value in (-1, True, 2.0, None)],
        ("pca", {"target": torch.rand(2, 5, 5, 6)}, "target"),
        ("correlate", {"normalize": "yes"}, "normalize"),
        ("bilinear", {"normalize": 1}, "normalize"),
        ("correlate", {"source_features": torch.rand(2, 0, 5, 6)}, "source_features"),
        ("correlate", {"target_features": torch.rand(2, 4, 0, 6)}, "target_features"),
        ("correlate", {"target_norms": torch.rand(2, 6, 5)}, "target_norms"),
        ("correlate", {"target_norms": NORMS[..., :5]}, "target_norms must be"),
        ("correlate", {"target_norms": NORMS.long()}, "target_norms must be a tensor of floating-point"),
        ("kernel", {"peak": CELLS.long()}, "peak must be a tensor of floating-point"),
        ("correlate", {"query_cells": CELLS.to("meta")}, "query_cells is on meta, and source_features on cpu"),
        ("loss", {"target_cells": torch.full((2, 3, 2), NAN)}, "target_cells of visible points must be finite"),
        *[("pck", {"alphas": value}, "alphas")
          for value in ((), (-0.1,), (NAN,), (INF,), (True,), ("0.1",), "0.1", 0.1, None, torch.tensor([0.1]))],
        *[("pck", {"reference_length": torch.tensor([1.0, value])}, "reference_length") for value in (-1.0, NAN, INF)],
        ("pck", {"reference_length": torch.ones(2, 1)}, "reference_length"),
        ("pck", {"target": torch.full((2, 3, 2), NAN)}, "target must be finite"),
        ("pck", {"target": torch.stack([CELLS[..., 0], torch.full((2, 3), NAN)], -1)}, "target must be finite"),
        ("pck", {"target": torch.cat([CELLS[:, :2], torch.full((2, 1, 2), NAN)], 1)}, "target must be finite"),
        ("pck", {"reference_length": torch.tensor([1.0, NAN]), "visible": torch.tensor([[False] * 3, [True, False, False]])},
         "reference_length"),
        ("pck", {"inclusive": "no"}, "inclusive"),
    ],
)  # fmt: skip
def test_numbers_that_are_none_are_named(name, changes, message):
    function, arguments = FUNCTIONS[name]
    with pytest.raises(InputError, match=message):
        function(**{**arguments, **changes})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f: f.best_cells(VALUES, count=31), InputError, "count must be a whole number from 1 to 30"),
        (lambda f: f.best_cells(VALUES, count=10**12), InputError, "count"),
        (lambda f: f.best_cells(VALUES, count=0), InputError, "count"),
        (lambda f: f.best_cells(VALUES, count=2, radius=NAN), InputError, "radius"),
        (lambda f: f.best_cells(VALUES, count=2, radius=-0.5), InputError, "radius"),
        (lambda f: f.best_cells(VALUES[0], count=2), ShapeError, "correlation"),
        (lambda f: f.nearest_neighbor(torch.zeros(1, 2, 0, 3)), ShapeError, "correlation"),
        (lambda f: f.nearest_neighbor(VALUES[0]), ShapeError, "correlation"),
        (lambda f: f.nearest_neighbor(VALUES.long()), InputError, "correlation"),
        (lambda f: f.best_cells(VALUES.long(), count=1), InputError, "correlation"),
        (lambda f: f.smoothed_target(CELLS > 0, map_size=(5, 5)), InputError, "target_cells"),
        (lambda f: f.weighted_concatenation([MAPS.long()], [1], [1.0]), InputError, "values"),
        (lambda f: f.soft_argmax(VALUES[0], temperature=1.0), ShapeError, "correlation"),
        (lambda f: f.match_probability(np.zeros(3), temperature=1.0), InputError, "correlation"),
        (lambda f: f.log_match_probability(VALUES.long(), temperature=1.0), InputError, "correlation"),
        (lambda f: f.mean_cell(VALUES.long()), InputError, "probability"),
        (lambda f: f.mean_cell(VALUES[0]), ShapeError, "probability"),
        (lambda f: f.full_precision(np.zeros(3)), InputError, "values"),
        (lambda f: f.smoothed_target(CELLS, map_size=(0, 5)), InputError, "map_size"),
        (lambda f: f.smoothed_target(CELLS, map_size=5), InputError, "map_size"),
        (lambda f: f.smoothed_target(CELLS, map_size=(5, 5), kernel_size=2), InputError, "kernel_size"),
        (lambda f: f.smoothed_target(CELLS[0], map_size=(5, 5)), ShapeError, "target_cells"),
        (lambda f: f.upsampled_nearest_neighbor(CELLS[0], MAPS[0], CELLS[0, :, 0], CELLS[0, :, 0]), ShapeError, "queries"),
        (lambda f: f.upsampled_nearest_neighbor(torch.rand(3, 4), MAPS, CELLS[0, :, 0], CELLS[0, :, 0]), ShapeError, "target_features"),
        (lambda f: f.upsampled_nearest_neighbor(torch.rand(3, 4), MAPS[0], torch.zeros(0), CELLS[0, :, 0]), ShapeError, "columns"),
        (lambda f: f.interpolated_norm(MAPS[0], torch.tensor([NAN]), torch.zeros(1)), InputError, "finite"),
        (lambda f: f.interpolated_norm(MAPS[0], torch.zeros(1), torch.zeros(1, 1)), ShapeError, "rows"),
        (lambda f: f.interpolated_norm(MAPS, torch.zeros(1), torch.zeros(1)), ShapeError, "features"),
        (lambda f: f.co_pca(MAPS * NAN, MAPS, 2), NonFiniteError, "covariances"),
        (lambda f: f.weighted_concatenation([], [], []), InputError, "blocks"),
        (lambda f: f.weighted_concatenation([MAPS], [2], [1.0]), InputError, "blocks"),
        (lambda f: f.weighted_concatenation([MAPS], [1], [1.0, 2.0]), InputError, "2 weights"),
        (lambda f: f.weighted_concatenation([MAPS], [1], [NAN]), InputError, "weights"),
        (lambda f: f.weighted_concatenation([MAPS, MAPS[..., :3]], [2], [1.0]), ShapeError, r"values\[1\]"),
    ],
)  # fmt: skip
def test_other_functions_name_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call(functional)


def test_maps_of_two_precisions_are_computed_in_the_higher_one():
    assert functional.correlate(MAPS.half(), MAPS, CELLS).dtype == torch.float32
    values = functional.correlate(MAPS, MAPS.double(), CELLS)
    assert torch.equal(values, functional.correlate(MAPS.double(), MAPS.double(), CELLS))
    whole = torch.tensor([[[5, 2], [0, 0], [1, 4]]] * 2)
    assert torch.equal(functional.correlate(MAPS, MAPS, whole), functional.correlate(MAPS, MAPS, whole.float()))
    assert functional.sample_bilinear(MAPS.bfloat16(), CELLS).dtype == torch.float32


@pytest.mark.parametrize("bad", [(NAN, 0.13), (0.13, NAN), (INF, 2.0), (2.0, -INF)])
def test_a_query_of_which_one_coordinate_is_not_finite_is_cell_0_0(bad):
    features = torch.rand(1, 4, 5, 6)
    found = functional.sample_bilinear(features, torch.tensor([[bad, (0.0, 0.0)]]))
    assert torch.equal(found[0, 0], features[0, :, 0, 0])
    assert torch.equal(found[0, 0], found[0, 1])


def test_matches_of_authors_are_of_floats():
    correlation = random_correlation()
    for call in (matches_from_cells, matches_from_points):
        with pytest.raises(InputError, match="must be a tensor of floating-point numbers"):
            call(torch.ones(2, 3, 2, dtype=torch.int64), correlation, temperature=0.1)


def test_a_length_may_be_0_or_less_than_1_and_equality_is_correct_unless_said_otherwise():
    truth, seen = torch.zeros(3, 1, 2), torch.ones(3, 1, dtype=torch.bool)
    guess, length = torch.tensor([[[0.0, 0.0]], [[0.25, 0.0]], [[0.5, 0.0]]]), torch.tensor([0.0, 0.5, 0.5])
    assert correct_points(guess, truth, seen, length, alphas=[0.5]).flatten().tolist() == [True, True, False]
    assert pck(guess, truth, seen, length, alphas=[0.5]).dtype == torch.float32
    assert pck(guess.double(), truth, seen, length, alphas=[0.5]).flatten().tolist() == [1.0, 1.0, 0.0]
    assert pck(guess.double(), truth, seen, length, alphas=[0.5]).dtype == torch.float64


def test_all_cells_of_a_map_may_be_asked_for():
    found, values = functional.best_cells(VALUES, count=30, radius=0.0)
    assert torch.equal(values, VALUES.flatten(2).sort(dim=-1, descending=True).values)
    assert torch.equal(functional.best_cells(VALUES, count=1)[0][:, :, 0], functional.nearest_neighbor(VALUES))
    assert found.shape == (2, 3, 30, 2)
    near, _ = functional.best_cells(torch.tensor([[[[3.0, 2.0, 1.0, 0.0]]]]), count=2)
    assert near.tolist() == [[[[0.0, 0.0], [2.0, 0.0]]]]  # 1.5 cells away, if no radius is given


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int64])
def test_whole_numbers_count_as_floats_do(dtype):
    zero, one = torch.zeros(1, 1, 2, dtype=dtype), torch.tensor([[[3, 4]]], dtype=dtype)
    seen, length = torch.ones(1, 1, dtype=torch.bool), torch.tensor([640])
    assert pck(zero, one, seen, length, alphas=(0.001, 0.05)).tolist() == [[0.0, 1.0]]
    assert pck(zero, one, seen, length.to(dtype), alphas=(0.05,)).item() == 1.0


@pytest.mark.parametrize(
    ("length", "alpha", "distance"), [(100, 0.15, 15.0), (100, 0.05, 5.0), (200, 0.1, 20.0), (768, 0.125, 96.0)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_point_on_the_limit_counts_only_inclusively(length, alpha, distance, dtype):
    truth, seen = torch.zeros(1, 1, 2, dtype=dtype), torch.ones(1, 1, dtype=torch.bool)
    guess, lengths = torch.tensor([[[distance, 0.0]]], dtype=dtype), torch.tensor([float(length)], dtype=dtype)
    for inclusive in (True, False):
        found = correct_points(guess, truth, seen, lengths, alphas=(alpha,), inclusive=inclusive)
        assert found.item() is inclusive


def test_lengths_of_pairs_without_a_visible_point_have_no_influence():
    seen = torch.tensor([[True], [False]])
    result = pck(torch.zeros(2, 1, 2), torch.zeros(2, 1, 2), seen, torch.tensor([1.0, NAN]), alphas=(0.1,))
    assert result[0].item() == 1.0
    assert result[1].isnan()
