"""Predictions that need no model, so that everyone sees the floor."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from sd4match.data.collate import pad_points
from sd4match.geometry import Size
from sd4match.structures.pairs import PairRecord

Baseline = Callable[[Sequence[PairRecord]], Tensor]
"""Pairs -> (B, N, 2) in original pixels of the target photos."""


def identity(records: Sequence[PairRecord]) -> Tensor:
    """The same relative place in the other photo."""
    points = [record.source_points * (_extent(record.target_size) / _extent(record.source_size)) for record in records]
    return pad_points(points)


def random_place(records: Sequence[PairRecord], *, seed: int = 0) -> Tensor:
    """A random place in the target's box (in the photo, if it has none), drawn anew for each point."""
    points = []
    for record in records:
        digest = hashlib.blake2b(f"{seed} {record.pair_id}".encode(), digest_size=8).digest()
        rng = np.random.default_rng(int.from_bytes(digest, "little"))
        box = record.target_box or (0.0, 0.0, *_extent(record.target_size))
        points.append(rng.uniform(box[:2], box[2:], size=record.target_points.shape))
    return pad_points(points)


def _extent(size: Size) -> npt.NDArray[np.float64]:
    """(W, H)."""
    return np.array(size[::-1], dtype=np.float64)


BASELINES: dict[str, Baseline] = {"identity": identity, "random": random_place}
"""By the name that a report gives them."""
