from __future__ import annotations

import json
import re

import pytest
import yaml
from typer.testing import CliRunner

from helpers.loaded_once import loaded_once  # noqa: F401 - a fixture
from sd4match.cli.app import app
from sd4match.config import load_preset, preset_names
from sd4match.errors import ConfigError
from sd4match.training.measuring import DamagedScoresWarning, SweepCallbacks, read_scores
from sd4match.training.sweep import PROMPTS, sweep_prompts

SMALL = [
    "data.pairs=3", "data.photos_per_category=2", "training.steps=2", "training.batch_size=2",
    "training.validate_every=2", "training.validation_pairs=2", "evaluation.bootstrap_samples=50",
]  # fmt: skip


def test_every_prompt_of_the_table_is_a_preset_on_both_models():
    names = preset_names()
    for name in PROMPTS:
        assert {name, f"mini-{name}", f"sd2-1-{name}"} <= set(names)
        assert load_preset(name) == load_preset(f"mini-{name}")
    assert {load_preset(f"mini-{name}").prompt.kind for name in PROMPTS} == {
        "empty", "text", "single", "class", "cpm", "implicit_captioner",
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"unknown preset 'mini-cmp'; did you mean"):
        load_preset("mini-cmp")


def test_ablations_differ_in_fields_of_one_config():
    full = load_preset("cpm").prompt.model_dump()
    different = {
        "cpm-global-features": {"features"}, "cpm-single-image": {"condition_on"},
        "cpm-single-image-global-features": {"condition_on", "features"}, "cpm-no-global-prompt": {"num_global_tokens"},
        "cpm-no-patch-mixing": {"mix_patches"},
    }  # fmt: skip
    for name, fields in different.items():
        own = load_preset(name).prompt.model_dump()
        assert {field for field in full if own[field] != full[field]} == fields


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    output = tmp_path_factory.mktemp("sweep")
    started = []
    report = sweep_prompts(
        output,
        names=("empty", "single", "class", "cpm"),
        overrides=SMALL,
        seed=3,
        callbacks=SweepCallbacks(on_start=started.append),
    )
    return output, report, started


@pytest.mark.slow
def test_one_report_of_all_prompts(swept):
    output, report, started = swept
    assert started == ["empty", "single", "class", "cpm"] == [row.prompt for row in report.results]
    for row in report.results:
        assert set(row.ci95) >= {"image", "point"}
        assert row.pairs == 3
    assert {(comparison.a, comparison.b) for comparison in report.comparisons} == {
        ("class", "single"), ("cpm", "single"), ("cpm", "class"),
    }  # fmt: skip
    assert report.to_json()["results"][1]["prompt_config"]["seed"] == 3
    assert report.config["training"]["seed"] == 3
    assert {"prompt.safetensors", "scores.json", "loss.png", "config.yaml"} <= {
        f.name for f in (output / "cpm").iterdir()
    }


@pytest.mark.usefixtures("loaded_once")
def test_a_stopped_sweep_goes_on(swept):
    output, report, _ = swept
    learned = output / "single" / "prompt.safetensors"
    before = learned.stat().st_mtime_ns
    (output / "class" / "scores.json").write_text("{ half")
    with pytest.warns(DamagedScoresWarning, match=r"scores\.json is damaged"):
        again = sweep_prompts(output, names=("empty", "single", "class"), overrides=SMALL, seed=3)
    assert learned.stat().st_mtime_ns == before
    assert [row.pck for row in again.results] == [row.pck for row in report.results[:3]]
    other = sweep_prompts(output, names=("single",), overrides=SMALL, seed=4)
    assert learned.stat().st_mtime_ns != before
    assert other.results[0].extra["prompt_config"]["seed"] == 4


ORIGIN = {"config": {}, "split": "test", "fingerprint": "1", "library_version": "1"}
SCORES = {"pair_ids": ["a"], "categories": ["x"], "visible": [1], "correct": [[1]], "alphas": [0.1], "left_out": 0,
          "difficulty": [], "skipped": []}  # fmt: skip


