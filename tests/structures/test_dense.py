"""Dense matches: every pixel's match, what is carried along them, and the padding of photos."""

from __future__ import annotations

import inspect
import math
import pickle
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from helpers.direct import no_type_checker  # noqa: F401 - a fixture of all tests here
from sd4match.dense import DenseMatch
from sd4match.errors import InputError, NonFiniteError, PhotoError, ShapeError
from sd4match.geometry import Grid, ImageFrame, own_frame, pad_frame, squash_frame
from sd4match.pipeline import RETURN_CELLS
from sd4match.structures.images import Photo
from sd4match.testing import random_photo
from sd4match.viz import draw_dense


def frame_of(name, size):
    return {"own": own_frame, "squash": lambda s: squash_frame(s, (64, 64)), "pad": lambda s: pad_frame(s, 64)}[name](
        size
    )


def grid_of(size, cells=(4, 6), alignment="centers", frame="own"):
    return Grid((frame_of(frame, size),), cells, alignment)


def dense_of(source=(24, 36), target=(20, 30), *, seed=0, backward=True, **grid):
    """Return random matches of two random photos."""
    rng = np.random.default_rng(seed)

    def one(a, b):
        lattice = grid_of(a.size, **grid)
        points = rng.uniform((0, 0), np.array(b.size[::-1]) - 1, size=(*lattice.size, 2))
        return DenseMatch(a, b, lattice, points, rng.uniform(size=lattice.size))

    photos = random_photo(source, seed=1), random_photo(target, seed=2)
    return replace(one(*photos), backward=one(*photos[::-1]) if backward else None)


def moved(size, shift, *, cells=(12, 18), target=None, **grid):
    """Return the matches of a photo whose content moves by a shift, in x and y, in a target of the same size."""
    source = random_photo(size, seed=3)
    target = target or Photo(np.roll(source.pixels, shift[::-1], axis=(0, 1)))
    lattice = grid_of(size, cells=cells, **grid)
    still = DenseMatch(source, target, lattice, np.zeros((*cells, 2)), np.ones(cells))
    return replace(still, target_points=still.source_points + shift)


def slow_match(dense, x, y):
    """The match of one point, by the formula: cells on the photo alone, one number at a time."""
    height, width = dense.grid.size
    (sh, sw), (th, tw) = dense.source.size, dense.target.size
    on_rows = [r for r in range(height) if dense.inside[r].any()]
    on_columns = [c for c in range(width) if dense.inside[:, c].any()]
    cx, cy = dense.grid.to_cells(torch.tensor([[[x, y]]], dtype=torch.float64))[0, 0].tolist()
    cx, cy = min(max(cx, on_columns[0]), on_columns[-1]), min(max(cy, on_rows[0]), on_rows[-1])
    shift = [0.0, 0.0]
    for r in on_rows:
        for c in on_columns:
            weight = max(0.0, 1 - abs(cx - c)) * max(0.0, 1 - abs(cy - r))
            for axis, (own, other) in enumerate(((sw, tw), (sh, th))):
                start = min(max(float(dense.source_points[r, c, axis]), 0.0), own - 1.0)
                end = min(max(float(dense.target_points[r, c, axis]), 0.0), other - 1.0)
                shift[axis] += weight * (end - start)
    return min(max(x + shift[0], 0.0), tw - 1.0), min(max(y + shift[1], 0.0), th - 1.0)


def slow_sample(values, x, y):
    """A picture at one point, bilinear."""
    height, width = values.shape[:2]
    return sum(
        max(0.0, 1 - abs(x - c)) * max(0.0, 1 - abs(y - r)) * values[r, c].astype(float)
        for r in range(max(0, math.floor(y)), min(height, math.floor(y) + 2))
        for c in range(max(0, math.floor(x)), min(width, math.floor(x) + 2))
    )


LAYOUTS = [
    ((24, 36), (4, 6), "centers", "own"), ((24, 36), (4, 6), "corners", "own"), ((24, 36), (4, 6), "patch", "own"),
    ((9, 36), (8, 8), "centers", "pad"), ((36, 9), (8, 8), "corners", "pad"), ((7, 9), (8, 8), "corners", "squash"),
    ((3, 2), (8, 8), "patch", "squash"), ((1, 1), (4, 4), "centers", "squash"), ((5, 5), (1, 1), "corners", "squash"),
    ((1, 30), (8, 8), "centers", "pad"),
]  # fmt: skip
"""Size of the source, cells, alignment and frame."""


