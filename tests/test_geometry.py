from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sd4match.errors import InputError
from sd4match.geometry import (
    Grid,
    cells_to_pixels,
    grid_points,
    pad_frame,
    pixels_to_cells,
    squash_frame,
    to_model,
    to_photo,
)
from sd4match.testing import values

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
