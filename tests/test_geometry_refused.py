"""What geometry refuses, and how it treats whole numbers and half precision."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.direct import no_type_checker  # noqa: F401 - a fixture of all tests here
from sd4match.errors import InputError, ShapeError
from sd4match.geometry import (
    Grid,
    ImageFrame,
    cells_to_pixels,
    grid_points,
    mask_to_cells,
    mask_to_model,
    own_frame,
    pad_frame,
    padded_size,
    pixels_to_cells,
    squash_frame,
    to_model,
    to_photo,
)

FRAME = squash_frame((200, 100), (96, 96))
GRID = Grid((FRAME, FRAME), (24, 24))
POINTS = torch.tensor([[[50.0, 20.0]], [[3.0, 4.0]]])


@pytest.mark.parametrize(
    "size", [(0, 5), (5, -1), (5.0, 5), (True, 5), (5,), (5, 5, 5), [5, 5], "55", None, 5, (10**400, 5)]
)
@pytest.mark.parametrize(
    "call",
    [
        lambda size: squash_frame(size, (9, 9)),
        lambda size: squash_frame((9, 9), size),
        lambda size: pad_frame(size, 9),
        lambda size: padded_size(size, 9),
        own_frame,
        lambda size: ImageFrame((9, 9), size, (1.0, 1.0)),
        lambda size: grid_points(size, side=2),
        lambda size: Grid((FRAME,), size),
        lambda size: pixels_to_cells(POINTS, size, (9, 9), alignment="corners"),
        lambda size: cells_to_pixels(POINTS, (9, 9), size, alignment="patch"),
    ],
)  # fmt: skip
def test_sizes_that_are_none_are_refused(call, size):
    with pytest.raises(InputError, match="size"):
        call(size)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: to_model(POINTS, [FRAME]), ShapeError, "points must be"),
        (lambda: to_model(POINTS[:1], [FRAME, FRAME]), ShapeError, "points must be"),
        (lambda: to_model(POINTS, []), ShapeError, "points must be"),
        (lambda: to_photo(POINTS, [None, FRAME]), InputError, "frames"),
        (lambda: to_photo(POINTS, None), InputError, "frames"),
        (lambda: to_photo(POINTS[0], [FRAME]), ShapeError, "points must be"),
        (lambda: to_photo(torch.zeros(2, 1, 3), [FRAME, FRAME]), ShapeError, "points must be"),
        (lambda: to_model(POINTS.numpy(), [FRAME, FRAME]), InputError, "not ndarray"),
        (lambda: to_model(POINTS > 0, [FRAME, FRAME]), InputError, "real numbers"),
        (lambda: GRID.to_cells(POINTS[:1]), ShapeError, "points must be"),
        (lambda: GRID.to_pixels(POINTS[0]), ShapeError, "cells must be"),
        (lambda: GRID.query_cells(POINTS, "nearest"), InputError, "query_mode"),
        (lambda: GRID.query_cells(POINTS[:1], "floor"), ShapeError, "points must be"),
        (lambda: Grid((), (4, 4)), InputError, "frames"),
        (lambda: Grid([FRAME], (4, 4)), InputError, "frames"),
        (lambda: Grid((None,), (4, 4)), InputError, "frames"),
        (lambda: Grid((FRAME, None), (4, 4)), InputError, "frames"),
        (lambda: GRID[[2]], InputError, "rows"),
        (lambda: GRID[::-1], InputError, "rows"),
        (lambda: replace(GRID, alignment="center"), InputError, "alignment"),
        (lambda: replace(GRID, offset=math.nan), InputError, "offset"),
        (lambda: pixels_to_cells(torch.zeros(3), (9, 9), (3, 3), alignment="corners"), ShapeError, "points must be"),
        (lambda: pixels_to_cells(torch.zeros(()), (9, 9), (3, 3), alignment="corners"), ShapeError, "points must be"),
        (lambda: pixels_to_cells(POINTS > 0, (9, 9), (3, 3), alignment="corners"), InputError, "points must be"),
        (lambda: cells_to_pixels(torch.zeros(3), (9, 9), (3, 3), alignment="corners"), ShapeError, "cells must be"),
        (lambda: cells_to_pixels(POINTS > 0, (9, 9), (3, 3), alignment="corners"), InputError, "cells must be"),
        (lambda: pixels_to_cells(POINTS, (9, 9), (3, 3), alignment="middle"), InputError, "alignment"),
        (lambda: cells_to_pixels(POINTS, (9, 9), (3, 3), alignment="patch", offset=math.inf), InputError, "offset"),
        (lambda: ImageFrame((9, 9), (9, 9), (0.0, 1.0)), InputError, "scale"),
        (lambda: ImageFrame((9, 9), (9, 9), (math.nan, 1.0)), InputError, "scale"),
        (lambda: ImageFrame((9, 9), (9, 9), (1.0,)), InputError, "scale"),
        (lambda: ImageFrame((9, 9), (9, 9), (1.0, 1.0), (math.inf, 0.0)), InputError, "offset"),
        (lambda: pad_frame((9, 9), 0), InputError, "side"),
        (lambda: grid_points((9, 9), side=0), InputError, "side"),
        (lambda: grid_points((9, 9), side=10**9), InputError, "side"),
        (lambda: grid_points((9, 9), side=2.5), InputError, "side"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.float16, torch.bfloat16])
def test_whole_numbers_and_half_precision_are_computed_in_float32(dtype):
    points = torch.tensor([[[50, 20]], [[3, 4]]], dtype=dtype)
    for call in (
        lambda values: to_model(values, (FRAME, FRAME)),
        lambda values: to_photo(values, (FRAME, FRAME)),
        GRID.to_cells,
        GRID.to_pixels,
        GRID.query_cells,
        lambda values: pixels_to_cells(values, (96, 96), (24, 24), alignment="corners"),
        lambda values: cells_to_pixels(values, (96, 96), (24, 24), alignment="centers"),
    ):
        assert call(points).dtype == torch.float32
        assert torch.equal(call(points), call(POINTS))
    assert to_model(points, (FRAME, FRAME))[0, 0].tolist() == pytest.approx([48.0, 9.6])


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 900), (30, 50)])
@pytest.mark.parametrize("side", [1, 2, 7, 64])
def test_a_grid_of_points_stays_in_the_photo(size, side):
    points = grid_points(size, side=side).numpy()
    assert len(points) == side**2
    assert ((points >= 0) & (points <= np.array(size)[::-1] - 1)).all()


def test_a_frame_knows_its_photo_from_its_padding():
    frame = pad_frame((40, 120), 96)
    rows = torch.tensor([[5.0, 31.0], [5.0, 32.0], [5.0, 63.0], [5.0, 64.0]])
    assert frame.holds(rows).tolist() == [False, True, True, False]
    assert squash_frame((40, 40), (96, 96)).holds(torch.tensor([[0.0, 95.0], [95.0, 0.0]])).all()


@pytest.mark.parametrize("alignment", ["corners", "centers"])
def test_an_offset_goes_with_patches_only(alignment):
    for call in (
        lambda: Grid((FRAME,), (4, 4), alignment, 3.0),
        lambda: pixels_to_cells(POINTS, (96, 96), (4, 4), alignment=alignment, offset=3.0),
        lambda: cells_to_pixels(POINTS, (96, 96), (4, 4), alignment=alignment, offset=0.0),
    ):
        with pytest.raises(InputError, match='offset goes with alignment "patch"'):
            call()


@pytest.mark.parametrize("offset", [1e300, -1e300, 1e8, math.inf])
def test_offsets_are_bounded(offset):
    for call in (
        lambda: Grid((FRAME,), (4, 4), "patch", offset),
        lambda: pixels_to_cells(POINTS, (96, 96), (4, 4), alignment="patch", offset=offset),
        lambda: ImageFrame((96, 96), (96, 96), (1.0, 1.0), (0.0, offset)),
        lambda: ImageFrame((96, 96), (96, 96), (1.0, offset)),
    ):
        with pytest.raises(InputError, match="at least -1e\\+07 and at most 1e\\+07"):
            call()


def test_what_a_frame_holds_is_asked_with_points():
    inside = FRAME.holds(torch.tensor([[20.0, 40.0], [200.0, 40.0]]))
    assert inside.tolist() == [True, False]
    assert torch.equal(FRAME.holds(torch.tensor([[20, 40], [200, 40]], dtype=torch.uint16)), inside)
    points = torch.ones(2, 2)
    float8 = points.to(torch.float8_e5m2)
    for wrong in (torch.tensor(1.0), points[:, :1], points.to_sparse(), float8, points.bool(), [1]):
        with pytest.raises(InputError, match="points must be"):
            FRAME.holds(wrong)


def test_masks_are_booleans():
    for call in (lambda mask: mask_to_cells(mask, GRID[:1]), lambda mask: mask_to_model(mask, FRAME)):
        with pytest.raises(InputError, match="mask must be"):
            call(torch.ones(200, 100))
