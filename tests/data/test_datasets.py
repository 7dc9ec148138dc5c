"""Every loader on its original layout."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from helpers import layouts
from sd4match.config.experiment import load_preset
from sd4match.data.ap10k import AP10KPairs
from sd4match.data.ap10k_pairs import Animal, draw_pairs
from sd4match.data.collate import make_pairs
from sd4match.data.config import dataset_kind
from sd4match.data.folder import FolderPairs
from sd4match.data.pf_pascal import PFPascalPairs
from sd4match.data.pf_willow import PFWillowPairs
from sd4match.data.spair import SPairPairs
from sd4match.data.spair_layout import write_spair_layout
from sd4match.data.subset import Subset, of_categories
from sd4match.data.synthetic.dataset import SyntheticPairs
from sd4match.errors import ConfigError, DatasetError, InputError, PhotoError
from sd4match.interfaces import PairDataset
from sd4match.registry import datasets
from sd4match.testing import FakeBackbone


def check_pairs(data):
    """What holds for every data set."""
    assert isinstance(data, PairDataset)
    assert len(data) == len(data.keys) == len(list(data))
    assert len({key.pair_id for key in data.keys}) == len(data)
    for key, record in zip(data.keys, data, strict=True):
        assert (record.pair_id, record.sides) == (key.pair_id, key.sides)
        assert record.source_points.shape == record.target_points.shape == (len(record.visible), 2)
        assert record.source_points.dtype == np.float64
        assert np.isfinite(record.source_points).all()
        assert np.isfinite(record.target_points).all()
        for name, size in ((record.source_id, record.source_size), (record.target_id, record.target_size)):
            assert data.photo(name).size == size
        assert {category for _, category in key.sides if category} <= set(data.categories)
    batch = make_pairs(list(data), data, {"backbone": FakeBackbone().prepare})
    assert batch.source.categories == tuple(key.category for key in data.keys)
    assert batch.target.categories == tuple(key.sides[1][1] for key in data.keys)
    assert len(batch) == len(data)


# SPair-71k


@pytest.mark.parametrize("listed", [True, False])
def test_spair(tmp_path, listed):
    base = layouts.write_spair(tmp_path, listed=listed)
    data = SPairPairs(root=tmp_path, split="test")
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
    assert [key.source_id for key in SPairPairs(root=base, split="train").keys] == [k.source_id for k in data.keys]


def test_spair_small_layout_and_a_hyphen_in_a_name(tmp_path):
    layouts.write_spair(tmp_path)
    assert len(SPairPairs(root=tmp_path, split="validation", layout="small")) == 2
    keys = SPairPairs(root=tmp_path, split="test").keys
    assert keys[3].target_id == "tvmonitor/img-5.jpg"
    assert keys[4].source_id == "tvmonitor/img-5.jpg"


def test_spair_photos_stay_in_their_stored_frame(tmp_path):
    base = layouts.write_spair(tmp_path)
    data = SPairPairs(root=tmp_path, split="test")
    turned = data.photo("tvmonitor/2010_000004.jpg")
    assert turned.size == (36, 64)
    with Image.open(base / "JPEGImages/tvmonitor/2010_000004.jpg") as image:
        assert image.getexif()[0x0112] == 6
        assert np.array_equal(turned.pixels, np.array(image))
    grey = data.photo("cat/2008_000002.jpg").pixels
    assert (grey[..., 0] == grey[..., 2]).all()
    assert data.photo("cat/2009_000003.jpg").pixels.std() > 10


def test_what_is_wrong_with_spair_is_named(tmp_path):
    with pytest.raises(DatasetError, match="no such folder"):
        SPairPairs(root=tmp_path / "none")
    with pytest.raises(DatasetError, match="not the root of SPair-71k: it has no PairAnnotation"):
        SPairPairs(root=tmp_path)
    base = layouts.write_spair(tmp_path)
    data = SPairPairs(root=tmp_path, split="test")
    name, _ = layouts.spair_pair(0, "cat", 0, 1)
    file = base / "PairAnnotation" / "test" / f"{name}.json"
    for changes, message in (
        ({"src_kps": [[1, 2]]}, "1 source points and 3 target points"),
        ({"src_kps": "none"}, "src_kps must be points"),
        ({"trg_bndbox": [5, 5, 5, 9]}, "trg_bndbox has nothing inside"),
        ({"trg_imsize": [0, 4]}, "trg_imsize must be positive"),
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
        SPairPairs(root=tmp_path, split="test")


def test_what_is_written_as_spair_reads_back(tmp_path):
    synthetic = SyntheticPairs(split="test", pairs=6, photos_per_category=3)
    write_spair_layout(synthetic, tmp_path)
    data = SPairPairs(root=tmp_path, split="test")
    check_pairs(data)
    for mine, theirs in zip(data, synthetic, strict=True):
        assert mine.category == theirs.category
        assert mine.difficulty == dict(theirs.difficulty)
        assert np.abs(mine.target_points - theirs.target_points[theirs.visible]).max() <= 0.5


# PF-Pascal


@pytest.mark.parametrize("form", ["ncnet", "reference"])
def test_pf_pascal(tmp_path, form):
    layouts.write_pf_pascal(tmp_path, form=form)
    train, test = (PFPascalPairs(root=tmp_path, split=split) for split in ("train", "test"))
    check_pairs(train)
    check_pairs(test)
    assert (len(train), len(PFPascalPairs(root=tmp_path, split="validation")), len(test)) == (3, 1, 1)
    assert train.reference == "photo"
    assert train.categories == ("cat",)  # class 8, counted from 1
    assert train[0].visible.tolist() == [True, False, False, True]  # NaN in either photo
    assert train[0].source_box == (2, 3, 30, 35)
    seen = test[0].visible
    assert test[0].source_points[seen].tolist() == [[10, 10], [30, 12], [25.5, 30.25]]
    assert test[0].target_points[seen].tolist() == [[5, 50], [28, 44], [7, 7]]


def test_pf_pascal_flip_mirrors_both_photos_and_their_points(tmp_path):
    layouts.write_pf_pascal(tmp_path)
    data = PFPascalPairs(root=tmp_path, split="train")
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


def test_what_is_wrong_with_pf_pascal_is_named(tmp_path):
    layouts.write_pf_pascal(tmp_path)
    file = tmp_path / "image_pairs" / "train_pairs.csv"
    good = file.read_text()
    for text, message in (
        (good.replace(",8,0", ",0,0", 1), r"row 1: class must be 1 to 20, not '0'"),
        (good.replace(",8,1", ",8,2", 1), r"row 2: flip must be 0 or 1, not '2'"),
        (good.replace("class", "klass"), "no column class"),
        (good.replace(",8,0", ",8", 1), "row 1 has 3 columns; its header has 4"),
        ("source_image,target_image,class\n", "lists no pair"),
    ):
        file.write_text(text)
        with pytest.raises(DatasetError, match=message):
            PFPascalPairs(root=tmp_path, split="train")
    file.write_text(good)
    data = PFPascalPairs(root=tmp_path, split="train")
    (tmp_path / "PF-dataset-PASCAL/Annotations/cat/2010_000008.mat").write_bytes(b"MATLAB 5.0 nonsense")
    with pytest.raises(DatasetError, match=r"not a readable annotation: .*2010_000008\.mat"):
        data[2]
    test = tmp_path / "image_pairs" / "test_pairs.csv"
    test.write_text(test.read_text().replace("10;30;25.5", "10;30"))
    with pytest.raises(DatasetError, match="row 1: 2 x and 3 y"):
        PFPascalPairs(root=tmp_path, split="test")[0]
    (tmp_path / "image_pairs" / "val_pairs.csv").unlink()
    with pytest.raises(DatasetError, match=r"has no val_pairs\.csv"):
        PFPascalPairs(root=tmp_path, split="validation")


@pytest.mark.realdata
def test_the_real_pf_pascal_lists(realdata, tmp_path):
    root = realdata / "pf-pascal"
    splits = {split: PFPascalPairs(root=root, split=split) for split in ("train", "validation", "test")}
    assert {split: len(data) for split, data in splits.items()} == PFPascalPairs.published_pairs
    train = splits["train"].keys
    assert len({(key.source_id, key.target_id) for key in train}) == 2452
    assert len(splits["train"].categories) == 20
    flips = [row["flip"] for row in csv.DictReader((root / "train_pairs.csv").read_text().splitlines())]
    assert [("mirrored" in key.source_id) for key in train] == [flip == "1" for flip in flips]
    # the photos are not there; blank ones large enough for the points stand in for them
    (tmp_path / "test_pairs.csv").write_bytes((root / "test_pairs.csv").read_bytes())
    for name in {photo for key in splits["test"].keys for photo, _ in key.sides}:
        layouts.save_photo(tmp_path / "JPEGImages" / name, (500, 500))
    counts = [len(record.visible) for record in PFPascalPairs(root=tmp_path, split="test")]
    assert (len(counts), min(counts), max(counts)) == (299, 4, 17)


# PF-Willow


def test_pf_willow_without_a_list_has_all_ordered_pairs(tmp_path):
    layouts.write_pf_willow(tmp_path)
    for root in (tmp_path, tmp_path / "PF-dataset"):
        data = PFWillowPairs(root=root)
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
    data = PFWillowPairs(root=tmp_path)
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


def test_what_is_wrong_with_pf_willow_is_named(tmp_path):
    with pytest.raises(DatasetError, match="not the root of PF-Willow"):
        PFWillowPairs(root=tmp_path)
    layouts.write_pf_willow(tmp_path)
    with pytest.raises(DatasetError, match="a test split only, no train split"):
        PFWillowPairs(root=tmp_path, split="train")
    data = PFWillowPairs(root=tmp_path)
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
        PFWillowPairs(root=tmp_path)


# AP-10K


@pytest.mark.parametrize("task", ["intra-species", "cross-species", "cross-family"])
def test_ap10k_draws_pairs_writes_them_and_reads_them_again(tmp_path, task):
    layouts.write_ap10k(tmp_path)
    data = AP10KPairs(root=tmp_path, split="test", pairs=task)
    check_pairs(data)
    families = dict(layouts.ANIMALS)
    for key in data.keys:
        (_, source), (_, target) = key.sides
        assert (source == target) == (task == "intra-species")
        assert (families[source] == families[target]) == (task != "cross-family")
        assert not key.source_id.startswith("000000000007")  # the photo of two animals
    assert all(record.visible.sum() >= 3 for record in data)
    listing = tmp_path / "sd4match-pairs" / f"{task}-test-split1-seed0.json"
    assert data.list == listing
    written = listing.read_bytes()
    assert AP10KPairs(root=tmp_path, split="test", pairs=task).keys == data.keys
    assert listing.read_bytes() == written
    listing.unlink()
    assert AP10KPairs(root=tmp_path, split="test", pairs=task).keys == data.keys
    with pytest.raises(DatasetError, match="drawn with other settings"):
        AP10KPairs(root=tmp_path, split="test", pairs=task, pairs_per_group=1)
    assert data[0].target_box == (2, 3, 42, 39)  # left, top, width, height in the file


def test_ap10k_seeds_and_groups():
    animals = {
        n: Animal(f"{n}.jpg", f"species {n % 4}", f"family {n % 2}", tuple((n + p) % 5 > 0 for p in range(17)))
        for n in range(40)
    }
    for task in ("intra-species", "cross-species", "cross-family"):
        pairs = draw_pairs(animals, task=task, per_group=7, seed=0)
        assert len(pairs) == len(set(pairs)) == 7 * (4 if task == "intra-species" else 2)
        assert pairs == draw_pairs(dict(reversed(animals.items())), task=task, per_group=7, seed=0)
        assert pairs != draw_pairs(animals, task=task, per_group=7, seed=1)


def test_ap10k_as_geoaware_prepares_it(tmp_path):
    layouts.write_prepared_ap10k(tmp_path / "ap-10k")
    data = AP10KPairs(root=tmp_path, split="test")
    check_pairs(data)
    assert [key.category for key in data.keys] == ["cat", "dog"]
    assert data[0].source_id == "Felidae/cat/000000000000.jpg"
    cross = AP10KPairs(root=tmp_path, split="test", pairs="cross-species")
    check_pairs(cross)
    assert cross.keys[0].sides[1] == ("Felidae/lion/000000000003.jpg", "lion")
    both = np.array(layouts.ap10k_animal(0)["keypoints"]).reshape(-1, 3)[:, 2] > 0
    both &= np.array(layouts.ap10k_animal(3)["keypoints"]).reshape(-1, 3)[:, 2] > 0
    assert cross[0].visible.tolist() == both.tolist()
    next((tmp_path / "ap-10k/PairAnnotation/test").glob("0-*")).write_text("{}")
    with pytest.raises(DatasetError, match="has no src_json_path below ImageAnnotation"):
        AP10KPairs(root=tmp_path, split="test")


def test_what_is_wrong_with_ap10k_is_named(tmp_path):
    with pytest.raises(DatasetError, match="not the root of AP-10K"):
        AP10KPairs(root=tmp_path)
    layouts.write_ap10k(tmp_path)
    with pytest.raises(DatasetError, match=r"no such annotation: .*ap10k-train-split1\.json"):
        AP10KPairs(root=tmp_path, split="train")
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match=r"give a place that can be written: data\.pair_list=FILE"):
        AP10KPairs(root=tmp_path, split="test", pair_list=str(tmp_path / "file" / "list.json"))
    own = tmp_path / "list.json"
    AP10KPairs(root=tmp_path, split="test", pair_list=str(own))
    content = json.loads(own.read_text())
    own.write_text(json.dumps({**content, "pairs": [[100, 999]]}))
    with pytest.raises(DatasetError, match="names animal 999"):
        AP10KPairs(root=tmp_path, split="test", pair_list=str(own))
    file = tmp_path / "annotations" / "ap10k-test-split1.json"
    content = json.loads(file.read_text())
    del content["annotations"][0]["keypoints"]
    file.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="KeyError: 'keypoints'"):
        AP10KPairs(root=tmp_path, split="test")


@pytest.mark.realdata
def test_the_real_ap10k_pair(realdata, tmp_path):
    root, listing = realdata / "ap-10k", str(tmp_path / "pairs.json")
    data = AP10KPairs(root=root, split="test", pairs="cross-family", pair_list=listing)
    check_pairs(data)
    assert {key.sides for key in data.keys} == {
        (("000000037516.jpg", "jaguar"), ("000000000004.jpg", "antelope")),
        (("000000000004.jpg", "antelope"), ("000000037516.jpg", "jaguar")),
    }
    jaguar = next(record for record in data if record.category == "jaguar")
    assert (jaguar.source_size, jaguar.target_size) == ((867, 1200), (683, 1024))
    assert (len(jaguar.visible), int(jaguar.visible.sum())) == (17, 16)
    assert jaguar.source_box == (66, 192, 66 + 1092, 192 + 512)
    with pytest.raises(DatasetError, match="no intra-species pairs"):
        AP10KPairs(root=root, split="test", pair_list=str(tmp_path / "other.json"))


# folder


@pytest.mark.parametrize("form", ["json", "csv"])
def test_folder(tmp_path, form):
    layouts.write_folder(tmp_path, form=form)
    data = FolderPairs(root=tmp_path, split="test")
    check_pairs(data)
    assert len(data) == 6
    assert data.categories == ("cat",)
    assert data.reference == ("box" if form == "json" else "photo")
    record = next(r for r in data if r.pair_id == "my photo 0.jpg-my photo 1.jpg")
    assert record.source_points.tolist() == [[10, 12], [50.5, 30]]  # what both show, by name
    assert record.target_points.tolist() == [[11, 13], [30, 50]]
    assert data.photo("my photo 1.jpg").size == (60, 40)
    assert FolderPairs(root=tmp_path, split="test", exif=True).photo("my photo 1.jpg").size == (40, 60)
    check_pairs(FolderPairs(root=tmp_path, split="test", exif=True))


def test_folder_pairs_splits_and_missing_boxes(tmp_path):
    layouts.write_folder(tmp_path, boxes=False)
    assert FolderPairs(root=tmp_path).reference == "photo"
    file = tmp_path / "points.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "pairs": [["my photo 2.jpg", "my photo 0.jpg"]]}))
    assert [key.sides[0][0] for key in FolderPairs(root=tmp_path).keys] == ["my photo 2.jpg"]
    for number in range(3):
        content["photos"][f"my photo {number}.jpg"]["split"] = "train" if number else "test"
    file.write_text(json.dumps(content))
    assert len(FolderPairs(root=tmp_path, split="train")) == 2
    with pytest.raises(DatasetError, match="makes no pair of the test split"):
        FolderPairs(root=tmp_path, split="test")


def test_what_is_wrong_with_a_folder_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"no points\.json or points\.csv in"):
        FolderPairs(root=tmp_path)
    file = tmp_path / "points.json"
    point = {"a.jpg": {"points": {"ear": [1, 2]}}}
    for content, message in (
        ({}, 'has no "photos"'),
        ({"photos": {"a.jpg": {}}}, r'a\.jpg must have "points"'),
        ({"photos": {"a.jpg": {"points": {"ear": [1]}}}}, "point 'ear' must be x, y in pixels"),
        ({"photos": {"a.jpg": {"points": {"ear": [1, float("nan")]}}}}, "point 'ear' is not finite"),
        ({"photos": {"a.jpg": {"points": {}, "box": [1, 2]}}}, "box must be left, top, right, bottom"),
        ({"photos": point, "pairs": [["a.jpg", "b.jpg"]]}, r"names 'b\.jpg', which is not among its photos"),
        ({"photos": point, "pairs": ["a.jpg"]}, "pair 0 must be two file names"),
        ({"photos": point, "pairs": [["a.jpg", "a.jpg"]] * 2}, "pair 1 stands there twice"),
    ):
        file.write_text(json.dumps(content))
        with pytest.raises(DatasetError, match=message):
            FolderPairs(root=tmp_path)
    (tmp_path / "mine.csv").write_text("photo,x,y\na.jpg,1,2\n")
    with pytest.raises(DatasetError, match="has no column point"):
        FolderPairs(root=tmp_path, points="mine.csv")


# kinds and subsets


def test_kinds_by_the_names_that_people_use():
    for text, kind in (
        ("PF-Pascal", "pf_pascal"),
        ("pfwillow", "pf_willow"),
        ("SPair-71k", "spair"),
        ("AP10K", "ap10k"),
    ):
        assert dataset_kind(text) == kind
    with pytest.raises(ConfigError, match="unknown data set 'spare'; did you mean 'spair'"):
        dataset_kind("spare")


def test_data_sets_are_built_by_their_configs(tmp_path):
    layouts.write_spair(tmp_path)
    config = load_preset("text", [f"data={{kind: spair, root: '{tmp_path}', layout: small}}"])
    assert len(datasets.build(config.data)) == 2
    with pytest.raises(ConfigError, match=r"root: Field required"):
        load_preset("text", ["data=spair"])


def test_subsets_keep_order_and_refuse_unknown_categories(tmp_path):
    layouts.write_spair(tmp_path)
    data = SPairPairs(root=tmp_path, split="test")
    cats = of_categories(data, ["cat"])
    check_pairs(cats)
    assert (len(cats), cats.categories, cats.reference) == (3, ("cat",), "box")
    assert of_categories(data, []) is data
    with pytest.raises(InputError, match="no category 'dog' in spair"):
        of_categories(data, ["dog"])