def test_scores_are_read_whole_or_named_and_measured_again(tmp_path):
    def read(content):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "scores.json").write_text(text)
        return read_scores(tmp_path, ORIGIN)

    whole = {**ORIGIN, "scores": SCORES, "seconds": 1.5}
    assert read_scores(tmp_path, ORIGIN) is None
    assert read(whole).seconds == 1.5
    assert read(ORIGIN) is None  # begun, and not measured yet
    assert read({**whole, "split": "train"}) is None
    for damaged in (
        "{", "[]", "[" * 99999, '{"scores": NaN}', {**whole, "scores": []}, {**whole, "scores": {}},
        {**whole, "seconds": "long"}, {**whole, "seconds": -1}, {**whole, "scores": {**SCORES, "visible": [0]}},
        {**whole, "scores": {**SCORES, "correct": [[7]]}},
    ):  # fmt: skip
        with pytest.warns(DamagedScoresWarning, match=r"scores\.json is damaged: .*; the prompt is measured again"):
            assert read(damaged) is None


@pytest.mark.usefixtures("loaded_once")
def test_on_the_command_line(tmp_path):
    sets = [part for change in SMALL for part in ("--set", change)]
    command = ["sweep", "prompts", "--output", str(tmp_path / "s"), "--only", "empty", "--only", "single", *sets]
    result = CliRunner().invoke(app, command)
    assert result.exception is None, result.exception
    assert "| single |" in result.stdout
    assert "not numbers of Stable Diffusion" in result.stdout
    assert json.loads((tmp_path / "s" / "report.json").read_text())["split"] == "test"
    wrong = CliRunner().invoke(app, ["sweep", "prompts", "--only", "cmp"])
    assert "did you mean 'cpm'" in str(wrong.exception)


@pytest.mark.slow
@pytest.mark.usefixtures("loaded_once")
def test_any_component_and_any_field_is_a_row(tmp_path):
    sets = [part for change in SMALL for part in ("--set", change)]
    variants = [
        "few={kind: single, num_tokens: 3}", "window={kind: window_soft_argmax}", "loss={loss: {kernel_size: 5}}",
        "quick={training: {learning_rate: 0.5}, prompt: {num_tokens: 4}}",
    ]  # fmt: skip
    command = ["sweep", "prompts", "--output", str(tmp_path), "--only", "text", *sets]
    result = CliRunner().invoke(app, [*command, *(part for each in variants for part in ("--with", each))])
    assert result.exception is None, result.exception
    report = json.loads((tmp_path / "report.json").read_text())
    rows = {row["prompt"]: row for row in report["results"]}
    assert list(rows) == ["text", "few", "window", "loss", "quick"]
    assert [rows[name]["prompt_config"].get("num_tokens") for name in rows] == [None, 3, 30, 30, 4]
    assert rows["window"]["matcher"] == "window_soft_argmax"
    assert rows["few"]["matcher"] == "kernel_soft_argmax"
    assert {(each["a"], each["b"]) for each in report["comparisons"]} >= {("few", "text"), ("window", "text")}
    config = yaml.safe_load((tmp_path / "quick" / "config.yaml").read_text())
    assert (config["training"]["learning_rate"], config["training"]["steps"]) == (0.5, 2)
    assert yaml.safe_load((tmp_path / "loss" / "config.yaml").read_text())["loss"]["kernel_size"] == 5


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("few", "--with is NAME={FIELDS}"),
        ("={kind: single}", "--with is NAME={FIELDS}"),
        ("few={kind: sngle}", "the variant few: unknown kind 'sngle'; did you mean 'single'"),
        ("few={kind: single, tokens: 3}", "the variant few: prompt: unknown field 'tokens'"),
        ("few=3", "must be fields of an experiment or a component, not 3"),
        ("few={}", "must be fields of an experiment"),
        ("single={kind: text}", "'single' is that of an experiment"),
        ("a/b={kind: text}", "the name of a variant is that of a folder"),
        ("..={kind: text}", "the name of a variant is that of a folder"),
        ("few={evaluation: {alphas: [0.1]}}", "unknown field 'evaluation.alphas'"),
        ("few={evaluation: {seed: 7}}", "few and text differ in evaluation"),
    ],
)
def test_a_wrong_variant_is_named(variant, message, tmp_path):
    command = ["sweep", "prompts", "--output", str(tmp_path / "s"), "--only", "text", "--with", variant]
    result = CliRunner().invoke(app, [*command, *(part for change in SMALL for part in ("--set", change))])
    assert re.search(message, str(result.exception)), result.exception
    assert not (tmp_path / "s").exists() or not any((tmp_path / "s").iterdir())
