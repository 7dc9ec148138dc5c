"""Pictures of matches: what is drawn is bounded, and what cannot be drawn is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

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
def test_photos_of_any_aspect_are_drawn_within_bounds(size):
    photo = Photo(np.zeros((*size, 3), dtype=np.uint8))
    point = np.zeros((1, 2))
    picture = draw_matches(photo, photo, point, point, height=100)
    assert picture.height == 100
    assert picture.width <= 2 * 800 + 12


def test_there_must_be_a_picture_to_stack():
    with pytest.raises(InputError, match="no picture"):
        stack([])
