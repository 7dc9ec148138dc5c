"""Matchers that say "no match", against literal loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sd4match import Photo, SemanticMatcher
from sd4match.config import parse_config
from sd4match.errors import ComponentError, InputError
from sd4match.geometry import Grid, squash_frame
from sd4match.matching import (
    CycleConsistent,
    KernelSoftArgmax,
    Matches,
    Mutual,
    NearestNeighbor,
    RatioTest,
    Threshold,
    correlate_maps,
)
from sd4match.matching.checked import checked_matches
from sd4match.prompting import EmptyPrompt
from sd4match.structures.tensors import FeatureMap
from sd4match.testing import FakeBackbone, FakeTextEncoder, random_correlation, random_photo

seeds = st.integers(0, 10_000)


@given(seed=seeds, least=st.floats(0, 1))
@settings(max_examples=10)
def test_a_threshold_keeps_high_scores(seed, least):
    correlation = random_correlation(seed=seed)
    found, plain = Threshold(min_score=least)(correlation), KernelSoftArgmax()(correlation)
    assert torch.equal(found.points, plain.points)
    assert torch.equal(found.scores, plain.scores)
    assert torch.equal(found.valid, plain.scores >= least)


@given(seed=seeds)
@settings(max_examples=10)
def test_mutual_neighbors_are_each_others_best(seed):
    correlation = random_correlation(seed=seed)
    found = Mutual(inner=NearestNeighbor())(correlation)
    source, target = correlation.source, correlation.target
    for pair in range(found.valid.shape[0]):
        cells = source.grid.to_cells(correlation.query_points)[pair]
        for point in range(found.valid.shape[1]):
            x, y = correlation.peak[pair, point].long().tolist()
            there = target.values[pair, :, y, x]
            flat = source.values[pair].flatten(1)
            best = int((flat / flat.norm(dim=0) * there[:, None]).sum(0).argmax())
            back = torch.tensor([float(best % source.size[1]), float(best // source.size[1])])
            assert bool(found.valid[pair, point]) == bool(((back - cells[point]).abs() < 1).all())


@given(seed=seeds, cells=st.floats(0.5, 5))
@settings(max_examples=10)
def test_cycles_come_back(seed, cells):
    correlation = random_correlation(seed=seed)
    inner = KernelSoftArgmax()
    found = CycleConsistent(inner=inner, cells=cells)(correlation)
    back = inner(correlate_maps(correlation.target, correlation.source, inner(correlation).points)).points
    grid = correlation.source.grid
    away = (grid.to_cells(back) - grid.to_cells(correlation.query_points)).abs().amax(dim=-1)
    assert torch.equal(found.valid, away <= cells)


@given(seed=seeds, ratio=st.floats(0.1, 1), radius=st.floats(0.5, 3))
@settings(max_examples=10)
def test_the_ratio_test_is_lowes(seed, ratio, radius):
    correlation = random_correlation(seed=seed)
    valid = RatioTest(inner=NearestNeighbor(), ratio=ratio, radius=radius)(correlation).valid
    height, width = correlation.values.shape[-2:]
    for pair, point in ((0, 0), (1, 2)):
        values = correlation.values[pair, point]
        x, y = correlation.peak[pair, point].tolist()
        others = [
            float(values[row, column])
            for row in range(height)
            for column in range(width)
            if abs(row - y) > radius or abs(column - x) > radius
        ]
        best, other = float(values.max()), max(others)
        if abs((2 - 2 * best) - ratio**2 * (2 - 2 * other)) > 1e-5:
            assert bool(valid[pair, point]) == ((2 - 2 * best) <= ratio**2 * (2 - 2 * other))


def test_a_map_without_another_place_passes_the_ratio_test():
    assert RatioTest(radius=100, ratio=0.1)(random_correlation()).valid.all()


def test_the_ratio_test_wants_cosines():
    made = random_correlation()
    raw = correlate_maps(made.source, made.target, made.query_points, normalize=False)
    with pytest.raises(InputError, match="normalize=True"):
        RatioTest()(raw)


def test_rejections_are_nested_and_named_in_configs():
    config = parse_config(
        "{preset: mini-empty, matcher: {kind: threshold, min_score: 0.3, inner: {kind: cycle, inner: mutual}}}",
        origin="test",
    )
    assert config.matcher == Threshold(min_score=0.3, inner=CycleConsistent(inner=Mutual()))
    assert parse_config(config.to_yaml(), origin="again").matcher == config.matcher
    correlation = random_correlation()
    nested = config.matcher(correlation).valid
    assert not (nested & ~Mutual()(correlation).valid).any()


@pytest.mark.parametrize("way", ["cycle", "mutual"])
def test_a_match_back_that_is_rejected_does_not_come_back(way):
    class Half(NearestNeighbor):
        """Rejects matches in the right half of the small photo, which are those of the way back."""

        def __call__(self, correlation):
            matches = super().__call__(correlation)
            is_small = correlation.target.grid.frames[0].original_size == (40, 60)
            return Matches(matches.points, matches.scores, (matches.points[..., 0] < 30) | (not is_small))

    small = random_photo((40, 60), seed=1)
    large = Photo(small.pixels.repeat(2, axis=0).repeat(2, axis=1))
    backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    matcher = CycleConsistent.model_construct(inner=Half(), cells=1.5) if way == "cycle" else Half()
    matcher = SemanticMatcher(backbone=backbone, prompt=EmptyPrompt(backbone=backbone), matcher=matcher)
    found = matcher.match(small, large, [(8, 8), (20, 30), (40, 30), (52, 8)], mutual=way == "mutual")
    assert found.indices.tolist() == [0, 1]


def test_points_without_a_match_are_left_out_of_results():
    backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    parts = {"backbone": backbone, "prompt": EmptyPrompt(backbone=backbone)}
    photos = random_photo((40, 60), seed=1), random_photo((50, 44), seed=2)
    plain = SemanticMatcher(**parts, matcher=KernelSoftArgmax()).match(*photos)
    least = float(sorted(plain.scores)[30])
    found = SemanticMatcher(**parts, matcher=Threshold(min_score=least)).match(*photos)
    assert found.indices.tolist() == (plain.scores >= least).nonzero()[0].tolist()


def test_flags_are_checked():
    correlation = random_correlation()
    points = correlation.query_points

    def matcher(correlation):
        matches = Matches(points, torch.ones(points.shape[:2]))
        matches.valid = torch.ones(5)
        return matches

    with pytest.raises(ComponentError, match="one flag for each point"):
        checked_matches(matcher, correlation)


def one_match(source_cells, query, *, size=(5, 5)):
    """A correlation in which the query's match is target cell 0, and the match back is one of the source's cells."""
    grid = Grid((squash_frame((5, 5), (5, 5)),), size)
    source = torch.zeros(1, 2, *size)
    source[:, 1] = 1.0
    for (x, y), similarity in source_cells.items():
        source[0, :, y, x] = torch.tensor([similarity, (1 - similarity**2) ** 0.5])
    target = torch.zeros(1, 2, *size)
    target[:, 1] = -1.0
    target[0, :, 0, 0] = torch.tensor([1.0, 0.0])
    return correlate_maps(FeatureMap(source, grid), FeatureMap(target, grid), torch.tensor([[query]]))


@pytest.mark.parametrize(
    ("query", "is_mutual"),
    [((2.0, 2.0), True), ((2.5, 2.5), True), ((1.25, 2.0), True), ((3.0, 2.0), False), ((2.0, 1.0), False)],
)
def test_a_mutual_neighbor_is_less_than_a_cell_away(query, is_mutual):
    correlation = one_match({(2, 2): 0.9, (3, 2): 0.5, (2, 1): 0.5}, query)
    assert correlation.peak.tolist() == [[[0.0, 0.0]]]
    assert Mutual(inner=NearestNeighbor())(correlation).valid.item() is is_mutual


@pytest.mark.parametrize(
    ("query", "cells", "comes_back"),
    [((3.0, 2.0), 1.0, True), ((3.0, 2.0), 0.99, False), ((2.0, 3.0), 1.0, True), ((2.0, 3.0), 0.99, False)],
)
def test_a_cycle_ends_within_its_cells(query, cells, comes_back):
    correlation = one_match({(2, 2): 0.9, (3, 2): 0.5, (2, 3): 0.5}, query)
    assert CycleConsistent(inner=NearestNeighbor(), cells=cells)(correlation).valid.item() is comes_back


@pytest.mark.parametrize(("radius", "passes"), [(0.9, False), (1.0, True), (1.9, True)])
def test_another_place_begins_beyond_the_radius(radius, passes):
    made = random_correlation(batch=1, points=1, map_size=(3, 3))
    for neighbor in ((0, 1), (1, 0), (1, 1)):
        values = torch.full((1, 1, 3, 3), -1.0)
        values[..., 0, 0], values[(..., *neighbor)] = 0.9, 0.85
        correlation = type(made)(values, made.query_points, made.source, made.target)
        assert RatioTest(inner=NearestNeighbor(), radius=radius, ratio=0.5)(correlation).valid.item() is passes


@pytest.mark.parametrize(
    ("best", "other", "passes"), [(0.875, 0.5, True), (0.75, 0.5, False), (1.0, 1.0, True), (1.01, 1.0, True)]
)
def test_the_ratio_is_that_of_distances(best, other, passes):
    """(1 - 0.875) / (1 - 0.5) is the square of 0.5."""
    made = random_correlation(batch=1, points=1, map_size=(1, 9))
    values = torch.full((1, 1, 1, 9), -1.0)
    values[..., 0], values[..., 8] = best, other
    correlation = type(made)(values, made.query_points, made.source, made.target)
    assert RatioTest(inner=NearestNeighbor(), ratio=0.5)(correlation).valid.item() is passes
