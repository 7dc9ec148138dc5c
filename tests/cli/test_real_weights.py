"""Presets on real weights name no data set: refused where one is needed, usable where none is."""

from __future__ import annotations

import json

import pytest

from helpers.command_line import SMALL, sets
from sd4match.backbones.config import BackboneConfig, StableDiffusionConfig, VisionTransformerConfig
from sd4match.io.features import read_features


@pytest.fixture
def models(tmp_path, other_model, monkeypatch):
    """A folder of models in which a small one with random weights has the name of a real one."""
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("sd1-5", "sd2-1"):
        (folder / name).symlink_to(other_model)
    monkeypatch.setenv("SD4MATCH_MODELS", str(folder))
    return folder


@pytest.fixture
def no_weights(monkeypatch):
    """Fail if the weights of a backbone are loaded."""
    for config in (BackboneConfig, StableDiffusionConfig, VisionTransformerConfig):
        monkeypatch.setattr(config, "build", lambda *_, **__: pytest.fail("weights were loaded"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "--preset", "sd2-1-cpm"),
        ("train", "--preset", "sd1-5-class"),
        ("train", "--backbone", "sd2-1"),
        ("evaluate", "--preset", "dift"),
        ("evaluate", "--preset", "sd2-1-text", "--against", "empty"),
        ("evaluate", "--preset", "dinov2", "--baseline", "identity"),
        ("evaluate", "--backbone", "sd2-1"),
        ("sweep", "prompts", "--model", "sd2-1"),
    ],
)
def test_without_data_is_one_line_exit_2_and_nothing_written(run, models, no_weights, tmp_path, arguments):
    code, _, error = run(*arguments, "--output", tmp_path / "out")
    assert (code, error.count("\n")) == (2, 1), error
    assert error.startswith("sd4match: error: ")
    assert "names no data set: give --dataset KIND --root FOLDER" in error
    assert not (tmp_path / "out").exists()


def test_a_config_file_without_data_is_refused_too(run, no_weights, tmp_path):
    file = tmp_path / "mine.yaml"
    for text in ("backbone: {weights: sd2-1}\nprompt: {kind: single}\n", "model: sd2-1\nexperiment: single\n"):
        file.write_text(text)
        for command in ("train", "evaluate"):
            code, _, error = run(command, "--config", file, "--output", tmp_path / "out")
            assert (code, "--dataset KIND --root FOLDER" in error, error.count("\n")) == (2, True, 1)


def test_the_experiment_of_such_a_preset_can_still_be_printed(run):
    code, screen, _ = run("train", "--preset", "sd2-1-cpm", "--show-config")
    assert (code, "data: null\n" in screen) == (0, True)


def test_a_learned_preset_without_its_prompt_is_refused_before_data_is_asked_for(run, photos, no_weights):
    code, _, error = run("match", *photos, "--preset", "sd2-1-class", "--category", "cat")
    assert (code, "give the file of a prompt" in error, error.count("\n")) == (2, True, 1)


def test_match_and_extract_need_no_data(run, photos, models, tmp_path):
    code, screen, error = run(
        "match", *photos, "--preset", "dift", "--category", "cat", "--grid", 3, "--output", tmp_path / "m"
    )
    assert code == 0, error
    assert "drawings" not in screen
    content = json.loads((tmp_path / "m" / "matches.json").read_text())
    assert (content["backbone"], len(content["matches"]), content["note"]) == ("sd2-1", 9, None)
    code, _, error = run("extract", photos[0], "--preset", "sd1-5-empty", "--output", tmp_path / "f")
    assert code == 0, error
    _, provenance = read_features(tmp_path / "f" / "photo-0.safetensors")
    assert provenance["backbone"]["name"] == "sd1-5"


def test_with_data_they_train_and_evaluate(run, models, tmp_path):
    data = ("--dataset", "synthetic", *sets(*SMALL, "training.validation_pairs=2"))
    prompt = tmp_path / "run" / "prompt.safetensors"
    code, _, error = run("train", "--preset", "sd2-1-single", "--steps", 1, *data, "--output", tmp_path / "run")
    assert code == 0, error
    code, screen, error = run(
        "evaluate", "--preset", "sd2-1-single", "--prompt", prompt, "--limit", 2, *data, "--output", tmp_path / "report"
    )
    assert code == 0, error
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["backbone"]["name"] == "sd2-1"
    assert report["results"][0]["pairs"] == 2
    assert "Measured on `mini`" not in screen
