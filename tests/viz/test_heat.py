"""Heat maps: the color of a pixel follows from the values of the cells around it, and from nothing off the photo."""

from __future__ import annotations

from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image

from helpers.direct import no_type_checker  # noqa: F401 - a fixture of all tests here
from sd4match.errors import InputError, NonFiniteError, ShapeError
from sd4match.geometry import Grid, own_frame, pad_frame, squash_frame
from sd4match.structures.images import Photo
from sd4match.testing import random_correlation, random_photo
from sd4match.viz import draw_heat_map, draw_heat_maps
from sd4match.viz.heat import heat_panel
from sd4match.viz.layout import (
    Mark,
    Panel,
    at_height,
    columns_for,
    fitted,
    font_of,
    in_rows,
    limit_texts,
    line_height,
    text_size,
)

PHOTO = random_photo((40, 60))
GRID = Grid((own_frame((40, 60)),), (2, 3), "centers")
VALUES = np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])


def expected(share, gray):
    """The formula: 65 % of cividis, 35 % of the photo in gray."""
    return np.rint(0.65 * np.array(mpl.colormaps["cividis"](share, bytes=True)[:3]) + 0.35 * gray)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_pixel_has_the_color_of_its_value(as_tensor):
    values = torch.from_numpy(VALUES).float() if as_tensor else VALUES
    picture = np.asarray(draw_heat_map(PHOTO, values, GRID, height=40, legend=False))
    gray = np.asarray(PHOTO.to_image().convert("L"))
    assert picture.shape == (40, 60, 3)
    # centers of the cells lie at x = 9.5, 29.5, 49.5 and y = 9.5, 29.5; values rise by 1 per column, 3 per row
    for x, y in [(0, 0), (15, 9), (30, 20), (47, 29), (59, 39)]:
        value = (min(max(x, 9.5), 49.5) - 9.5) / 20 + 3 * (min(max(y, 9.5), 29.5) - 9.5) / 20
        assert np.abs(picture[y, x] - expected(value / 5, gray[y, x])).max() <= 1, (x, y)


def test_cells_in_the_padding_take_no_part():
    """Rows 0 and 3 of 4 are padding: whatever they hold, the picture is the same, and so are its limits."""
    photo = random_photo((50, 100))
    grid = Grid((pad_frame(photo.size, 96),), (4, 4), "centers")
    values = np.arange(16.0).reshape(4, 4)
    wild = values.copy()
    wild[[0, 3]] = [[-1e6], [1e6]]
    pictures = [np.asarray(draw_heat_map(photo, each, grid, height=50)) for each in (values, wild)]
    assert np.array_equal(*pictures)
    plain = np.asarray(draw_heat_map(photo, values, grid, height=50, legend=False))
    gray = np.asarray(photo.to_image().convert("L"))
    assert np.abs(plain[0, 0] - expected(0.0, gray[0, 0])).max() <= 1  # of cell (1, 0), the first on the photo
    assert np.abs(plain[-1, -1] - expected(1.0, gray[-1, -1])).max() <= 1


def test_masked_cells_are_hatched_and_do_not_bleed():
    values = VALUES.copy()
    values[0, 0] = -np.inf
    picture = np.asarray(draw_heat_map(PHOTO, values, GRID, height=40, legend=False))
    corner = picture[:19, :19]
    assert (corner.min(axis=-1) == corner.max(axis=-1)).all()  # gray
    assert (corner == 255).any()
    gray = np.asarray(PHOTO.to_image().convert("L"))
    assert np.abs(picture[9, 55] - expected((2 - 1) / (5 - 1), gray[9, 55])).max() <= 1


def test_a_flat_map_is_dark():
    picture = np.asarray(draw_heat_map(PHOTO, np.ones((2, 3)), GRID, height=40, legend=False))
    gray = np.asarray(PHOTO.to_image().convert("L"))
    assert np.abs(picture[5, 5] - expected(0.0, gray[5, 5])).max() <= 1


@pytest.mark.parametrize("mark", ["point", "truth"])
def test_marks_lie_on_their_points(mark):
    plain, marked = (
        np.asarray(draw_heat_map(PHOTO, VALUES, GRID, height=160, legend=False, **marks))
        for marks in ({}, {mark: (30.0, 20.0)})
    )
    rows, columns = np.nonzero((plain != marked).any(axis=-1))
    assert abs((rows.min() + rows.max()) / 2 - 20.5 * 4) <= 1
    assert abs((columns.min() + columns.max()) / 2 - 30.5 * 4) <= 1
    assert (marked[rows, columns] == 255).all(axis=-1).any()
    assert (marked[rows, columns] == 0).all(axis=-1).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 2)])
