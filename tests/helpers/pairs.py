"""Checks that hold for every data set of pairs."""

from __future__ import annotations

import numpy as np

from sd4match.data import PairDataset, make_pairs
from sd4match.testing import FakeBackbone


def check_pairs(data):
    """Check that keys, records, photos and batches of a data set agree."""
    assert isinstance(data, PairDataset)
    assert len(data) == len(data.keys) == len(list(data))
    assert len({key.pair_id for key in data.keys}) == len(data)
    for key, record in zip(data.keys, data, strict=True):
        assert (record.pair_id, record.sides) == (key.pair_id, key.sides)
        assert record.source_points.shape == record.target_points.shape == (len(record.visible), 2)
        assert record.source_points.dtype == np.float64
        assert np.isfinite(record.source_points).all()
        assert np.isfinite(record.target_points).all()
        for name, size in ((record.source_id, record.source_size), (record.target_id, record.target_size)):
            assert data.photo(name).size == size
        assert {category for _, category in key.sides if category} <= set(data.categories)
    batch = make_pairs(list(data), data, {"backbone": FakeBackbone().prepare})
    assert batch.source.categories == tuple(key.category for key in data.keys)
    assert batch.target.categories == tuple(key.sides[1][1] for key in data.keys)
    assert len(batch) == len(data)
