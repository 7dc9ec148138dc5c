"""Every strategy finds its edges, keeps its bounds, and shrinks to what its docstring says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from sd4match import testing
from sd4match.geometry import Grid, squash_frame

SEARCH = settings(
    max_examples=2000, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


def is_found(strategy, condition):
    """Return whether hypothesis finds an example within 2,000; without shrinking it."""
    try:
        find(strategy, condition, settings=settings(SEARCH, phases=[Phase.generate]))
    except NoSuchExample:
        return False
    return True


def simplest(strategy, condition=lambda example: True):
    return find(strategy, condition, settings=settings(SEARCH, phases=[Phase.generate, Phase.shrink]))


def ties(values):
    flat = values.flatten()
    return len(flat) > len(flat.unique())


def best_cells(values):
    """Return how many cells of each query share its best value."""
    return (values == values.amax((2, 3), keepdim=True)).sum((2, 3))


VALUES = testing.values((2, 3))
GRIDS = testing.grids()
MAPS = testing.feature_maps(mask=True)
POINTS = testing.points((3,), (24, 32), margin=2.0)
MANY = testing.correlations()
PEAKED = testing.correlations(peaked=True, max_points=1, min_side=2, max_side=4)
BATCHES = testing.pair_batches()
PROTOCOLS = testing.protocols()
EXPERIMENTS = testing.experiment_configs()

EDGES = {
    "values: all zeros": (VALUES, lambda v: not v.any()),
    "values: a zero among others": (VALUES, lambda v: v.any() and not v.all()),
    "values: the upper bound": (VALUES, lambda v: (v == 1).any()),
    "values: the lower bound": (VALUES, lambda v: (v == -1).any()),
    "values: between the bounds": (VALUES, lambda v: ((v != 0) & (v.abs() < 1)).any()),
    "values: ties": (VALUES, ties),
    "values: no ties": (VALUES, lambda v: not ties(v)),
    "values: other bounds": (testing.values((2,), low=2.0, high=3.0), lambda v: (v == 2).any() and (v == 3).any()),
    "values: NaN": (testing.values((2, 3), nan=True), lambda v: v.isnan().any()),
    "sizes: one cell": (testing.sizes(), lambda s: s == (1, 1)),
    "sizes: one row": (testing.sizes(), lambda s: s[0] == 1 < s[1]),
    "sizes: one column": (testing.sizes(), lambda s: s[1] == 1 < s[0]),
    "sizes: a square": (testing.sizes(max_side=9), lambda s: s[0] == s[1] > 1),
    "sizes: the largest side": (testing.sizes(max_side=9), lambda s: 9 in s),
    "photos: black and white pixels": (testing.photos(), lambda p: {0, 255} <= set(p.pixels.ravel().tolist())),
    "photos: all pixels equal": (testing.photos(min_side=2), lambda p: p.pixels.min() == p.pixels.max()),
    "photos: one pixel marked": (testing.photos(min_side=2, mask=True), lambda p: p.mask.sum() == 1),
    "photos: all pixels marked": (testing.photos(min_side=2, mask=True), lambda p: p.mask.all()),
    "frames: padded": (testing.frames(), lambda f: f.scale[0] == f.scale[1] and f.offset != (0.0, 0.0)),
    "frames: squashed": (testing.frames(), lambda f: f.scale[0] != f.scale[1]),
    "frames: as large as the photo": (testing.frames(), lambda f: f.original_size == f.model_size),
    "grids: one cell": (GRIDS, lambda g: g.size == (1, 1)),
    "grids: several photos": (GRIDS, lambda g: len(g) == 3),
    "grids: cells of one pixel": (GRIDS, lambda g: g.frames[0].model_size == g.size),
    **{f"grids: {name}": (GRIDS, lambda g, name=name: g.alignment == name) for name in ("corners", "centers", "patch")},
    "feature_maps: a cell of zeros": (MAPS, lambda m: (m.values == 0).all(dim=1).any() and m.values.any()),
    "feature_maps: equal cells": (MAPS, lambda m: m.size[1] > 1 and (m.values[..., 0] == m.values[..., 1]).all()),
    "feature_maps: a masked cell": (MAPS, lambda m: m.mask is not None and not m.mask.all()),
    "feature_maps: no mask": (MAPS, lambda m: m.mask is None),
    "feature_maps: NaN": (testing.feature_maps(nan=True), lambda m: m.values.isnan().any()),
    "points: a corner": (POINTS, lambda p: (p == torch.tensor([31.0, 23.0])).all(dim=1).any()),
    "points: outside": (POINTS, lambda p: (p < 0).any()),
    "points: a whole cell": (POINTS, lambda p: ((p == p.round()) & (p > 0) & (p < 23)).all(dim=1).any()),
    "points: between cells": (POINTS, lambda p: (p != p.round()).any()),
    "points: the same twice": (POINTS, lambda p: (p[0] == p[1]).all()),
    "cells: the border": (testing.cells(1, 2, (5, 5)), lambda c: (c == 4).any()),
    "visibility: all": (testing.visibility(2, 2), lambda v: v.all()),
    "visibility: none of one photo": (testing.visibility(2, 2), lambda v: (v.any(dim=1).tolist() == [False, True])),
    "keypoints: all visible": (testing.keypoints(), lambda k: k.visible.all() and k.visible.numel() > 1),
    "keypoints: on the last pixel": (testing.keypoints(), lambda k: (k.points == torch.tensor([31.0, 23.0])).any()),
    "boxes: the whole photo": (testing.boxes((24, 32)), lambda b: b == (0, 0, 32, 24)),
    "boxes: one pixel": (testing.boxes((24, 32)), lambda b: (b[2] - b[0], b[3] - b[1]) == (1, 1)),
    "boxes: at the lower right": (testing.boxes((24, 32)), lambda b: b[:2] == (31, 23)),
    "correlations: two best cells": (MANY, lambda c: best_cells(c.values).max() > 1),
    "correlations: all zeros": (MANY, lambda c: not c.values.any()),
    "correlations: a cosine of one": (MANY, lambda c: (c.values > 0.999).any()),
    "correlations: peak in the last cell": (PEAKED, lambda c: (c.values[..., -1, -1] == 1).any()),
    "correlations: NaN": (testing.correlations(nan=True), lambda c: c.values.isnan().any()),
    "pair_batches: a pair without a visible point": (BATCHES, lambda b: not b.source_points.visible.any(dim=1).all()),
    "pair_batches: equal categories": (BATCHES, lambda b: len(b.source.categories) > len(set(b.source.categories))),
    "pair_batches: no category": (testing.pair_batches(categories=False), lambda b: b.source.categories[0] is None),
    **{
        f"protocols: {field} {value}": (PROTOCOLS, lambda p, field=field, value=value: getattr(p, field) == value)
        for field, value in (
            ("error_frame", "photo"), ("error_frame", "pad"), ("inclusive", True), ("clamp_truth", True),
            ("reference", "box"), ("alignment", "patch"), ("query_mode", "pixel"), ("average", "category_point"),
        )
    },
    **{
        f"prompt_configs: {kind}": (testing.prompt_configs(), lambda c, kind=kind: c.kind == kind)
        for kind in ("empty", "text", "single", "class")
    },
    "prompt_configs: most tokens": (testing.prompt_configs(), lambda c: getattr(c, "num_tokens", 0) == 14),
    "experiment_configs: a learned prompt": (EXPERIMENTS, lambda c: c.prompt.kind == "single"),
    "experiment_configs: a matcher around another": (EXPERIMENTS, lambda c: c.matcher.kind == "mutual"),
    "experiment_configs: one step": (EXPERIMENTS, lambda c: c.training.steps == 1),
}  # fmt: skip


@pytest.mark.parametrize("edge", EDGES)
def test_edges_are_found(edge):
    strategy, condition = EDGES[edge]
    assert is_found(strategy, condition)


def test_an_example_that_does_not_exist_is_not_found():
    assert not is_found(testing.visibility(1, 2), lambda v: v.shape == (2, 1))


def test_shrinks_to_the_simplest():
    assert not simplest(VALUES).any()
    assert simplest(testing.values((2,), low=2.0, high=3.0)).tolist() == [2.0, 2.0]
    assert simplest(testing.sizes(min_side=3)) == (3, 3)
    photo = simplest(testing.photos(mask=True))
    assert (photo.size, photo.pixels.max()) == ((1, 1), 0)
    assert simplest(testing.frames()) == squash_frame((1, 1), (1, 1))
    assert simplest(GRIDS) == Grid((squash_frame((1, 1), (1, 1)),), (1, 1), "corners")
    found = simplest(MAPS)
    assert (found.values.tolist(), found.mask) == ([[[[0.0]]]], None)
    assert simplest(POINTS).tolist() == [[0.0, 0.0]] * 3
    assert not simplest(testing.visibility(2, 2)).any()
    keypoints = simplest(testing.keypoints())
    assert (keypoints.points.tolist(), keypoints.visible.tolist()) == ([[[0.0, 0.0]]], [[False]])
    assert simplest(testing.boxes((24, 32))) == (0.0, 0.0, 32.0, 24.0)
    correlation = simplest(MANY)
    assert (correlation.values.shape, correlation.query_points.tolist()) == ((1, 1, 1, 1), [[[0.0, 0.0]]])
    batch = simplest(BATCHES)
    assert (batch.source_points.points.shape, batch.source.categories) == ((1, 1, 2), ("cat",))
    protocol = simplest(PROTOCOLS)
    assert (protocol.frame, protocol.error_frame, protocol.alphas) == ("squash", "squash", (0.05,))
    assert simplest(testing.prompt_configs()).kind == "empty"
    assert simplest(EXPERIMENTS).prompt.kind == "empty"


def test_shrinks_a_failure_to_its_cause():
    assert (simplest(testing.values((3, 3)), lambda v: v[1, 1] > 0.25) == 1).all()
    found = simplest(testing.values((3, 3)), lambda v: v[1, 1] > 0.25 and not v[0].any())
    assert sorted(found.flatten().tolist()) == [0.0] * 8 + [1.0]
    found = simplest(testing.keypoints(), lambda k: k.visible.any())
    assert (found.points.shape, found.points.any().item()) == ((1, 1, 2), False)


@given(st.data())
def test_bounds_are_kept(data):
    low, high = sorted(data.draw(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=2)))
    drawn = data.draw(testing.values((4,), low=low, high=high))
    assert ((drawn >= low) & (drawn <= high)).all()
    side = data.draw(testing.sizes(min_side=2, max_side=5))
    assert all(2 <= each <= 5 for each in side)
    left, top, right, bottom = data.draw(testing.boxes(side))
    assert 0 <= left < right <= side[1]
    assert 0 <= top < bottom <= side[0]
    points = data.draw(testing.points((3,), side))
    assert ((points >= 0) & (points <= torch.tensor([side[1] - 1, side[0] - 1]))).all()
    assert (data.draw(testing.correlations(peaked=True)).values.amax((2, 3)) == 1).all()


@given(testing.prompt_configs())
def test_a_prompt_of_a_drawn_config_is_built(config):
    backbone = testing.FakeBackbone(text_encoder=testing.FakeTextEncoder())
    assert config.build(backbone=backbone).config == config
