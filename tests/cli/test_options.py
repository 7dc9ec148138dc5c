"""Options of every command that say nothing, or nothing that can be."""

from __future__ import annotations

import pytest
import typer

from sd4match.cli.app import app

TREE = typer.main.get_command(app)


def leaves(command, path=()):
    """Every command, with the words that call it."""
    below = getattr(command, "commands", None)
    if below is None:
        return [(path, command)]
    return [leaf for name, child in below.items() for leaf in leaves(child, (*path, name))]


def valued():
    """Every option and argument that takes a value: (words before it, its name in messages)."""
    for path, command in leaves(TREE):
        arguments = [one for one in command.params if one.param_type_name == "argument"]
        for one in command.params:
            if getattr(one, "is_flag", False):
                continue
            if one.param_type_name == "option":
                words = *("x" for _ in arguments), one.opts[0], *("x" for _ in range(one.nargs - 1))
                yield (*path, *words), one.opts[0]
            else:
                yield (*path, *("x" for _ in arguments[: arguments.index(one)])), one.name.upper()


CASES = list(valued())
EMPTY = [(*case, ("", "  ")[number % 2]) for number, case in enumerate(CASES)]


def test_there_are_many():
    assert len(CASES) > 60


@pytest.mark.parametrize(
    ("words", "name", "value"), EMPTY, ids=lambda value: " ".join(value) if isinstance(value, tuple) else value
)
def test_an_empty_value_is_refused_and_named(run, words, name, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*words, value) == (2, "", f"sd4match: error: {name} is empty: give a value, or leave it out\n")
    assert not list(tmp_path.iterdir())


LONG = "x" * 300


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--preset", "sinlge"), "unknown preset 'sinlge'; did you mean 'single'"),
        (("--preset", LONG), "unknown preset 'xxx"),
        (("--preset", "single", "--config", "x.yaml"), "give --preset or --config, not both"),
        (("--config", LONG), "cannot read the config file"),
        (("--config", "~nobody-of-that-name/x"), "names a user that does not exist"),
        (("--config", "/dev/zero"), "is not a regular file"),
        (("--config", "."), "is a folder"),
        (("--dtype", "int8"), "dtype: must be 'float32', 'float16' or 'bfloat16', not 'int8'"),
        (("--dataset", "spare"), "unknown data set 'spare'"),
        (("--dataset", LONG), "unknown data set"),
        (("--dataset", "spair"), "--dataset spair needs --root FOLDER"),
        (("--root", "x"), "--root goes with --dataset KIND"),
        (("--cache-limit", "much"), "cache.limit: a size is written as"),
        (("--cache-limit", "9" * 400), "cache.limit: a size is at most 1000000 TB"),
        (("--output", LONG), "cannot be made: File name too long"),
        (("--output", "file"), "--output file is a file; give a folder"),
        (("--output", "file/below"), "is not a folder that can be written"),
        (("--output", "/dev/null"), "is a file; give a folder"),
        (("--seed", str(2**64)), "seed: must be less than 9223372036854775808"),
        (("--seed", "-1"), "Invalid value for '--seed'"),
        (("--seed", "1.5"), "--seed must be a whole number such as 5"),
        (("--steps", str(10**12)), "training.steps: must be less than or equal to"),
        (("--set", "training.steps"), "an override is FIELD=VALUE"),
        (("--set", "seed=!!int x"), "is not valid YAML"),
        (("--set", "evaluation.protocol.alphas=[0.05]"), "must contain 0.1"),
        (("--device", "meta"), "--device must be auto, cpu, cuda, cuda:N, mps or another that torch has, not 'meta'"),
        (("--device", "cuda:77"), "--device = 'cuda:77' is not here: torch sees cpu"),
        (("--device", "gpu"), "--device must be auto"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else "",
)
def test_a_training_is_refused_before_weights_load(run, words, message, tmp_path, monkeypatch):
    from sd4match.backbones.config import StableDiffusionConfig

    monkeypatch.setattr(StableDiffusionConfig, "build", lambda *_, **__: pytest.fail("weights were loaded"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    code, out, error = run("train", *words)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert message in error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("change", ["image_size=[", "=5", "image_size", "seed=!!int x", "cls=1", "self=1", "1=1"])
def test_a_change_of_a_checked_model_is_refused(run, change):
    code, _, error = run("models", "check", "mini", "--set", change)
    assert (code, error.count("\n")) == (2, 1)
    assert error.startswith("sd4match: error: ")


def test_a_sweep_refuses_what_does_not_exist(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words, message in (
        (("--model", "sd9"), "unknown model 'sd9'"),
        (("--only", "cmp"), "unknown experiment 'cmp'; did you mean 'cpm'"),
        (("--split", "exam"), "--split must be train, validation or test, not 'exam'"),
        (("--model", "sd2-1"), "names no data set"),
    ):
        code, _, error = run("sweep", "prompts", *words)
        assert (code, error.count("\n")) == (2, 1)
        assert message in error
    assert not list(tmp_path.iterdir())
