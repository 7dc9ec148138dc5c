from __future__ import annotations

import numpy as np
import pytest
from scipy.io import savemat

from helpers import layouts
from helpers.pairs import check_pairs
from sd4match.data import PFWillowConfig, Subset
from sd4match.errors import DatasetError, PhotoError


def test_pf_willow_without_a_list_has_all_ordered_pairs(tmp_path):
    layouts.write_pf_willow(tmp_path)
    for root in (tmp_path, tmp_path / "PF-dataset"):
        data = PFWillowConfig(root=root).build()
        check_pairs(data)
        assert len(data) == 3 * 2 + 2 * 1 + 3 * 2
    assert data.categories == ("car", "duck", "winebottle")
    assert data.keys[0].sides == (("car(G)/060_0000.png", "car"), ("car(G)/060_0001.png", "car"))
    points = layouts.willow_points("car(G)", 1).T
    assert data[0].target_points == pytest.approx(points)
    assert data[0].target_box == pytest.approx((*points.min(axis=0), *points.max(axis=0)))


@pytest.mark.parametrize("listed", ["points", "semicolons", "names"])
def test_pf_willow_list(tmp_path, listed):
    layouts.write_pf_willow(tmp_path, listed=listed)
    data = PFWillowConfig(root=tmp_path).build()
    check_pairs(data)
    (key,) = data.keys
    assert key.target_id == "car(G)/060_0002.png"
    record = data[0]
    points = layouts.willow_points("car(G)", 2).T
    padded = listed != "names"
    assert record.visible.tolist() == [True] * 9 + [not padded]
    valid = points[:9] if padded else points
    assert record.target_points[record.visible] == pytest.approx(valid)
    assert record.target_box == pytest.approx((*valid.min(axis=0), *valid.max(axis=0)))  # padding does not enter
    assert record.target_box[0] > 0


def test_errors_of_pf_willow_name_the_file_and_the_problem(tmp_path):
    with pytest.raises(DatasetError, match="not the root of PF-Willow"):
        PFWillowConfig(root=tmp_path).build()
    layouts.write_pf_willow(tmp_path)
    with pytest.raises(DatasetError, match="a test split only, no train split"):
        PFWillowConfig(root=tmp_path, split="train").build()
    data = PFWillowConfig(root=tmp_path).build()
    (tmp_path / "PF-dataset/car(G)/060_0001.png").unlink()
    with pytest.raises(PhotoError, match=r"no such photo: .*060_0001\.png"):
        data[0]
    savemat(tmp_path / "PF-dataset/duck(S)/060_0000.mat", {"pts_coord": np.zeros((10, 2))})
    with pytest.raises(DatasetError, match="pts_coord must be 2 x N, not 10 x 2"):
        next(record for record in Subset(data, [6]))
    savemat(tmp_path / "PF-dataset/winebottle(woC)/060_0000.mat", {"other": 1})
    with pytest.raises(DatasetError, match="has no pts_coord"):
        data[8]
    (tmp_path / "test_pairs.csv").write_text("imageA,imageB\nx/boat(Q)/1.png,x/boat(Q)/2.png\n")
    with pytest.raises(DatasetError, match=r"row 1: 'boat\(Q\)/1.png' is not in a sub-class"):
        PFWillowConfig(root=tmp_path).build()
