"""Data classes and configs by hand, and the writing of the synthetic data set."""

from __future__ import annotations

import os

import numpy as np
import pytest

from sd4match.data import AP10KConfig, FolderConfig, PFWillowConfig, Subset, SyntheticConfig
from sd4match.data.ap10k_pairs import Animal, draw_pairs
from sd4match.data.base import FilePairs
from sd4match.data.collate import make_pairs, pad_points
from sd4match.data.config import dataset_kind
from sd4match.data.loading import prepare_all
from sd4match.data.spair_layout import new_folder
from sd4match.errors import ComponentError, ConfigError, DatasetError, InputError, PhotoError, SD4MatchError
from sd4match.testing import FakeBackbone, FakePairs


@pytest.mark.parametrize(
    "fields",
    [
        {"pairs": 0}, {"pairs": -3}, {"pairs": 10**9}, {"pairs": True}, {"pairs": 2.5}, {"photos_per_category": 1},
        {"photos_per_category": 10**7}, {"size": 0}, {"size": 31}, {"size": 60_000}, {"seed": -1}, {"seed": 2**64},
        {"split": "exam"}, {"distractors": 2.0},
    ],
)  # fmt: skip
def test_configs_of_synthetic_pairs_are_bounded(fields):
    with pytest.raises(ConfigError, match=next(iter(fields))):
        SyntheticConfig(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"pairs_per_group": 0},
        {"pairs_per_group": -1},
        {"seed": 2**64},
        {"pairs": "all"},
        {"split": "exam"},
        {"root": 5},
    ],
)
def test_configs_of_ap10k_are_bounded(fields):
    with pytest.raises(ConfigError, match=next(iter(fields))):
        AP10KConfig(**{"root": "x", **fields})


@pytest.mark.parametrize("config", [SyntheticConfig(), FolderConfig(root="."), AP10KConfig(root=".")])
def test_splits_that_do_not_exist_are_refused(config):
    with pytest.raises(ConfigError, match="split: must be 'train', 'validation' or 'test', not 'exam'"):
        config.model_copy(update={"split": "exam"})


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("", "root: is empty"),
        ("a\0b", "holds a null character"),
        ("~nobody-at-all/x", "names a user that does not exist"),
        ("x" * 5000, "at most 4,096"),
        ("/dev/null", "/dev/null is not a folder; give the root of PF-Willow"),
        ("/nowhere", "no such folder: /nowhere; give the root of PF-Willow"),
    ],
)
def test_roots_that_are_no_folder_are_refused(root, message):
    with pytest.raises((ConfigError, DatasetError), match=message):
        PFWillowConfig(root=root).build()


def test_other_paths_of_a_data_set_are_checked(tmp_path):
    os.mkfifo(tmp_path / "points.json")
    with pytest.raises(DatasetError, match="is not a regular file"):
        FolderConfig(root=tmp_path).build()
    with pytest.raises(ConfigError, match="points: is empty"):
        FolderConfig(root=tmp_path, points="").build()
    with pytest.raises(DatasetError, match=r"no none\.csv in"):
        FolderConfig(root=tmp_path, points="none.csv").build()


def test_names_of_data_sets_are_texts():
    with pytest.raises(ConfigError, match="a data set is named by a text, not 5"):
        dataset_kind(5)


def test_pairs_are_read_like_items_of_a_sequence():
    for data in (SyntheticConfig(split="test", pairs=3, photos_per_category=3).build(), Subset(FakePairs(), [3, 1])):
        assert data[-1].pair_id == data[len(data) - 1].pair_id
        for index in (len(data), -len(data) - 1):
            with pytest.raises(IndexError, match="no pair") as caught:
                data[index]
            assert isinstance(caught.value, InputError)
    assert Subset(FakePairs(), [-1]).indices == (5,)


