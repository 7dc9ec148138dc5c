"""Checkpoints: atomic writes, damaged files, and what a training may not resume with."""

from __future__ import annotations

import errno
import os
from itertools import count

import pytest
import torch

from helpers.training import DropoutVector, Vector, gaussian_cross_entropy, trainer
from sd4match.errors import ConfigError, PhotoError, TrainingError
from sd4match.testing import FakePairs
from sd4match.training.checkpoint import (
    Checkpoint,
    Checkpoints,
    DamagedCheckpointWarning,
    ResumeWarning,
    check_same_training,
)
from sd4match.training.history import TrainerCallbacks


def checkpoint(step=3):
    return Checkpoint(step, {"now/prompt/x": torch.arange(4.0), "adam/0.step": torch.tensor(1.0)}, {"best_pck": 0.5})


@pytest.fixture
def store(tmp_path):
    return Checkpoints(tmp_path / "checkpoints", keep=2, origin={"config": {"seed": 1}})


def test_what_is_written_is_read(store):
    assert store.latest() is None
    store.write(checkpoint(), best_step=0)
    found = store.latest()
    assert (found.step, found.state, found.origin) == (3, {"best_pck": 0.5}, {"config": {"seed": 1}})
    assert torch.equal(found.group("now/prompt")["x"], torch.arange(4.0))


def test_the_last_ones_and_the_best_stay(store):
    for step in range(1, 7):
        store.write(checkpoint(step), best_step=min(step, 2))
    assert store.steps() == [6, 5, 2]
    store.clear()
    assert store.steps() == []


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "other"])
def test_a_damaged_one_is_passed_over_in_one_line_and_alone_it_is_an_error(store, damage):
    for step in (3, 4):
        store.write(checkpoint(step), best_step=0)
    file = store.path(4)
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes({"cut": content[:-20], "changed": content, "empty": b"", "other": b"no checkpoint at all"}[damage])
    with pytest.warns(DamagedCheckpointWarning, match="step-00000004.* is damaged .*; going on from step 3"):
        assert store.latest().step == 3
    store.path(3).unlink()
    with pytest.raises(TrainingError, match=r"no checkpoint in .* can be read"):
        store.latest()


