from __future__ import annotations

import json

import pytest

from helpers import layouts
from helpers.pairs import check_pairs
from sd4match.data import FolderConfig
from sd4match.errors import DatasetError


@pytest.mark.parametrize("form", ["json", "csv"])
def test_folder(tmp_path, form):
    layouts.write_folder(tmp_path, form=form)
    data = FolderConfig(root=tmp_path, split="test").build()
    check_pairs(data)
    assert len(data) == 6
    assert data.categories == ("cat",)
    assert data.reference == ("box" if form == "json" else "photo")
    record = next(r for r in data if r.pair_id == "my photo 0.jpg-my photo 1.jpg")
    assert record.source_points.tolist() == [[10, 12], [50.5, 30]]  # what both show, by name
    assert record.target_points.tolist() == [[11, 13], [30, 50]]
    assert data.photo("my photo 1.jpg").size == (60, 40)
    assert FolderConfig(root=tmp_path, split="test", exif=True).build().photo("my photo 1.jpg").size == (40, 60)
    check_pairs(FolderConfig(root=tmp_path, split="test", exif=True).build())


def test_folder_with_listed_pairs_splits_and_without_boxes(tmp_path):
    layouts.write_folder(tmp_path, boxes=False)
    assert FolderConfig(root=tmp_path).build().reference == "photo"
    file = tmp_path / "points.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "pairs": [["my photo 2.jpg", "my photo 0.jpg"]]}))
    assert [key.sides[0][0] for key in FolderConfig(root=tmp_path).build().keys] == ["my photo 2.jpg"]
    for number in range(3):
        content["photos"][f"my photo {number}.jpg"]["split"] = "train" if number else "test"
    file.write_text(json.dumps(content))
    assert len(FolderConfig(root=tmp_path, split="train").build()) == 2
    with pytest.raises(DatasetError, match="has no pairs of the test split"):
        FolderConfig(root=tmp_path, split="test").build()


def test_errors_of_a_folder_name_the_file_and_the_problem(tmp_path):
    with pytest.raises(DatasetError, match=r"no points\.json or points\.csv in"):
        FolderConfig(root=tmp_path).build()
    file = tmp_path / "points.json"
    point = {"a.jpg": {"points": {"ear": [1, 2]}}}
    for content, message in (
        ({"photo": {}}, "unknown key 'photo'; did you mean 'photos'"),
        ({}, 'has no "photos"'),
        ({"photos": {"a.jpg": {}}}, r'a\.jpg must have "points"'),
        ({"photos": {"a.jpg": {"points": {"ear": [1]}}}}, "point 'ear' must be x, y in pixels"),
        ({"photos": {"a.jpg": {"points": {"ear": [1, float("nan")]}}}}, "NaN is not a finite number"),
        ({"photos": {"a.jpg": {"points": {}, "box": [1, 2]}}}, "box must be left, top, right, bottom"),
        ({"photos": point, "pairs": [["a.jpg", "b.jpg"]]}, r"names 'b\.jpg', which is not among its photos"),
        ({"photos": point, "pairs": ["a.jpg"]}, "pair 0 must be two file names"),
        ({"photos": point, "pairs": [["a.jpg", "a.jpg"]]}, "pair 0 is of a.jpg with itself"),
        (
            {"photos": {**point, "b.jpg": point["a.jpg"]}, "pairs": [["a.jpg", "b.jpg"]] * 2},
            "pair 1 is listed twice",
        ),
    ):
        file.write_text(json.dumps(content))
        with pytest.raises(DatasetError, match=message):
            FolderConfig(root=tmp_path).build()
    (tmp_path / "mine.csv").write_text("photo,x,y\na.jpg,1,2\n")
    with pytest.raises(DatasetError, match="has no column point"):
        FolderConfig(root=tmp_path, points="mine.csv").build()