def test_animals_are_drawn_with_numbers_that_make_sense():
    animals = {n: Animal(f"{n}.jpg", "dog", "Canidae", (True,) * 5) for n in range(3)}
    for changes, message in (
        ({"pairs_per_group": 0}, "pairs_per_group must be a whole number of at least 1"),
        ({"seed": -1}, "seed must be a whole number"),
    ):
        with pytest.raises(InputError, match=message):
            draw_pairs(animals, **{"task": "intra-species", "pairs_per_group": 4, "seed": 0, **changes})
    animals[3] = Animal("3.jpg", "dog", "Canidae", (True,) * 4)
    with pytest.raises(InputError, match="the same number of points"):
        draw_pairs(animals, task="intra-species", pairs_per_group=4, seed=0)


def test_too_few_photos_share_points(monkeypatch):
    monkeypatch.setattr("sd4match.data.synthetic.dataset._MIN_POINTS", 100)
    with pytest.raises(DatasetError, match="too few photos share three visible points"):
        SyntheticConfig(split="test", pairs=1, photos_per_category=2, size=32).build().keys  # noqa: B018


def test_photos_and_sizes_of_pairs_fit(monkeypatch):
    data = FakePairs()
    record = data[0]
    changed = type(record)(**{**vars(record), "target_size": (30, 32)})
    with pytest.raises(DatasetError, match=f"{record.target_id} is 32 x 24 pixels, but its annotation says 32 x 30"):
        make_pairs([changed], data, {"backbone": FakeBackbone().prepare})
    with pytest.raises(InputError, match="must differ in their first size alone"):
        pad_points([np.ones((1, 2)), np.ones((1, 3))])


class Broken(FakePairs):
    def photo(self, image_id):
        if image_id == "0":
            raise RuntimeError("the disk is gone")
        if image_id == "1":
            return None
        if image_id == "2":
            raise DatasetError("the list is gone")
        return super().photo(image_id)


def test_errors_of_foreign_parts_on_threads_name_part_and_photo():
    for image_id, error, message in (
        ("0", ComponentError, "photo of the data set 'fake' failed for '0': RuntimeError: the disk is gone"),
        ("1", ComponentError, "photo of the data set 'fake' must return a Photo for '1', not None"),
        ("2", DatasetError, "the list is gone"),
    ):
        with pytest.raises(error, match=message):
            prepare_all(Broken(), [image_id, "3"], {})
    with pytest.raises(ComponentError, match="preprocessing of 'mine' failed for '3': ZeroDivisionError"):
        prepare_all(Broken(), ["3"], {"mine": lambda photo: 1 // 0})
    with pytest.raises(ComponentError, match="preprocessing of 'mine' must return a View for '3', not None"):
        prepare_all(Broken(), ["3"], {"mine": lambda photo: None})


def test_photos_of_file_pairs_are_named_by_texts(tmp_path):
    class Own(FilePairs):
        name = "own"

        def read(self, index):
            raise NotImplementedError

        def photo_path(self, image_id):
            return self.root / image_id

    data = Own(tmp_path, "test", [])
    for read in (data.photo, data.photo_size):
        with pytest.raises(PhotoError, match="no such photo"):
            read("none.jpg")


# make-synthetic -------------------------------------------------------------------------------------------------------


def test_a_new_folder_appears_whole(tmp_path):
    target = tmp_path / "a" / "b"
    with new_folder(target) as folder:
        (folder / "x").mkdir()
        (folder / "x" / "file").write_text("1")
    assert [path.name for path in target.iterdir()] == ["x"]
    with pytest.raises(DatasetError, match="is not an empty folder"), new_folder(target):
        pass
    assert [path.name for path in target.iterdir()] == ["x"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), DatasetError("mine")])
@pytest.mark.parametrize("exists", [True, False])
def test_nothing_is_left_of_a_folder_that_cannot_be_written(tmp_path, error, exists):
    target = tmp_path / "a" / "b"
    if exists:
        target.mkdir(parents=True)
    wanted = DatasetError if isinstance(error, (OSError, SD4MatchError)) else type(error)
    with pytest.raises(wanted) as caught, new_folder(target) as folder:  # noqa: PT012 - the block fails
        (folder / "half").write_text("1")
        raise error
    if isinstance(error, OSError):
        assert str(caught.value) == f"cannot write the data set to {target}: No space left on device"
    assert list(tmp_path.rglob("*")) == ([tmp_path / "a", target] if exists else [])
