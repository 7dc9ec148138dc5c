"""What a training can and what it must not: one pair by heart, and nothing from labels without sense."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sd4match.config.experiment import build_dataset, load_preset
from sd4match.data.subset import first
from sd4match.matching.losses import GaussianCrossEntropy
from sd4match.matching.matchers import NearestNeighbor
from sd4match.prompting.learned import SinglePrompt
from sd4match.training.trainer import Trainer

pytestmark = pytest.mark.slow


class Shuffled:
    """Every pair's true places, dealt anew among its visible points."""

    def __init__(self, data):
        self.data = data

    def __getattr__(self, name):
        return getattr(self.data, name)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        record = self.data[index]
        rng, target = np.random.default_rng(index), record.target_points.copy()
        seen = np.flatnonzero(record.visible)
        target[seen] = record.target_points[seen[np.roll(np.arange(len(seen)), 1 + rng.integers(len(seen) - 1))]]
        return dataclasses.replace(record, target_points=target)


def learn(mini, train, validation, *, space="token", **settings):
    config = load_preset("single", [f"training.{name}={value}" for name, value in settings.items()])
    return Trainer(
        backbone=mini,
        prompt=SinglePrompt(backbone=mini, slots=30, space=space, init="random" if space == "token" else "empty"),
        loss=GaussianCrossEntropy(temperature=0.15),
        settings=config.training,
        train_data=train,
        validation_data=validation,
        validation_matcher=NearestNeighbor(),
        measurement=config.evaluation.measurement,
    ).fit()


def test_one_pair_is_learned_by_heart(mini, capsys):
    """In hidden space, where a prompt is free; vectors before the text encoder find 4 to 6 of these 7 points."""
    config = load_preset("single")
    pair = first(build_dataset(config, "train"), 1)
    rate = {"schedule": "cosine", "learning_rate": 0.1, "both_directions": False}
    run = learn(mini, pair, pair, space="hidden", steps=300, batch_size=1, validate_every=25, **rate)
    excess = run.column("excess")
    with capsys.disabled():
        print(f"\none pair: PCK@0.1 {run.validation[0][1]:.2f} -> {run.best_pck:.2f} at step {run.best_step}")
        print(
            f"loss above its floor {excess[0]:.2f} -> {np.mean(excess[-10:]):.2f}; loss {np.mean(run.losses[-10:]):.2f}"
        )
    assert run.best_pck == 1
    assert 0 <= np.mean(excess[-10:]) < 0.1 * excess[0]


def test_labels_without_sense_teach_nothing(mini, capsys):
    config = load_preset("single")
    train, held_out = build_dataset(config, "train"), first(build_dataset(config, "validation"), 80)
    true = learn(mini, train, held_out, steps=100)
    shuffled = learn(mini, Shuffled(train), held_out, steps=100)
    with capsys.disabled():
        print(f"\nheld-out PCK@0.1: at the start {true.validation[0][1]:.3f}; after 100 steps on true labels "
              f"{true.validation[-1][1]:.3f}, on shuffled ones {shuffled.validation[-1][1]:.3f}")  # fmt: skip
    assert true.validation[-1][1] > true.validation[0][1] + 0.03
    assert shuffled.validation[-1][1] <= shuffled.validation[0][1] + 0.01
