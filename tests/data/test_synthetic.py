from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from sd4match.data import PairDataset, SyntheticConfig
from sd4match.data.spair_layout import write_spair_layout
from sd4match.data.synthetic.anatomy import ANATOMIES, part_words, point_names
from sd4match.data.synthetic.scene import BACKGROUND, render
from sd4match.errors import DatasetError


def test_pixels_of_a_seed_are_fixed():
    """Golden digest of the generator that mini was trained on."""
    digest = hashlib.blake2b(digest_size=8)
    for index in range(12):
        scene = render(1_000, index)
        digest.update(scene.pixels.tobytes() + scene.part_ids.tobytes() + scene.points.tobytes())
    assert digest.hexdigest() == "6ff93300bd0b0777"


@pytest.mark.parametrize("category", ANATOMIES)
def test_every_category_has_its_points_and_parts(category):
    drawn_parts = set()
    for index in range(6):
        scene = render(5, index, category=category)
        assert scene.points.shape == (len(point_names(category)), 2)
        assert scene.part_words == part_words(category)
        assert scene.pixels.dtype == np.uint8
        assert ((scene.points[scene.visible] >= 0) & (scene.points[scene.visible] <= 95)).all()
        drawn_parts |= set(np.unique(scene.part_ids)) - {BACKGROUND}
    assert len(drawn_parts) == len(part_words(category))
    assert 8 <= len(point_names(category)) <= 9


def test_visible_points_are_not_under_an_occluder_and_in_the_box():
    occluded = 0
    for index in range(80):
        scene = render(6, index)
        left, top, right, bottom = scene.box
        inside = scene.points[scene.visible]
        assert (inside[:, 0] >= left - 1).all()
        assert (inside[:, 0] <= right + 1).all()
        assert (inside[:, 1] >= top - 1).all()
        assert (inside[:, 1] <= bottom + 1).all()
        occluded += scene.occluded
    assert 0 < occluded < 40


def test_pairs_are_two_photos_of_one_category_with_three_shared_points():
    data = SyntheticConfig(split="test", pairs=24).build()
    assert isinstance(data, PairDataset)
    for record in data:
        assert record.source_id != record.target_id
        assert record.source_id.split("-")[0] == record.target_id.split("-")[0] == record.category
        assert record.visible.sum() >= 3
        assert set(record.difficulty) == {"viewpoint_variation", "scale_variation", "truncation", "occlusion"}
    assert {record.category for record in data} == set(ANATOMIES)


def test_equal_configs_give_equal_pairs_and_splits_share_no_photo():
    data, again = (SyntheticConfig(split="validation", pairs=10).build() for _ in range(2))
    assert [record.pair_id for record in data] == [record.pair_id for record in again]
    keys = {
        split: {
            SyntheticConfig(split=split, photos_per_category=6).build().photo(f"{c}-{i}").key
            for c in ANATOMIES
            for i in range(6)
        }
        for split in ("train", "validation", "test")
    }
    assert not (keys["train"] & keys["validation"])
    assert not (keys["train"] & keys["test"])
    assert not (keys["validation"] & keys["test"])
    other = SyntheticConfig(split="validation", pairs=10, seed=1).build()
    assert other.photo("fish-0").key != data.photo("fish-0").key


def test_unknown_photos_raise_an_error():
    data = SyntheticConfig(split="test", pairs=2, photos_per_category=3).build()
    for name in ("fish-3", "dog-0", "fish"):
        with pytest.raises(DatasetError, match="no photo"):
            data.photo(name)


def test_spair_layout(tmp_path):
    data = SyntheticConfig(split="test", pairs=9, photos_per_category=4).build()
    assert write_spair_layout(data, tmp_path) == 9
    names = (tmp_path / "Layout" / "large" / "test.txt").read_text().split()
    assert len(names) == 9
    for name, record in zip(names, data, strict=True):
        pair = json.loads((tmp_path / "PairAnnotation" / "test" / f"{name}.json").read_text())
        assert name.rpartition(":")[2] == pair["category"] == record.category
        assert pair["src_imsize"] == [96, 96, 3]
        assert len(pair["src_kps"]) == len(pair["trg_kps"]) == len(pair["kps_ids"]) == record.visible.sum()
        assert np.abs(np.array(pair["trg_kps"]) - record.target_points[record.visible]).max() <= 0.5
        assert len(pair["trg_bndbox"]) == 4
        for side in ("src", "trg"):
            stem = pair[f"{side}_imname"].removesuffix(".jpg")
            with Image.open(tmp_path / "JPEGImages" / pair["category"] / f"{stem}.jpg") as photo:
                photo_size = photo.size
            annotation = json.loads((tmp_path / "ImageAnnotation" / pair["category"] / f"{stem}.json").read_text())
            with Image.open(tmp_path / "Segmentation" / pair["category"] / f"{stem}.png") as image:
                mask = np.array(image)
            assert photo_size == (annotation["image_width"], annotation["image_height"]) == mask.shape[::-1]
            visible = [number for number, point in annotation["kps"].items() if point is not None]
            assert set(pair["kps_ids"]) <= set(visible)
