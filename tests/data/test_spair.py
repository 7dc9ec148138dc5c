from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from helpers import layouts
from helpers.pairs import check_pairs
from sd4match.data import SPairConfig, SyntheticConfig
from sd4match.data.spair_layout import write_spair_layout
from sd4match.errors import DatasetError


@pytest.mark.parametrize("listed", [True, False])
def test_spair(tmp_path, listed):
    base = layouts.write_spair(tmp_path, listed=listed)
    data = SPairConfig(root=tmp_path, split="test").build()
    check_pairs(data)
    assert (len(data), data.categories, data.reference) == (5, ("cat", "tvmonitor"), "box")
    record = data[0]
    assert record.pair_id == "000000-2008_000001-2008_000002:cat"
    assert record.source_size == (40, 60)  # src_imsize is [W, H, channels]
    assert record.target_size == (70, 30)
    assert record.target_box == (3, 4, 25, 64)
    assert record.source_points.tolist() == [[10, 12], [52, 20], [1, 2]]
    assert record.visible.all()
    assert data[1].difficulty == {"viewpoint_variation": 1, "scale_variation": 0, "truncation": 1, "occlusion": 1}
    assert data.annotation_path(0).name == "000000-2008_000001-2008_000002:cat.json"
    train = SPairConfig(root=base, split="train").build()
    assert [key.source_id for key in train.keys] == [key.source_id for key in data.keys]


def test_spair_small_layout_and_hyphens_in_names(tmp_path):
    layouts.write_spair(tmp_path)
    assert len(SPairConfig(root=tmp_path, split="validation", layout="small").build()) == 2
    keys = SPairConfig(root=tmp_path, split="test").build().keys
    assert keys[3].target_id == "tvmonitor/img-5.jpg"
    assert keys[4].source_id == "tvmonitor/img-5.jpg"


def test_spair_photos_are_decoded_in_their_stored_frame(tmp_path):
    base = layouts.write_spair(tmp_path)
    data = SPairConfig(root=tmp_path, split="test").build()
    turned = data.photo("tvmonitor/2010_000004.jpg")
    assert turned.size == (36, 64)
    with Image.open(base / "JPEGImages/tvmonitor/2010_000004.jpg") as image:
        assert image.getexif()[0x0112] == 6
        assert np.array_equal(turned.pixels, np.array(image))
    grey = data.photo("cat/2008_000002.jpg").pixels
    assert (grey[..., 0] == grey[..., 2]).all()
    assert data.photo("cat/2009_000003.jpg").pixels.std() > 10


def test_errors_of_spair_name_the_file_and_the_problem(tmp_path):
    with pytest.raises(DatasetError, match="no such folder"):
        SPairConfig(root=tmp_path / "none").build()
    with pytest.raises(DatasetError, match="not the root of SPair-71k: it has no PairAnnotation"):
        SPairConfig(root=tmp_path).build()
    base = layouts.write_spair(tmp_path)
    data = SPairConfig(root=tmp_path, split="test").build()
    name, _ = layouts.spair_pair(0, "cat", 0, 1)
    file = base / "PairAnnotation" / "test" / f"{name}.json"
    for changes, message in (
        ({"src_kps": [[1, 2]]}, "1 source points and 3 target points"),
        ({"src_kps": "none"}, "src_kps must be points"),
        ({"trg_bndbox": [5, 5, 5, 9]}, "trg_bndbox has nothing inside"),
        ({"trg_imsize": [0, 4]}, "trg_imsize: a side must be a whole number from 1 to 65535, not 0"),
        ({"src_imname": "other.jpg"}, "src_imname makes cat/other.jpg, but the pair's name makes"),
    ):
        file.write_text(json.dumps(layouts.spair_pair(0, "cat", 0, 1, **changes)[1]))
        with pytest.raises(DatasetError, match=message) as caught:
            data[0]
        assert name in str(caught.value)
    file.write_text('{"src_kps": ')
    with pytest.raises(DatasetError, match="not a readable annotation"):
        data[0]
    file.write_text("[]")
    with pytest.raises(DatasetError, match="holds no JSON object"):
        data[0]
    file.write_text("{}")
    with pytest.raises(DatasetError, match="has no src_imname"):
        data[0]
    file.unlink()
    with pytest.raises(DatasetError, match="no such annotation"):
        data[0]
    (base / "Layout/large/test.txt").write_text("nonsense\n")
    with pytest.raises(DatasetError, match="'nonsense' is not NUMBER-SOURCE-TARGET:CATEGORY"):
        SPairConfig(root=tmp_path, split="test").build()


def test_pairs_written_in_spair_layout_are_read_back(tmp_path):
    synthetic = SyntheticConfig(split="test", pairs=6, photos_per_category=3).build()
    write_spair_layout(synthetic, tmp_path)
    data = SPairConfig(root=tmp_path, split="test").build()
    check_pairs(data)
    for mine, theirs in zip(data, synthetic, strict=True):
        assert mine.category == theirs.category
        assert mine.difficulty == dict(theirs.difficulty)
        assert np.abs(mine.target_points - theirs.target_points[theirs.visible]).max() <= 0.5
