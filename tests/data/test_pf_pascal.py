from __future__ import annotations

import csv

import numpy as np
import pytest

from helpers import layouts
from helpers.pairs import check_pairs
from sd4match.data import PFPascalConfig, PFPascalPairs
from sd4match.errors import DatasetError


@pytest.mark.parametrize("form", ["ncnet", "reference"])
def test_pf_pascal(tmp_path, form):
    layouts.write_pf_pascal(tmp_path, form=form)
    train, test = (PFPascalConfig(root=tmp_path, split=split).build() for split in ("train", "test"))
    check_pairs(train)
    check_pairs(test)
    assert (len(train), len(PFPascalConfig(root=tmp_path, split="validation").build()), len(test)) == (3, 1, 1)
    assert train.reference == "photo"
    assert train.categories == ("cat",)  # class 8, counted from 1
    assert train[0].visible.tolist() == [True, False, False, True]  # NaN in either photo
    assert train[0].source_box == (2, 3, 30, 35)
    seen = test[0].visible
    assert test[0].source_points[seen].tolist() == [[10, 10], [30, 12], [25.5, 30.25]]
    assert test[0].target_points[seen].tolist() == [[5, 50], [28, 44], [7, 7]]


def test_pf_pascal_flip_mirrors_both_photos_and_their_points(tmp_path):
    layouts.write_pf_pascal(tmp_path)
    data = PFPascalConfig(root=tmp_path, split="train").build()
    plain, flipped = data[0], data[1]
    assert flipped.source_id != plain.source_id
    for side, size in (("source", (40, 60)), ("target", (60, 40))):
        photo = data.photo(getattr(plain, f"{side}_id"))
        mirrored = data.photo(getattr(flipped, f"{side}_id"))
        assert photo.size == size
        assert np.array_equal(photo.pixels[:, ::-1], mirrored.pixels)
        assert photo.key != mirrored.key
        for (x, y), (u, v), seen in zip(
            getattr(plain, f"{side}_points"), getattr(flipped, f"{side}_points"), plain.visible, strict=True
        ):
            if seen:
                assert (u, v) == (size[1] - 1 - x, y)
    assert flipped.source_box == (59 - 30, 3, 59 - 2, 35)


def test_errors_of_pf_pascal_name_the_file_and_the_problem(tmp_path):
    layouts.write_pf_pascal(tmp_path)
    file = tmp_path / "image_pairs" / "train_pairs.csv"
    good = file.read_text()
    for text, message in (
        (good.replace(",8,0", ",0,0", 1), r"row 1: class must be 1 to 20, not '0'"),
        (good.replace(",8,1", ",8,2", 1), r"row 2: flip must be 0 or 1, not '2'"),
        (good.replace("class", "klass"), "unknown column 'klass'; did you mean 'class'"),
        (good.replace(",8,0", ",8", 1), "row 1 has 3 columns; its header has 4"),
        ("source_image,target_image,class\n", "lists no pair"),
    ):
        file.write_text(text)
        with pytest.raises(DatasetError, match=message):
            PFPascalConfig(root=tmp_path, split="train").build()
    file.write_text(good)
    data = PFPascalConfig(root=tmp_path, split="train").build()
    (tmp_path / "PF-dataset-PASCAL/Annotations/cat/2010_000008.mat").write_bytes(b"MATLAB 5.0 nonsense")
    with pytest.raises(DatasetError, match=r"not a readable annotation: .*2010_000008\.mat"):
        data[2]
    test = tmp_path / "image_pairs" / "test_pairs.csv"
    test.write_text(test.read_text().replace("10;30;25.5", "10;30"))
    with pytest.raises(DatasetError, match="row 1: 2 x and 3 y"):
        PFPascalConfig(root=tmp_path, split="test").build()[0]
    (tmp_path / "image_pairs" / "val_pairs.csv").unlink()
    with pytest.raises(DatasetError, match=r"has no val_pairs\.csv"):
        PFPascalConfig(root=tmp_path, split="validation").build()


@pytest.mark.realdata
def test_published_lists_of_pf_pascal(realdata, tmp_path):
    root = realdata / "pf-pascal"
    splits = {split: PFPascalConfig(root=root, split=split).build() for split in ("train", "validation", "test")}
    assert {split: len(data) for split, data in splits.items()} == PFPascalPairs.published_pairs
    train = splits["train"].keys
    assert len({(key.source_id, key.target_id) for key in train}) == 2452
    assert len(splits["train"].categories) == 20
    flips = [row["flip"] for row in csv.DictReader((root / "train_pairs.csv").read_text().splitlines())]
    assert [("mirrored" in key.source_id) for key in train] == [flip == "1" for flip in flips]
    # the photos are not there; blank ones large enough for the points stand in for them
    (tmp_path / "test_pairs.csv").write_bytes((root / "test_pairs.csv").read_bytes())
    blank = layouts.save_photo(tmp_path / "blank.jpg", (500, 500))
    (tmp_path / "JPEGImages").mkdir()
    for name in {photo for key in splits["test"].keys for photo, _ in key.sides}:
        (tmp_path / "JPEGImages" / name).hardlink_to(blank)
    counts = [len(record.visible) for record in PFPascalConfig(root=tmp_path, split="test").build()]
    assert (len(counts), min(counts), max(counts)) == (299, 4, 17)


def test_an_annotation_that_is_cut_off_is_refused(tmp_path):
    root = layouts.write_pf_pascal(tmp_path)
    file = min(root.glob("*/Annotations/*/*.mat"))
    file.write_bytes(file.read_bytes()[:-1])  # its last variable is the box, which scipy would leave out
    with pytest.raises(DatasetError, match=rf"{file.name} is cut off"):
        list(PFPascalConfig(root=str(root), split="train").build())
