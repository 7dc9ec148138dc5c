"""Limits of a training: it memorizes one pair, and learns nothing from shuffled labels."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from helpers.training import gaussian_cross_entropy
from sd4match.config import build_dataset, load_preset
from sd4match.data.subset import first
from sd4match.interfaces import PairDataset
from sd4match.matching.matchers import NearestNeighbor
from sd4match.prompting.config import SinglePromptConfig
from sd4match.training.trainer import Trainer

pytestmark = pytest.mark.slow


class Shuffled(PairDataset):
    """Data set in which the true points of every pair are permuted among its visible points."""

    def __init__(self, data):
        self.data = data
        self.name, self.split, self.categories, self.reference = data.name, data.split, data.categories, data.reference

    @property
    def keys(self):
        return self.data.keys

    def photo(self, image_id):
        return self.data.photo(image_id)

    def __getitem__(self, index):
        record = self.data[index]
        rng, target = np.random.default_rng(index), record.target_points.copy()
        visible = np.flatnonzero(record.visible)
        permuted = np.roll(np.arange(len(visible)), 1 + rng.integers(len(visible) - 1))
        target[visible] = record.target_points[visible[permuted]]
        return dataclasses.replace(record, target_points=target)


def learn(mini, train, validation, *, space="token", **fields):
    config = load_preset("single", [f"training.{name}={value}" for name, value in fields.items()])
    init = "random" if space == "token" else "empty"
    return Trainer(
        backbone=mini,
        prompt=SinglePromptConfig(num_tokens=30, space=space, init=init).build(backbone=mini),
        loss=gaussian_cross_entropy(),
        config=config.training,
        train_data=train,
        validation_data=validation,
        validation_matcher=NearestNeighbor(),
        protocol=config.evaluation.protocol,
    ).fit()


def test_one_pair_is_memorized(mini, capsys):
    """In hidden space, where a prompt is free."""
    config = load_preset("single")
    pair = first(build_dataset(config, "train"), 1)
    rate = {"schedule": "cosine", "learning_rate": 0.1, "both_directions": False}
    run = learn(mini, pair, pair, space="hidden", steps=300, batch_size=1, validate_every=25, **rate)
    excess = run.column("excess_loss")
    with capsys.disabled():
        print(f"\none pair: PCK@0.1 {run.validation[0][1]:.2f} -> {run.best_pck:.2f} at step {run.best_step}")
        print(f"loss above its lower bound {excess[0]:.2f} -> {np.mean(excess[-10:]):.2f}")
        print(f"loss {np.mean(run.losses[-10:]):.2f}")
    assert run.best_pck == 1
    assert 0 <= np.mean(excess[-10:]) < 0.1 * excess[0]


def test_shuffled_labels_teach_nothing(mini, capsys):
    config = load_preset("single")
    train, held_out = build_dataset(config, "train"), first(build_dataset(config, "validation"), 80)
    true = learn(mini, train, held_out, steps=100)
    shuffled = learn(mini, Shuffled(train), held_out, steps=100)
    with capsys.disabled():
        print(f"\nheld-out PCK@0.1: at the start {true.validation[0][1]:.3f}; after 100 steps on true labels "
              f"{true.validation[-1][1]:.3f}, on shuffled ones {shuffled.validation[-1][1]:.3f}")  # fmt: skip
    assert true.validation[-1][1] > true.validation[0][1] + 0.03
    assert shuffled.validation[-1][1] <= shuffled.validation[0][1] + 0.01
