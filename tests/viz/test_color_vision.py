"""Colors of all pictures, seen by simulated eyes: they stay apart, and light stays light."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from helpers.color_vision import VISIONS, distance, lightness, seen_as_lab
from sd4match.geometry import Grid, own_frame
from sd4match.structures.images import Photo
from sd4match.viz import draw_heat_map, draw_matches
from sd4match.viz.colors import CYCLE, HIT, MISS, position_colors
from sd4match.viz.features import feature_colors
from sd4match.viz.layout import heat_colors

GRAY = Photo(np.full((80, 120, 3), 128, dtype=np.uint8))
everyone = pytest.mark.parametrize("vision", VISIONS)


def test_the_simulation_is_that_of_the_literature():
    assert np.allclose(seen_as_lab((255, 0, 0), "trichromacy"), [53.24, 80.09, 67.20], atol=0.01)
    for vision, matrix in VISIONS.items():
        assert np.allclose(matrix.sum(axis=1), 1, atol=2e-6), vision  # gray stays gray
    assert (
        distance((230, 60, 60), (90, 110, 40), "deuteranopia")
        < distance((230, 60, 60), (90, 110, 40), "trichromacy") / 2
    )


@everyone
def test_colors_of_the_palette_are_apart(vision):
    """A just noticeable difference is 2.3."""
    assert min(distance(first, second, vision) for first, second in combinations(CYCLE, 2)) > 15


@everyone
def test_a_higher_value_is_lighter(vision):
    steps = lightness(heat_colors(np.linspace(0, 1, 33)), vision)
    assert (np.diff(steps) > 1).all()
    assert steps[-1] - steps[0] > 70


@everyone
def test_a_heat_map_is_lighter_where_its_value_is_higher(vision):
    values = np.linspace(0.2, 0.9, 6)[None].repeat(4, axis=0)
    picture = draw_heat_map(GRAY, values, Grid((own_frame(GRAY.size),), (4, 6), "centers"), height=80, legend=False)
    row = lightness(np.asarray(picture)[40, 10:110:5], vision)
    assert (np.diff(row) > 0.5).all()


@everyone
def test_colors_of_positions_are_apart(vision):
    """Places a quarter of the picture apart differ, and below is always darker."""
    x, y = np.meshgrid(np.linspace(0, 1, 9), np.linspace(0, 1, 9))
    colors = position_colors(x, y)
    assert (np.diff(lightness(colors, vision), axis=0) < -3).all()
    places, flat = np.stack([x, y], axis=-1).reshape(-1, 2), colors.reshape(-1, 3)
    apart = np.abs(places[:, None] - places[None]).max(axis=-1) >= 0.25
    assert distance(flat[:, None], flat[None], vision)[apart].min() > (5 if vision == "tritanopia" else 10)
    assert (distance(colors[:, 0], colors[:, -1], vision) > 60).all()


@everyone
def test_the_first_component_is_lightness_and_the_second_is_seen_by_all(vision):
    steps = np.full((9, 3), 0.5)
    steps[:, 0] = np.linspace(0, 1, 9)
    assert (np.diff(lightness(feature_colors(steps), vision)) > 5).all()
    low, high = feature_colors(np.array([[0.5, 0.0, 0.5], [0.5, 1.0, 0.5]]))
    assert distance(low, high, vision) > 40


@everyone
def test_hits_and_misses_differ_by_color_and_by_form(vision):
    """The white border of a line is whole for a hit and dashed for a miss; its ends are filled, or open."""
    points, found = np.array([[20.0, 40.0]]), np.array([[100.0, 40.0]])
    hit, miss = (np.asarray(draw_matches(GRAY, GRAY, points, found, hits=[flag], height=480)) for flag in (True, False))
    x, y = round(20.5 * 6), round(40.5 * 6)
    solid, dashed = (lightness(picture[y - 4 : y + 5, x + 12 : 700], vision).max(axis=0) for picture in (hit, miss))
    assert np.ptp(solid) == 0
    assert np.ptp(dashed) > 40
    disc, square = (lightness(picture[y, x], vision) for picture in (hit, miss))
    assert square - disc > 30
    assert distance(HIT, MISS, vision) > 90
