from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sd4match.errors import InputError, ShapeError
from sd4match.geometry import (
    Grid,
    ImageFrame,
    cells_to_pixels,
    check_size,
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
from sd4match.testing import pretend_accelerator, values

SIZES = st.tuples(st.integers(2, 900), st.integers(2, 900))
RULES = st.sampled_from([("corners", None), ("centers", None), ("patch", None), ("patch", 6.5), ("patch", 7.0)])
"""Alignments, with their offsets."""


@given(values((3, 4, 2), low=-50.0, high=900.0), SIZES, SIZES, RULES)
def test_there_and_back(points, image, cells, rule_and_offset):
    rule, offset = rule_and_offset
    there = pixels_to_cells(points, image, cells, alignment=rule, offset=offset)
    back = cells_to_pixels(there, image, cells, alignment=rule, offset=offset)
    torch.testing.assert_close(back, points, atol=2e-2, rtol=1e-3)


@given(values((2, 4, 2), low=0.0, high=900.0), SIZES, SIZES)
def test_frames_there_and_back(points, photo, model):
    frames = [squash_frame(photo, model)] * 2
    torch.testing.assert_close(to_photo(to_model(points, frames), frames), points, atol=1e-2, rtol=1e-4)


def test_corner_rule_sends_corners_to_corners_and_x_is_first():
    corner = torch.tensor([767.0, 383.0])
    assert pixels_to_cells(corner, (384, 768), (24, 48), alignment="corners").tolist() == [47.0, 23.0]
    assert pixels_to_cells(torch.zeros(2), (384, 768), (24, 48), alignment="corners").tolist() == [0.0, 0.0]


def test_center_rule_sends_the_middle_of_a_patch_to_its_cell():
    assert pixels_to_cells(
        torch.tensor([6.5, 20.5]), (840, 840), (60, 60), alignment="centers"
    ).tolist() == pytest.approx([0.0, 1.0], abs=1e-5)


@pytest.mark.parametrize("offset", [6.5, 7.0])
def test_patch_rule_is_cell_times_stride_plus_offset(offset):
    cells = torch.tensor([[3.0, 5.0]])
    pixels = cells_to_pixels(cells, (840, 840), (60, 60), alignment="patch", offset=offset)
    assert pixels[0].tolist() == pytest.approx([3 * 14 + offset, 5 * 14 + offset])


@given(
    values((2, 4, 2), low=0.0, high=900.0),
    SIZES,
    SIZES,
    SIZES,
    RULES,
    st.booleans(),
)
def test_a_grid_composes_frame_and_cell_rule(points, photo, model, size, rule_and_offset, padded):
    rule, offset = rule_and_offset
    frame = pad_frame(photo, model[0]) if padded else squash_frame(photo, model)
    grid = Grid((frame, frame), size, rule, offset)
    cells = pixels_to_cells(to_model(points, [frame] * 2), frame.model_size, size, alignment=rule, offset=offset)
    torch.testing.assert_close(grid.to_cells(points), cells, atol=1e-5, rtol=1e-5)
    pixels = to_photo(cells_to_pixels(points, frame.model_size, size, alignment=rule, offset=offset), [frame] * 2)
    torch.testing.assert_close(grid.to_pixels(points), pixels, atol=1e-3, rtol=1e-5)
    assert grid[[1]] == grid[:1] == Grid((frame,), size, rule, offset)
    assert len(grid) == 2


def test_squash_scales_each_side_by_itself():
    frame = squash_frame((100, 400), (768, 768))
    assert to_model(torch.tensor([[[200.0, 50.0]]]), [frame]).tolist() == [[[384.0, 384.0]]]


def test_bad_rules_are_named():
    with pytest.raises(InputError, match="image_size must be a whole number from 1"):
        pixels_to_cells(torch.zeros(2), (0, 5), (2, 2), alignment="corners")


def test_grid_lies_inside():
    points = grid_points((30, 50), side=7)
    assert points.shape == (49, 2)
    assert (points >= 0).all()
    assert (points <= torch.tensor([49.0, 29.0])).all()


def test_conversions_are_differentiable_after_inference_mode():
    """Tensors that conversions share are no inference tensors, wherever they were made first."""
    grid = Grid((squash_frame((31, 47), (64, 64)),), (8, 8))
    points = torch.tensor([[[3.0, 5.0]]])
    with torch.inference_mode():
        grid.to_pixels(grid.to_cells(points))
    cells = torch.ones(1, 1, 2, requires_grad=True)
    grid.to_pixels(cells).sum().backward()
    assert cells.grad is not None


def test_a_frame_holds_what_is_within_half_a_pixel_of_its_photo():
    frame = ImageFrame(
        (10, 20), (64, 64), (2.0, 3.0), (4.0, 5.0)
    )  # x 4 to 44, y 5 to 35, the pixels' edges half before
    inside = [(3.5, 4.5), (43.5, 34.5), (20.0, 4.5), (3.5, 20.0)]
    outside = [(3.4, 20.0), (43.6, 20.0), (20.0, 4.4), (20.0, 34.6)]
    assert frame.holds(torch.tensor(inside + outside)).tolist() == [True] * 4 + [False] * 4
    assert own_frame((3, 4)) == ImageFrame((3, 4), (3, 4), (1.0, 1.0), (0.0, 0.0))


@pytest.mark.parametrize(
    ("size", "side", "within", "offset"),
    [
        ((200, 100), 96, (96, 48), (24.0, 0.0)),
        ((100, 201), 96, (48, 96), (0.0, 24.0)),
        ((100, 70), 99, (99, 69), (15.0, 0.0)),
        ((1, 1000), 100, (1, 100), (0.0, 49.0)),
        ((3, 3), 1, (1, 1), (0.0, 0.0)),
    ],
)
def test_a_padded_photo_lies_in_the_middle(size, side, within, offset):
    frame = pad_frame(size, side)
    assert padded_size(size, side) == within
    assert frame == ImageFrame(size, (side, side), (side / max(size),) * 2, offset)


def test_sizes_and_distances_have_bounds():
    assert check_size("size", (1, 10**7)) == (1, 10**7)
    for call in (lambda: check_size("size", (1, 10**7 + 1)), lambda: pad_frame((1, 1), 10**7 + 1),
                 lambda: padded_size((1, 1), 10**7 + 1), lambda: grid_points((1, 1), side=1001)):  # fmt: skip
        with pytest.raises(InputError, match="must be a whole number from 1 to"):
            call()
    assert pad_frame((1, 1), 10**7).model_size == (10**7, 10**7)
    assert len(grid_points((1, 1), side=1000)) == 10**6
    assert ImageFrame((1, 1), (1, 1), (1.0, 1.0), (1e7, -1e7)).offset == (1e7, -1e7)
    for sizes in (((0, 1), (1, 1)), ((1, 1), (1, 0))):
        with pytest.raises(InputError, match="must be a whole number from 1"):
            ImageFrame(*sizes, (1.0, 1.0))
    for one, other in ((1.0, 0.0), (0.0, 1.0), (-1.0, 1.0)):
        with pytest.raises(InputError, match="scale"):
            ImageFrame((1, 1), (1, 1), (one, other))
    for offset in (1e7 + 1, -1e7 - 1):
        with pytest.raises(InputError, match="offset must be finite"):
            Grid((own_frame((1, 1)),), (1, 1), "patch", offset)


@pytest.mark.parametrize(
    ("alignment", "offset", "image", "cells", "scale", "shift"),
    [
        ("corners", None, 9, 3, 0.25, 0.0),
        ("corners", None, 9, 2, 0.125, 0.0),
        ("corners", None, 2, 3, 2.0, 0.0),
        ("corners", None, 9, 1, 1 / 9, 0.0),
        ("corners", None, 1, 3, 1.0, 0.0),
        ("centers", None, 12, 3, 0.25, -0.375),
        ("patch", None, 12, 3, 0.25, -0.5),
        ("patch", 2.0, 12, 3, 0.25, -0.5),
        ("patch", 0.0, 12, 3, 0.25, 0.0),
    ],
)
def test_rules_of_alignment_are_scale_and_shift(alignment, offset, image, cells, scale, shift):
    options = {"alignment": alignment, "offset": offset}
    points = torch.tensor([[0.0, 0.0], [8.0, 4.0], [-3.0, 100.0]], dtype=torch.float64)
    for size, grid, column in (((image, 50), (cells, 10), 1), ((50, image), (10, cells), 0)):
        found = pixels_to_cells(points, size, grid, **options)
        assert found[:, column].tolist() == pytest.approx((points[:, column] * scale + shift).tolist())
        assert cells_to_pixels(found, size, grid, **options)[:, column].tolist() == pytest.approx(
            points[:, column].tolist()
        )


def test_a_grid_has_centers_and_reads_queries_in_three_ways():
    grid = Grid((squash_frame((4, 6), (8, 6)),), (2, 3), "centers")
    assert grid.cell_centers(torch.zeros(1))[0].tolist() == [
        [0.5, 0.75], [2.5, 0.75], [4.5, 0.75], [0.5, 2.75], [2.5, 2.75], [4.5, 2.75],
    ]  # fmt: skip
    assert grid.cell_centers(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64
    two = Grid(grid.frames * 2, (2, 3), "centers")
    assert torch.equal(two.cell_centers(torch.zeros(1))[1], grid.cell_centers(torch.zeros(1))[0])
    points = torch.tensor([[[3.0, 1.75]]])  # (3, 3.5) in the model's image
    assert grid.query_cells(points).tolist() == [[[1.25, 0.5]]]
    assert grid.query_cells(points, "pixel").tolist() == [[[1.25, 0.375]]]
    assert grid.query_cells(points, "floor").tolist() == [[[1.0, 0.0]]]


def test_a_regular_grid_of_points_is_centered_in_its_parts():
    assert grid_points((4, 8), side=2).tolist() == [[1.5, 0.5], [5.5, 0.5], [1.5, 2.5], [5.5, 2.5]]
    assert grid_points((1, 3), side=4).tolist() == [[x, 0.0] for x in (0.0, 0.625, 1.375, 2.0)] * 4


def scattered(mask, size, place):
    """Literally: the cells nearest to the pixels of a mask."""
    found = torch.zeros(size, dtype=torch.bool)
    for row, column in mask.nonzero().tolist():
        x, y = place(torch.tensor([[[float(column), float(row)]]], dtype=torch.float64))[0, 0].round().long().tolist()
        found[min(max(y, 0), size[0] - 1), min(max(x, 0), size[1] - 1)] = True
    return found


@pytest.mark.parametrize(
    "frame",
    [
        squash_frame((9, 14), (32, 20)), squash_frame((9, 14), (3, 4)), squash_frame((7, 7), (8, 8)),
        pad_frame((9, 14), 24), pad_frame((14, 9), 24), pad_frame((14, 9), 8),
    ],
)  # fmt: skip
@pytest.mark.parametrize("seed", range(3))
def test_masks_go_where_their_pixels_go(frame, seed):
    mask = torch.rand(frame.original_size, generator=torch.Generator().manual_seed(seed)) > (0.9, 0.5, 0.1)[seed]
    for rule in (("centers",), ("patch", -5.0), ("patch", 5.0)):
        grid = Grid((frame,), (5, 3), *rule)
        assert torch.equal(mask_to_cells(mask, grid), scattered(mask, (5, 3), grid.to_cells))
    height, width = frame.model_size
    pushed = scattered(mask, frame.model_size, lambda points: to_model(points, (frame,)))
    pulled = torch.zeros(height, width, dtype=torch.bool)
    for row in range(height):
        for column in range(width):
            point = torch.tensor([[[float(column), float(row)]]], dtype=torch.float64)
            x, y = to_photo(point, (frame,))[0, 0].round().long().tolist()
            if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1]:
                pulled[row, column] = mask[y, x]
    assert torch.equal(mask_to_model(mask, frame), pushed | pulled)


def test_masks_of_another_photo_are_refused():
    frame, mask = squash_frame((4, 8), (32, 64)), torch.ones(4, 8, dtype=torch.bool)
    with pytest.raises(ShapeError, match="a grid of one photo, got one of 2"):
        mask_to_cells(mask, Grid((frame, frame), (2, 4)))
    for wrong in (mask[:3], mask[:, :7]):
        with pytest.raises(ShapeError, match="mask must be"):
            mask_to_cells(wrong, Grid((frame,), (2, 4)))
        with pytest.raises(ShapeError, match="mask must be"):
            mask_to_model(wrong, frame)


def test_conversions_keep_the_precision_and_the_frames_of_each_photo():
    frames = (squash_frame((4, 8), (8, 8)), pad_frame((4, 8), 16))
    points = torch.tensor([[[2.0, 1.0]], [[2.0, 1.0]]], dtype=torch.float64)
    assert to_model(points, frames).tolist() == [[[2.0, 2.0]], [[4.0, 6.0]]]
    assert to_photo(to_model(points, frames), frames).dtype == torch.float64
    grid = Grid(frames, (4, 4), "centers")
    assert grid.to_cells(points).tolist() == [[[0.75, 0.75]], [[0.625, 1.125]]]
    assert grid.to_pixels(grid.to_cells(points)).tolist() == points.tolist()
    assert grid[-1:].frames == frames[1:] == grid[[1]].frames


def test_conversions_are_as_exact_as_their_points():
    frame = ImageFrame((7, 7), (3, 3), (1 / 3, 1 / 7), (0.1, 0.7))
    points = torch.tensor([[[1000.0, 3.0]]], dtype=torch.float64)
    x, y = 1000 / 3 + 0.1, 3 / 7 + 0.7
    assert to_model(points, [frame])[0, 0].tolist() == pytest.approx([x, y], rel=1e-15)
    cells = Grid((frame,), (7, 5), "centers").to_cells(points)
    assert cells[0, 0].tolist() == pytest.approx([x * 5 / 3 + 1 / 3, y * 7 / 3 + 2 / 3], rel=1e-14)
    again = pixels_to_cells(to_model(points, [frame]), (3, 3), (7, 5), alignment="centers")
    assert again[0, 0].tolist() == pytest.approx(cells[0, 0].tolist(), rel=1e-14)


def test_conversions_are_computed_where_their_points_are():
    grid = Grid((squash_frame((31, 47), (64, 64)), pad_frame((47, 31), 64)), (8, 8), "patch", 2.0)
    points = torch.rand(2, 3, 2, generator=torch.Generator().manual_seed(0)) * 30
    with pretend_accelerator() as device:
        there = points.to(device)
        calls = [grid.to_cells, grid.to_pixels, grid.query_cells, grid.cell_centers, grid.frames[1].holds]
        for call in (*calls, lambda values: to_photo(to_model(values, grid.frames), grid.frames)):
            found = call(there)
            assert found.device == device
            assert torch.equal(found.cpu(), call(points))
