"""Losses, prompts and data sets of others in a training: an error names the part before or in the first step."""

from __future__ import annotations

import pytest
import torch

from helpers.training import Vector, gaussian_cross_entropy, trainer
from helpers.unchecked import unchecked  # noqa: F401 - a fixture
from sd4match.config.protocols import EvaluationProtocol
from sd4match.config.sections import TrainingConfig
from sd4match.distributed import Processes
from sd4match.errors import ComponentError, ConfigError, DatasetError, InputError, TrainingError
from sd4match.matching.matchers import NearestNeighbor
from sd4match.structures.tensors import LossValue
from sd4match.testing import FakeBackbone, FakePairs
from sd4match.training.metric_logger import check_trackers
from sd4match.training.trainer import Trainer


def mean(correlation):
    return correlation.values.mean()


def broken(correlation, targets):
    raise KeyError("broken")


@pytest.mark.parametrize(
    ("loss", "part"),
    [
        (broken, "the loss broken failed: KeyError: 'broken'"),
        (lambda correlation, targets: None, "must return floating-point value, not NoneType"),
        (lambda correlation, targets: 0.5, "floating-point value, not float"),
        (lambda correlation, targets: correlation.values, "of shape"),
        (lambda correlation, targets: mean(correlation)[None], "of shape"),
        (lambda correlation, targets: torch.tensor(3), "not torch.int64"),
        (lambda correlation, targets: LossValue(None), "the value of a loss"),
        (lambda correlation, targets: LossValue(mean(correlation), 0.5), "the lower bound of a loss"),
        (lambda correlation, targets: mean(correlation).detach(), "has no gradient"),
        (lambda correlation, targets: torch.tensor(0.5), "has no gradient"),
    ],
)
def test_a_loss_is_named(loss, part):
    with pytest.raises((ComponentError, InputError), match=part):
        trainer(loss=loss).fit()


def test_what_is_not_finite_is_told_apart():
    with pytest.raises(TrainingError, match=r"the loss is -?inf at step 1; .* the loss <lambda> itself overflows"):
        trainer(loss=lambda correlation, targets: mean(correlation) * float("inf")).fit()
    prompt = Vector()
    fitted = trainer(prompt, validate_every=100)
    spoiled = []

    def loss(correlation, targets):
        if not spoiled:
            spoiled.append(prompt.vector.data.fill_(float("nan")))
        return mean(correlation) * float("nan")

    fitted.loss = trainer(loss=loss).loss
    with pytest.raises(TrainingError, match=r"the loss is nan at step 1; the values of the prompt are not finite"):
        fitted.fit()


class Broken(FakePairs):
    def __init__(self, bad):
        self.bad = None
        super().__init__(pairs=4)
        self.bad = bad

    def __getitem__(self, index):
        if self.bad == "annotation":
            raise AttributeError("no such thing")
        return super().__getitem__(index)

    def photo(self, image_id):
        return None if self.bad == "photo" else super().photo(image_id)


@pytest.mark.parametrize(
    ("bad", "part"),
    [
        ("annotation", "pair .*: the data set Broken failed: AttributeError: no such thing"),
        ("photo", "must return a Photo"),
    ],
)
def test_a_data_set_is_named(bad, part):
    with pytest.raises(ComponentError, match=f"the data set .*{part}"):
        trainer(train_data=Broken(bad)).fit()


def fields(**changes):
    return {
        "backbone": FakeBackbone(), "prompt": Vector(), "loss": gaussian_cross_entropy(), "config": TrainingConfig(),
        "train_data": FakePairs(), "validation_data": FakePairs(), "validation_matcher": NearestNeighbor(),
        "protocol": EvaluationProtocol(),
    } | changes  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "error", "part"),
    [
        ({"train_data": FakePairs(pairs=0)}, DatasetError, "has no pairs"),
        ({"validation_data": FakePairs(pairs=0)}, DatasetError, "has no pairs"),
        ({"train_data": None}, InputError, "train_data must be a PairDataset"),
        ({"validation_data": [1]}, InputError, "validation_data must be a PairDataset"),
        ({"backbone": None}, InputError, "backbone must be a Backbone"),
        ({"prompt": "single"}, InputError, "prompt must be a Prompt"),
        ({"config": {}}, InputError, "config must be a TrainingConfig"),
        ({"protocol": "dift"}, InputError, "protocol must be an EvaluationProtocol"),
        ({"loss": None}, InputError, "loss must be a MatchingLoss or a function"),
        ({"loss": dict}, InputError, "loss must be a MatchingLoss or a function"),
        ({"protocol": EvaluationProtocol().derive(alphas=(0.01, 0.05))}, ConfigError, "alphas = .* must contain 0.1"),
    ],
)
def test_what_a_trainer_is_made_of_is_checked_before_the_start(changes, error, part):
    with pytest.raises(error, match=part):
        Trainer(**fields(**changes))


@pytest.mark.parametrize("name", ["nobody", "", "x" * 5000, "\udcff"])
def test_an_unknown_tracker_is_named(name):
    with pytest.raises(ConfigError, match=r"training\.trackers: unknown tracker '") as caught:
        check_trackers([name])
    assert len(str(caught.value)) < 400


def test_a_tracker_that_fails_is_named(tmp_path, monkeypatch):
    from accelerate import Accelerator

    def fail(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(Accelerator, "init_trackers", fail)
    with pytest.raises(TrainingError, match=r"training\.trackers: tensorboard failed: OSError: no network"):
        trainer(trackers=("tensorboard",)).fit(tmp_path)


@pytest.mark.parametrize(
    ("variables", "part"),
    [
        ({"RANK": "x"}, "RANK must be a whole number"), ({"WORLD_SIZE": "0"}, "WORLD_SIZE must be"),
        ({"LOCAL_RANK": "1.5"}, "LOCAL_RANK must be"), ({"MASTER_PORT": "x"}, "MASTER_PORT must be"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT must be"), ({"RANK": ""}, "RANK must be"),
        ({"RANK": "²"}, "RANK must be"),
        ({"RANK": "9" * 5000}, "RANK must be"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK = 2 must be below WORLD_SIZE = 2"),
    ],
)  # fmt: skip
def test_a_launcher_that_is_none_is_named(monkeypatch, variables, part):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"the environment variable {part}") as caught:
        Processes()
    assert len(str(caught.value)) < 400


def test_what_accelerate_refuses_is_one_error(monkeypatch):
    import sd4match.distributed as distributed

    def fail(**_):
        raise RuntimeError("connection\nrefused")

    monkeypatch.setattr(distributed, "PartialState", fail)
    with pytest.raises(ConfigError, match="cannot join the others of its launcher: connection refused"):
        Processes()
    monkeypatch.undo()
    monkeypatch.setattr("sd4match.training.trainer.Accelerator", fail)
    with pytest.raises(ConfigError, match="accelerate cannot start"):
        trainer().fit()
