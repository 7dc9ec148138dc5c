"""`data make-synthetic` and `data check` on the command line."""

from __future__ import annotations

import json

import pytest

from helpers import layouts
from sd4match.data import SyntheticConfig
from sd4match.data.spair_layout import write_spair_layout
from sd4match.errors import DatasetError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pairs", 0], "pairs: must be greater than or equal to 1"),
        (["--pairs", 10**9], "pairs: must be less than or equal to 100000"),
        (["--size", 60_000], "size: must be less than or equal to 2048"),
        (["--photos", 1], "photos_per_category: must be greater than or equal to 2"),
        (["--seed", -1], "seed: must be greater than or equal to 0"),
    ],
)
def test_make_synthetic_is_bounded(run, tmp_path, arguments, message):
    code, _, error = run("data", "make-synthetic", tmp_path / "data", *arguments)
    assert (code, message in error) == (2, True), error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["x" * 300, "~nobody-at-all/x", "", "/dev/null", "/dev/null/x", "/proc/new"])
def test_make_synthetic_refuses_what_is_no_folder(run, folder):
    code, _, error = run("data", "make-synthetic", folder, "--pairs", 2, "--photos", 2)
    assert code == 2
    assert error.startswith("sd4match: error: ")
    assert error.count("\n") == 1


def test_make_synthetic_on_a_full_disk_leaves_nothing(run, tmp_path, monkeypatch):
    from sd4match.data import spair_layout

    def write(dataset, record, root, split, number):
        if number == 2:
            raise OSError(28, "No space left on device")
        return original(dataset, record, root, split, number)

    original = spair_layout._write_pair
    monkeypatch.setattr(spair_layout, "_write_pair", write)
    code, _, error = run("data", "make-synthetic", tmp_path / "data", "--pairs", 4, "--photos", 3)
    assert code == 2
    assert f"sd4match: error: cannot write the data set to {tmp_path / 'data'}: No space left on device\n" in error
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DatasetError, match="No space left"):
        write_spair_layout(SyntheticConfig(split="test", pairs=4, photos_per_category=3).build(), tmp_path / "own")


def test_check_tells_what_splits_share_and_what_is_noted(run, tmp_path):
    layouts.write_spair(tmp_path)
    code, screen, error = run("data", "check", "spair", tmp_path)
    assert code == 1
    assert "train and test share 5 photos, first cat/2008_000001.jpg" in screen.splitlines()
    assert error.endswith("9 problems in train, validation, test\n")


def test_check_of_a_folder_tells_every_problem_in_a_line(run, tmp_path):
    layouts.write_folder(tmp_path)
    content = json.loads((tmp_path / "points.json").read_text())
    photos = content["photos"]
    photos["my photo 0.jpg"] |= {"category": 17, "boxx": [1, 2, 3, 4]}
    photos["my photo 0.jpg"]["points"]["tail"] = "12"
    del photos["my photo 1.jpg"]["box"]
    (tmp_path / "points.json").write_text(json.dumps(content))
    code, screen, error = run("data", "check", "folder", tmp_path)
    lines = screen.splitlines()
    assert (code, len(lines)) == (1, 5), lines
    for line, message in zip(
        lines,
        (
            "note: test: .* have no box",
            "note: test: .* have no category",
            "unknown key 'boxx'; did you mean 'box'",
            "category must be a text",
            "point 'tail' must be x, y",
        ),
        strict=True,
    ):
        assert message.rpartition(".* ")[2] in line
    assert error.endswith("3 problems in test\n")
