"""The command line as a user meets it: answers, files, exit codes, one line for each mistake."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from helpers.command_line import SMALL, sets
from sd4match.prompting.config import SinglePromptConfig
from sd4match.prompting.learned import SinglePrompt
from sd4match.prompting.serialization import save_prompt


def test_match_writes_json_and_picture(run, photos, tmp_path):
    out = tmp_path / "out"
    code, screen, _ = run(
        "match", *photos, "--point", "12,8", "--point", "80,50", "--category", "fish", "--output", out
    )
    assert code == 0
    content = json.loads((out / "matches.json").read_text())
    assert [match["source"] for match in content["matches"]] == [[12, 8], [80, 50]]
    assert all(0 <= match["score"] <= 1 for match in content["matches"])
    assert content["prompt"]["kind"] == "text"
    assert "drawings" in content["note"]
    assert "drawings" in screen
    with Image.open(out / "matches.png") as picture:
        assert picture.height == 480


def test_match_grid_mutual_learned_prompt_and_other_backbone(run, photos, tmp_path, mini, other_model):
    prompt = save_prompt(
        SinglePrompt(SinglePromptConfig(num_tokens=3), backbone=mini), tmp_path / "p.safetensors", backbone=mini
    )
    code, screen, _ = run("match", *photos, "--prompt", prompt, "--grid", 5, "--mutual", "--output", tmp_path / "a")
    assert code == 0
    assert len(json.loads((tmp_path / "a" / "matches.json").read_text())["matches"]) < 25
    code, screen, _ = run("match", *photos, "--backbone", other_model, "--grid", 5, "--output", tmp_path / "b")
    assert code == 0
    assert "25 matches, of which the 20 best" in screen
    assert "drawings" not in screen


def test_every_mistake_is_one_line_exit_2_and_nothing_written(run, photos, tmp_path, mini, other_model):
    a, b = photos
    out = tmp_path / "out"
    text = tmp_path / "text.png"
    text.write_text("no picture")
    empty = tmp_path / "empty"
    empty.mkdir()
    prompt = save_prompt(
        SinglePrompt(SinglePromptConfig(num_tokens=3), backbone=mini), tmp_path / "p.safetensors", backbone=mini
    )
    config = tmp_path / "c.yaml"
    config.write_text("promt: empty\n")
    mistakes = {
        ("match", tmp_path / "none.png", b): "no such photo",
        ("match", text, b): "not a readable image",
        ("match", a, b, "--point", "90,3"): "point 90,3 is outside photo-0.png, which is 90 x 60 pixels",
        ("match", a, b, "--point", "nine"): "--point is X,Y",
        ("match", a, b, "--prompt", "text"): "--category",
        ("match", a, b, "--preset", "mini-text"): "--category",
        ("match", a, b, "--preset", "mini-txet"): "did you mean 'mini-text'",
        ("match", a, b, "--prompt", "nothing.safetensors"): "no such prompt file",
        ("match", a, b, "--prompt", a): "not a safetensors file",
        ("match", a, b, "--prompt", prompt, "--backbone", other_model): "learned on another backbone",
        ("match", a, b, "--backbone", empty): "is not a diffusers folder",
        ("match", a, b, "--backbone", tmp_path / "nowhere"): "no model ",
        ("match", a, b, "--device", "tpu9"): "--device must be",
        ("match", a, b, "--dtype", "int3"): "float32",
        ("match", a, b, *sets("matcher.sigam=3")): "did you mean 'sigma'",
        ("match", a, b, "--config", config): "unknown field 'promt'; did you mean 'prompt'",
        ("match", a, b, "--config", config, "--preset", "mini-text"): "not both",
        ("train", *sets("training.steps=few")): "training.steps",
        ("train", "--preset", "mini-text", *sets(*SMALL)): "nothing to learn",
        ("evaluate", "--split", "exam", *sets(*SMALL)): "train, validation or test",
        ("evaluate", "--preset", "mini-single", *sets(*SMALL)): "give the file of a prompt",
    }
    for arguments, message in mistakes.items():
        code, _, error = run(*arguments, "--output", out)
        assert code == 2, arguments
        assert message in error, (arguments, error)
        assert error.startswith("sd4match: error: "), error
        assert error.count("\n") == 1, error
        assert not out.exists(), arguments
    code, _, error = run("match", a, b, "--output", text)
    assert (code, "is a file" in error) == (2, True)


def test_train_then_evaluate_against_text(run, tmp_path):
    out = tmp_path / "run"
    code, screen, _ = run(
        "train", "--steps", 2, "--output", out, *sets(*SMALL, "prompt.num_tokens=4", "training.validate_every=2")
    )
    assert code == 0
    assert "Best prompt: step" in screen
    assert {file.name for file in out.iterdir()} == {
        "checkpoints", "config.yaml", "loss.png", "losses.csv", "prompt.safetensors", "validation.csv",
        "report.json", "report.md", "report.csv", "report.tex",
    }  # fmt: skip
    code, screen, _ = run(
        "evaluate", "--prompt", out / "prompt.safetensors", "--against", "text", "--limit", 6,
        "--output", tmp_path / "report", *sets(*SMALL),
    )  # fmt: skip
    assert code == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [(row["prompt"], row["pairs"]) for row in report["results"]] == [("prompt", 6), ("text", 6)]
    assert report["comparisons"][0]["metric"] == "image PCK@0.1"
    assert "not numbers of Stable" in screen


def test_show_config_prints_every_preset(run):
    import yaml

    for command in ("train", "evaluate"):
        code, screen, _ = run(command, "--preset", "mini-single", "--show-config", *sets("training.steps=7"))
        assert code == 0
        assert yaml.safe_load(screen)["training"]["steps"] == 7


def test_make_synthetic(run, tmp_path):
    code, screen, _ = run("data", "make-synthetic", tmp_path / "data", "--pairs", 8, "--photos", 3)
    assert code == 0
    assert "8 train, 8 validation, 8 test pairs" in screen
    code, _, error = run("data", "make-synthetic", tmp_path / "data")
    assert code == 2
    assert "not an empty folder" in error


def test_demo_writes_everything(run, tmp_path, monkeypatch):
    """The whole demo on few pairs and steps; the real one is `make demo`."""
    from sd4match.config import presets

    real = presets.load_preset
    small = [*SMALL, "training.steps=2", "training.validate_every=2", "prompt.num_tokens=4"]
    monkeypatch.setattr(presets, "load_preset", lambda name, overrides=(): real(name, [*overrides, *small]))
    out = tmp_path / "demo"
    code, screen, error = run("demo", "--output", out)
    assert code == 0, error
    assert {file.name for file in out.iterdir()} >= {
        "report.json",
        "report.md",
        "single.safetensors",
        "loss.png",
        "pair.png",
    }
    report = json.loads((out / "report.json").read_text())
    assert [row["prompt"] for row in report["results"]] == ["empty", "text", "single"]
    assert (report["comparisons"][0]["a"], report["comparisons"][0]["b"]) == ("single", "text")
    assert {row["prompt"] for row in report["baselines"]} == {"identity", "random", "part words"}
    assert screen.count("  sd4match ") == 3


@pytest.mark.realdata
def test_match_on_real_photos(run, realdata, tmp_path):
    photos = realdata / "photos" / "cat.png", realdata / "photos" / "target_cat.png"
    code, screen, _ = run("match", *photos, "--output", tmp_path / "cats")
    assert code == 0
    assert "on real photos they mean little" in screen
    animals = sorted((realdata / "ap-10k").rglob("*.jpg"))
    code, _, _ = run("match", *animals, "--output", tmp_path / "ap", "--grid", 4)
    assert code == 0
    assert len(json.loads((tmp_path / "ap" / "matches.json").read_text())["matches"]) == 16


def test_a_wrong_option_is_one_line_too(run, photos):
    for arguments, message in {
        ("evaluate", "--limit", 0): "'--limit'",
        ("match", photos[0]): "Missing argument",
        ("evaluate", "--nope"): "No such option: --nope",
        ("data", "chek"): "Did you mean 'check'",
        ("prompts", "imagine", "x", "--steps", 2000): "'--steps'",
        ("prompts", "imagine", "x", "--guidance", "0.5"): "--guidance must be from 1 to 100",
        ("match", *photos, "--prompt", "empty", "--fallback", "text"): "--fallback goes with --prompt FILE",
        ("sweep", "prompts", "--only", "single", *sets("prompt={kind: class}")): "cannot be changed in a sweep",
        ("train", "--output", photos[0] / "below"): "cannot be made",
        ("train", *sets("prompt.init='a {category}'")): "nothing can be filled in",
        ("train", *sets("prompt.init='a b c d'", "prompt.num_tokens=2")): "4 tokens, and the prompt only 2",
    }.items():
        code, _, error = run(*arguments)
        assert code == 2, arguments
        assert message in error, (arguments, error)
        assert error.count("\n") == 1, error
    assert run("data")[0] == 2
