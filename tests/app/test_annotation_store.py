"""Annotations are on the disk at once, in the form of the data set, and nothing of the user's is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread
from unittest.mock import patch

import pytest
from PIL import Image

from helpers.annotation import bytes_below, write_photos, write_points
from sd4match.app import annotation_store
from sd4match.app.annotation_store import AnnotationStore
from sd4match.data import FolderConfig
from sd4match.errors import DatasetError, InputError, PhotoError
from sd4match.io.locks import LOCK_FILE

CATS = ("cats/1.png", "cats/2.png", "cats/3.png")


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_photos(tmp_path)


def content(folder: Path):
    return json.loads((folder / "points.json").read_text())


def test_bare_photos_become_a_data_set_and_stay_as_they_are(folder):
    before = bytes_below(folder)
    with AnnotationStore.open(folder) as store:
        assert store.pairs == [("a.png", "b.png"), ("a.png", "c.png")]
        assert not (folder / "points.json").exists()
        store.mark("ear", {"a.png": (10.04, 20.0), "b.png": (30, 40.26)})
        store.mark("tail", {"a.png": (89.9, -3), "b.png": None})
    assert content(folder) == {
        "photos": {
            "a.png": {"points": {"ear": [10, 20], "tail": [89, 0]}},
            "b.png": {"points": {"ear": [30, 40.3], "tail": None}},
        }
    }
    assert {name: data for name, data in bytes_below(folder).items() if name != "points.json"} == before
    pairs = FolderConfig(root=str(folder), split="test").build()
    assert [(pair.source_id, pair.target_id) for pair in pairs] == [("a.png", "b.png"), ("b.png", "a.png")]
    assert pairs[0].source_points.tolist() == [[10, 20]]
    assert pairs[0].target_points.tolist() == [[30, 40.3]]


def test_folders_are_categories_and_the_richest_photo_stands_beside_the_others(tmp_path):
    root = write_photos(tmp_path, [*CATS, "dogs/1.png", "dogs/2.png", "2024/x.png", "dogs/.hidden.png", ".git/y.png"])
    store = AnnotationStore(root)
    assert store.categories == ["cats", "dogs"]
    assert store.category("2024/x.png") is None  # a number is no category
    assert store.pairs == [(CATS[0], CATS[1]), (CATS[0], CATS[2]), ("dogs/1.png", "dogs/2.png")]
    store.mark("ear", {CATS[2]: (1, 1)})
    store.reload()
    assert store.pairs[:2] == [(CATS[2], CATS[0]), (CATS[2], CATS[1])]
    assert content(root)["photos"] == {CATS[2]: {"category": "cats", "points": {"ear": [1, 1]}}}


def test_a_photo_of_its_own_category_is_paired_all_the_same(tmp_path):
    assert AnnotationStore(write_photos(tmp_path, ["x/1.png", "y/1.png"])).pairs == [("x/1.png", "y/1.png")]


def test_what_stands_in_a_file_is_kept(folder):
    photos = {
        "gone.png": {"category": "cat", "split": "train", "points": {"ear": [1.123456, 2]}},
        "a.png": {"category": "cat", "split": "test", "box": [1, 2, 30.5, 40], "points": {"nose": None}},
        "b.png": {"points": {}},
    }
    write_points(folder, photos, pairs=[["a.png", "b.png"], ["gone.png", "a.png"]])
    with AnnotationStore.open(folder) as store:
        assert store.pairs == [("a.png", "b.png")]
        assert (store.box("a.png"), store.split("a.png"), store.split("c.png")) == ((1, 2, 30.5, 40), "test", None)
        store.mark("ear", {"b.png": (5, 6)})
        photos["b.png"]["points"]["ear"] = [5, 6]
        assert content(folder) == {"photos": photos, "pairs": [["a.png", "b.png"], ["gone.png", "a.png"]]}
        assert store.add_pair("b.png", "a.png") == 0  # there already
        assert store.add_pair("c.png", "a.png") == 1
        assert content(folder)["pairs"][-1] == ["c.png", "a.png"]
        assert store.undo()
        assert store.pairs == [("a.png", "b.png")]
        assert content(folder)["pairs"] == [["a.png", "b.png"], ["gone.png", "a.png"]]


def test_a_table_is_continued_as_a_table(folder):
    table = folder / "points.csv"
    table.write_text("point,photo,y,x,split\near,a.png,2,1.5,train\ntail,a.png,,,train\n")
    with AnnotationStore.open(folder) as store:
        store.mark("ear", {"b.png": (3, 4)})
        store.describe(["b.png"], category="cat, or dog")
        assert table.read_text() == (
            "photo,point,x,y,category,split\na.png,ear,1.5,2,,train\na.png,tail,,,,train\n"
            'b.png,ear,3,4,"cat, or dog",\n'
        )
        assert AnnotationStore(folder).points("a.png") == {"ear": (1.5, 2.0), "tail": None}
        assert not store.has_boxes
        with pytest.raises(DatasetError, match=r"points.csv cannot hold boxes"):
            store.frame("a.png", (1, 1, 5, 5))
        store.remove("ear", ["a.png", "b.png"])
        with pytest.raises(DatasetError, match=r"points.csv needs a point"):
            store.remove("tail", ["a.png"])
    assert not (folder / "points.json").exists()


def test_points_are_renamed_removed_and_taken_back(folder):
    with AnnotationStore.open(folder) as store:
        assert not store.undo()
        assert store.new_name(["a.png"]) == "point 1"
        store.mark("point 1", {"a.png": (1, 1), "b.png": (2, 2), "c.png": (3, 3)})
        assert store.new_name(["a.png"]) == "point 2"
        store.mark("tail", {"c.png": (4, 4)})
        store.rename("point 1", "ear", ["a.png", "b.png"])
        assert [store.points(name) for name in store.photos] == [
            {"ear": (1, 1)}, {"ear": (2, 2)}, {"ear": (3, 3), "tail": (4, 4)},
        ]  # fmt: skip
        with pytest.raises(DatasetError, match=r"c.png has another point 'tail'"):
            store.rename("ear", "tail", ["a.png"])
        store.mark("point 9", {"a.png": (5, 5)})
        store.rename("point 9", "tail", ["a.png"])  # the same point as in c.png
        assert store.points("a.png") == {"ear": (1, 1), "tail": (5, 5)}
        assert store.names(["b.png"]) == ["ear", "tail"]
        store.remove("ear", ["a.png"])
        assert store.undo()
        assert store.points("a.png") == {"ear": (1, 1), "tail": (5, 5)} == AnnotationStore(folder).points("a.png")
        while store.undo():
            pass
        assert content(folder) == {"photos": {name: {"points": {}} for name in store.photos}}
    assert AnnotationStore(folder).points("a.png") == {}


def test_categories_splits_and_boxes_are_written(folder):
    with AnnotationStore.open(folder) as store:
        store.describe(["a.png", "b.png"], category="cat")
        store.assign("a.png", "validation")
        store.frame("b.png", (50, 40, 10, 200))
        assert content(folder)["photos"] == {
            "a.png": {"category": "cat", "split": "validation", "points": {}},
            "b.png": {"category": "cat", "box": [10, 40, 50, 59], "points": {}},
        }
        store.assign("a.png", None)
        store.frame("b.png", None)
        assert content(folder)["photos"]["b.png"] == {"category": "cat", "points": {}}
        assert store.split("a.png") is None


def test_photos_are_shared_out_so_that_each_split_makes_pairs(tmp_path):
    with AnnotationStore.open(write_photos(tmp_path, [f"cat/{n}.png" for n in range(10)])) as store:
        with pytest.raises(DatasetError, match="no photo shows a point yet"):
            store.share_out()
        store.mark("ear", {f"cat/{n}.png": (1, 1) for n in range(5)})
        with pytest.raises(DatasetError, match="photos of cat that show points: 5;"):
            store.share_out()
        store.mark("ear", {f"cat/{n}.png": (1, 1) for n in range(10)})
        assert store.share_out() == {"train": 5, "validation": 2, "test": 3}
    counts = {
        name: len(FolderConfig(root=str(tmp_path), split=name).build()) for name in ("train", "validation", "test")
    }
    assert counts == {"train": 20, "validation": 2, "test": 6}


def test_the_frame_is_that_of_the_data_set(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (90, 60)).save(tmp_path / name, exif=exif)
    for turned, size in ((False, (60, 90)), (True, (90, 60))):
        store = AnnotationStore(tmp_path, exif=turned)
        assert store.size("a.jpg") == store.photo("a.jpg").size == size
        dataset_size = FolderConfig(root=str(tmp_path), split="test", exif=turned)
        store.mark("far", dict.fromkeys(store.photos, (1000, 1000)))
        assert store.points("a.jpg") == {"far": (size[1] - 1, size[0] - 1)}
        assert dataset_size.build()[0].source_size == size


# nothing is lost ------------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from sd4match.app.annotation_store import AnnotationStore
import sd4match.io.files as files
with AnnotationStore.open(sys.argv[1]) as store:
    store.mark("ear", {"a.png": (1, 2), "b.png": (3, 4)})
    if sys.argv[2] == "while writing":
        Path.replace = lambda self, target: os.kill(os.getpid(), signal.SIGKILL)
        store.mark("tail", {"a.png": (5, 6)})
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["after a click", "while writing"])
def test_a_kill_loses_nothing(folder, moment):
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), moment], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    with AnnotationStore.open(folder) as store:  # the lock is free
        assert store.points("a.png") == {"ear": (1, 2)}
        assert store.points("b.png") == {"ear": (3, 4)}
        store.mark("tail", {"a.png": (5, 6)})
    assert len(FolderConfig(root=str(folder), split="test").build()) == 2


def test_every_change_is_on_the_disk_when_it_returns_and_flushed(folder):
    flushed = []
    with AnnotationStore.open(folder) as store, patch("os.fsync", flushed.append):
        for number in range(3):
            store.mark(f"p{number}", {"a.png": (number, 1)})
            assert AnnotationStore(folder).points("a.png")[f"p{number}"] == (number, 1)
    assert len(flushed) == 6  # the file and its name


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_the_app_shows_it(folder):
    with AnnotationStore.open(folder) as store:
        store.mark("ear", {"a.png": (1, 2)})
        before = bytes_below(folder)
        with (
            patch("os.fsync", side_effect=OSError(28, "No space left on device")),
            pytest.raises(DatasetError, match=r"cannot write .*points.json: No space left"),
        ):
            store.mark("ear", {"a.png": (7, 7)})
        assert bytes_below(folder) == before
        assert store.points("a.png") == {"ear": (1, 2)}


def test_a_file_that_changed_meanwhile_is_not_overwritten(folder):
    with AnnotationStore.open(folder) as store:
        store.mark("ear", {"a.png": (1, 2)})
        write_points(folder, {"b.png": {"points": {"mine": [1, 1]}}})
        before = bytes_below(folder)
        for change in (
            lambda: store.mark("ear", {"a.png": (3, 4)}),
            lambda: store.remove("ear", ["a.png"]),
            store.undo,
        ):
            with pytest.raises(DatasetError, match=r"points.json was changed by another program"):
                change()
        assert bytes_below(folder) == before
        assert store.points("a.png") == {"ear": (1, 2)}
        store.reload()
        store.mark("ear", {"a.png": (3, 4)})
        assert content(folder)["photos"]["b.png"] == {"points": {"mine": [1, 1]}}


@pytest.mark.parametrize("name", ["points.json", "points.csv"])
def test_a_file_that_came_or_went_meanwhile_is_noticed(folder, name):
    with AnnotationStore.open(folder) as store:
        (folder / name).write_text("mine")
        with pytest.raises(DatasetError, match="changed by another program"):
            store.mark("ear", {"a.png": (1, 2)})
        assert (folder / name).read_text() == "mine"
        (folder / name).unlink()
        store.mark("ear", {"a.png": (1, 2)})
        (folder / "points.json").unlink()
        with pytest.raises(DatasetError, match="changed by another program"):
            store.mark("ear", {"a.png": (3, 4)})


def test_two_apps_do_not_hold_one_folder(folder):
    problems = []

    def second():
        try:
            with AnnotationStore.open(folder):
                pass
        except DatasetError as error:
            problems.append(str(error))

    with AnnotationStore.open(folder):
        assert (folder / LOCK_FILE).exists()
        thread = Thread(target=second)
        thread.start()
        thread.join()
    assert problems == [f"another run is writing into {folder}: wait until it has ended, or choose another folder"]
    assert not (folder / LOCK_FILE).exists()


# hostile folders ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "holds no JSON object"),
        ('{"photos": {}}', 'has no "photos"'),
        ('{"photos": {"a.png": {"points": {}}}, "author": "me"}', "unknown key 'author'"),
        ('{"photos": {"a.png": {"points": {}, "weather": "fine"}}}', "unknown key 'weather'"),
        ('{"photos": {"a.png": {"points": {"ear": ["1", 2]}}}}', "must be a finite number"),
        ('{"photos": {"a.png": {"points": {"ear": [1, 2], "ear": [3, 4]}}}}', "appears twice"),
        ('{"photos": {"../a.png": {"points": {}}}}', "name of a file below the folder"),
        (
            '{"photos": {"x.png": {"points": {}}, "y.png": {"points": {}}}, "pairs": [["x.png", "y.png"]]}',
            "none of the",
        ),
    ],
)
def test_a_file_that_could_not_be_written_back_whole_is_refused_and_left(folder, points, message):
    (folder / "points.json").write_text(points)
    before = bytes_below(folder)
    with pytest.raises(DatasetError, match=message) as refused, AnnotationStore.open(folder):
        pass
    assert "\n" not in str(refused.value)
    assert bytes_below(folder) == before


def test_folders_that_cannot_be_annotated(tmp_path, monkeypatch):
    def refused(message, root=tmp_path):
        with pytest.raises(DatasetError, match=message) as error, AnnotationStore.open(root):
            pass
        assert "\n" not in str(error.value)

    refused("no such folder", tmp_path / "missing")
    refused("is the root of|root of the folder of photos", "")
    refused("holds no photo: two photos")
    write_photos(tmp_path, ["a.png"])
    refused("is not a folder", tmp_path / "a.png")
    refused("holds only a.png")
    write_photos(tmp_path)
    (tmp_path / "points.csv").write_text("photo,point,x,y\na.png,ear,1,2\n")
    (tmp_path / "points.json").write_text("{}")
    refused("holds points.json and points.csv, of which one can be continued")
    (tmp_path / "points.json").unlink()
    (tmp_path / "points.csv").rename(tmp_path / "own.csv")
    (tmp_path / "points.csv").symlink_to(tmp_path / "own.csv")
    refused("is a link, and would be replaced")
    (tmp_path / "points.csv").unlink()
    (tmp_path / "points.csv").mkdir()
    refused("is a folder: give a file of points")
    (tmp_path / "points.csv").rmdir()
    monkeypatch.setattr(annotation_store, "_MOST_PHOTOS", 2)
    refused("holds more than 2 photos")


def test_what_is_left_out_is_said(tmp_path):
    write_photos(tmp_path, ["x/1.png", "x/2.png", "y/1.png", "<img src=x onerror=alert(1)>.png"])
    for name in ("line\nbreak.png", "IMG.HEIC", "notes.txt", ".hidden.heic"):
        (tmp_path / name).write_bytes(b"")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(b"")
    (tmp_path / "album").symlink_to(tmp_path / "x")
    store = AnnotationStore(tmp_path)
    assert store.photos == ("<img src=x onerror=alert(1)>.png", "x/1.png", "x/2.png", "y/1.png")
    assert store.pairs == [("x/1.png", "x/2.png")]
    assert store.left_out == (
        "2 photos have no partner in their category: <img src=x onerror=alert(1)>.png, y/1.png. "
        "4 skipped: 'IMG.HEIC' (convert it to .jpg or .png), '\\udcff.png' (a name that no file of points can hold), "
        "'album' (a linked folder) and 1 more."
    )
    assert store.left_out.isprintable()
    store.add_pair("y/1.png", "x/1.png")
    assert store.left_out.startswith("1 photo has no partner")


def test_photos_that_the_listed_pairs_leave_out_are_said(folder):
    write_points(folder, {"a.png": {"points": {}}, "b.png": {"points": {}}}, pairs=[["a.png", "b.png"]])
    assert AnnotationStore(folder).left_out == "1 photo has no partner in the pairs of the file: c.png."
    (folder / "points.json").unlink()
    assert AnnotationStore(folder).left_out == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_said(folder):
    (folder / "closed").mkdir(mode=0)
    assert "'closed' (a folder that cannot be read)" in AnnotationStore(folder).left_out


def test_a_folder_of_one_photo_says_what_it_skips(tmp_path):
    write_photos(tmp_path, ["a.png"])
    (tmp_path / "b.heic").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"only a.png \(1 skipped: 'b.heic' \(convert it"):
        AnnotationStore(tmp_path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda store: store.mark("ear", {"a.png": (1, 1), "b.png": None}), "ear on a.png, b.png"),
        (lambda store: store.remove("nose", ["a.png"]), "the removal of nose from a.png"),
        (
            lambda store: store.rename("nose", "ear", ["a.png"]),
            "the new name ear of nose on a.png, b.png, c.png and 3 more",
        ),
        (lambda store: store.describe(["a.png"], category="cat"), "the category cat of a.png"),
        (lambda store: store.describe(["a.png"], category=None), "the category none of a.png"),
        (lambda store: store.assign("a.png", "test"), "the split test of a.png"),
        (lambda store: store.assign("a.png", None), "the split none of a.png"),
        (lambda store: store.share_out(), "the splits of a.png, b.png, c.png and 3 more"),
        (lambda store: store.frame("a.png", (1, 1, 9, 9)), "the box of a.png"),
        (lambda store: store.frame("a.png", None), "the removal of the box of a.png"),
    ],
)
def test_undo_names_what_it_takes_back(tmp_path, change, text):
    store = AnnotationStore(write_photos(tmp_path, [f"{letter}.png" for letter in "abcdef"]))
    store.mark("nose", dict.fromkeys(store.photos, (2, 2)))
    change(store)
    assert store.undo().text == text
    assert store.points("a.png") == {"nose": (2, 2)}


def test_changes_that_make_no_sense_are_refused_and_nothing_is_written(folder):
    (folder / "broken.png").write_text("no photo")
    with AnnotationStore.open(folder) as store:
        before = bytes_below(folder)
        for call, error, message in (
            (lambda: store.mark("ear", {"z.png": None}), DatasetError, "there is no photo 'z.png'"),
            (lambda: store.mark("", {"a.png": (1, 2)}), DatasetError, "the name of a point"),
            (lambda: store.mark("a\nb", {"a.png": (1, 2)}), DatasetError, "control character"),
            (lambda: store.mark("ear", {"broken.png": (1, 2)}), PhotoError, "not a readable image"),
            (lambda: store.rename("a", " ", ["a.png"]), DatasetError, "the name of a point"),
            (lambda: store.describe(["a.png"], category="7"), DatasetError, "the category must be a word"),
            (lambda: store.assign("a.png", "testing"), InputError, "split"),
            (lambda: store.frame("a.png", (5, 5, 5, 9)), DatasetError, "nothing inside"),
            (lambda: store.add_pair("a.png", "a.png"), DatasetError, "a pair has two photos"),
            (lambda: store.add_pair("a.png", "z.png"), DatasetError, "there is no photo 'z.png'"),
        ):
            with pytest.raises(error, match=message):
                call()
        assert bytes_below(folder) == before
