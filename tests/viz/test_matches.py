"""Pictures of matches: what is drawn is bounded, and what cannot be drawn is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from helpers.direct import no_type_checker  # noqa: F401 - a fixture of all tests here
from sd4match.errors import InputError
from sd4match.structures.images import Photo
from sd4match.testing import random_photo
from sd4match.viz import draw_matches, stack

PHOTO, POINTS = random_photo((40, 60)), np.array([[5.0, 5.0], [50.0, 30.0]])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30, -1e9])
@pytest.mark.parametrize("name", ["source_points", "target_points", "truth"])
def test_points_that_no_line_can_reach_are_refused(name, value):
    points = {"source_points": POINTS, "target_points": POINTS, name: np.array([[5.0, 5.0], [value, 30.0]])}
    with pytest.raises(InputError, match=f"{name} must be finite and not farther"):
        draw_matches(PHOTO, PHOTO, **points)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_points": POINTS[:1]}, "target_points for 2 source_points, got 1"),
        ({"source_points": POINTS[0]}, "source_points must be"),
        ({"source_points": "ab"}, "source_points must be"),
        ({"target_points": np.zeros((2, 3))}, "target_points must be"),
        ({"hits": [True]}, "hits for 2"),
        ({"scores": [0.5]}, "scores for 2"),
        ({"scores": [0.5, math.nan]}, "scores must be finite"),
        ({"height": 0}, "height"),
        ({"height": 10**6}, "height"),
    ],
)
def test_what_does_not_go_together_is_named(changes, message):
    with pytest.raises(InputError, match=message):
        draw_matches(PHOTO, PHOTO, **{"source_points": POINTS, "target_points": POINTS, **changes})


@pytest.mark.parametrize("size", [(1, 20000), (2, 3000), (20000, 1), (1, 1)])
@pytest.mark.parametrize("other", [(40, 60), None])
def test_photos_of_any_aspect_are_drawn_within_bounds(size, other):
    photo = Photo(np.zeros((*size, 3), dtype=np.uint8))
    point = np.zeros((1, 2))
    picture = draw_matches(photo, random_photo(other) if other else photo, point, point, height=100)
    assert 50 <= picture.height <= 100 + 12 + 100 + 2 * 8
    assert 50 <= picture.width <= 2 * 240 + 12 + 2 * 8


def test_a_wide_photo_lies_above_the_other():
    """Beside it, three fifths of the picture would be white; narrow photos stand so that lines can be seen."""
    wide, photo, tall = (random_photo(size) for size in ((60, 3000), (240, 320), (3000, 60)))
    none = np.empty((0, 2))
    sizes = [draw_matches(a, b, none, none).size for a, b in [(wide, photo), (wide, wide), (tall, tall)]]
    assert sizes == [(1152, 23 + 12 + 480), (1152, 240), (240, 480)]


@pytest.mark.parametrize("corner", [(0.0, 0.0), (59.0, 0.0), (0.0, 39.0), (59.0, 39.0)])
@pytest.mark.parametrize("hit", [True, False, None])
def test_marks_on_the_border_are_whole(hit, corner):
    """In a margin all around, which is white beside them."""
    hits = None if hit is None else [hit]
    gray = Photo(np.full((40, 60, 3), 128, dtype=np.uint8))
    marked = np.asarray(draw_matches(gray, gray, [corner], [corner], hits=hits, truth=[corner], height=160))
    margin = (marked.shape[0] - 160) // 2
    assert marked.shape == (160 + 2 * margin, 2 * 240 + 12 + 2 * margin, 3)
    assert 4 <= margin <= 8
    x, y = (round((place + 0.5) * 4) + margin for place in corner)
    ring = marked[y - 3 : y + 4, x - 3 : x + 4]
    assert ring.shape == (7, 7, 3)
    assert (ring != 128).any(axis=-1).mean() > 0.7


def test_stacked_pictures_have_text_of_one_size():
    """A picture of half the width is drawn twice as large; one of a tenth only three times."""
    wide, half, narrow = (Image.new("RGB", (width, 100), "red") for width in (1000, 500, 100))
    picture = stack([wide, half, narrow])
    assert picture.size == (1000, 100 + 12 + 200 + 12 + 300)
    assert picture.getpixel((990, 300)) == picture.getpixel((290, 400)) == (255, 0, 0)
    assert picture.getpixel((310, 400)) == (255, 255, 255)


def test_there_must_be_a_picture_to_stack():
    with pytest.raises(InputError, match="no picture"):
        stack([])
