from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from sd4match.errors import PhotoError, ShapeError
from sd4match.geometry import squash_frame
from sd4match.matching.correlation import correlate_maps
from sd4match.matching.matchers import KernelSoftArgmax
from sd4match.registry import matchers
from sd4match.structures.images import Photo
from sd4match.structures.tensors import FeatureMap
from sd4match.testing import random_photo


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK", "LA", "I;16", "1"])
def test_every_mode_becomes_rgb(mode, tmp_path):
    image = Image.new(mode, (6, 4))
    assert Photo.from_image(image).pixels.shape == (4, 6, 3)


def test_exif_rotation_is_for_users_not_for_annotations(tmp_path):
    image = Image.new("RGB", (8, 4))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert Photo.open(tmp_path / "turned.jpg").size == (8, 4)
    assert Photo.open(tmp_path / "turned.jpg", exif=False).size == (4, 8)


def test_transparency_is_laid_on_white():
    assert Photo.from_image(Image.new("RGBA", (2, 2), (0, 0, 0, 0))).pixels.min() == 255


def test_missing_broken_and_misshapen_photos_are_named(tmp_path):
    with pytest.raises(PhotoError, match=r"no such photo: .*nowhere\.png"):
        Photo.open(tmp_path / "nowhere.png")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    with pytest.raises(PhotoError, match=r"not a readable image: .*broken\.png"):
        Photo.open(broken)
    with pytest.raises(PhotoError, match="not a readable image"):
        Photo.open(tmp_path)
    whole = tmp_path / "whole.png"
    random_photo((40, 40)).to_image().save(whole)
    broken.write_bytes(whole.read_bytes()[:200])
    with pytest.raises(PhotoError, match="not a readable image"):
        Photo.open(broken)
    with pytest.raises(PhotoError, match=r"\(H, W, 3\) uint8"):
        Photo(np.zeros((4, 4, 3), dtype=np.float32).astype(np.uint8)[..., :2])


def test_key_is_of_the_pixels():
    photo = random_photo(seed=1)
    same = Photo(photo.pixels.copy(), "another name")
    mirrored = Photo(photo.pixels[:, ::-1].copy(), "mirrored")
    assert photo.key == same.key != mirrored.key
    tall, wide = Photo(np.zeros((2, 8, 3), np.uint8)), Photo(np.zeros((8, 2, 3), np.uint8))
    assert tall.key != wide.key


def test_feature_map_needs_a_frame_for_each_image():
    frame = squash_frame((4, 4), (8, 8))
    maps = FeatureMap(torch.arange(24.0).reshape(3, 2, 2, 2), (frame,) * 3)
    assert maps[[2, 0]].values[0, 0, 0, 0] == 16
    assert len(maps[1:].frames) == 2
    with pytest.raises(ShapeError, match="3 images"):
        FeatureMap(torch.zeros(3, 2, 2, 2), (frame,))


def maps(count, *, channels=3, size=(2, 4)):
    generator = torch.Generator().manual_seed(count)
    frames = tuple(squash_frame((10 + one, 20), (8, 16)) for one in range(count))
    return FeatureMap(torch.randn(count, channels, *size, generator=generator), frames, "patch", 0.5, (1, 2))


def test_joined_maps_are_a_batch_that_is_copied_when_it_is_read():
    whole = maps(5)
    joined = FeatureMap.joined([whole[:2], whole[2:3], whole[3:]])
    assert (joined.frames, joined.map_size, joined.groups) == (whole.frames, whole.map_size, whole.groups)
    assert (joined.alignment, joined.patch_offset) == (whole.alignment, whole.patch_offset)
    torch.testing.assert_close(joined.norms, whole.values.norm(dim=1))
    assert "values" not in vars(joined)
    assert torch.equal(joined.values, whole.values)
    for rows in (slice(1, 4), [4, 0]):
        assert torch.equal(joined[rows].values, whole[rows].values)
        assert joined[rows].frames == whole[rows].frames
    frames = tuple(squash_frame((7, 7), (9, 9 + one)) for one in range(5))
    laid = joined.laid(frames, "corners")
    assert (laid.frames, laid.alignment, len(laid.parts)) == (frames, "corners", 3)
    assert torch.equal(laid.values, whole.values)


def test_maps_that_lie_otherwise_share_their_norms():
    features = maps(2)
    moved = features.laid(features.frames, "centers")
    assert moved.norms is features.norms
    assert features.laid(features.frames, "patch", 0.5) is features
    torch.testing.assert_close(
        maps(1).norms, FeatureMap(maps(1).values.half(), maps(1).frames).norms, atol=1e-2, rtol=0
    )
    assert FeatureMap(maps(1).values.half(), maps(1).frames).norms.dtype == torch.float32


def test_photos_that_lie_apart_are_correlated_as_a_batch():
    source, target = maps(3), maps(4)[:3]
    points = torch.rand(3, 6, 2, generator=torch.Generator().manual_seed(0)) * 9
    apart = [FeatureMap.joined([one[row : row + 1] for row in range(3)]) for one in (source, target)]
    for corners in (False, True):
        whole = correlate_maps(source, target, points, corners=corners)
        parts = correlate_maps(*apart, points, corners=corners)
        torch.testing.assert_close(parts.values, whole.values, atol=1e-5, rtol=1e-5)
        assert "values" not in vars(parts.source)
        assert "values" not in vars(parts.target)
        if corners:
            assert torch.equal(parts.corners, whole.corners)
    uneven = FeatureMap.joined([target[:1], target[1:]])
    torch.testing.assert_close(correlate_maps(apart[0], uneven, points).values, whole.values, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", matchers.kinds())
def test_places_are_the_points_of_the_matches(kind):
    matcher = matchers.build(matchers.parse(kind))
    source, target = maps(2), maps(3)[:2]
    points = torch.rand(2, 6, 2, generator=torch.Generator().manual_seed(0)) * 9
    matches = matcher(correlate_maps(source, target, points))
    for corners in (False, True):  # and with whatever another matcher has left behind
        correlation = correlate_maps(source, target, points, corners=corners)
        KernelSoftArgmax()(correlation)
        torch.testing.assert_close(matcher.places(correlation), matches.points, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(matcher(correlation).scores, matches.scores, atol=1e-5, rtol=1e-5)
