"""Pictures of dense matches: colors are carried along the matches, and arrows point along them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sd4match.dense import DenseMatch
from sd4match.errors import InputError
from sd4match.geometry import Grid, own_frame, squash_frame
from sd4match.structures.images import Photo
from sd4match.viz import draw_correspondence, draw_dense, draw_warp
from sd4match.viz.colors import position_colors

SIZE = (80, 120)
FLAT = Photo(np.full((*SIZE, 3), 128, dtype=np.uint8), "flat")


def moved(shift, photo=FLAT, cells=(8, 12)):
    """Return the matches of a photo whose content moves by a shift, in x and y."""
    grid = Grid((own_frame(photo.size),), cells, "centers")
    still = DenseMatch(photo, photo, grid, np.zeros((*cells, 2)), np.ones(cells))
    return replace(still, target_points=still.source_points + shift)


def codes(match):
    """Return the pictures of colors of source and target, in the pixels of the photos."""
    picture = np.asarray(draw_correspondence(match, height=80))
    lower = picture[-80:]
    return lower[:, :120], lower[:, -120:]


def test_the_target_has_the_colors_of_its_places():
    _, own = codes(moved((0, 0)))
    x, y = 52, 27  # no line: parts of 15 and of 10 pixels
    color = position_colors(np.array((x + 0.5) / 120), np.array((y + 0.5) / 80))
    assert np.abs(own[y, x] - (0.75 * color + 0.25 * 128)).max() <= 1
    line = own[y, 60]
    assert (
        np.abs(line - (0.3 * (0.75 * position_colors(np.array(60.5 / 120), np.array(27.5 / 80)) + 32) + 178.5)).max()
        <= 1
    )


@pytest.mark.parametrize("shift", [(0, 0), (15, 0), (0, 10), (-15, 10)])
def test_colors_are_carried_to_the_source(shift):
    carried, own = codes(moved(shift))
    for x, y in [(52, 27), (63, 42), (78, 36)]:
        assert np.abs(carried[y, x].astype(int) - own[y + shift[1], x + shift[0]]).max() <= 1, (x, y)


def test_pixels_without_a_match_are_gray():
    match = moved((0, 0))
    valid = np.ones((8, 12), dtype=bool)
    valid[:4] = False
    carried, _ = codes(replace(match, valid=valid))
    assert (carried[:38] == 128).all()
    assert (carried[50:] != 128).any(axis=-1).all()


def test_a_warp_is_the_target_where_nothing_moves():
    photo = Photo(np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8), "noise")
    picture = np.asarray(draw_warp(moved((0, 0), photo), height=80))[-80:]
    third = 2 * (120 + 12)
    assert np.abs(picture[:, third : third + 120].astype(int) - photo.pixels).max() <= 1


def arrows(match):
    """Return where the last picture of `draw_dense` is not the gray photo."""
    return (np.asarray(draw_dense(match, height=80))[:, -120:] != 128).any(axis=-1)


def test_arrows_point_where_matches_lie():
    """The longest arrow is as long as arrows are apart, 12 pixels, and has its head, two more lines, at its end."""
    dots, right, left = (arrows(moved(way))[:, 12:24] for way in [(0, 0), (12, 0), (-12, 0)])
    assert dots.sum() < right.sum() / 2
    heights = [picture.sum(axis=0) for picture in (right, left)]
    assert heights[0][7:].sum() > 1.2 * heights[0][:5].sum()
    assert heights[1][7:].sum() < heights[1][:5].sum() / 1.2


def test_nothing_is_drawn_where_nothing_matches():
    match = moved((12, 0))
    assert not arrows(replace(match, valid=np.zeros((8, 12), dtype=bool))).any()


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 2000), (2000, 1)])
@pytest.mark.parametrize("draw", [draw_dense, draw_warp, draw_correspondence])
def test_photos_of_any_aspect_are_drawn_within_bounds(size, draw):
    photo = Photo(np.zeros((*size, 3), dtype=np.uint8), "odd")
    grid = Grid((squash_frame(size, (32, 32)),), (4, 4))
    match = DenseMatch(photo, photo, grid, np.zeros((4, 4, 2)), np.ones((4, 4)))
    picture = draw(match, height=60)
    assert picture.width <= 4 * 144 + 3 * 12
    assert picture.height <= 2 * 60 + 4 * 60


def test_four_pictures_of_wide_photos_make_two_rows():
    match = moved((0, 0), Photo(np.zeros((40, 100, 3), dtype=np.uint8), "wide"))
    assert draw_dense(match, height=80).size == (2 * 192 + 12, 2 * 77 + 12)


@pytest.mark.parametrize("draw", [draw_warp, draw_correspondence])
def test_a_height_out_of_bounds_is_refused(draw):
    with pytest.raises(InputError, match="height"):
        draw(moved((0, 0)), height=0)
