from __future__ import annotations

import json

import numpy as np
import pytest

from helpers import layouts
from helpers.pairs import check_pairs
from sd4match.data import AP10KConfig
from sd4match.data.ap10k_pairs import Animal, draw_pairs
from sd4match.errors import DatasetError


@pytest.mark.parametrize("task", ["intra-species", "cross-species", "cross-family"])
def test_ap10k_pairs_are_drawn_once_and_then_read(tmp_path, task):
    layouts.write_ap10k(tmp_path)
    data = AP10KConfig(root=tmp_path, split="test", pairs=task).build()
    check_pairs(data)
    families = dict(layouts.ANIMALS)
    for key in data.keys:
        (_, source), (_, target) = key.sides
        assert (source == target) == (task == "intra-species")
        assert (families[source] == families[target]) == (task != "cross-family")
        assert not key.source_id.startswith("000000000007")  # the photo of two animals
    assert all(record.visible.sum() >= 3 for record in data)
    listing = tmp_path / "sd4match-pairs" / f"{task}-test-split1-seed0.json"
    assert data.list_path == listing
    written = listing.read_bytes()
    assert AP10KConfig(root=tmp_path, split="test", pairs=task).build().keys == data.keys
    assert listing.read_bytes() == written
    listing.unlink()
    assert AP10KConfig(root=tmp_path, split="test", pairs=task).build().keys == data.keys
    with pytest.raises(DatasetError, match="drawn with other settings"):
        AP10KConfig(root=tmp_path, split="test", pairs=task, pairs_per_group=1).build()
    assert data[0].target_box == (2, 3, 42, 39)  # left, top, width, height in the file


def test_ap10k_pairs_depend_on_the_seed_and_not_on_the_order_of_animals():
    animals = {
        n: Animal(f"{n}.jpg", f"species {n % 4}", f"family {n % 2}", tuple((n + p) % 5 > 0 for p in range(17)))
        for n in range(40)
    }
    for task in ("intra-species", "cross-species", "cross-family"):
        pairs = draw_pairs(animals, task=task, pairs_per_group=7, seed=0)
        assert len(pairs) == len(set(pairs)) == 7 * (4 if task == "intra-species" else 2)
        assert pairs == draw_pairs(dict(reversed(animals.items())), task=task, pairs_per_group=7, seed=0)
        assert pairs != draw_pairs(animals, task=task, pairs_per_group=7, seed=1)


def test_ap10k_pairs_of_geoaware_preparation(tmp_path):
    layouts.write_prepared_ap10k(tmp_path / "ap-10k")
    data = AP10KConfig(root=tmp_path, split="test").build()
    check_pairs(data)
    assert [key.category for key in data.keys] == ["cat", "dog"]
    assert data[0].source_id == "Felidae/cat/000000000000.jpg"
    cross = AP10KConfig(root=tmp_path, split="test", pairs="cross-species").build()
    check_pairs(cross)
    assert cross.keys[0].sides[1] == ("Felidae/lion/000000000003.jpg", "lion")
    both = np.array(layouts.ap10k_animal(0)["keypoints"]).reshape(-1, 3)[:, 2] > 0
    both &= np.array(layouts.ap10k_animal(3)["keypoints"]).reshape(-1, 3)[:, 2] > 0
    assert cross[0].visible.tolist() == both.tolist()
    next((tmp_path / "ap-10k/PairAnnotation/test").glob("0-*")).write_text("{}")
    with pytest.raises(DatasetError, match="has no src_json_path below ImageAnnotation"):
        AP10KConfig(root=tmp_path, split="test").build()


def test_errors_of_ap10k_name_the_file_and_the_problem(tmp_path):
    with pytest.raises(DatasetError, match="not the root of AP-10K"):
        AP10KConfig(root=tmp_path).build()
    layouts.write_ap10k(tmp_path)
    with pytest.raises(DatasetError, match=r"no such annotation: .*ap10k-train-split1\.json"):
        AP10KConfig(root=tmp_path, split="train").build()
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match=r"give a place that can be written: data\.pair_list=FILE"):
        AP10KConfig(root=tmp_path, split="test", pair_list=str(tmp_path / "file" / "list.json")).build()
    own = tmp_path / "list.json"
    AP10KConfig(root=tmp_path, split="test", pair_list=str(own)).build()
    content = json.loads(own.read_text())
    own.write_text(json.dumps({**content, "pairs": [[100, 999]]}))
    with pytest.raises(DatasetError, match="names animal 999"):
        AP10KConfig(root=tmp_path, split="test", pair_list=str(own)).build()
    file = tmp_path / "annotations" / "ap10k-test-split1.json"
    content = json.loads(file.read_text())
    del content["annotations"][0]["keypoints"]
    file.write_text(json.dumps(content))
    data = AP10KConfig(root=tmp_path, split="test").build()
    (problem,) = data.problems
    assert problem == f"{file}: annotation 100 has no keypoints"
    for key in data.keys:
        if "100" in key.pair_id.split("-"):
            with pytest.raises(DatasetError, match="annotation 100 has no keypoints"):
                data[data.keys.index(key)]


@pytest.mark.realdata
def test_published_annotations_of_ap10k(realdata, tmp_path):
    root, listing = realdata / "ap-10k", str(tmp_path / "pairs.json")
    data = AP10KConfig(root=root, split="test", pairs="cross-family", pair_list=listing).build()
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
        AP10KConfig(root=root, split="test", pair_list=str(tmp_path / "other.json")).build()
