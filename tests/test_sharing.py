"""Matchers in folders and on the hub."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.fake_hub import fake_hub, hub_cache  # noqa: F401 - a fixture
from helpers.loaded_once import loaded_once  # noqa: F401 - a fixture
from sd4match import SemanticMatcher, save_prompt
from sd4match.errors import ConfigError, InputError, PromptFileError
from sd4match.matching import NearestNeighbor
from sd4match.prompting import SinglePrompt, SinglePromptConfig, push_to_hub
from sd4match.structures.tensors import Sampling, TrainingNoise
from sd4match.testing import random_photo

PHOTOS = random_photo((40, 60), seed=1), random_photo((50, 44), seed=2)

pytestmark = pytest.mark.usefixtures("hub_cache", "loaded_once")


@pytest.fixture
def learned(mini, tmp_path):
    prompt = SinglePrompt(SinglePromptConfig(num_tokens=6), backbone=mini)
    details = {"backbone": "mini", "layer": 1, "data": {"kind": "synthetic"}, "validation_pck@0.1": 0.31}
    file = save_prompt(prompt, tmp_path / "p.safetensors", backbone=mini, details=details)
    return SemanticMatcher.from_preset("mini-single", prompt=file)


def same_matches(one, other):
    found = [matcher.match(*PHOTOS, category="cat") for matcher in (one, other)]
    return np.array_equal(found[0].target_points, found[1].target_points)


def test_a_saved_matcher_is_the_same_matcher(learned, tmp_path):
    learned.matcher = NearestNeighbor()
    learned.sampling = Sampling(60, 3, ensemble="antithetic")
    folder = learned.save_pretrained(tmp_path / "saved", results={"PCK@0.1 per image, synthetic": 38.6})
    again = SemanticMatcher.from_pretrained(folder)
    assert same_matches(learned, again)
    assert again.sampling == learned.sampling
    assert again.matcher == learned.matcher
    assert again.prompt.details["validation_pck@0.1"] == 0.31
    card = (folder / "README.md").read_text()
    for text in ("license: apache-2.0", "synthetic", "PCK@0.1 per image, synthetic | 38.6", "protocol | sd4match"):
        assert text in card
    learned.save_pretrained(folder)  # replaces its own


@pytest.mark.parametrize("preset", ["mini-text", "mini-empty"])
def test_a_matcher_that_learned_nothing_is_saved_without_a_prompt_file(preset, tmp_path):
    matcher = SemanticMatcher.from_preset(preset)
    folder = matcher.save_pretrained(tmp_path / "saved")
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "experiment.yaml"]
    assert same_matches(matcher, SemanticMatcher.from_pretrained(folder))
    (folder / "prompt.safetensors").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"prompt\.safetensors"):
        matcher.save_pretrained(folder)


@pytest.mark.parametrize("file", ["README.md", "experiment.yaml", "prompt.safetensors"])
def test_files_of_others_are_kept(learned, tmp_path, file):
    (tmp_path / file).write_text("mine")
    with pytest.raises(InputError, match=file):
        learned.save_pretrained(tmp_path)
    assert (tmp_path / file).read_text() == "mine"


def test_the_prompt_of_a_run_and_an_edited_card_are_kept(learned, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    prompt = (tmp_path / "p.safetensors").read_bytes()
    (run / "prompt.safetensors").write_bytes(prompt)
    with pytest.raises(InputError, match=r"prompt\.safetensors"):
        learned.save_pretrained(run)
    assert [file.name for file in run.iterdir()] == ["prompt.safetensors"]
    assert (run / "prompt.safetensors").read_bytes() == prompt
    card = learned.save_pretrained(tmp_path / "saved") / "README.md"
    card.write_text(card.read_text() + "\nMeasured by hand: 40.\n")
    with pytest.raises(InputError, match=r"README\.md"):
        learned.save_pretrained(tmp_path / "saved")
    assert "by hand" in card.read_text()


def test_what_a_config_cannot_name_is_not_saved(learned, tmp_path):
    parts = {"backbone": learned.backbone, "prompt": learned.prompt, "matcher": learned.matcher}
    with pytest.raises(InputError, match="composed of components"):
        SemanticMatcher(**parts).save_pretrained(tmp_path / "a")
    learned.matcher = lambda correlation: NearestNeighbor()(correlation)
    with pytest.raises(InputError, match="matcher is not a registered component"):
        learned.save_pretrained(tmp_path / "a")
    learned.matcher = NearestNeighbor()
    learned.sampling = Sampling(40, noise=TrainingNoise(0, 1))
    with pytest.raises(InputError, match="training noise cannot be saved"):
        learned.save_pretrained(tmp_path / "a")
    learned.sampling = Sampling(40)
    learned.backbone = SemanticMatcher.from_preset("hog").backbone
    with pytest.raises(InputError, match="the backbone was replaced"):
        learned.save_pretrained(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_card_says_what_it_is_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matcher = SemanticMatcher.from_preset("hog")
    matcher.save_pretrained(".")
    card = (tmp_path / "README.md").read_text()
    assert "# A semantic matcher on hog" in card
    assert f'from_pretrained("{tmp_path.name}")' in card
    matcher.save_pretrained(".", name='a "b"')
    assert r'from_pretrained("a \"b\"")' in (tmp_path / "README.md").read_text()
    with pytest.raises(InputError, match=r"results\['PCK'\] must be finite"):
        matcher.save_pretrained(".", results={"PCK": float("nan")})


def test_matchers_and_prompts_come_from_the_hub(learned, tmp_path):
    with fake_hub() as (address, files):
        assert learned.push_to_hub("me/matcher", endpoint=address).endswith("me/matcher")
        assert 'SemanticMatcher.from_pretrained("me/matcher")' in files["me/matcher/README.md"].decode()
        assert same_matches(learned, SemanticMatcher.from_pretrained("me/matcher", endpoint=address))
        push_to_hub(tmp_path / "p.safetensors", "me/prompt", endpoint=address)
        assert same_matches(learned, SemanticMatcher.from_pretrained("me/prompt", endpoint=address))
        files["me/empty/README.md"] = b"nothing"
        with pytest.raises((ConfigError, PromptFileError), match="me/empty"):
            SemanticMatcher.from_pretrained("me/empty", endpoint=address)
    for name in ("me/other", "other"):  # the server has stopped
        with pytest.raises(PromptFileError, match=f"of '{name}' from the hub: no connection"):
            SemanticMatcher.from_pretrained(name, endpoint=address)
    assert same_matches(learned, SemanticMatcher.from_pretrained("me/matcher", endpoint=address))  # from the cache


def test_what_is_no_matcher_is_named(tmp_path, mini):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "experiment.yaml").write_text(" \n")
    for source, message in (
        (tmp_path / "file", "is a file"), (tmp_path / "empty", r"neither experiment\.yaml nor prompt\.safetensors"),
        (tmp_path / "damaged", r"experiment\.yaml is empty"), (str(tmp_path / "none"), "no such folder"),
        ("./none", "no such folder"), (Path("me/none"), "no such folder"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            SemanticMatcher.from_pretrained(source)
    prompt = SinglePrompt(SinglePromptConfig(num_tokens=6), backbone=mini)
    save_prompt(prompt, tmp_path / "empty" / "prompt.safetensors", backbone=mini, details={"backbone": "my-own"})
    with pytest.raises(ConfigError, match=r"has no experiment\.yaml, and its prompt was learned on 'my-own'"):
        SemanticMatcher.from_pretrained(tmp_path / "empty")