@pytest.mark.parametrize("problem", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_takes_nothing_leaves_those_before(store, monkeypatch, problem):
    store.write(checkpoint(3), best_step=0)

    def fail(handle):
        raise OSError(problem, os.strerror(problem))

    monkeypatch.setattr("sd4match.io.files.os.fsync", fail)
    with pytest.raises(TrainingError, match=f"{os.strerror(problem)}; the last good one is .*step-00000003"):
        store.write(checkpoint(4), best_step=0)
    assert [file.name for file in store.folder.iterdir()] == ["step-00000003.safetensors"]
    assert store.latest().step == 3


def test_a_file_that_may_not_grow_is_really_cut_off(tmp_path):
    """The system's own limit on a file's size, as a full disk would: half a file is never seen."""
    import subprocess
    import sys

    code = """
import resource, sys, torch
from pathlib import Path
from sd4match.errors import TrainingError
from sd4match.training.checkpoint import Checkpoint, Checkpoints
store = Checkpoints(Path(sys.argv[1]))
store.write(Checkpoint(1, {"x": torch.zeros(10)}, {}), best_step=0)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    store.write(Checkpoint(2, {"x": torch.zeros(10_000)}, {}), best_step=0)
except TrainingError as error:
    print(error)
print(store.latest().step, len(list(store.folder.iterdir())))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert "File too large; the last good one is" in first
    assert second == "1 1"


ORIGIN = {
    "config": {"seed": 1, "training": {"steps": 10, "schedule": "constant", "learning_rate": 0.01},
               "evaluation": {"limit": None, "protocol": {"name": "dift"}}, "cache": {"limit": "1 GB"}},
    "fingerprint": "1 2", "pairs": "aa", "versions": {"torch": "2.13"}, "processes": 1,
}  # fmt: skip


def changed(path, value):
    *parents, last = path.split(".")
    tree = dict(ORIGIN)
    node = tree
    for name in parents:
        node[name] = dict(node[name])
        node = node[name]
    node[last] = value
    return tree


@pytest.mark.parametrize(
    ("path", "value", "names"),
    [
        ("config.training.learning_rate", 0.1, "training.learning_rate = 0.1 .0.01 there"),
        ("config.evaluation.protocol.name", "geoaware", "evaluation.protocol.name"),
        ("config.seed", 2, "seed = 2"),
        ("config.training.schedule", "cosine", "training.schedule"),
        ("fingerprint", "3", "other weights: backbone"),
        ("pairs", "bb", "other training pairs: data"),
    ],
)
def test_what_matters_is_refused_by_name(path, value, names):
    with pytest.raises(ConfigError, match=names):
        check_same_training(ORIGIN, changed(path, value), where="runs/a")


@pytest.mark.parametrize(
    ("path", "value"),
    [("config.training.steps", 20), ("config.evaluation.limit", 3), ("config.cache.limit", "0")],
)
def test_what_does_not_matter_may_change(path, value):
    check_same_training(ORIGIN, changed(path, value), where="runs/a")


@pytest.mark.parametrize(("path", "value"), [("processes", 2), ("versions", {"torch": "3.0"})])
def test_other_circumstances_are_said(path, value):
    with pytest.warns(ResumeWarning, match=f"started with {path}"):
        check_same_training(ORIGIN, changed(path, value), where="runs/a")


def test_steps_matter_where_the_schedule_is_made_of_them():
    cosine = changed("config.training.schedule", "cosine")
    longer = {**cosine, "config": {**cosine["config"], "training": {**cosine["config"]["training"], "steps": 20}}}
    with pytest.raises(ConfigError, match=r"training\.steps = 20 .10 there"):
        check_same_training(cosine, longer, where="runs/a")


def test_a_longer_training_goes_on_from_the_end_of_a_shorter_one(tmp_path):
    """With a constant rate, six steps and then six more are twelve."""
    whole, halves = Vector(), Vector()
    expected = trainer(whole, steps=12).fit()
    store = Checkpoints(tmp_path)
    trainer(halves, steps=6).fit(checkpoints=store)
    run = trainer(halves, steps=12).fit(checkpoints=store, resume=True)
    assert run.rows == expected.rows
    assert run.validation == expected.validation
    assert torch.equal(whole.vector, halves.vector)


@pytest.fixture(scope="module")
def undisturbed():
    """A prompt with dropout, and the run that learned it."""
    prompt = DropoutVector()
    return prompt, trainer(prompt).fit()


@pytest.mark.parametrize("asked_after", [0, 1, 2, 3, 5, 8, 10, 12])
def test_stopped_wherever_it_goes_on_as_it_would_have(undisturbed, tmp_path, asked_after):
    """Whether the request comes in a step or in a validation, the step is finished, and nothing is lost or doubled.

    The prompt has dropout, so that the global generators are part of the state.
    """
    (whole, expected), stopped, asked = undisturbed, DropoutVector(), count()
    store = Checkpoints(tmp_path)
    first = trainer(stopped).fit(checkpoints=store, stop=lambda: next(asked) >= asked_after)
    assert first.stopped
    assert first.step == store.steps()[0]
    second = trainer(stopped).fit(checkpoints=store, resume=True)
    assert (second.stopped, second.rows, second.validation) == (False, expected.rows, expected.validation)
    assert torch.equal(whole.vector, stopped.vector)


def test_a_photo_that_vanished_keeps_what_was_learned(tmp_path):
    class Vanishing(FakePairs):
        gone = -(10**9)

        def photo(self, image_id):
            self.gone += 1
            if self.gone > 3:
                raise PhotoError(f"no such photo: {image_id}")
            return super().photo(image_id)

    pieces = {"batch_size": 4, "per_device": 1}  # some of them go well before one fails
    data, expected = Vanishing(pairs=5), trainer(DropoutVector(), **pieces).fit()
    store = Checkpoints(tmp_path)
    broken = trainer(DropoutVector(), train_data=data, checkpoint_every=100, **pieces)

    def vanish(run):
        if run.step == 4:
            data.gone = 0

    with pytest.raises(PhotoError, match=r"pair pair-.: no such photo"):
        broken.fit(checkpoints=store, callbacks=TrainerCallbacks(on_step=vanish))
    assert store.steps()[0] == 4
    assert trainer(DropoutVector(), **pieces).fit(checkpoints=store, resume=True).rows == expected.rows


def test_a_loss_that_is_not_a_number_leaves_the_last_good_state(tmp_path):
    inner, calls = gaussian_cross_entropy(), []

    def loss(correlation, targets):
        calls.append(1)
        return inner(correlation, targets).value * (float("nan") if len(calls) > 4 else 1.0)

    store = Checkpoints(tmp_path)
    with pytest.raises(TrainingError, match=r"the loss is nan at step 5; a lower training\.learning_rate"):
        trainer(loss=loss, checkpoint_every=2).fit(checkpoints=store)
    assert store.latest().step == 4
    assert all(tensor.isfinite().all() for tensor in store.latest().group("now/prompt").values())


def test_losses_that_cannot_be_written_end_it_in_one_line(tmp_path, monkeypatch):
    store, fitted = Checkpoints(tmp_path / "c"), trainer(checkpoint_every=1)
    out = tmp_path / "out"

    def fill(run):
        if run.step == 3:
            (out / "losses.csv").unlink()
            (out / "losses.csv").mkdir()  # even root cannot append to a folder

    with pytest.raises(TrainingError, match=r"cannot write .*losses.csv"):
        fitted.fit(out, checkpoints=store, callbacks=TrainerCallbacks(on_step=fill))
    assert store.latest().step == 4