@pytest.mark.parametrize(("size", "cells", "alignment", "frame"), LAYOUTS[:-1])  # in the last no cell is on the photo
def test_flow_and_warp_equal_the_formula(size, cells, alignment, frame):
    dense = dense_of(size, cells=cells, alignment=alignment, frame=frame)
    flow, warped = dense.flow, dense.warp()
    assert flow.shape == (*size, 2)
    assert flow.dtype == np.float32
    assert warped.shape == (*size, 3)
    assert warped.dtype == np.uint8
    for y in range(size[0]):
        for x in range(size[1]):
            match = slow_match(dense, x, y)
            assert flow[y, x] == pytest.approx(np.array(match) - (x, y), abs=1e-5)
            assert np.abs(slow_sample(dense.target.pixels, *match) - warped[y, x]).max() <= 0.501


@pytest.mark.parametrize(("size", "cells", "alignment", "frame"), LAYOUTS)
def test_points_and_flow_agree_and_stay_in_the_target(size, cells, alignment, frame):
    dense = dense_of(size, (5, 11), cells=cells, alignment=alignment, frame=frame)
    y, x = np.mgrid[: size[0], : size[1]]
    pixels = np.stack([x, y], axis=-1).reshape(-1, 2)
    found = dense.at(pixels)
    assert np.isfinite(found).all()
    assert np.allclose(found - pixels, dense.flow.reshape(-1, 2), atol=1e-5)
    assert (found >= 0).all()
    assert (found <= [10, 4]).all()


@given(
    st.tuples(st.integers(2, 40), st.integers(2, 40)), st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from(["centers", "patch", "corners"]), st.sampled_from(["own", "squash", "pad"]), st.integers(0, 99),
)  # fmt: skip
def test_at_a_cell_of_the_photo_is_its_match(size, cells, alignment, frame, seed):
    dense = dense_of(size, seed=seed, cells=cells, alignment=alignment, frame=frame, backward=False)
    last = np.array(size[::-1]) - 1
    on_pixels = dense.inside & ((dense.source_points >= 0) & (dense.source_points <= last)).all(axis=-1)
    assume(on_pixels.any())  # the center of a single cell may lie beside the photo
    found = dense.at(dense.source_points[on_pixels])
    assert np.allclose(found, dense.target_points[on_pixels], atol=1e-4)


@pytest.mark.parametrize(("size", "cells", "alignment", "frame"), LAYOUTS)
def test_a_photo_in_itself_does_not_move(size, cells, alignment, frame):
    dense = dense_of(size, size, cells=cells, alignment=alignment, frame=frame, backward=False)
    last = np.array(size[::-1]) - 1
    dense = replace(dense, target=dense.source, target_points=dense.source_points.clip(0, last))
    assert np.abs(dense.flow).max() < 1e-5
    assert np.array_equal(dense.warp(), dense.source.pixels)
    if dense.inside.any():
        assert np.array_equal(replace(dense, backward=dense).cycle, dense.inside)


@pytest.mark.parametrize("alignment", ["centers", "corners", "patch"])
def test_a_translation_has_one_flow_and_shifts_the_picture(alignment):
    dense = moved((36, 54), (5, -3), alignment=alignment)
    assert np.allclose(dense.flow[6:-6, 6:-8], (5, -3), atol=1e-4)
    assert np.array_equal(dense.warp()[6:-6, 6:-8], dense.source.pixels[6:-6, 6:-8])


def test_cells_of_the_padding_have_no_say():
    dense = dense_of((10, 40), cells=(16, 16), frame="pad")
    assert not dense.inside[0].any()
    changed = replace(dense, target_points=np.where(dense.inside[..., None], dense.target_points, 0.0))
    assert np.array_equal(changed.flow, dense.flow)
    assert not dense.consistent(1000)[~dense.inside].any()
    assert dense.consistent(1000)[dense.inside].all()


def test_a_photo_narrower_than_a_cell_has_the_nearest_one():
    dense = dense_of((1, 40), (1, 40), cells=(4, 4), frame="pad")
    assert not dense.inside.any()
    assert np.isfinite(dense.flow).all()
    still = replace(dense, target_points=dense.source_points)
    assert np.abs(still.flow).max() < 1e-5