def test_photos_of_any_aspect_are_drawn_within_bounds(size):
    photo = Photo(np.zeros((*size, 3), dtype=np.uint8))
    grid = Grid((squash_frame(size, (32, 32)),), (4, 4))
    picture = draw_heat_map(photo, np.arange(16.0).reshape(4, 4), grid, point=(0.0, 0.0), height=100, title="t")
    assert picture.width <= 240 + 2 * 11
    assert picture.height <= 100 + 2 * 30 + 2 * 11


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"values": VALUES.T}, ShapeError, r"values must be \(2, 3\)"),
        ({"values": VALUES * np.nan}, NonFiniteError, "values must be finite"),
        ({"values": VALUES + np.array([[np.inf], [0.0]])}, NonFiniteError, "values must be finite"),
        ({"values": VALUES - np.inf}, NonFiniteError, "values must be finite"),
        ({"grid": Grid((own_frame((40, 61)),), (2, 3))}, ShapeError, "the grid must be of random-0 alone"),
        ({"grid": Grid((own_frame((40, 60)),) * 2, (2, 3))}, ShapeError, "the grid must be of random-0 alone"),
        ({"point": (1.0, np.nan)}, InputError, "point must be finite"),
        ({"truth": (1e9, 0.0)}, InputError, "truth must be finite and not farther"),
        ({"point": (1.0, 2.0, 3.0)}, InputError, r"point must be \(N, 2\)"),
        ({"height": 0}, InputError, "height"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_named(changes, error, message):
    with pytest.raises(error, match=message):
        draw_heat_map(**{"photo": PHOTO, "values": VALUES, "grid": GRID, **changes})


@pytest.fixture
def pair():
    correlation = random_correlation(batch=1)
    frames = [side.grid.frames[0].original_size for side in (correlation.source, correlation.target)]
    return random_photo(frames[0]), random_photo(frames[1], seed=1), correlation


def test_maps_stand_beside_the_source_in_their_order(pair):
    source, target, correlation = pair
    other = replace(correlation, values=-correlation.values)
    picture = draw_heat_maps(source, target, {"a": correlation, "b": other}, query=1, height=200)
    seen, size = np.asarray(picture), text_size(picture.width)
    margin = ((picture.width - 2 * 12) // 3 - 300) // 2
    assert picture.size == (3 * (300 + 2 * margin) + 2 * 12, 200 + 2 * margin + 2 * line_height(size))
    for number, values in enumerate([None, correlation.values, other.values]):
        plain = at_height(source, 200)
        if values is not None:
            plain = draw_heat_map(target, values[0, 1], correlation.target.grid, height=200, legend=False)
        left = margin + number * (300 + 2 * margin + 12)
        own = seen[line_height(size) + margin :, left : left + 300][:200]
        same = (own == np.asarray(plain)).all(axis=-1)
        assert 0.97 < same.mean() < 1  # all but the ring


def test_four_panels_make_two_rows(pair):
    source, target, correlation = pair
    wide = draw_heat_maps(source, target, dict.fromkeys("ab", correlation), height=200)
    high = draw_heat_maps(source, target, dict.fromkeys("abc", correlation), height=200)
    assert wide.width > high.width
    assert high.height > 2 * 200


@pytest.mark.parametrize(
    ("names", "query", "error", "message"),
    [
        ((), 0, InputError, "one prompt or more"),
        (("own",), 99, InputError, "query"),
        (("own", "elsewhere"), 0, InputError, "point 0 of 'elsewhere' is another"),
        (("two",), 0, ShapeError, "'two' must be of this pair of photos alone"),
    ],
)
def test_correlations_that_do_not_go_together_are_named(pair, names, query, error, message):
    source, target, own = pair
    known = {
        "own": own, "elsewhere": replace(own, query_points=own.query_points + 1.0), "two": random_correlation(batch=2),
    }  # fmt: skip
    with pytest.raises(error, match=message):
        draw_heat_maps(source, target, {name: known[name] for name in names}, query=query)


def test_texts_fit():
    assert fitted("short", 400, 14) == "short"
    assert fitted("a" * 500, 100, 14).endswith("...")
    assert fitted("a" * 1_000_000, 0, 14) == "a..."
    assert fitted("two\nlines", 400, 14) == "two lines"


def test_all_limits_of_a_picture_have_one_notation():
    assert limit_texts([(0.14378, 0.88712), (-0.00004, 0.0512)]) == [("0.144", "0.887"), ("0.000", "0.051")]
    assert limit_texts([(-12345.0, 23456.0), None]) == [("-1.23e4", "2.35e4"), None]
    assert limit_texts([(0.0, 0.4), (6.57e-7, 0.001)]) == [("0", "4.00e-1"), ("6.57e-7", "1.00e-3")]
    assert limit_texts([(0.0, 0.0)]) == [("0.00", "0.00")]
    assert limit_texts([None]) == [None]


@pytest.mark.parametrize("corner", [(0.0, 0.0), (59.0, 0.0), (0.0, 39.0), (59.0, 39.0)])
@pytest.mark.parametrize("mark", ["point", "truth"])
def test_a_mark_on_the_border_is_whole(mark, corner):
    """In a margin around the photo, which is as wide as the mark needs."""
    inside, border = (
        np.asarray(draw_heat_map(Photo(np.full((40, 60, 3), 128, dtype=np.uint8)), np.ones((2, 3)), GRID,
                                 height=160, legend=False, **{mark: point}))
        for point in ((30.0, 20.0), corner)
    )  # fmt: skip
    assert inside.shape == (160, 240, 3)
    margin = (border.shape[0] - 160) // 2
    assert border.shape == (160 + 2 * margin, 240 + 2 * margin, 3)
    assert 8 <= margin <= 11
    x, y = (round((place + 0.5) * 4) + margin for place in corner)
    whole, own = (image[top - 7 : top + 8, left - 7 : left + 8] for image, top, left in [
        (inside, round(20.5 * 4), round(30.5 * 4)), (border, y, x)
    ])  # fmt: skip
    assert np.array_equal((own == 0).all(axis=-1), (whole == 0).all(axis=-1))


def test_marks_grow_with_the_picture_and_leave_room_beside_every_panel():
    """A ring of half the height of the text: about 14 pixels wide where a page shows the picture 800 pixels wide."""
    panels = [Panel(Image.new("RGB", (600, 300)), marks=(Mark(np.array([0.0, 150.0])),))]
    panels += [Panel(Image.new("RGB", (600, 300), "white"))] * 2
    picture = np.asarray(in_rows(panels))
    radius = text_size(picture.shape[1]) // 2
    assert radius >= 17
    margin = radius + 4
    assert picture.shape == (300 + 2 * margin, 3 * (600 + 2 * margin) + 2 * 12, 3)
    rows, columns = np.nonzero((picture[:, :margin] != 255).any(axis=-1))
    assert columns.min() == 2  # the black border reaches two pixels beyond the radius
    assert rows.max() - rows.min() == 2 * (radius + 2)
    assert (picture[:, margin + 600 :] == 255).all()


@pytest.mark.parametrize("limits", [(-1.23456e-12, 9.87654e-12), (-0.123, 0.987)])
@pytest.mark.parametrize("width", [1, 30, 300])
def test_the_limits_of_neighbors_do_not_touch(width, limits):
    """Each has white below the photos between its two numbers and those of its neighbors."""
    panels = [Panel(Image.new("RGB", (2400, 40)), "wide"), *[Panel(Image.new("RGB", (width, 100)), "a", limits)] * 2]
    picture = in_rows(panels, columns=3)
    size = text_size(picture.width)
    assert size >= picture.width / 55 - 1
    (texts,) = limit_texts([limits])
    needed = sum(font_of(size).getlength(text) for text in texts)
    assert (picture.width - 2400 - 2 * 12) / 2 >= needed + size


def test_wide_photos_are_drawn_below_each_other():
    """A photo beside one of 768 x 15 pixels would be a seventh of the width of a page, in a white picture."""
    wide = random_photo((60, 3000))
    grid = Grid((squash_frame(wide.size, (32, 32)),), (4, 4))
    source = Panel(at_height(random_photo((240, 320)), 320), "source")
    panel = heat_panel(wide, np.arange(16.0).reshape(4, 4), grid, "map", height=320)
    assert panel.picture.size == (768, 15)
    pictures = [in_rows([source, *[panel] * count]) for count in (1, 2, 3)]
    assert [picture.width for picture in pictures] == [768] * 3
    assert columns_for([(427, 320)] * 3) == 3
    assert columns_for([(427, 320), (240, 320), (768, 320)]) == 3
    assert columns_for([(6, 320)] * 3) == 3


def test_narrow_photos_leave_room_for_titles_and_captions():
    tall = Panel(Image.new("RGB", (6, 320)), "source photo")
    picture = in_rows([tall], title="mini: similarity to the eye of a fish")
    font = font_of(text_size(picture.width))
    assert picture.width > font.getlength("mini: similarity to the eye of a fish") + 4
    assert in_rows([tall]).width >= font.getlength("source photo") + 4
    assert in_rows([tall], title="long " * 100).width == 400
