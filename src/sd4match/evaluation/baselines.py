"""Predictions that need no model: lower bounds for every result."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from sd4match.errors import ConfigError, choose_from, shown
from sd4match.geometry import Size
from sd4match.structures.pairs import PairRecord

Points = npt.NDArray[np.float64]
"""(N, 2), (x, y) in pixels."""
Baseline = Callable[[PairRecord], Points]
"""Function from a pair to predicted points in original pixels of its target photo."""


def identity(record: PairRecord) -> Points:
    """Predict the same relative location in the target photo."""
    return np.asarray(record.source_points * (_extent(record.target_size) / _extent(record.source_size)))


def random_location(record: PairRecord, *, seed: int = 0) -> Points:
    """Predict a random location in the target's box (in the photo, if it has none), drawn for each point."""
    digest = hashlib.blake2b(f"{seed} {record.pair_id}".encode(), digest_size=8).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "little"))
    box = record.target_box or (0.0, 0.0, *_extent(record.target_size))
    return rng.uniform(box[:2], box[2:], size=record.target_points.shape)


def _extent(size: Size) -> Points:
    """Return (W, H)."""
    return np.array(size[::-1], dtype=np.float64)


BASELINES: dict[str, Baseline] = {"identity": identity, "random": random_location}
"""Baselines by the names that options and reports use."""


def check_baselines(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names if all of them are baselines.

    Raises:
        ConfigError: one is unknown.

    >>> check_baselines(["identity"])
    ('identity',)
    """
    for name in names:
        if not isinstance(name, str) or name not in BASELINES:
            raise ConfigError(f"unknown baseline {shown(name)}; {choose_from(str(name)[:80], BASELINES)}")
    return tuple(names)
