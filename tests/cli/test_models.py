"""`models`, `doctor`, `extract`."""

from __future__ import annotations

import json
import os
import re

import pytest
from huggingface_hub import constants

from helpers.model_folders import change_weights, copy_of, write_random_transformer
from sd4match.backbones.pretrained import MINI_FOLDER
from sd4match.io.features import read_features


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("SD4MATCH_MODELS", raising=False)


def test_models_list_and_doctor_say_what_is_here(run, tmp_path, monkeypatch):
    monkeypatch.setenv("SD4MATCH_MODELS", str(tmp_path))
    write_random_transformer(tmp_path / "dinov2-small")
    code, screen, _ = run("models", "list")
    assert code == 0
    for name in ("mini", "sd1-5", "sd2-1", "cleandift-sd2-1", "dinov2-base", "dino-vitb8"):
        assert name in screen
    for license in ("apache-2.0", "creativeml-openrail-m", "openrail++"):
        assert license in screen
    code, screen, _ = run("doctor")
    assert code == 0
    assert re.search(r"\n  here +mini, dinov2-small\n", screen)
    assert "offline" in screen
    assert str(tmp_path) in screen
    assert "MISSING" not in screen


def test_models_check_runs_one_photo(run, tmp_path, other_model):
    code, screen, _ = run("models", "check", "mini")
    assert code == 0
    for part in (
        "license       apache-2.0",
        "(96, 24, 24), finite: True",
        "(3, 96, 96), squash",
        "parameters",
        "peak memory",
        "fingerprint",
    ):
        assert part in screen
    code, screen, _ = run("models", "check", other_model, "--dtype", "bfloat16", "--set", "layers=[0, 1]")
    assert code == 0
    assert "layer 0+1 of 4" in screen
    assert "license       not known here" in screen
    code, screen, _ = run("models", "check", write_random_transformer(tmp_path / "m", kind="dino"))
    assert code == 0
    assert "prompt        none" in screen
    for arguments, message in {
        ("models", "check", "sd2-1"): "no model 'sd2-1'",
        ("models", "check", tmp_path): "is not a diffusers folder",
        ("models", "check", "mini", "--set", "layers=7"): "layer 7 does not exist",
        ("models", "check", "mini", "--set", "layers"): "--set is FIELD=VALUE",
    }.items():
        code, _, error = run(*arguments)
        assert (code, error.count("\n")) == (2, 1)
        assert message in error


def test_extract_writes_a_map_a_photo_with_frame_and_provenance(run, photos, tmp_path):
    code, screen, _ = run("extract", *photos, "--output", tmp_path / "f", "--category", "fish")
    assert code == 0
    assert "2 maps of 96 x 24 x 24" in screen
    features, provenance = read_features(tmp_path / "f" / "photo-0.safetensors")
    assert features.values.shape == (1, 96, 24, 24)
    assert features.grid.frames[0].original_size == (60, 90)
    assert provenance["backbone"]["name"] == "mini"
    assert provenance["prompt"] == {"kind": "text", "template": "a photo of a {category}", "by_category": {}}
    assert provenance["sampling"]["timestep"] == 40
    assert json.dumps(provenance)
    for arguments, message in {
        (photos[0], photos[0]): "two photos would both be written to photo-0.safetensors",
        (photos[0], tmp_path / "none.png"): "no such photo",
        (photos[0], "--preset", "cpm"): "give the file of a prompt",
        (photos[0], "--preset", "sd-dino", "--backbone", "mini"): "this experiment fuses several",
    }.items():
        code, _, error = run("extract", *arguments, "--output", tmp_path / "g")
        assert (code, error.count("\n")) == (2, 1), error
        assert message in error
        assert not (tmp_path / "g").exists()


def test_features_that_are_not_finite_are_an_error(run, tmp_path):
    folder = copy_of(MINI_FOLDER, tmp_path / "m")
    file = folder / "unet/diffusion_pytorch_model.safetensors"
    change_weights(file, lambda name, value: (name, value * 4e4 if name == "conv_in.weight" else value))
    code, screen, error = run("models", "check", folder, "--dtype", "float16")
    assert (code, error.count("\n"), "finite" in screen) == (2, 1, False)
    assert "the features of noise at layer 1 in float16 are not finite" in error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("image_size=[", "is not valid YAML"),
        ("image_size=96000", "image_size"),
        ("image_size=90", "must be a multiple of 16"),
        ("image_size=010.5", "image_size"),
        ("cells=36", "must divide"),
        ("layers=true", "layers"),
        ("weights=x", "--set weights is not possible here"),
        ("kind=fusion", "--set kind is not possible here"),
        ("passes_at_once=2024-13-45", "passes_at_once"),
    ],
)
def test_a_field_that_cannot_be_set_is_one_line(run, change, message):
    code, _, error = run("models", "check", "mini", "--set", change)
    assert (code, error.count("\n")) == (2, 1)
    assert message in error


@pytest.mark.parametrize("name", ["~nobody-here/x", "x" * 300, "", "a\0b"])
def test_a_model_that_no_folder_can_be_is_one_line(run, name):
    code, _, error = run("models", "check", name)
    assert (code, error.count("\n")) == (2, 1)


def test_markup_in_the_name_of_a_folder_is_text(run, tmp_path, monkeypatch):
    root = tmp_path / "[" / "x]"
    write_random_transformer(root / "dinov2-small")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SD4MATCH_MODELS", "[/x]")
    code, screen, _ = run("models", "list")
    assert code == 0
    assert "[/x]/dinov2-small" in screen
    (root / "dinov2-small" / "model.safetensors").unlink()
    assert "[/x]" not in run("models", "list")[1]  # a half is not here


@pytest.mark.parametrize("command", ["info", "clear"])
def test_a_cache_is_a_folder(run, tmp_path, command):
    (tmp_path / "file").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for folder in ("file", "pipe", "loop", "file/below", "x" * 300):
        code, _, error = run("cache", command, "--folder", tmp_path / folder)
        assert (code, error.count("\n")) == (2, 1), folder
        assert "cache folder" in error
    for folder in ("~nobody-here/x", ""):
        code, _, error = run("cache", command, "--folder", folder)
        assert (code, error.count("\n")) == (2, 1), folder
    assert run("cache", command, "--folder", tmp_path / "none")[0] == 0
    (tmp_path / "sub/ab").mkdir(parents=True)
    (tmp_path / "sub/ab/abcd.safetensors").write_text("mine")
    assert run("cache", command, "--folder", tmp_path)[0] == 0
    assert (tmp_path / "sub/ab/abcd.safetensors").exists()
