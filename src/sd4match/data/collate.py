"""Pair records and their photos -> a `PairBatch`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sd4match.data.loading import Prepared, prepare_all
from sd4match.errors import PhotoError
from sd4match.interfaces import PairDataset, Prepare
from sd4match.structures.images import ImageBatch, Photo, Views
from sd4match.structures.pairs import PairBatch, PairRecord
from sd4match.structures.tensors import Keypoints


def make_images(
    photos: Sequence[Photo], categories: Sequence[str | None], prepare: Mapping[str, Prepare]
) -> ImageBatch:
    """Every photo in the frame of everyone who will look at it, from one decoding."""
    views = [{name: function(photo) for name, function in prepare.items()} for photo in photos]
    return collate([Prepared(photo, own) for photo, own in zip(photos, views, strict=True)], categories)


def collate(prepared: Sequence[Prepared], categories: Sequence[str | None]) -> ImageBatch:
    """A batch of prepared photos."""
    views = {name: Views.of(one.views[name] for one in prepared) for name in prepared[0].views}
    return ImageBatch(views, tuple(categories), tuple(one.photo for one in prepared))


def make_pairs(records: Sequence[PairRecord], dataset: PairDataset, prepare: Mapping[str, Prepare]) -> PairBatch:
    """Pairs with their photos; points padded to the longest record with invisible ones at (0, 0).

    Raises:
        PhotoError: one cannot be read.
    """
    sides = [side for record in records for side in record.sides]
    prepared = []
    for one in prepare_all(dataset, [image_id for image_id, _ in sides], prepare):
        if isinstance(one, PhotoError):
            raise one
        prepared.append(one)
    categories = [category for _, category in sides]
    visible = pad_points([record.visible for record in records]).bool()
    return PairBatch(
        source=collate(prepared[::2], categories[::2]),
        target=collate(prepared[1::2], categories[1::2]),
        source_points=Keypoints(pad_points([record.source_points for record in records]).float(), visible),
        target_points=Keypoints(pad_points([record.target_points for record in records]).float(), visible),
        pair_ids=tuple(record.pair_id for record in records),
    )


def pad_points(arrays: Sequence[np.ndarray]) -> torch.Tensor:
    """Stack arrays of different first size, padded with zeros."""
    longest = max(len(array) for array in arrays)
    padded = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), dtype=arrays[0].dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(padded)
