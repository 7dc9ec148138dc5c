"""Arguments for the command line."""

from __future__ import annotations

SMALL = ["data.photos_per_category=2", "data.pairs=6", "evaluation.bootstrap_samples=50", "training.batch_size=2"]


def sets(*overrides):
    return [argument for override in overrides for argument in ("--set", override)]