def test_an_array_is_resampled_in_its_own_type():
    dense = dense_of()
    rng = np.random.default_rng(0)
    for dtype in ("float16", "float32", "float64", "uint8", "int32", "uint16", "bool"):
        for shape in ((20, 30), (20, 30, 1), (20, 30, 5)):
            values = (rng.random(shape) * 200).astype(dtype)
            warped = dense.warp(values)
            assert warped.dtype == values.dtype
            assert warped.shape == (24, 36, *shape[2:])
            whole = dense.warp(values, nearest=True)
            for y, x in ((0, 0), (7, 11), (23, 35)):
                match = slow_match(dense, x, y)
                near = values[math.floor(match[1] + 0.5), math.floor(match[0] + 0.5)]
                assert np.array_equal(whole[y, x], near)
                if dtype in ("int32", "uint16", "bool"):
                    assert np.array_equal(warped[y, x], near)
                else:
                    assert np.allclose(
                        warped[y, x], slow_sample(values, *match), atol=0.51 if dtype == "uint8" else 0.2
                    )
    assert set(np.unique(dense.warp(np.full((20, 30), 255, dtype=np.uint8)))) == {255}


def test_what_has_the_size_of_the_target_can_be_warped(tmp_path):
    dense = dense_of()
    dense.target.to_image().save(tmp_path / "t.png")
    tensor = torch.from_numpy(dense.target.pixels)
    forms = (dense.target.pixels, dense.target.to_image(), tmp_path / "t.png", tensor, tensor.permute(2, 0, 1))
    for photo in (None, dense.target, *forms):
        assert np.array_equal(dense.warp(photo), dense.warp())
    assert dense.warp(tensor[..., 0].bfloat16().requires_grad_()).dtype == np.float32


def test_the_cycle_mask_equals_the_formula():
    dense = dense_of(cells=(7, 9))
    back = dense.reversed
    for cells in (0.0, 1.5, 3.0):
        found = dense.consistent(cells)
        for r in range(7):
            for c in range(9):
                x, y = slow_match(back, *dense.target_points[r, c])
                cx, cy = dense.grid.to_cells(torch.tensor([[[x, y]]], dtype=torch.float64))[0, 0].tolist()
                assert found[r, c] == (abs(cx - c) <= cells and abs(cy - r) <= cells)
    assert np.array_equal(dense.cycle, dense.consistent(RETURN_CELLS))
    assert inspect.signature(DenseMatch.consistent).parameters["cells"].default == RETURN_CELLS
    assert back.cycle.shape == back.grid.size
    assert np.array_equal(back.reversed.target_points, dense.target_points)
    assert np.array_equal(back.reversed.cycle, dense.cycle)


def test_a_mask_goes_both_ways_by_the_matches_of_where_it_arrives():
    dense = dense_of()
    rng = np.random.default_rng(0)
    source_mask, target_mask = rng.random((24, 36)) < 0.5, rng.random((20, 30)) < 0.5
    there, here = dense.transfer(source_mask), dense.warp(target_mask)
    assert (there.shape, there.dtype, here.shape, here.dtype) == ((20, 30), bool, (24, 36), bool)
    for y in range(20):
        for x in range(30):
            u, v = slow_match(dense.reversed, x, y)
            assert there[y, x] == source_mask[math.floor(v + 0.5), math.floor(u + 0.5)]
    assert dense.transfer(np.ones((24, 36), dtype=bool)).all()
    assert not dense.transfer(np.zeros((24, 36), dtype=bool)).any()
    assert np.array_equal(dense.reversed.transfer(target_mask), here)


def test_a_transferred_mask_of_a_translation_is_the_shifted_mask():
    dense = moved((36, 54), (6, 3))
    back = moved((36, 54), (-6, -3))
    dense = replace(dense, backward=replace(back, source=dense.target, target=dense.source))
    mask = np.zeros((36, 54), dtype=bool)
    mask[10:20, 12:30] = True
    assert np.array_equal(dense.transfer(mask)[8:, 12:], np.roll(mask, (3, 6), axis=(0, 1))[8:, 12:])


