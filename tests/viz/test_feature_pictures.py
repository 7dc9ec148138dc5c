"""Features as colors: components are those of numpy's SVD, of all maps together, with signs that never change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.direct import no_type_checker  # noqa: F401 - a fixture of all tests here
from sd4match.errors import InputError, NonFiniteError, ShapeError
from sd4match.geometry import Grid, own_frame, pad_frame
from sd4match.structures.images import Photo
from sd4match.structures.tensors import FeatureMap
from sd4match.testing import random_photo
from sd4match.viz import draw_features, principal_components


def features_of(size=(40, 60), cells=(4, 6), *, seed=0, channels=7, frame=own_frame, mask=None):
    values = torch.randn(1, channels, *cells, generator=torch.Generator().manual_seed(seed))
    return FeatureMap(values, Grid((frame(size),), cells, "centers"), mask=mask)


def test_components_are_those_of_one_svd_of_all_cells():
    maps = [features_of(), features_of((30, 30), (5, 5), seed=1)]
    rows = [one.values[0].double().permute(1, 2, 0).reshape(-1, 7).numpy() for one in maps]
    unit = [row / np.linalg.norm(row, axis=1, keepdims=True) for row in rows]
    together = np.concatenate(unit)
    _, _, directions = np.linalg.svd(together - together.mean(axis=0), full_matrices=False)
    found = principal_components(maps, count=3)
    for one, row in zip(found, unit, strict=True):
        for number in range(3):
            direction = directions[number] * np.sign(directions[number][np.abs(directions[number]).argmax()])
            wanted = (row - together.mean(axis=0)) @ direction
            assert np.allclose(one.reshape(-1, 3)[:, number], wanted, atol=1e-10), number


def test_signs_do_not_follow_the_features():
    maps = [features_of()]
    first = principal_components(maps)[0]
    again = principal_components([replace(one, values=2 * one.values) for one in maps])[0]
    assert np.allclose(first, again)


def test_cells_in_padding_and_outside_of_a_mask_take_no_part():
    padded = features_of((50, 100), (4, 4), frame=lambda size: pad_frame(size, 96))
    mask = torch.ones(1, 4, 4, dtype=torch.bool)
    mask[0, 1, 1] = False
    wild = padded.values.clone()
    wild[..., [0, 3], :] += 100
    wild[..., 1, 1] -= 100
    plain, other = (
        principal_components([replace(padded, values=values, mask=mask)])[0] for values in (padded.values, wild)
    )
    inside = mask[0].numpy() & np.array([False, True, True, False])[:, None]
    assert np.allclose(plain[inside], other[inside])


def test_equal_features_have_equal_colors_in_all_photos():
    """The second photo holds the cells of the first, mirrored."""
    first = features_of()
    second = replace(first, values=first.values.flip(-1))
    photos = [Photo(np.full((40, 60, 3), value, dtype=np.uint8), "p") for value in (10, 200)]
    picture = np.asarray(draw_features(photos, [first, second], captions=["a", "b"], height=160))
    lower = picture[-160:]
    assert lower.shape[1] == 240 + 12 + 240
    assert np.abs(lower[:, :240].astype(int) - lower[:, -240:][:, ::-1]).max() <= 1
    assert np.ptp(lower[:, :240]) > 100


def test_masked_cells_are_hatched():
    mask = torch.ones(1, 4, 6, dtype=torch.bool)
    mask[0, :2] = False
    picture = np.asarray(draw_features([random_photo((40, 60))], [features_of(mask=mask)], height=160))
    upper, lower = picture[-160:-90], picture[-70:]
    assert (upper.min(axis=-1) == upper.max(axis=-1)).all()
    assert (lower.min(axis=-1) != lower.max(axis=-1)).mean() > 0.9


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_any_number_of_photos(count):
    photos = [random_photo((40, 60), seed=seed) for seed in range(count)]
    picture = draw_features(photos, [features_of(seed=seed) for seed in range(count)], height=100)
    assert picture.width <= 3 * 150 + 2 * 12


def test_features_stand_below_their_photos_in_every_row():
    """Of five photos, two are in the second row, and nothing stands beside them."""
    photos = [random_photo((40, 60), seed=seed) for seed in range(5)]
    picture = np.asarray(draw_features(photos, [features_of(seed=seed) for seed in range(5)], height=100))
    assert picture.shape[1] == 3 * 150 + 2 * 12
    last = picture[-100:]
    assert (last[:, 2 * 162 :] == 255).all()
    assert (last[:, :312].std(axis=(0, 1)) > 1).all()
    assert (picture[-212:-112, 2 * 162 :] == 255).all()


@pytest.mark.parametrize(
    ("maps", "error", "message"),
    [
        ([], InputError, "one feature map or more"),
        ([features_of(channels=2)], InputError, "count"),
        ([features_of(), features_of(channels=8)], ShapeError, r"maps\[1\] must be \(1, 7, h, w\)"),
        ([replace(features_of(), values=torch.full((1, 7, 4, 6), torch.nan))], NonFiniteError, r"maps\[0\] must"),
        ([features_of((40, 61))], ShapeError, "must be of a photo of"),
    ],
)  # fmt: skip
def test_maps_that_cannot_be_drawn_are_named(maps, error, message):
    with pytest.raises(error, match=message):
        draw_features([random_photo((40, 60))] * len(maps), maps)


def test_there_is_a_map_for_each_photo():
    with pytest.raises(ShapeError, match="maps and captions for 1 photos, got 2 and 1"):
        draw_features([random_photo((40, 60))], [features_of()] * 2)
