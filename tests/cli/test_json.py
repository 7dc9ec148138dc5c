"""`--json`: one document on stdout and nothing else, of every command with an answer."""

from __future__ import annotations

import json

import pytest
import typer

from helpers.command_line import SMALL, sets
from sd4match.cli.answer import Leave, answering, to_json
from sd4match.cli.app import app
from sd4match.documents import parse_json
from sd4match.io.features import read_features
from sd4match.prompting.config import SinglePromptConfig
from sd4match.prompting.learned import SinglePrompt
from sd4match.prompting.serialization import save_prompt

TREE = typer.main.get_command(app)
WITHOUT_ANSWER = {"app"}
"""Commands that go on until they are stopped."""


def commands(command, path=()):
    below = getattr(command, "commands", None)
    if below is None:
        return {" ".join(path): command}
    return {name: found for word, child in below.items() for name, found in commands(child, (*path, word)).items()}


def test_every_command_with_an_answer_has_it():
    without = {path for path, one in commands(TREE).items() if not any("--json" in each.opts for each in one.params)}
    assert without <= WITHOUT_ANSWER


@pytest.fixture
def answer(run):
    """Call a command with --json; its document, which is all that it prints."""

    def call(*arguments, code=0):
        found, screen, error = run(*arguments, "--json")
        assert found == code, error
        assert "error" not in error
        return parse_json(screen, what="the answer")  # refuses NaN, and anything else on stdout

    return call


def test_match_and_extract(answer, photos, tmp_path):
    out = tmp_path / "out"
    found = answer("match", *photos, "--grid", 3, "--output", out)
    files = [str(out / "matches.json"), str(out / "matches.png")]
    assert found == {**json.loads((out / "matches.json").read_text()), "files": files}
    assert len(found["matches"]) == 9
    found = answer("extract", *photos, "--output", out)
    assert [entry["photo"] for entry in found["maps"]] == [str(path) for path in photos]
    features, _ = read_features(found["maps"][1]["file"])
    assert found["maps"][1]["shape"] == list(features.values.shape[1:]) == [96, 24, 24]
    assert found["backbone"]["name"] == "mini"


def test_reports(answer, tmp_path):
    baseline = ("evaluate", "--dataset", "synthetic", "--baseline", "identity", *sets(*SMALL[:3]))
    found = answer(*baseline, "--output", tmp_path / "a")
    written = json.loads((tmp_path / "a" / "report.json").read_text())
    assert {**found, "files": None} == {**written, "files": None}
    assert found["files"][0] == str(tmp_path / "a" / "report.json")
    answer(*baseline, "--output", tmp_path / "b")
    compared = answer("compare", tmp_path / "a", tmp_path / "b")
    assert {one["difference"] for one in compared} == {0.0}
    assert "image PCK@0.1" in {one["metric"] for one in compared}


@pytest.mark.slow
def test_training(answer, tmp_path):
    small = sets(*SMALL, "training.validate_every=2")
    found = answer("train", "--steps", 2, "--output", tmp_path / "run", *small)
    assert (found["stopped"], found["step"], found["steps"]) == (False, 2, 2)
    assert found["files"] == [str(tmp_path / "run" / name) for name in ("prompt.safetensors", "report.json")]
    assert 0 <= found["validation_pck@0.1"] <= 1
    assert answer("prompts", "inspect", found["files"][0])["tensors"] == {"token_embeddings": [4, 128]}


@pytest.mark.slow
def test_a_sweep(answer, tmp_path):
    small = sets(*SMALL, "training.validate_every=2")
    found = answer("sweep", "prompts", "--only", "text", "--only", "single", "--steps", 2, "--output", tmp_path, *small)
    assert [row["prompt"] for row in found["results"]] == ["text", "single"]
    assert found["files"][0] == str(tmp_path / "report.json")


def test_data(answer, tmp_path):
    found = answer("data", "make-synthetic", tmp_path / "d", "--pairs", 2, "--photos", 2)
    assert found == {"folder": str(tmp_path / "d"), "pairs": {"train": 2, "validation": 2, "test": 2}}
    found = answer("data", "check", "spair", tmp_path / "d", "--split", "test", code=1)  # fewer than are published
    assert found["splits"] == ["test"]
    assert found["problems"] == sum(finding["is_problem"] for finding in found["findings"]) > 0
    assert found["root"] == str(tmp_path / "d")


def test_models_doctor_cache_and_components(answer, tmp_path):
    listed = answer("models", "list")
    assert [model["name"] for model in listed][:3] == ["mini", "sd1-5", "sd2-1"]
    assert listed[1]["hub"] == ["stable-diffusion-v1-5/stable-diffusion-v1-5"]
    checked = answer("models", "check", "mini")
    assert (checked["features"], checked["license"], checked["dtype"]) == ([96, 24, 24], "apache-2.0", "float32")
    assert 9e6 < checked["parameters"] < 11e6
    found = answer("doctor")
    assert found["packages"]["torch"].startswith("2.")
    assert (found["to_do"], "mini" in found["models"]["here"]) == ([], True)
    assert answer("cache", "info", "--folder", tmp_path) == {"folder": str(tmp_path), "contents": {}}
    removed = {"entries": 0, "bytes": 0}
    assert answer("cache", "clear", "--folder", tmp_path) == {"folder": str(tmp_path), "removed": removed}
    assert {row["sort"] for row in answer("components", "matcher")} == {"matcher"}


def test_a_plugin_and_an_exported_prompt(answer, tmp_path, mini):
    found = answer("new", "plugin", "sd4match-mine", "--output", tmp_path / "p")
    assert str(tmp_path / "p" / "pyproject.toml") in found["files"]
    prompt = SinglePrompt(SinglePromptConfig(num_tokens=3), backbone=mini)
    file = save_prompt(prompt, tmp_path / "p.safetensors", backbone=mini)
    target = tmp_path / "e.safetensors"
    found = answer("prompts", "export", file, "--output", target)
    assert found == {"file": str(target), "token": "<sd4match>"}


def test_the_config_instead_of_the_run(answer):
    assert answer("train", "--show-config", *sets("training.steps=7"))["training"]["steps"] == 7


def test_an_error_is_one_line_on_stderr_and_no_document(run, tmp_path):
    for arguments in (("match", "none.png", "none.png"), ("compare", tmp_path, tmp_path), ("models", "check", "sd9")):
        code, screen, error = run(*arguments, "--json")
        assert (code, screen, error.count("\n")) == (2, "", 1)
        assert error.startswith("sd4match: error: ")


def test_what_json_has_no_words_for():
    document = {"nan": float("nan"), "list": [float("inf"), {"low": -float("inf")}], 3: ("a", 1.5)}
    assert json.loads(to_json(document)) == {"nan": None, "list": [None, {"low": None}], "3": ["a", 1.5]}


def test_a_command_without_an_answer_has_no_such_option(capsys):
    def silent(*, name: str) -> None: ...

    def leaves(*, name: str) -> list:
        print("for people")
        raise Leave([name], 1)

    def other_process() -> dict | None:
        return None

    from inspect import signature

    assert list(signature(answering(silent)).parameters) == ["name"]
    command = answering(leaves)
    with pytest.raises(typer.Exit) as left:
        command(name="x", print_json=True)
    assert (left.value.exit_code, json.loads(capsys.readouterr().out)) == (1, ["x"])
    with pytest.raises(typer.Exit):
        command(name="x", print_json=False)
    assert capsys.readouterr().out == "for people\n"
    assert answering(other_process)(print_json=True) is None
    assert capsys.readouterr().out == ""
