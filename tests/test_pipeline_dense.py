"""Dense matches of a whole matcher: known movements, every protocol, and the number of extractions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.direct import no_type_checker  # noqa: F401 - a fixture of all tests here
from sd4match import Photo, SemanticMatcher
from sd4match.backbones import pad
from sd4match.config import get_protocol
from sd4match.errors import InputError
from sd4match.geometry import mask_to_cells
from sd4match.matching import KernelSoftArgmax, Mutual, NearestNeighbor, Threshold, WindowSoftArgmax
from sd4match.prompting import EmptyPrompt
from sd4match.structures.tensors import FeatureMap
from sd4match.testing import FakeBackbone, FakeTextEncoder, random_photo


class PaddedBackbone(FakeBackbone):
    """The fake backbone on padded photos."""

    def prepare(self, photo):
        return pad(photo, self.side)


def matcher_of(matcher=None, *, protocol="dift", backbone=FakeBackbone, side=32, **changes):
    built = backbone(side=side, text_encoder=FakeTextEncoder())
    return SemanticMatcher(
        backbone=built, prompt=EmptyPrompt(backbone=built), matcher=matcher or NearestNeighbor(),
        protocol=protocol and get_protocol(protocol), **changes,
    )  # fmt: skip


def test_a_photo_in_itself_has_no_flow():
    for protocol, backbone in ((None, FakeBackbone), ("sd4match", FakeBackbone), ("dift", FakeBackbone)):
        for size in ((32, 32), (24, 50), (7, 3), (1, 1)):
            photo = random_photo(size)
            dense = matcher_of(protocol=protocol, backbone=backbone).match_dense(photo, photo)
            distinct = size[0] * size[1] > 100  # cells of an enlarged photo are alike
            if distinct:
                assert np.abs(dense.flow).max() < 1e-4
                assert np.array_equal(dense.warp(), photo.pixels)
                assert dense.cycle.all()
            assert np.isfinite(dense.flow).all()


@pytest.mark.parametrize("shift", [(4, 0), (0, -8), (8, 12)])
def test_a_translated_photo_has_a_constant_flow(shift):
    source = random_photo((64, 64))
    target = Photo(np.roll(source.pixels, shift[::-1], axis=(0, 1)))
    dense = matcher_of(side=64).match_dense(source, target)
    assert np.allclose(dense.flow[16:-16, 16:-16], shift, atol=1e-4)
    assert np.array_equal(dense.warp()[16:-16, 16:-16], source.pixels[16:-16, 16:-16])
    assert np.array_equal(dense.reversed.warp()[16:-16, 16:-16], target.pixels[16:-16, 16:-16])
    mask = np.zeros((64, 64), dtype=bool)
    mask[24:40, 24:36] = True
    assert np.array_equal(dense.transfer(mask)[16:-16, 16:-16], np.roll(mask, shift[::-1], axis=(0, 1))[16:-16, 16:-16])
    assert np.array_equal(dense.swap(mask), source.pixels)
    assert dense.cycle.all()


@pytest.mark.parametrize("sizes", [((30, 90), (60, 40)), ((90, 30), (20, 80)), ((5, 60), (60, 5)), ((1, 1), (40, 30))])
@pytest.mark.parametrize("protocol", ["sd4match", "dift", "sd-dino", "geoaware"])
def test_every_protocol_answers_for_photos_of_any_sizes(protocol, sizes):
    backbone = PaddedBackbone if get_protocol(protocol).frame == "pad" else FakeBackbone
    matcher = matcher_of(WindowSoftArgmax(), protocol=protocol, backbone=backbone)
    source, target = (random_photo(size, seed=seed) for seed, size in enumerate(sizes))
    dense = matcher.match_dense(source, target)
    assert dense.inside.shape == dense.cycle.shape == (8, 8)
    assert dense.flow.shape == (*sizes[0], 2)
    assert dense.warp().shape == dense.swap().shape == (*sizes[0], 3)
    assert dense.transfer(np.ones(sizes[0], dtype=bool)).all()
    assert dense.reversed.source is target
    y, x = np.mgrid[: sizes[0][0], : sizes[0][1]]
    found = dense.flow + np.stack([x, y], axis=-1)
    assert (found >= -1e-4).all()
    assert (found <= np.array(sizes[1][::-1]) - 1 + 1e-4).all()
    on_photo = dense.inside & ((dense.source_points >= 0) & (dense.source_points <= np.array(sizes[0][::-1]) - 1)).all(
        -1
    )
    if on_photo.any():
        points = dense.source_points[on_photo]
        assert np.allclose(dense.at(points), dense.target_points[on_photo], atol=1e-4)
        assert np.allclose(
            matcher.match(source, target, points).target_points, dense.target_points[on_photo], atol=1e-2
        )


def test_padded_photos_match_themselves_where_they_are():
    photo = random_photo((40, 120))
    dense = matcher_of(protocol="sd-dino", backbone=PaddedBackbone, side=96).match_dense(photo, photo)
    rows = np.flatnonzero(dense.inside.any(axis=1))
    assert (rows[0], rows[-1]) == (8, 15)
    assert dense.inside.any(axis=0).all()
    assert np.abs(dense.flow).max() < 1e-3
    assert np.array_equal(dense.warp(), photo.pixels)
    assert np.array_equal(dense.cycle, dense.inside)


def test_the_cycle_of_an_arg_max_is_the_mutual_match():
    matcher = matcher_of()
    source, target = random_photo((40, 40)), random_photo((32, 48), seed=1)
    dense = matcher.match_dense(source, target)
    points = dense.source_points.reshape(-1, 2).clip(0, 39)
    kept = matcher.match(source, target, points, mutual=True).source_points
    assert np.allclose(kept, points[dense.cycle.reshape(-1)], atol=1e-3)
    assert 0 < len(kept) < 64


def test_the_way_back_needs_no_further_extraction():
    source, target = random_photo((40, 40)), random_photo((32, 48), seed=1)
    matcher = matcher_of(KernelSoftArgmax())
    dense = matcher.match_dense(source, target)
    assert (matcher.backbone.encoded, matcher.backbone.extracted) == (2, 2)
    back = matcher.match_dense(target, source, cycle=False)
    assert np.allclose(dense.reversed.target_points, back.target_points, atol=1e-4)
    assert np.allclose(dense.reversed.scores, back.scores, atol=1e-5)
    assert back.backward is None
    alone = matcher.match_dense(source, target, cycle=False)
    assert np.array_equal(alone.target_points, dense.target_points)
    with pytest.raises(InputError, match="cycle=True"):
        alone.transfer(np.ones((40, 40), dtype=bool))
    with pytest.raises(InputError, match="cycle must be True or False"):
        matcher.match_dense(source, target, cycle=1)


def test_maps_of_half_precision_are_read_at_their_cells():
    class Half(FakeBackbone):
        def extract(self, encoded, prompt, sampling):
            features = super().extract(encoded, prompt, sampling)
            return FeatureMap(features.values.to(torch.bfloat16), features.grid)

    photo = random_photo((500, 700))
    dense = matcher_of(backbone=Half).match_dense(photo, photo)
    assert np.abs(dense.flow).max() < 1e-2


@pytest.mark.parametrize("rejecting", [Threshold(min_score=0.3), Mutual()])
def test_rejected_cells_are_not_there(rejecting):
    photos = random_photo((40, 60), seed=1), random_photo((50, 44), seed=2)
    matcher = matcher_of(rejecting)
    dense = matcher.match_dense(*photos)
    centers = dense.source_points.reshape(-1, 2)
    kept = np.zeros(len(centers), dtype=bool)
    kept[matcher.match(*photos, centers).indices] = True
    assert np.array_equal(dense.valid.ravel(), kept)
    assert 0 < kept.mean() < 1
    assert not dense.cycle[~dense.valid].any()


def test_masks_of_both_photos_hold_for_a_dense_match():
    photos = []
    for seed, size in enumerate([(40, 60), (50, 44)]):
        mask = np.zeros(size, dtype=bool)
        mask[10:20, 20:40] = True
        photos.append(Photo(random_photo(size, seed=seed).pixels, mask=mask))
    dense = matcher_of().match_dense(*photos)
    for one, photo in ((dense, photos[0]), (dense.reversed, photos[1])):
        assert one.valid_pixels[photo.mask].all()
        assert np.array_equal(one.valid, mask_to_cells(torch.from_numpy(photo.mask), one.grid).numpy())
        changed = (one.swap() != photo.pixels).any(axis=-1)
        assert changed[photo.mask].mean() > 0.9
        assert not changed[~photo.mask].any()
    assert not dense.transfer(np.ones((40, 60), dtype=bool))[~dense.reversed.valid_pixels].any()
