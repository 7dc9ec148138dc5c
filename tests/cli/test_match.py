"""`match` and `extract`: what they refuse before any work, and which files they may replace."""

from __future__ import annotations

import json
import os

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sd4match.cli.prompts import SOFTWARE
from sd4match.testing import random_photo


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(run, *arguments):
    code, _, error = run(*arguments)
    assert code == 2, arguments
    assert error.startswith("sd4match: error: "), error
    assert error.count("\n") == 1, error
    return error


@pytest.mark.parametrize(
    "point", ["1e999,2", "nan,1", "1,inf", "1,2,3", "1", ",", "a,b", "9" * 400 + ",1", "1_0,5", "\uff15,5", "0x10,5"]
)
def test_a_point_that_is_none_is_refused(run, photos, tmp_path, point):
    error = refused(run, "match", *photos, "--point", point, "--output", tmp_path / "out")
    assert "--point is X,Y in pixels" in error
    assert len(error) < 300
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["match", "extract"])
@pytest.mark.parametrize("category", ["", "  ", "\ud800", "\u200b", "\ufeff \u2060", "a\nb"])
def test_an_empty_category_is_refused(run, photos, tmp_path, command, category):
    error = refused(run, command, *photos, "--category", category, "--output", tmp_path / "out")
    assert "--category " in error


@pytest.mark.parametrize("grid", ["0", "-1", "65", "x", "2.5"])
def test_a_grid_out_of_bounds_is_refused(run, photos, grid):
    assert "--grid" in refused(run, "match", *photos, "--grid", grid)


def test_match_replaces_its_own_results_only(run, photos, tmp_path):
    out = tmp_path / "out"
    assert run("match", *photos, "--grid", 2, "--output", out)[0] == 0
    first = content(out)
    assert json.loads(first["matches.json"])["format"] == "sd4match-matches"
    with Image.open(out / "matches.png") as picture:
        assert picture.info["Software"].startswith("sd4match ")
    assert run("match", *photos, "--grid", 3, "--output", out)[0] == 0
    second = content(out)
    assert set(second) == set(first)
    assert second["matches.json"] != first["matches.json"]
    error = refused(run, "match", out / "matches.png", photos[1], "--output", out)
    assert "is an input of this command" in error
    assert content(out) == second
    for name, foreign in {"matches.json": b"{}", "matches.png": photos[0].read_bytes()}.items():
        (out / name).write_bytes(foreign)
        assert "is no result of match" in refused(run, "match", *photos, "--output", out)
        assert (out / name).read_bytes() == foreign
        (out / name).write_bytes(second[name])
    (out / "matches.json").write_text("no json")
    assert "is no result of match" in refused(run, "match", *photos, "--output", out)
    (out / "matches.json").unlink()
    (out / "matches.png").write_bytes(b"no picture")
    assert "is no result of match" in refused(run, "match", *photos, "--output", out)
    assert set(content(out)) == {"matches.png"}


def test_match_writes_both_files_or_none(run, photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert run("match", *photos, "--grid", 2, "--output", out)[0] == 0
    before = content(out)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full)
    assert "No space left on device" in refused(run, "match", *photos, "--grid", 3, "--output", out)
    monkeypatch.undo()
    assert content(out) == before


def test_extract_replaces_its_own_results_only(run, photos, tmp_path):
    out = tmp_path / "out"
    assert run("extract", *photos, "--output", out)[0] == 0
    first = content(out)
    assert set(first) == {"photo-0.safetensors", "photo-1.safetensors"}
    foreign = b"a prompt of the user"
    (out / "photo-1.safetensors").write_bytes(foreign)
    assert "is no file of features" in refused(run, "extract", *photos, "--output", out)
    assert (out / "photo-1.safetensors").read_bytes() == foreign
    assert (out / "photo-0.safetensors").read_bytes() == first["photo-0.safetensors"]
    (out / "photo-1.safetensors").unlink()
    assert run("extract", photos[0], "--output", out)[0] == 0


def test_extract_opens_all_photos_before_the_work(run, photos, tmp_path):
    cut = tmp_path / "cut.png"
    cut.write_bytes(photos[0].read_bytes()[:200])
    assert "not a readable image" in refused(run, "extract", photos[0], cut, "--output", tmp_path / "out")
    other = tmp_path / "other" / photos[0].name
    other.parent.mkdir()
    random_photo().to_image().save(other)
    assert "two photos would both" in refused(run, "extract", photos[0], other, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", ["1_0", "\uff15", "0x8"])
@pytest.mark.parametrize("arguments", [("demo", "--seed"), ("match", "a", "b", "--grid")])
def test_numbers_are_written_in_plain_digits(run, arguments, number):
    assert f"{arguments[-1]} must be a whole number such as 5, not" in refused(run, *arguments, number)
    assert "--guidance must be a number such as 2.5" in refused(run, "prompts", "imagine", "a", "--guidance", number)


def test_match_takes_no_picture_of_imagine_and_no_link_for_its_own(run, photos, tmp_path):
    out = tmp_path / "out"
    assert run("match", *photos, "--grid", 2, "--output", out)[0] == 0
    (tmp_path / "archive.json").write_bytes((out / "matches.json").read_bytes())
    (out / "matches.json").unlink()
    (out / "matches.json").symlink_to(tmp_path / "archive.json")
    assert "matches.json is a link, and would be replaced" in refused(run, "match", *photos, "--output", out)
    (out / "matches.json").unlink()
    software = PngInfo()
    software.add_text("Software", SOFTWARE)
    Image.open(photos[0]).save(out / "matches.png", pnginfo=software)
    drawn = (out / "matches.png").read_bytes()
    assert "is no result of match" in refused(run, "match", *photos, "--output", out)
    assert (out / "matches.png").read_bytes() == drawn


def test_mini_points_to_what_means_something_on_photos(run, photos, tmp_path):
    """In one line; and what it points to says nothing of the sort."""
    code, screen, _ = run("match", *photos, "--grid", 2, "--output", tmp_path / "mini")
    assert code == 0
    assert screen.splitlines()[-1].endswith("or take what needs no download (--preset hog).")
    code, screen, _ = run("match", *photos, "--preset", "hog", "--grid", 2, "--output", tmp_path / "hog")
    assert code == 0
    assert "These matches come from mini" not in screen
    content = json.loads((tmp_path / "hog" / "matches.json").read_text())
    assert (content["backbone"], content["note"], len(content["matches"])) == ("hog", None, 4)
