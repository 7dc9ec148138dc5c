"""Data sets as their authors may have broken them: the check tells every fault, and reading it is a DatasetError."""

from __future__ import annotations

import copy
import json
import os
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from helpers import layouts
from sd4match.data import AP10KConfig, FolderConfig, PFPascalConfig, PFWillowConfig, SPairConfig
from sd4match.data.check import _check_list, check_split, check_splits
from sd4match.errors import DatasetError, PhotoError

DEEP = "[" * 5000 + "]" * 5000
HUGE = "1" * 400


def problems_of(config):
    """Return the lines of `data check` but for the number of published pairs, which small data sets do not have."""
    findings = [finding.text for finding in check_split(config.build, config.split) if finding.is_problem]
    return [text for text in findings if not text.endswith("were published")]


def errors_of(config):
    """Return the errors of opening the data set and of reading every pair; anything but ours comes through."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = config.build()
    except DatasetError as error:
        return [str(error)]
    errors = []
    for index in range(len(data)):
        try:
            data[index]
        except (DatasetError, PhotoError) as error:
            errors.append(str(error))
    return errors


def check_damage(config, message, *, read=True):
    """Check that a fault is one line of the check, and an error of the pairs that need it."""
    found = [text for text in problems_of(config) if message in text]
    assert len(found) == 1, (message, problems_of(config))
    assert "\n" not in found[0]
    assert len(found[0]) < 600
    assert any(message in error for error in errors_of(config)) == read, errors_of(config)


def put(content, path, value):
    """Return JSON with another value at a path; `DROP` removes the key."""
    content = copy.deepcopy(content)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    if value is DROP:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return content


DROP = object()
INF = float("inf")

# one annotation of SPair-71k ------------------------------------------------------------------------------------------

SPAIR = [
    (["src_kps"], "none", "src_kps must be points"),
    (["src_kps"], None, "src_kps must be points"),
    (["src_kps"], [], "src_kps must be points"),
    (["src_kps"], [[1, 2, 3]] * 3, "src_kps must be points"),
    (["src_kps"], [[1, 2], 3], "src_kps must be points"),
    (["src_kps"], {"0": [1, 2]}, "src_kps must be points"),
    (["src_kps", 0], ["10", "12"], "src_kps must be a finite number, not '10'"),
    (["src_kps", 0], [True, False], "src_kps must be a finite number, not True"),
    (["src_kps", 0], [None, None], "src_kps must be a finite number, not None"),
    (["src_kps", 0], [INF, 3], "Infinity is not a finite number"),
    (["src_kps", 0], [float("nan"), 3], "NaN is not a finite number"),
    (["src_kps", 0], [500, 3], "point 500,3 is outside cat/2008_000001.jpg, which is 60 x 40"),
    (["src_kps", 0], [-400, 3], "point -400,3 is outside"),
    (["src_kps", 0], [1e300, 3], "point 1e+300,3 is outside"),
    (["trg_kps"], [[1, 2]], "3 source points and 1 target points"),
    (["trg_kps"], DROP, "has no trg_kps"),
    (["trg_bndbox"], [0, 0, INF, 9], "Infinity is not a finite number"),
    (["trg_bndbox"], [0, 0, 1e9, 9], "the box 0, 0, 1e+09, 9 is outside cat/2008_000002.jpg"),
    (["trg_bndbox"], [-1e9, 0, 20, 9], "the box -1e+09, 0, 20, 9 is outside"),
    (["trg_bndbox"], [20, 5, 10, 9], "trg_bndbox has nothing inside"),
    (["trg_bndbox"], [5, 5, 5, 5], "trg_bndbox has nothing inside"),
    (["trg_bndbox"], [1, 2, 3], "trg_bndbox must be left, top, right, bottom"),
    (["trg_bndbox"], None, "trg_bndbox must be left, top, right, bottom"),
    (["trg_bndbox"], ["1", "2", "30", "40"], "trg_bndbox must be a finite number, not '1'"),
    (["trg_bndbox"], [True, True, 9, 9], "trg_bndbox must be a finite number, not True"),
    (["src_imsize"], [60], "src_imsize must be width, height"),
    (["src_imsize"], "60x40", "src_imsize must be width, height"),
    (["src_imsize"], ["wide", 40, 3], "src_imsize: a side must be a whole number"),
    (["src_imsize"], [60.5, 40, 3], "src_imsize: a side must be a whole number"),
    (["src_imsize"], [True, True, 3], "src_imsize: a side must be a whole number"),
    (["src_imsize"], [-60, 40, 3], "src_imsize: a side must be a whole number"),
    (["src_imsize"], [60, 10**9, 3], "src_imsize: a side must be a whole number from 1 to 65535"),
    (["src_imsize"], [INF, 40, 3], "Infinity is not a finite number"),
    (["src_imname"], 5, "src_imname must be a text"),
    (["src_imname"], "../cat/2008_000001.jpg", "src_imname must be the name of a file below the folder"),
    (["src_imname"], "other.jpg", "src_imname makes cat/other.jpg"),
    (["category"], "dog", "its category is 'dog', but the pair's is cat"),
    (["category"], 5, "its category is 5, but the pair's is cat"),
    (["occlusion"], 7, "occlusion must be a whole number from 0 to 3, not 7"),
    (["occlusion"], True, "occlusion must be a whole number"),
    (["truncation"], "none", "truncation must be a whole number"),
]  # fmt: skip
TEXTS = [
    ("", "is not valid JSON"),
    ("{", "is not valid JSON"),
    ("[]", "holds no JSON object"),
    ("null", "holds no JSON object"),
    (DEEP, "nests too deep"),
    ('{"src_kps": ' + "[" * 80 + "]" * 80 + "}", "nests more than 64 deep"),
    ('{"src_kps": [[' + HUGE + ", 2]]}", "a number of 400 digits"),
    ('{"category": "cat", "category": "dog"}', "the key 'category' appears twice"),
    ("\xff\xfe", "is not UTF-8"),
]


@pytest.fixture
def spair(tmp_path):
    base = layouts.write_spair(tmp_path)
    name, content = layouts.spair_pair(0, "cat", 0, 1)
    return SPairConfig(root=tmp_path, split="test"), base / "PairAnnotation" / "test" / f"{name}.json", content


@pytest.mark.parametrize(("path", "value", "message"), SPAIR)
def test_damaged_annotations_of_spair(spair, path, value, message):
    config, file, content = spair
    file.write_text(json.dumps(put(content, path, value)))
    check_damage(config, message)
    assert len(errors_of(config)) == 1  # the other pairs are read


@pytest.mark.parametrize(("text", "message"), TEXTS)
def test_damaged_files_of_spair(spair, text, message):
    config, file, _ = spair
    file.write_bytes(text.encode("latin-1"))
    check_damage(config, message)
    file.unlink()
    os.mkfifo(file)
    check_damage(config, "is not a regular file")
    file.unlink()
    file.mkdir()
    check_damage(config, "is a folder")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda names: [*names, names[0]], "is listed twice"),
        (lambda names: [*names, "000009-2008_000001-2008_000001:cat"], "is paired with itself"),
        (lambda names: [*names, "nonsense"], "'nonsense' is not NUMBER-SOURCE-TARGET:CATEGORY"),
        (lambda names: [*names, "1-a-b_dragon"], "CATEGORY; the \":\" of its name was replaced"),
        (lambda names: [*names, "1-../a-b:cat"], "is not NUMBER-SOURCE-TARGET:CATEGORY"),
        (lambda names: [*names, "1-a-b:.."], "is not NUMBER-SOURCE-TARGET:CATEGORY"),
        (lambda names: [], "neither"),
    ],
)  # fmt: skip
def test_damaged_lists_of_spair(spair, change, message):
    config, file, _ = spair
    listing = file.parents[2] / "Layout" / "large" / "test.txt"
    listing.write_text("\n".join(change(listing.read_text().split())))
    check_damage(config, message, read=message != "is listed twice")
    if message == "is listed twice":
        with pytest.warns(UserWarning, match="1 pairs are listed twice and count twice, first 000000-2008_000001"):
            assert len(config.build()) == 6


def test_the_check_names_all_lines_of_a_list_that_cannot_be_read(spair):
    config, file, _ = spair
    listing = file.parents[2] / "Layout" / "large" / "test.txt"
    listing.write_text("one\ntwo\n")
    assert len(problems_of(config)) == 2
    assert errors_of(config)[0].endswith("(and 1 more: `sd4match data check` names them)")
    listing.write_bytes(b"\xff")
    check_damage(config, "is not UTF-8")
    listing.unlink()
    os.mkfifo(listing)
    check_damage(config, "is not a regular file")


@pytest.mark.parametrize("listed", [True, False])
def test_files_of_spair_whose_colon_was_replaced_are_read(tmp_path, listed):
    base = layouts.write_spair(tmp_path, listed=listed)
    before = [key.sides for key in SPairConfig(root=tmp_path, split="test").build().keys]
    for file in (base / "PairAnnotation" / "test").iterdir():
        file.rename(file.with_name(file.name.replace(":", "_")))
    data = SPairConfig(root=tmp_path, split="test").build()
    assert [key.sides for key in data.keys] == before
    assert next(record.pair_id for record in data) == "000000-2008_000001-2008_000002:cat"
    assert data.annotation_path(0).name == "000000-2008_000001-2008_000002_cat.json"


# a folder of one's own ------------------------------------------------------------------------------------------------

FOLDER = [
    (["photos", "a.jpg", "points", "eye"], "12", "point 'eye' must be x, y in pixels; it is '12'", True),
    (["photos", "a.jpg", "points", "eye"], {"x": 1, "y": 2}, "point 'eye' must be x, y in pixels", True),
    (["photos", "a.jpg", "points", "eye"], True, "point 'eye' must be x, y in pixels; it is True", True),
    (["photos", "a.jpg", "points", "eye"], [True, False], "a coordinate must be a finite number, not True", True),
    (["photos", "a.jpg", "points", "eye"], ["1", "2"], "a coordinate must be a finite number, not '1'", True),
    (["photos", "a.jpg", "points", "eye"], [None, None], "a coordinate must be a finite number, not None", True),
    (["photos", "a.jpg", "points", "eye"], [1, 2, 3], "point 'eye' must be x, y in pixels", True),
    (["photos", "a.jpg", "points", "eye"], [900, 2], "point 900,2 is outside a.jpg, which is 60 x 40", True),
    (["photos", "a.jpg", "points", ""], [1, 2], "the name of a point must be a text that is not empty", True),
    (["photos", "a.jpg", "points", "\ud800"], [1, 2], "holds half of a surrogate pair", True),
    (["photos", "a.jpg", "points"], [[1, 2]], 'a.jpg must have "points"', True),
    (["photos", "a.jpg", "points"], DROP, 'a.jpg must have "points"', True),
    (["photos", "a.jpg"], None, 'a.jpg must have "points"', True),
    (["photos", "a.jpg", "boxx"], [1, 2, 30, 30], "unknown key 'boxx'; did you mean 'box'?", True),
    (["photos", "a.jpg", "category"], 17, "category must be a text that is not empty, not 17", True),
    (["photos", "a.jpg", "category"], " ", "category must be a text that is not empty", True),
    (["photos", "a.jpg", "category"], ["cat"], "category must be a text that is not empty", True),
    (["photos", "a.jpg", "category"], "\u200b\ufeff", "category must be a text that is not empty", True),
    (["photos", "a.jpg", "category"], "cat\ndog", "must be one line of text: 'cat\\ndog' holds the control", True),
    (["photos", "a.jpg", "category"], "\x1b[2Jcat", "holds the control character '\\x1b'", True),
    (["photos", "a.jpg", "category"], "17", "category must be a word that says what the photo shows", True),
    (["photos", "a.jpg", "category"], "True", "category must be a word that says what the photo shows", True),
    (["photos", "a.jpg", "split"], "tset", "unknown split 'tset'; did you mean 'test'?", True),
    (["photos", "a.jpg", "split"], 5, "unknown split 5", True),
    (["photos", "a.jpg", "box"], [0, 0, 1e9, 9], "the box 0, 0, 1e+09, 9 is outside a.jpg", True),
    (["photos", "a.jpg", "box"], [9, 9, 1, 1], "box has nothing inside", True),
    (["photos", "a.jpg", "box"], [1, 2], "box must be left, top, right, bottom", True),
    (["photos", "a.jpg", "box"], "1234", "box must be left, top, right, bottom", True),
    (["photos", "a.jpg", "box"], [0, 0, INF, 9], "Infinity is not a finite number", False),
    (["photos", "../x.jpg"], {"points": {}}, "must be the name of a file below the folder", False),
    (["photos", "/etc/x.jpg"], {"points": {}}, "must be the name of a file below the folder", False),
    (["photos", "./a.jpg"], {"points": {}}, "must be the name of a file below the folder", False),
    (["photos", "x\0.jpg"], {"points": {}}, "holds the control character", False),
    (["photos", ""], {"points": {}}, "a photo must be a text that is not empty", False),
    (["photos", "\ud800.jpg"], {"points": {}}, "holds half of a surrogate pair", False),
    (["photos"], [], 'has no "photos"', False),
    (["photo"], {}, "unknown key 'photo'; did you mean 'photos'?", False),
    (["pairs"], 5, "pairs must be a list of two file names each, not 5", False),
    (["pairs"], [], "pairs must be a list of two file names each, not []", False),
    (["pairs"], {"a.jpg": "b.jpg"}, "pairs must be a list of two file names each", False),
    (["pairs"], [["a.jpg"]], "pair 0 must be two file names", False),
    (["pairs"], [["a.jpg", 5]], "pair 0 must be two file names", False),
    (["pairs"], [[["a.jpg"], ["b.jpg"]]], "pair 0 must be two file names", False),
    (["pairs"], ["ab"], "pair 0 must be two file names", False),
    (["pairs"], [["a.jpg", "bb.jpg"]], "names 'bb.jpg', which is not among its photos; did you mean 'b.jpg'?", False),
    (["pairs"], [["a.jpg", "a.jpg"]], "pair 0 is of a.jpg with itself", False),
    (["pairs"], [["a.jpg", "b.jpg"]] * 2, "pair 1 is listed twice: a.jpg, b.jpg", False),
]  # fmt: skip
POINTS = {
    "photos": {
        name: {"category": "cat", "box": [2, 3, 38, 37], "points": {"eye": [10, 12], "tail": [30, 20], "nose": None}}
        for name in ("a.jpg", "b.jpg", "c.jpg")
    }
}


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(POINTS["photos"]):
        layouts.save_photo(tmp_path / name, (40, 60), seed=number)
    return tmp_path


@pytest.mark.parametrize(("path", "value", "message", "others"), FOLDER)
def test_damaged_points_json(folder, path, value, message, others):
    (folder / "points.json").write_text(json.dumps(put(POINTS, path, value)))
    config = FolderConfig(root=folder, split="test")
    check_damage(config, message)
    if others:  # pairs of the photos that are whole are read
        assert len(errors_of(config)) == 4
        assert len(config.build()) == 6


@pytest.mark.parametrize(("text", "message"), TEXTS)
def test_damaged_files_of_points(folder, text, message):
    (folder / "points.json").write_bytes(text.encode("latin-1"))
    check_damage(FolderConfig(root=folder, split="test"), message)


def test_errors_of_pairs_can_be_raised_again_with_the_name_of_the_pair(folder):
    (folder / "points.json").write_text(json.dumps(put(POINTS, ["photos", "a.jpg", "points", "eye"], "12")))
    with pytest.raises(DatasetError) as caught:
        FolderConfig(root=folder, split="test").build()[0]
    assert str(type(caught.value)("pair 0: broken")) == "pair 0: broken"


def test_a_damaged_photo_that_is_in_no_pair_stops_nothing(folder):
    content = put(POINTS, ["pairs"], [["a.jpg", "b.jpg"]])
    (folder / "points.json").write_text(json.dumps(put(content, ["photos", "c.jpg", "points", "eye"], "12")))
    config = FolderConfig(root=folder, split="test")
    check_damage(config, "c.jpg: point 'eye' must be x, y in pixels", read=False)


CSV = [
    ("a.jpg,eye,10,5,20,25", "row 4 has 6 columns, but the header has 4: write decimals as 10.5, not as 10,5", True),
    ("a.jpg,ear,10", "row 4 has 3 columns", True),
    ("a.jpg,ear,ten,5", "a coordinate must be a finite number, not 'ten'", True),
    ("a.jpg,ear,1_0,5", "a coordinate must be a finite number, not '1_0'", True),
    ("a.jpg,ear,inf,5", "a coordinate must be a finite number, not 'inf'", True),
    ("a.jpg,ear,1e999,5", "a coordinate must be a finite number, not '1e999'", True),
    ("a.jpg,ear,nan,5", "a coordinate must be a finite number, not 'nan'", True),
    ("a.jpg,ear,,5", "a coordinate must be a finite number, not ''", True),
    ('a.jpg,ear,"10,5",5', "a coordinate must be a finite number, not '10,5'", True),
    ("a.jpg,eye,10,12", "row 4: the point 'eye' of a.jpg appears twice", True),
    ("a.jpg,,10,12", "the point must be a text that is not empty", True),
    (",ear,10,12", "row 4: the photo must be a text that is not empty", False),
    ("../a.jpg,ear,10,12", "row 4: the photo must be the name of a file below the folder", False),
    ("a.jpg," + "e" * 140_000 + ",1,2", "field larger than field limit", False),
    ('a.jpg,"ear,1,2', "unexpected end of data", False),
]  # fmt: skip


@pytest.mark.parametrize(("row", "message", "others"), CSV)
def test_damaged_rows_of_points_csv(folder, row, message, others):
    rows = [f"{name}.jpg,eye,10,12" for name in "abc"]
    (folder / "points.csv").write_text("\n".join(["photo,point,x,y", *rows, row]))
    config = FolderConfig(root=folder, split="test")
    check_damage(config, message)
    assert len(errors_of(config)) == (4 if others else 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("photo;point;x;y\na.jpg;eye;10,5;20", "columns must be separated by commas, not 'photo;point;x;y'"),
        ("photo\tpoint\tx\ty\na.jpg\teye\t1\t2", "columns must be separated by commas"),
        ("photo,point,x,y,x\na.jpg,eye,1,2,3", "the column 'x' appears twice"),
        ("photo,point,x,y,catgory\na.jpg,eye,1,2,cat", "unknown column 'catgory'; did you mean 'category'?"),
        ("photo,point,x,y,note\na.jpg,eye,1,2,mine", "unknown column 'note'"),
        ("photo,point,x\na.jpg,eye,1", "has no column y; it has 'photo, point, x'"),
        ("photo\na.jpg", "has no column point, x, y"),
        ("photo,point,x,y\n", "has no row below its header"),
        ("", "has no column photo, point, x, y"),
        ("photo,point,x,y,split\na.jpg,eye,1,2,tset", "unknown split 'tset'; did you mean 'test'?"),
        ("photo,point,x,y,category\na.jpg,eye,1,2,17", "must be a word that says what the photo shows, such as cat"),
        ("photo,point,x,y,category\na.jpg,eye,1,2,true", "must be a word that says what the photo shows"),
        ('photo,point,x,y,category\na.jpg,eye,1,2,"  "', "category must be a text that is not empty"),
        ("photo,point,x,y,category\na.jpg,eye,1,2,\u200b", "category must be a text that is not empty"),
        ("photo,point,x,y,category\na.jpg,eye,1,2,c\x1bat", "holds the control character"),
        ("photo,point,x,y\na.jpg,eye,\uff15,2", "a coordinate must be a finite number, not '\uff15'"),
        ("photo,point,x,y,category\na.jpg,eye,1,2,cat\na.jpg,ear,3,4,dog", "the category of a.jpg is 'cat' in"),
    ],
)  # fmt: skip
def test_damaged_points_csv(folder, text, message):
    (folder / "points.csv").write_text(text)
    check_damage(FolderConfig(root=folder, split="test"), message)


def test_columns_in_capitals_with_spaces_and_a_mark_of_byte_order_are_there(folder):
    text = "\ufeff Photo , POINT,x ,y\r\na.jpg, eye, 10 ,12.5\r\nb.jpg,eye,11,1e1\r\nb.jpg,ear,,\r\n"
    (folder / "points.csv").write_bytes(text.encode())
    (first, second) = FolderConfig(root=folder, split="test").build()
    assert first.source_points.tolist() == second.target_points.tolist() == [[10, 12.5]]
    assert first.target_points.tolist() == [[11, 10]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"category": "cat"}, "it has one photo, a.jpg"),
        ({"a.jpg": {"category": "cat"}, "b.jpg": {"category": "dog"}}, "no two photos are of one category"),
        ({"a.jpg": {"points": {"eye": [1, 2]}}, "b.jpg": {"points": {"ear": [1, 2]}}}, "share a visible point"),
        ({"a.jpg": {"split": "train"}, "b.jpg": {"split": "train"}}, "all photos with a split are of train"),
    ],
)
def test_the_reason_why_there_is_no_pair(folder, changes, message):
    names = [name for name in changes if name.endswith(".jpg")] or ["a.jpg"]
    photos = {name: {"points": {"eye": [1, 2]}, **changes.get(name, {})} for name in names}
    (folder / "points.json").write_text(json.dumps({"photos": photos}))
    check_damage(FolderConfig(root=folder, split="test"), "has no pairs of the test split")
    assert message in errors_of(FolderConfig(root=folder, split="test"))[0]


def test_listed_pairs_are_of_the_split_of_their_photos(folder):
    content = put(POINTS, ["pairs"], [["a.jpg", "b.jpg"], ["b.jpg", "c.jpg"]])
    for name, split in (("a.jpg", "test"), ("b.jpg", "test"), ("c.jpg", "train")):
        content = put(content, ["photos", name, "split"], split)
    (folder / "points.json").write_text(json.dumps(content))
    assert [key.pair_id for key in FolderConfig(root=folder, split="test").build().keys] == ["a.jpg-b.jpg"]
    with pytest.raises(DatasetError, match="no listed pair has both photos in it"):
        FolderConfig(root=folder, split="train").build()


def test_what_may_have_been_forgotten_is_noted(folder):
    content = put(put(POINTS, ["photos", "c.jpg", "box"], DROP), ["photos", "a.jpg", "split"], "test")
    content = put(content, ["photos", "b.jpg", "split"], "test")
    (folder / "points.json").write_text(json.dumps(content))
    findings = list(check_split(FolderConfig(root=folder, split="test").build, "test"))
    assert [finding.is_problem for finding in findings] == [False, False]
    assert "1 of 3 photos have no box, first c.jpg: thresholds are fractions of the photo" in findings[0].text
    assert "1 of 3 photos have no split, first c.jpg: they are in no split" in findings[1].text


def test_pairs_of_names_with_hyphens_have_names_of_their_own(folder):
    for name in ("a", "a-a"):
        (folder / name).write_bytes((folder / "a.jpg").read_bytes())
    photos = {name: {"points": {"eye": [1, 2]}} for name in ("a", "a-a")}
    (folder / "points.json").write_text(json.dumps({"photos": photos}))
    assert [key.pair_id for key in FolderConfig(root=folder, split="test").build().keys] == [
        "00000-a-a-a",
        "00001-a-a-a",
    ]


# AP-10K ---------------------------------------------------------------------------------------------------------------

AP10K = [  # path below the first annotation or its image, value, message, whether the other pairs are read
    (["annotations", 0, "keypoints"], None, "annotation 100: keypoints must be 17 times", True),
    (["annotations", 0, "keypoints"], [], "keypoints must be 17 times x, y, visibility, not 0 values", True),
    (["annotations", 0, "keypoints"], [1, 2, 2] * 16, "not 48 values", True),
    (["annotations", 0, "keypoints"], [1, 2, 2] * 18, "not 54 values", True),
    (["annotations", 0, "keypoints"], [1] * 50, "not 50 values", True),
    (["annotations", 0, "keypoints"], ["1", "2", "2"] * 17, "keypoints must be a finite number, not '1'", True),
    (["annotations", 0, "keypoints"], [[1, 2, 2]] * 17, "not 17 values", True),
    (["annotations", 0, "keypoints"], [1, 2, 9] * 17, "a visibility must be 0, 1 or 2", True),
    (["annotations", 0, "keypoints"], [900, 2, 2] * 17, "point 900,2 is outside 000000000000.jpg", True),
    (["annotations", 0, "keypoints"], DROP, "annotation 100 has no keypoints", True),
    (["annotations", 0, "bbox"], [], "bbox must be left, top, width, height; it is []", True),
    (["annotations", 0, "bbox"], [1, 2, 3], "bbox must be left, top, width, height", True),
    (["annotations", 0, "bbox"], None, "bbox must be left, top, width, height", True),
    (["annotations", 0, "bbox"], ["1", 2, 3, 4], "bbox must be a finite number, not '1'", True),
    (["annotations", 0, "bbox"], [1, 2, 0, 4], "bbox has nothing inside", True),
    (["annotations", 0, "bbox"], [1, 2, -5, 4], "bbox has nothing inside", True),
    (["annotations", 0, "bbox"], [0, 0, 1e9, 4], "the box 0, 0, 1e+09, 4 is outside 000000000000.jpg", True),
    (["annotations", 0, "bbox"], [1e308, 0, 1e308, 4], "bbox must be a finite number, not inf", True),
    (["annotations", 0, "bbox"], DROP, "annotation 100 has no bbox", True),
    (["images", 0, "width"], "wide", "width must be a whole number", True),
    (["images", 0, "width"], 0, "width must be a whole number", True),
    (["images", 0, "height"], -4, "height must be a whole number", True),
    (["images", 0, "height"], True, "height must be a whole number", True),
    (["images", 0, "height"], 10**9, "height must be a whole number from 1 to 65535", True),
    (["images", 0, "height"], DROP, "annotation 100 has no height", True),
    (["annotations", 0, "id"], "100", "annotations, entry 0: id must be a whole number", False),
    (["annotations", 0, "id"], "first", "annotations, entry 0: id must be a whole number", False),
    (["annotations", 0, "id"], 101, "annotations, entry 1: the id 101 appears twice", False),
    (["annotations", 0, "id"], None, "annotations, entry 0: id must be a whole number", False),
    (["annotations", 0, "id"], 1.5, "annotations, entry 0: id must be a whole number", False),
    (["annotations", 0, "id"], [1], "annotations, entry 0: id must be a whole number", False),
    (["annotations", 0, "id"], DROP, "annotations, entry 0 has no id", False),
    (["annotations", 0, "image_id"], 999, "annotation 100: its image_id 999 is not in the file", False),
    (["annotations", 0, "image_id"], [0], "annotation 100: its image_id [0] is not in the file", False),
    (["annotations", 0, "image_id"], DROP, "annotation 100 has no image_id", False),
    (["annotations", 0, "category_id"], "cat", "annotation 100: its category_id 'cat' is not in the file", False),
    (["annotations", 0], 5, "annotations, entry 0 must be a JSON object, not 5", False),
    (["annotations"], {"0": 1}, "annotations must be a list", False),
    (["annotations"], DROP, "has no annotations", False),
    (["annotations"], [], "no intra-species pairs", False),
    (["images"], None, "images must be a list, not None", False),
    (["images", 0, "id"], "0", "images, entry 0: id must be a whole number", False),
    (["images", 0, "id"], 1, "images, entry 1: the id 1 appears twice", False),
    (["images", 0, "file_name"], 5, "image 0: file_name must be a text that is not empty, not 5", False),
    (["images", 0, "file_name"], "../x.jpg", "image 0: file_name must be the name of a file below the folder", False),
    (["images", 0, "file_name"], DROP, "image 0 has no file_name", False),
    (["categories"], 5, "categories must be a list, not 5", False),
    (["categories", 0, "id"], True, "categories, entry 0: id must be a whole number", False),
    (["categories", 0, "name"], 5, "category 1: name must be a text that is not empty, not 5", False),
    (["categories", 0, "name"], " ", "category 1: name must be a text that is not empty", False),
    (["categories", 0, "supercategory"], None, "category 1: supercategory must be a text", False),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "message", "others"), AP10K)
def test_damaged_annotations_of_ap10k(tmp_path, path, value, message, others):
    file = layouts.write_ap10k(tmp_path) / "annotations" / "ap10k-test-split1.json"
    config = AP10KConfig(root=tmp_path, split="test")
    whole = config.build()
    pairs = {key.pair_id for key in whole.keys}
    file.write_text(json.dumps(put(json.loads(file.read_text()), path, value)))
    if message == "no intra-species pairs":
        whole.list_path.unlink()
    check_damage(config, message)
    if others:
        assert len(errors_of(config)) == len([pair for pair in pairs if "100" in pair.split("-")]) > 0
        whole.list_path.unlink()  # drawn again
        assert {key.pair_id for key in config.build().keys} == pairs


def test_damaged_annotations_of_ap10k_that_are_in_no_pair_stop_nothing(tmp_path):
    file = layouts.write_ap10k(tmp_path) / "annotations" / "ap10k-test-split1.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(put(content, ["annotations", 7, "keypoints"], None)))  # one of two animals in a photo
    check_damage(AP10KConfig(root=tmp_path, split="test"), "annotation 107: keypoints must be", read=False)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["pairs"], [], "lists no pair"),
        (["pairs"], "many", "lists no pair"),
        (["pairs"], DROP, "has no pairs"),
        (["pairs"], 5, "lists no pair"),
        (["pairs", 0], 5, "pair 0 must be two ids, not 5"),
        (["pairs", 0], [100], "pair 0 must be two ids"),
        (["pairs", 0], [100, 101, 102], "pair 0 must be two ids"),
        (["pairs", 0], "ab", "pair 0 must be two ids"),
        (["pairs", 0], ["100", "101"], "an id must be a whole number"),
        (["pairs", 0], [True, 101], "an id must be a whole number"),
        (["pairs", 0], [100, 999], "it names animal 999, which is not in these"),
        (["pairs", 0], [100, 100], "000000000000.jpg is paired with itself"),
        (["recipe"], None, "was drawn with other settings: None"),
        (["recipe"], DROP, "was drawn with other settings: None"),
    ],
)
def test_damaged_lists_of_ap10k(tmp_path, path, value, message):
    layouts.write_ap10k(tmp_path)
    config = AP10KConfig(root=tmp_path, split="test")
    listing = config.build().list_path
    listing.write_text(json.dumps(put(json.loads(listing.read_text()), path, value)))
    check_damage(config, message)


def test_a_pair_of_animals_that_is_listed_twice_is_said(tmp_path):
    layouts.write_ap10k(tmp_path)
    config = AP10KConfig(root=tmp_path, split="test")
    listing = config.build().list_path
    content = json.loads(listing.read_text())
    listing.write_text(json.dumps(put(content, ["pairs"], [content["pairs"][0]] * 2)))
    check_damage(config, "is listed twice, counts twice", read=False)
    with pytest.warns(UserWarning, match="1 pairs are listed twice"):
        config.build()


@pytest.mark.parametrize(
    ("name", "path", "value", "message"),
    [
        ("pair", ["src_json_path"], "ImageAnnotation", "has no src_json_path below ImageAnnotation"),
        ("pair", ["src_json_path"], "ImageAnnotation/x.json", "has no src_json_path below ImageAnnotation"),
        ("pair", ["src_json_path"], "elsewhere/a/b.json", "has no src_json_path below ImageAnnotation"),
        ("pair", ["src_json_path"], 5, "has no src_json_path below ImageAnnotation"),
        ("pair", ["src_json_path"], DROP, "has no src_json_path below ImageAnnotation"),
        ("pair", ["src_json_path"], "ImageAnnotation/../../x.json", "must be the name of a file below the folder"),
        ("animal", ["keypoints"], None, "keypoints must be 17 times"),
        ("animal", ["bbox"], [], "bbox must be left, top, width, height"),
        ("animal", ["width"], "wide", "width must be a whole number"),
        ("animal", ["height"], DROP, "has no height"),
    ],
)
def test_damaged_preparations_of_ap10k(tmp_path, name, path, value, message):
    base = layouts.write_prepared_ap10k(tmp_path)
    file = next((base / "PairAnnotation/test").glob("0-*"))
    if name == "animal":
        file = base / "ImageAnnotation/Felidae/cat/000000000000.json"
    file.write_text(json.dumps(put(json.loads(file.read_text()), path, value)))
    config = AP10KConfig(root=tmp_path, split="test")
    check_damage(config, message)
    file.write_text(DEEP)
    check_damage(config, "nests too deep")


# PF-Pascal and PF-Willow ----------------------------------------------------------------------------------------------

PASCAL = [
    ("8;", "class must be 1 to 20, not '8;'"),
    ("²", "class must be 1 to 20, not '²'"),
    ("٣", "class must be 1 to 20, not '٣'"),
    ("21", "class must be 1 to 20, not '21'"),
    ("-1", "class must be 1 to 20, not '-1'"),
    ("cat", "class must be 1 to 20, not 'cat'"),
    ("9" * 5000, "class must be 1 to 20"),
]


@pytest.mark.parametrize(("number", "message"), PASCAL)
def test_damaged_classes_of_pf_pascal(tmp_path, number, message):
    layouts.write_pf_pascal(tmp_path)
    file = tmp_path / "image_pairs" / "test_pairs.csv"
    file.write_text(file.read_text().replace(",8,10", f",{number},10"))
    check_damage(PFPascalConfig(root=tmp_path, split="test"), message)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("10;30;25.5", "10,5;30;25.5", "columns; its header has 7"),
        ("10;30;25.5", "ten;30;25.5", "a coordinate must be a finite number, not 'ten'"),
        ("10;30;25.5", "1_0;30;25.5", "a coordinate must be a finite number, not '1_0'"),
        ("10;30;25.5", "inf;30;25.5", "a coordinate must be a finite number, not 'inf'"),
        ("10;30;25.5", "10;30", "2 x and 3 y"),
        ("10;30;25.5", "1000;30;25.5", "point 1000,10 is outside 2008_000006.jpg, which is 60 x 40"),
        ("XA,YA", "XA,XA", "the column 'XA' appears twice"),
        ("class,XA,YA,XB,YB", "class,XA,other,XC,YC", "has the columns XA alone"),
        ("class", "klass", "unknown column 'klass'; did you mean 'class'?"),
        ("source_image,target_image,class,XA,YA,XB,YB", "a,b,c,d,e,f,g", "has no column source_image"),
        ("PF-dataset-PASCAL/JPEGImages/2008_000006.jpg", "", "source_image must be a text that is not empty"),
        ("PF-dataset-PASCAL/JPEGImages/2008_000006.jpg", "..", "must be the name of a file below the folder"),
        ("PF-dataset-PASCAL/JPEGImages/2008_000006.jpg", "x/2010_000008.jpg", "is paired with itself"),
        ("PF-dataset-PASCAL/JPEGImages/2008_000006.jpg", '"', "is not a readable table"),
        ("PF-dataset-PASCAL/JPEGImages/2008_000006.jpg", "a" * 140_000, "field larger than field limit"),
    ],
)
def test_damaged_lists_of_pf_pascal(tmp_path, old, new, message):
    layouts.write_pf_pascal(tmp_path)
    file = tmp_path / "image_pairs" / "test_pairs.csv"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    check_damage(PFPascalConfig(root=tmp_path, split="test"), message)


def test_rows_of_pf_pascal_that_are_listed_twice_are_said(tmp_path):
    layouts.write_pf_pascal(tmp_path)
    file = tmp_path / "image_pairs" / "test_pairs.csv"
    header, row = file.read_text().splitlines()
    file.write_text("\n".join([header, row, row]))
    check_damage(PFPascalConfig(root=tmp_path, split="test"), "is listed twice, counts twice", read=False)


MATS = [
    ({"kps": np.array([["1", "2"]])}, "kps holds no numbers"),
    ({"kps": np.array([[1 + 2j, 3]])}, "kps holds no numbers"),
    ({"kps": {"x": 1.0}}, "kps holds no numbers"),
    ({"kps": np.zeros((3, 3))}, "kps must be points"),
    ({"kps": np.zeros((0, 2))}, "kps must be points"),
    ({"kps": np.array([[np.inf, 2.0]] * 4)}, "kps has an infinite coordinate"),
    ({"kps": np.array([[5000.0, 2.0]] * 4)}, "point 5000,2 is outside 2008_000006.jpg"),
    ({"kps": np.array([[5.0, 2.0]])}, "1 source points and 4 target points"),
    ({"other": 1.0}, "has no kps"),
    (b"MATLAB 5.0 nonsense", "not a readable annotation"),
    (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins\x94.", "not a readable annotation"),
    (b"", "not a readable annotation"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "not a readable annotation"),
]


@pytest.mark.parametrize(("content", "message"), MATS)
def test_damaged_matlab_files(tmp_path, content, message):
    layouts.write_pf_pascal(tmp_path)
    file = tmp_path / "PF-dataset-PASCAL/Annotations/cat/2008_000006.mat"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        savemat(file, content)
    (tmp_path / "image_pairs" / "train_pairs.csv").write_text(
        "source_image,target_image,class\n2008_000006.jpg,2009_000007.jpg,8\n2009_000007.jpg,2010_000008.jpg,8\n"
    )
    config = PFPascalConfig(root=tmp_path, split="train")
    check_damage(config, message)
    assert len(errors_of(config)) == 1


def test_matlab_files_that_are_none(tmp_path, monkeypatch):
    layouts.write_pf_pascal(tmp_path, form="reference")
    file = tmp_path / "PF-PASCAL/Annotations/cat/2008_000006.mat"
    config = PFPascalConfig(root=tmp_path, split="test")
    with monkeypatch.context() as patched:
        patched.setattr("sd4match.data.proposal_flow._LARGEST_MAT", 10)
        check_damage(config, "has more than 10 bytes")
    file.unlink()
    check_damage(config, "no such annotation")
    os.mkfifo(file)
    check_damage(config, "is not a regular file")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imageA\ncar(G)/060_0000.png\n", "is not a list of pairs: it has one column, 'imageA'"),
        ("imageA;imageB\na;b\n", "columns must be separated by commas"),
        ("imageA,imageB\n", "lists no pair"),
        ("", "is not a list of pairs"),
        ("imageA,imageB,X\ncar(G)/060_0000.png,car(G)/060_0001.png,5\n", "has 3 columns; it must have two photos"),
        ("imageA,imageA\ncar(G)/060_0000.png,car(G)/060_0001.png\n", "the column 'imageA' appears twice"),
        ("imageA,imageB\ncar(G)/060_0000.png\n", "row 1 has 1 columns; its header has 2"),
        ("imageA,imageB\ncar(G)/060_0000.png,060_0001.png\n", "'060_0001.png' is not in a sub-class"),
        ("imageA,imageB\ncar(G)/060_0000.png,duck(S)/060_0001.png\n", "are not of one category"),
        ("imageA,imageB\ncar(G)/060_0000.png,car(G)/..\n", "a photo must be the name of a file below the folder"),
        ("imageA,imageB\ncar(G)/060_0000.png,car(G)/060_0000.png\n", "car(G)/060_0000.png is paired with itself"),
        ("a,b,XA,YA,XB,YB\ncar(G)/060_0000.png,car(G)/060_0001.png,1,2,3,four\n", "a finite number, not 'four'"),
        ("a,b,XA,YA,XB,YB\ncar(G)/060_0000.png,car(G)/060_0001.png,1,2,3;3,4\n", "2 x and 1 y"),
        ("a,b,XA,YA,XB,YB\ncar(G)/060_0000.png,car(G)/060_0001.png,-1,-1,3,4\n", "060_0000.png of pair"),
    ],
)  # fmt: skip
def test_damaged_lists_of_pf_willow(tmp_path, text, message):
    layouts.write_pf_willow(tmp_path)
    (tmp_path / "test_pairs.csv").write_text(text)
    check_damage(PFWillowConfig(root=tmp_path), message)


def test_pf_willow_without_two_annotations(tmp_path):
    (tmp_path / "car(G)").mkdir()
    with pytest.raises(DatasetError, match="has no sub-class with two annotations"):
        PFWillowConfig(root=tmp_path).build()


# of several splits ----------------------------------------------------------------------------------------------------


def test_splits_that_share_pairs_or_photos_are_said(tmp_path):
    layouts.write_spair(tmp_path)

    def load(split):
        return SPairConfig(root=tmp_path, split=split).build()

    texts = [finding.text for finding in check_splits(load, ("train", "validation", "test"))]
    assert texts[:2] == [
        "train and validation share 4 pairs, first cat/2008_000001.jpg with cat/2008_000002.jpg",
        "train and validation share 5 photos, first cat/2008_000001.jpg",
    ]
    assert len(texts) == 6
    (tmp_path / "SPair-71k/Layout/large/trn.txt").write_text("nonsense")
    (tmp_path / "SPair-71k/Layout/large/val.txt").unlink()
    for file in (tmp_path / "SPair-71k/PairAnnotation/val").iterdir():
        file.unlink()
    assert list(check_splits(load, ("train", "validation", "test"))) == []


@pytest.mark.realdata
def test_what_the_published_lists_of_pf_pascal_share_is_a_note(realdata):
    def load(split):
        return PFPascalConfig(root=realdata / "pf-pascal", split=split).build()

    findings = list(check_splits(load, ("train", "test")))
    assert [finding.is_problem for finding in findings] == [False, False]
    assert "as published" in findings[0].text
    assert load("train").repeats_are_published
    (finding,) = _check_list(load("train"), "train")
    assert (finding.is_problem, finding.text) == (False, "train: 488 pairs are listed twice, as published")


# damage by rule -------------------------------------------------------------------------------------------------------

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**12), 10**12), st.floats(), st.text(max_size=4), st.just([]),
    st.just({}), st.just([[]]), st.just("\ud800"), st.just(HUGE), st.just({"x": [1, 2]}),
)  # fmt: skip


def paths_in(value, path=()):
    """Iterate over the paths of all values inside a JSON value."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from paths_in(child, (*path, key))


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Data sets with the file to damage."""
    root = tmp_path_factory.mktemp("damage")
    for number, name in enumerate(POINTS["photos"]):
        layouts.save_photo(root / "own" / name, (40, 60), seed=number)
    (root / "own" / "points.json").write_text(json.dumps(POINTS))
    spair = layouts.write_spair(root / "spair")
    ap10k = layouts.write_ap10k(root / "ap10k")
    return {
        "folder": (FolderConfig(root=root / "own", split="test"), root / "own" / "points.json"),
        "spair": (
            SPairConfig(root=root / "spair", split="test"),
            next((spair / "PairAnnotation/test").glob("000000-*")),
        ),
        "ap10k": (AP10KConfig(root=root / "ap10k", split="test"), ap10k / "annotations" / "ap10k-test-split1.json"),
    }


@pytest.mark.parametrize("kind", ["folder", "spair", "ap10k"])
def test_any_value_anywhere_is_read_or_refused(kind, roots):
    config, file = roots[kind]
    text = file.read_text()
    content = json.loads(text)
    paths = sorted(paths_in(content), key=str)

    @settings(max_examples=25)
    @given(st.sampled_from(paths), st.just(DROP) | VALUES)
    def damage(path, value):
        file.write_text(json.dumps(put(content, path, value)))
        errors = errors_of(config)
        assert all("\n" not in error and len(error) < 700 for error in errors)

    try:
        damage()
    finally:
        file.write_text(text)


@pytest.mark.parametrize("kind", ["folder", "spair"])
def test_any_bytes_anywhere_are_read_or_refused(kind, roots):
    config, file = roots[kind]
    whole = file.read_bytes()

    @settings(max_examples=25)
    @given(st.integers(0, len(whole) - 1), st.binary(max_size=3), st.integers(0, 20))
    def damage(start, new, length):
        file.write_bytes(whole[:start] + new + whole[start + length :])
        errors_of(config)

    try:
        damage()
    finally:
        file.write_bytes(whole)


@given(
    st.lists(st.text(alphabet='abx,;"\t 0159.-e', max_size=12), max_size=6),
    st.sampled_from(["photo,point,x,y", "photo,point,x,y,category,split", "", "x,y"]),
)
def test_any_rows_of_a_table_are_read_or_refused(tmp_path_factory, rows, header):
    root = tmp_path_factory.getbasetemp() / "tables"
    root.mkdir(exist_ok=True)
    (root / "points.csv").write_text("\n".join([header, *rows]))
    errors_of(FolderConfig(root=root, split="test"))
    (root / "test_pairs.csv").write_text("\n".join(["source_image,target_image,class", *rows]))
    errors_of(PFPascalConfig(root=root, split="test"))


def test_one_file_of_points_is_read(folder):
    (folder / "points.json").write_text(json.dumps(POINTS))
    (folder / "points.csv").write_text("photo,point,x,y\na.jpg,eye,1,2\nb.jpg,eye,3,4\n")
    check_damage(FolderConfig(root=folder, split="test"), "holds both points.json and points.csv: choose one")
    assert len(FolderConfig(root=folder, split="test", points="points.csv").build()) == 2


def test_fields_of_coco_that_contradict_the_points_are_said(tmp_path):
    file = layouts.write_ap10k(tmp_path) / "annotations" / "ap10k-test-split1.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["num_keypoints"] = 99
    content["annotations"][1]["iscrowd"] = 1
    file.write_text(json.dumps(content))
    notes = AP10KConfig(root=tmp_path, split="test").build().notes
    assert [note.partition(": ")[2].split(",")[0] for note in notes] == [
        "1 of 9 annotations are of a crowd (iscrowd)",
        "1 of 9 annotations have a num_keypoints that is not the number of their key points",
    ]
