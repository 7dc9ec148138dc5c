"""Predictions that need no model, so that everyone sees the floor."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from sd4match.data.collate import pad_points
from sd4match.evaluation.evaluator import Predict
from sd4match.protocols import PairDataset, PairRecord


def identity(dataset: PairDataset) -> Predict:
    """The same relative place in the other photo."""

    def predict(records: Sequence[PairRecord]) -> Tensor:
        points = [
            record.source_points * (_extent(dataset, record.target_id) / _extent(dataset, record.source_id))
            for record in records
        ]
        return pad_points(points).float()

    return predict


def random_place(dataset: PairDataset, *, seed: int = 0) -> Predict:
    """A random place in the target's box (in the photo, if it has none), drawn anew for each point."""

    def predict(records: Sequence[PairRecord]) -> Tensor:
        points = []
        for record in records:
            digest = hashlib.blake2b(f"{seed} {record.pair_id}".encode(), digest_size=8).digest()
            rng = np.random.default_rng(int.from_bytes(digest, "little"))
            box = record.target_box or (0.0, 0.0, *_extent(dataset, record.target_id))
            points.append(rng.uniform(box[:2], box[2:], size=record.target_points.shape))
        return pad_points(points).float()

    return predict


def _extent(dataset: PairDataset, image_id: str) -> np.ndarray:
    """(W, H)."""
    height, width = dataset.photo(image_id).size
    return np.array([width, height], dtype=np.float64)


BASELINES = {"identity": identity, "random": random_place}
"""By the name that a report gives them."""