def test_a_swap_changes_the_mask_alone():
    dense = dense_of()
    mask = np.zeros((24, 36), dtype=bool)
    mask[5:15, 8:30] = True
    swapped = dense.swap(mask)
    assert np.array_equal(swapped[~mask], dense.source.pixels[~mask])
    assert np.array_equal(swapped[mask], dense.warp()[mask])
    assert np.array_equal(dense.swap(), dense.warp())
    assert np.array_equal(dense.swap(mask=np.zeros_like(mask)), dense.source.pixels)
    assert dense.reversed.swap().shape == (20, 30, 3)


def rejecting(dense, rows, columns):
    valid = np.ones(dense.grid.size, dtype=bool)
    valid[rows, columns] = False
    return replace(dense, valid=valid)


def test_cells_without_a_match_have_no_say():
    """They move as the nearest cell with a match; their pixels have none, and a swap leaves these as they are."""
    still = moved((24, 36), (0, 0), cells=(4, 6), target=random_photo((24, 36), seed=4))
    points = still.target_points.copy()
    points[1, 2] += 9
    wrong = replace(still, target_points=points)
    assert wrong.valid.all()
    assert wrong.valid_pixels.all()
    assert np.abs(wrong.flow).max() > 7
    dense = rejecting(wrong, 1, 2)
    assert np.abs(dense.flow).max() < 1e-5
    expected = np.ones((24, 36), dtype=bool)
    expected[6:12, 12:18] = False  # cells of 6 x 6 pixels
    assert np.array_equal(dense.valid_pixels, expected)
    assert np.array_equal(dense.swap(), np.where(expected[..., None], still.target.pixels, still.source.pixels))
    assert np.array_equal(rejecting(wrong, slice(None), slice(None)).swap(), wrong.source.pixels)


def test_what_has_no_match_is_neither_consistent_nor_carried():
    still = moved((24, 36), (0, 0), cells=(4, 6))
    back = rejecting(still, 2, 3)
    dense = rejecting(replace(still, backward=back), 1, 2)
    expected = np.ones((4, 6), dtype=bool)
    expected[1, 2] = expected[2, 3] = False
    assert np.array_equal(dense.cycle, expected)
    assert np.array_equal(dense.reversed.cycle, expected)
    assert np.array_equal(dense.transfer(np.ones((24, 36), dtype=bool)), back.valid_pixels)
    assert np.array_equal(dense.transfer(torch.ones(24, 36, dtype=torch.bool)), back.valid_pixels)


def test_a_swap_is_inside_the_mask_of_the_source():
    dense, mask = dense_of(), np.zeros((24, 36), dtype=bool)
    mask[5:20, 7:30] = True
    masked = replace(dense, source=Photo(dense.source.pixels, mask=mask))
    assert np.array_equal(masked.swap(), dense.swap(mask))
    assert np.array_equal(masked.swap(torch.from_numpy(~mask)), dense.swap(~mask))


def test_a_picture_and_a_short_text():
    dense = dense_of()
    assert repr(dense) == "DenseMatch(4 x 6 cells of random-1, 36 x 24 pixels, in random-2, 30 x 20 pixels)"
    picture = dense.draw(height=48)
    assert picture.size == (72 * 3 + 72 + 3 * 12, 48)
    assert np.array_equal(picture, draw_dense(dense, height=48))
    assert dense._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1)])
def test_a_picture_of_any_aspect_is_bounded(size):
    dense = dense_of(size, (1, 1), cells=(4, 4), frame="squash", backward=False)
    assert dense.draw(height=20).width <= 20 * 8 * 4 + 36


def test_a_match_is_pickled_whole():
    dense = dense_of()
    back = pickle.loads(pickle.dumps(dense))
    assert np.array_equal(back.flow, dense.flow)
    assert np.array_equal(back.cycle, dense.cycle)


def test_large_photos_are_resampled_piece_by_piece():
    photo = Photo(np.zeros((1500, 2000, 3), dtype=np.uint8))
    lattice = grid_of((1500, 2000), cells=(48, 48))
    dense = DenseMatch(photo, photo, lattice, np.zeros((48, 48, 2)), np.ones((48, 48)))
    tracemalloc.start()
    try:
        dense.warp()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * 1500 * 2000 + 80_000_000


