from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import sd4match.data
from helpers import layouts
from helpers.pairs import check_pairs
from sd4match.config.experiment import parse_config
from sd4match.data import PairDataset, PairKey, PairRecord, Photo, SPairConfig
from sd4match.data.config import dataset_kind
from sd4match.errors import ConfigError, DatasetError
from sd4match.registry import datasets


def test_usual_spellings_of_kinds():
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
    config = parse_config(f"data: {{kind: spair, root: '{tmp_path}', layout: small}}", origin="these lines")
    assert len(config.data.build()) == 2
    assert datasets.parse({"kind": "spair", "root": str(tmp_path), "layout": "small"}) == config.data
    with pytest.raises(ConfigError, match=r"root: Field required"):
        parse_config("data: spair", origin="these lines")


def test_a_config_reads_nothing_and_stores_paths_as_text(tmp_path):
    config = SPairConfig(root=tmp_path / "none")
    assert config == SPairConfig(root=str(tmp_path / "none"))
    assert config.model_dump()["root"] == str(tmp_path / "none")
    assert datasets.parse(config.model_dump(mode="json")) == config
    with pytest.raises(DatasetError, match="no such folder"):
        config.build()


@pytest.mark.parametrize("kind", ["ap10k", "folder", "pf_pascal", "pf_willow", "spair", "synthetic"])
def test_every_built_in_kind_is_a_config_with_a_typed_build(kind):
    config = datasets.config_class(kind)
    built = getattr(sd4match.data, config.build.__annotations__["return"])
    assert issubclass(built, PairDataset)
    assert built.name == kind


def test_a_data_set_of_another_package_is_a_class_with_a_typed_signature():
    with datasets.temporarily():

        @datasets.register_class("two")
        class TwoPhotos(PairDataset):
            name, categories, reference = "two", ("fish",), "photo"

            def __init__(self, *, split: str, points: int = 1) -> None:
                self.split, self.points = split, points
                self.keys = (PairKey(pair_id="a-b", source_id="a", target_id="b", category="fish"),)

            def __getitem__(self, index):
                points = np.full((self.points, 2), 7.0)
                return PairRecord(
                    **vars(self.keys[index]), source_size=(20, 30), target_size=(20, 30), source_points=points,
                    target_points=points, visible=np.ones(self.points, bool),
                )  # fmt: skip

            def photo(self, image_id):
                return Photo(np.full((20, 30, 3), ord(image_id), np.uint8), image_id)

        config = datasets.parse({"kind": "two", "split": "test", "points": 3})
        check_pairs(config.build())
        assert config.build()[0].visible.shape == (3,)
        with pytest.raises(ConfigError, match="points"):
            datasets.parse({"kind": "two", "points": "many"})


def test_importing_the_configs_loads_neither_torch_nor_numpy():
    code = "import sys; from sd4match.data import SPairConfig; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_public_names_are_sorted_and_exist():
    names = sd4match.data.__all__
    assert list(names) == sorted(names)
    for name in names:
        assert getattr(sd4match.data, name) is not None
        assert name in dir(sd4match.data)
