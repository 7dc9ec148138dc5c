"""`match --draw` and `--compare`: which files are written, and what is refused before any work."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.prompts import class_prompt, fake_backbone, single_prompt
from sd4match import SemanticMatcher
from sd4match.cli.match import _print
from sd4match.cli.match_pictures import KINDS, Pictures, compared_matchers, prompt_labels
from sd4match.config import load_preset
from sd4match.config.experiment import build_components
from sd4match.errors import InputError
from sd4match.matching import NearestNeighbor
from sd4match.prompting import EmptyPrompt, NoPrompt, TextPrompt, save_prompt
from sd4match.results import MatchResult
from sd4match.testing import FakeBackbone, random_photo


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
def test_every_picture_is_written_beside_the_matches(run, photos, tmp_path):
    out = tmp_path / "out"
    kinds = [option for kind in KINDS for option in ("--draw", kind)]
    code, shown, error = run(
        "match", *photos, "--category", "fish", "--prompt", "text", "--compare", "empty", "--point", "20,30",
        "--point", "40,50", *kinds, "--output", out,
    )  # fmt: skip
    assert code == 0, error
    files = [f"{kind}.png" for kind in KINDS]
    assert names(out) == sorted(["matches.json", "matches.png", *files])
    assert json.loads((out / "matches.json").read_text())["pictures"] == files
    flat = shown.replace("\n", "")
    for file in files:
        assert file in flat
        with Image.open(out / file) as picture:
            assert picture.info["Software"].startswith("sd4match ")
            assert picture.width > 300
    with Image.open(out / "heat.png") as picture:  # source and two prompts, for both points
        assert picture.height > 2 * 320


def test_a_picture_of_the_user_is_not_replaced(run, photos, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    Image.new("RGB", (4, 4)).save(out / "heat.png")
    code, _, error = run("match", *photos, "--draw", "heat", "--output", out)
    assert code == 2
    assert "heat.png exists and is no result of match of sd4match" in error
    assert names(out) == ["heat.png"]


@pytest.mark.slow
def test_compare_asks_for_heat_maps_and_an_earlier_picture_is_replaced(run, photos, tmp_path):
    out, photo = tmp_path / "out", random_photo()
    points = np.ones((1, 2))
    MatchResult(photo, photo, points, points, np.ones(1)).save(out, pictures={"heat": Image.new("RGB", (2, 2))})
    code, _, error = run(
        "match", *photos, "--category", "fish", "--prompt", "empty", "--compare", "text", "--output", out
    )
    assert code == 0, error
    assert names(out) == ["heat.png", "matches.json", "matches.png"]
    with Image.open(out / "heat.png") as picture:
        assert picture.width > 300


@pytest.fixture
def components():
    """Components of a match with the empty prompt, without weights."""
    config = load_preset("mini-empty")
    return build_components(config, backbone=fake_backbone()), config


def test_trained_prompts_are_told_apart_by_their_folders(components, tmp_path):
    """Every training calls its file prompt.safetensors; two of the same path are one."""
    backbone = components[0].backbone
    backbone.fingerprint = "0.1 0.2"
    files = [tmp_path / kind / "prompt.safetensors" for kind in ("class", "single", "other")]
    for number, file in enumerate(files):
        file.parent.mkdir()
        save_prompt(single_prompt(backbone, num_tokens=2 + number), file, backbone=backbone)
    again = tmp_path / "single" / ".." / "single" / "prompt.safetensors"
    names = [str(file) for file in (*files, again)]
    own, others = compared_matchers(names, *components, None, file=names[0])
    assert own == "class/prompt"
    assert [*others] == ["single/prompt", "other/prompt"]
    own, others = compared_matchers(names[1:2], *components, None)
    assert (own, [*others]) == ("empty prompt", ["prompt"])


@pytest.mark.parametrize(
    ("names", "labels"), [(["empty"], []), (["text", "empty", "text"], ["a photo of a fish"]), ([], [])]
)
def test_the_same_prompt_is_drawn_once(components, names, labels):
    own, others = compared_matchers(names, *components, "fish")
    assert (own, [*others]) == ("empty prompt", labels)


@pytest.mark.parametrize(
    ("prompts", "labels"),
    [
        (["empty prompt", Path("/a/empty prompt.safetensors")], ["empty prompt", "a/empty prompt"]),
        ([Path("/a/b/p.pt"), Path("/c/b/p.pt"), Path("/b/q.pt")], ["a/b/p", "c/b/p", "q"]),
        ([Path("/a/p.pt"), Path("/a/p.safetensors")], ["/a/p.pt", "/a/p.safetensors"]),
        ([Path("/p.pt"), Path("/a/p.pt")], ["/p.pt", "a/p"]),
    ],
)
def test_labels_of_prompts_differ(prompts, labels):
    assert prompt_labels(prompts) == labels


@pytest.mark.slow
def test_a_prompt_of_pairs_has_every_picture(mini):
    class Both(TextPrompt):
        def __init__(self):
            super().__init__(backbone=mini)
            self.scope = "pair"

    photos = random_photo((40, 60)), random_photo((50, 30), seed=1)
    matcher = SemanticMatcher(backbone=mini, prompt=Both(), matcher=NearestNeighbor())
    result = matcher.match(*photos, category="fish", grid=2)
    drawn = Pictures(matcher, photos, photos, result, None, "fish", "both", {}).draw(KINDS)
    assert [*drawn] == [*KINDS]


def test_pictures_of_a_dense_match_compute_it_once(mini, monkeypatch):
    matcher = SemanticMatcher(backbone=mini, prompt=EmptyPrompt(backbone=mini), matcher=NearestNeighbor())
    photos = random_photo((40, 60)), random_photo((50, 44), seed=1)
    made = []
    match = matcher.match_dense
    monkeypatch.setattr(matcher, "match_dense", lambda *a, **k: made.append(match(*a, **k)) or made[-1])
    pictures = Pictures(matcher, photos, photos, matcher.match(*photos), None, None, "empty", {})
    assert list(pictures.draw(["dense", "warp"])) == ["dense", "warp"]
    assert len(made) == 1


def test_heat_maps_need_a_point():
    photo = random_photo()
    nothing = MatchResult(photo, photo, np.ones((0, 2)), np.ones((0, 2)), np.ones(0))
    matcher = SemanticMatcher(backbone=FakeBackbone(), prompt=NoPrompt(), matcher=NearestNeighbor())
    with pytest.raises(InputError, match="no point to show, because no point was matched"):
        Pictures(matcher, (photo, photo), (photo, photo), nothing, None, None, "none", {}).draw(["heat"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--draw", "heet"], "--draw 'heet' is no picture: did you mean 'heat'?"),
        (["--compare", "text"], "--compare text needs to know what is in the photos"),
        (["--preset", "hog", "--compare", "no-such.safetensors"], "no-such.safetensors"),
        (["--preset", "hog", "--draw", "attention"], "has no cross-attention with tokens"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(run, photos, tmp_path, options, message):
    code, _, error = run("match", *photos, *options, "--output", tmp_path / "out")
    assert code == 2
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["matches", "Heat", "a b", "../heat", "", "heat.png"])
def test_a_picture_has_a_plain_name(tmp_path, name):
    photo, points = random_photo(), np.ones((1, 2))
    result = MatchResult(photo, photo, points, points, np.ones(1))
    with pytest.raises(InputError, match="pictures must have names of lower-case letters and hyphens"):
        result.save(tmp_path / "out", pictures={name: Image.new("RGB", (2, 2))})
    assert not (tmp_path / "out").exists()


def test_a_prompt_of_categories_needs_one(components, tmp_path):
    backbone = components[0].backbone
    backbone.fingerprint = "0.1 0.2"
    file = save_prompt(class_prompt(backbone, categories=["cat"]), tmp_path / "class.safetensors", backbone=backbone)
    with pytest.raises(InputError, match=r"class\.safetensors needs to know what is in the photos"):
        compared_matchers([str(file)], *components, None)


@pytest.mark.parametrize(("count", "words"), [(0, "0 matches."), (1, "1 match."), (2, "2 matches.")])
def test_matches_are_counted(capsys, count, words):
    photo, points = random_photo(), np.ones((count, 2))
    _print(MatchResult(photo, photo, points, points, np.ones(count)), [])
    assert words in capsys.readouterr().out