DENSE, PLAIN = dense_of(), dense_of(backward=False)
NAN = math.nan


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: replace(DENSE, source=None), InputError, "source must be a Photo"),
        (lambda: replace(DENSE, grid=None), InputError, "grid must be a Grid"),
        (lambda: replace(DENSE, backward=5), InputError, "backward"),
        (lambda: replace(DENSE, grid=grid_of((20, 30))), ShapeError, "grid must be that of the source"),
        (lambda: replace(DENSE, grid=Grid((own_frame((24, 36)),) * 2, (4, 6))), ShapeError, "grid must be"),
        (lambda: replace(DENSE, target_points=np.zeros((4, 6, 3))), ShapeError, "target_points"),
        (lambda: replace(DENSE, target_points=np.full((4, 6, 2), NAN)), NonFiniteError, "target_points"),
        (lambda: replace(DENSE, scores=np.zeros((6, 4))), ShapeError, "scores"),
        (lambda: replace(DENSE, valid=np.ones((6, 4), dtype=bool)), ShapeError, "valid"),
        (lambda: replace(DENSE, valid=np.ones((4, 6))), InputError, "valid must be an array of booleans"),
        (lambda: DENSE.warp(torch.zeros(3, 20, 30, device="meta")), InputError, "a dense tensor of numbers"),
        (lambda: replace(DENSE, scores=np.full((4, 6), NAN)), NonFiniteError, "scores"),
        (lambda: replace(DENSE, backward=PLAIN), ShapeError, "backward must be of photos"),
        (lambda: PLAIN.reversed, InputError, r"cycle=True"),
        (lambda: PLAIN.cycle, InputError, r"cycle=True"),
        (lambda: PLAIN.transfer(np.ones((24, 36), dtype=bool)), InputError, r"cycle=True"),
        (lambda: DENSE.consistent(-1), InputError, "cells"),
        (lambda: DENSE.consistent(NAN), InputError, "cells"),
        (lambda: DENSE.consistent("1"), InputError, "cells"),
        (lambda: DENSE.at([(36.0, 0.0)]), InputError, "point 36,0 is outside random-1"),
        (lambda: DENSE.at([(NAN, 0.0)]), InputError, "outside"),
        (lambda: DENSE.at([(0.0, -0.1)]), InputError, "outside"),
        (lambda: DENSE.at([]), InputError, "points must be"),
        (lambda: DENSE.at("ab"), InputError, "points must be"),
        (lambda: DENSE.at([(1,), (1, 2)]), InputError, "points must be"),
        (lambda: DENSE.at([(True, False)]), InputError, "points must be"),
        (lambda: DENSE.warp(np.zeros((24, 36, 3))), ShapeError, r"photo must be \(20, 30, 3\)"),
        (lambda: DENSE.warp(np.zeros(20)), ShapeError, "photo must be"),
        (lambda: DENSE.warp(np.full((20, 30), NAN)), NonFiniteError, "photo must be finite"),
        (lambda: DENSE.warp(DENSE.source), ShapeError, "photo"),
        (lambda: DENSE.warp(Image.new("RGB", (3, 3))), ShapeError, "photo"),
        (lambda: DENSE.warp("no-such-file.png"), PhotoError, "photo"),
        (lambda: DENSE.warp(5), InputError, "photo must be"),
        (lambda: DENSE.warp(np.array(["a"])), InputError, "photo must be"),
        (lambda: DENSE.warp(nearest=1), InputError, "nearest"),
        (lambda: DENSE.transfer(np.ones((24, 36))), InputError, "booleans"),
        (lambda: DENSE.transfer(None), InputError, "booleans"),
        (lambda: DENSE.transfer(np.ones((20, 30), dtype=bool)), ShapeError, "mask"),
        (lambda: DENSE.swap(np.ones((24, 36, 1), dtype=bool)), ShapeError, "mask"),
        (lambda: DENSE.swap([True]), InputError, "booleans"),
        (lambda: DENSE.draw(height=0), InputError, "height"),
        (lambda: draw_dense(None), InputError, "match"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_no_point_has_no_match():
    with pytest.raises(InputError, match="at least one"):
        DENSE.at(np.zeros((0, 2)))


def test_a_frame_with_an_offset_is_read_where_the_photo_lies():
    frame = ImageFrame((10, 10), (64, 64), (2.0, 2.0), (30.0, 4.0))
    dense = DenseMatch(
        random_photo((10, 10)), random_photo((10, 10)), Grid((frame,), (16, 16), "centers"),
        np.zeros((16, 16, 2)), np.ones((16, 16)),
    )  # fmt: skip
    rows, columns = np.nonzero(dense.inside)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (1, 5, 7, 12)
