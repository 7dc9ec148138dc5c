"""Checkpoints whose content is damaged, forged or of another training: one error that names the file."""

from __future__ import annotations

import json
import os

import pytest
import torch

from helpers.training import Vector, trainer
from helpers.unchecked import unchecked  # noqa: F401 - a fixture
from sd4match.errors import ConfigError, TrainingError
from sd4match.io.files import read_safetensors, to_safetensors
from sd4match.training.checkpoint import FORMAT_VERSION, Checkpoints, _digest, check_same_training
from sd4match.training.random_state import random_state, restore_random_state

ORIGIN = {"config": {"seed": 1}, "fingerprint": "1", "pairs": "a", "versions": {}, "processes": 1}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the checkpoint of a training of two steps: its tensors, its content, and its metadata."""
    store = Checkpoints(tmp_path_factory.mktemp("whole"), origin=ORIGIN)
    trainer(steps=2, validate_every=1).fit(checkpoints=store)
    tensors, metadata = read_safetensors(store.path(2))
    return tensors, json.loads(metadata["content"]), metadata


def forge(folder, tensors, content, *, step=2, **metadata):
    """Write a checkpoint with a right digest."""
    text = content if isinstance(content, str) else json.dumps(content)
    fields = {"format": "sd4match-checkpoint", "format_version": str(FORMAT_VERSION), "content": text,
              "digest": _digest(text, tensors)}  # fmt: skip
    store = Checkpoints(folder / "checkpoints", origin=ORIGIN)
    store.folder.mkdir(exist_ok=True)
    store.path(step).write_bytes(to_safetensors(tensors, fields | metadata))
    return store


def refuse(store, part, step=2):
    """Check that resuming names the file and changes nothing."""
    prompt = Vector()
    before = random_state()["torch"]
    with pytest.raises(TrainingError, match=part) as caught:
        trainer(prompt, steps=4, validate_every=1).fit(checkpoints=store, resume=True)
    assert str(store.path(step)) in str(caught.value)
    assert len(str(caught.value)) < 700
    assert torch.equal(prompt.vector, torch.zeros_like(prompt.vector))
    assert torch.equal(random_state()["torch"], before)


def test_a_whole_one_is_resumed_from(whole, tmp_path):
    tensors, content, _ = whole
    run = trainer(steps=4, validate_every=1).fit(checkpoints=forge(tmp_path, tensors, content), resume=True)
    assert run.step == 4


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("[]", "field step"), ("3", "field step"), ("{", "not valid JSON"), ("[" * 99999, "nests too deep"),
        ('{"step": NaN}', "NaN"), ("{}", "field step"), ({"step": 2}, "field state"),
        ({"step": 2, "state": {}}, "origin"),
        ({"step": True, "state": {}, "origin": {}}, "field step"),
        ({"step": 2, "state": [], "origin": {}}, "field state"),
        ({"step": 1, "state": {}, "origin": {}}, "has been renamed: its content is of step 1"),
    ],
)  # fmt: skip
def test_content_of_another_form_is_named(whole, tmp_path, content, part):
    refuse(forge(tmp_path, whole[0], content), part)


def test_metadata_and_files_of_another_form_are_named(whole, tmp_path):
    tensors, content, _ = whole
    refuse(forge(tmp_path, tensors, content, format_version="1"), "is of format version 1, not 2")
    refuse(forge(tmp_path, tensors, content, digest="0"), "its bytes have changed")
    refuse(forge(tmp_path, tensors, content, step=99999999999), "has been renamed", step=99999999999)
    store = Checkpoints(tmp_path / "checkpoints")
    store.path(99999999999).unlink()
    store.path(2).write_bytes(to_safetensors(tensors, {}))
    refuse(store, "is no checkpoint of a training: it has no 'format_version'")
    store.path(2).unlink()
    os.mkfifo(store.path(2))
    refuse(store, "not a regular file")
    store.path(2).unlink()
    store.path(2).mkdir()
    refuse(store, "not a regular file")
    with pytest.raises(TrainingError, match=r"cannot remove .*step-00000002"):
        store.clear()
    store.path(2).rmdir()
    for name in ("step-²", "step-", "step--0000001", "step-1", "step-000000002", "step-٠٠٠٠٠٠٠٢", "step-0000000x"):
        (store.folder / f"{name}.safetensors").write_bytes(b"x")
    assert store.steps() == []
    assert store.latest() is None


STATES = {
    "columns": [None, [], ["loss"], "loss", 3],
    "validation": [None, 3, [[1]], [[0, "1"]], [[-1, 0.5]], [[9, 0.5]], [[0, 1.5]], [[0.5, 0.5]], [3], {"0": 1}],
    "best_step": [None, "0", 7, [0]],
    "best_pck": [None, "1", 0.123],
    "best_scores": [None, 3, {}, {"alphas": [0.1]}],
    "per_device": [None, 3, [0], ["2"], [True], [2.5]],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in STATES.items() for value in values])
def test_a_state_of_another_form_is_named(whole, tmp_path, name, value):
    tensors, content, _ = whole
    refuse(forge(tmp_path, tensors, {**content, "state": {**content["state"], name: value}}), "cannot be resumed from")


@pytest.mark.parametrize("name", STATES)
def test_a_state_that_lacks_a_field_is_named(whole, tmp_path, name):
    tensors, content, _ = whole
    state = {key: value for key, value in content["state"].items() if key != name}
    refuse(forge(tmp_path, tensors, {**content, "state": state}), "cannot be resumed from")


DAMAGES = {
    "now/prompt/vector": [torch.zeros(1, 16, 9), torch.full((1, 16, 8), float("nan")), torch.zeros(1, 16, 8).int()],
    "best/prompt/vector": [torch.zeros(2, 2), torch.full((1, 16, 8), float("inf"))],
    "adam/0.exp_avg": [torch.zeros(3), torch.full((1, 16, 8), float("nan")), torch.zeros(1, 16, 8).long()],
    "adam/0.step": [torch.zeros(3)],
    "history/rows": [
        torch.zeros(1, 3),
        torch.zeros(2, 3).long(),
        torch.full((2, 3), float("nan"), dtype=torch.float64),
    ],
    "random/0/torch": [torch.zeros(5, dtype=torch.uint8), torch.zeros(5056, dtype=torch.uint8), torch.zeros(5056)],
    "random/0/python": [torch.zeros(5, dtype=torch.int64), torch.full((625,), -1)],
    "random/0/python.gauss": [torch.zeros(2, dtype=torch.float64)],
    "random/0/numpy": [torch.zeros(5, dtype=torch.int64), torch.full((626,), -1)],
    "random/0/numpy.gauss": [torch.zeros(0, dtype=torch.float64)],
}


@pytest.mark.parametrize("name", DAMAGES)
def test_tensors_that_are_missing_or_of_another_form_are_named(whole, tmp_path, name):
    tensors, content, _ = whole
    assert name in tensors
    without = {key: value for key, value in tensors.items() if key != name}
    for damaged in (without, *({**tensors, name: value} for value in DAMAGES[name])):
        refuse(forge(tmp_path, damaged, content), "cannot be resumed from")


def test_further_tensors_and_none_are_named(whole, tmp_path):
    tensors, content, _ = whole
    for name in ("now/prompt/other", "adam/7.step", "adam/0.other", "adam/²", "adam/x.step"):
        refuse(forge(tmp_path, {**tensors, name: torch.zeros(())}, content), "cannot be resumed from")
    refuse(forge(tmp_path, {}, content), "cannot be resumed from")


def test_an_origin_without_a_config_is_named():
    for origin in ({}, {"config": None}, {"config": [1]}):
        with pytest.raises(TrainingError, match="the checkpoint of runs/a does not hold the config"):
            check_same_training(origin, ORIGIN, where="runs/a")
    with pytest.raises(ConfigError, match="seed = 1") as caught:
        check_same_training({**ORIGIN, "config": {"seed": "x" * 10_000}}, ORIGIN, where="runs/a")
    assert len(str(caught.value)) < 400


def test_random_states_that_are_none_change_nothing():
    before = random_state()
    for name in before:
        with pytest.raises(TrainingError, match=f"random generator {name} is missing"):
            restore_random_state({key: value for key, value in before.items() if key != name})
    assert all(torch.equal(value, random_state()[name]) for name, value in before.items())
