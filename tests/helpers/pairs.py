"""Checks that hold for every data set of pairs on disk."""

from __future__ import annotations

import numpy as np

from sd4match.data import make_pairs
from sd4match.testing import FakeBackbone, check_dataset


def check_pairs(data):
    """Check that keys, records, photos and batches of a data set agree."""
    check_dataset(data, limit=len(data), margin=0.25)
    assert len(data) == len(list(data))
    for record in data:
        assert record.source_points.dtype == np.float64
        assert np.isfinite(record.source_points).all()
        assert np.isfinite(record.target_points).all()
    batch = make_pairs(list(data), data, {"backbone": FakeBackbone().prepare})
    assert batch.source.categories == tuple(key.category for key in data.keys)
    assert batch.target.categories == tuple(key.sides[1][1] for key in data.keys)
    assert len(batch) == len(data)
