"""`models`, `doctor`, `extract`."""

from __future__ import annotations

import json

import pytest
from huggingface_hub import constants

from helpers.model_folders import write_random_transformer
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
    code, screen, _ = run("doctor")
    assert code == 0
    assert "models here    mini, dinov2-small" in screen
    assert "offline" in screen
    assert str(tmp_path) in screen
    assert "MISSING" not in screen


def test_models_check_runs_one_photo(run, tmp_path, other_model):
    code, screen, _ = run("models", "check", "mini")
    assert code == 0
    for part in ("(96, 24, 24), finite: True", "(3, 96, 96), squash", "parameters", "peak memory", "fingerprint"):
        assert part in screen
    code, screen, _ = run("models", "check", other_model, "--dtype", "bfloat16", "--set", "layers=[0, 1]")
    assert code == 0
    assert "layer 0+1 of 4" in screen
    code, screen, _ = run("models", "check", write_random_transformer(tmp_path / "m", kind="dino"))
    assert code == 0
    assert "prompt         none" in screen
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
