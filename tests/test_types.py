from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from sd4match.errors import PhotoError, ShapeError
from sd4match.geometry import squash_frame
from sd4match.testing import random_photo
from sd4match.types import FeatureMap, Photo


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
