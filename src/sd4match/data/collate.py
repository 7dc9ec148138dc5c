"""Pair records and their photos -> a `PairBatch`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sd4match.protocols import PairDataset, PairRecord, Prepare
from sd4match.types import ImageBatch, Keypoints, PairBatch, Photo, View, Views


def make_images(
    photos: Sequence[Photo], categories: Sequence[str | None], prepare: Mapping[str, Prepare]
) -> ImageBatch:
    """Every photo in the frame of everyone who will look at it, from one decoding."""
    views = {name: stack_views([function(photo) for photo in photos]) for name, function in prepare.items()}
    return ImageBatch(views, tuple(categories), tuple(photos))


def stack_views(views: Sequence[View]) -> Views:
    """A batch from single views."""
    return Views(
        torch.stack([view.pixels for view in views]),
        tuple(view.frame for view in views),
        tuple(view.key for view in views),
        tuple(stack_views(others) for others in zip(*(view.others for view in views), strict=True)),
    )


def join_views(one: Views, other: Views) -> Views:
    """Two batches of the same makers as one."""
    others = tuple(join_views(a, b) for a, b in zip(one.others, other.others, strict=True))
    return Views(torch.cat([one.pixels, other.pixels]), one.frames + other.frames, one.keys + other.keys, others)


def make_pairs(records: Sequence[PairRecord], dataset: PairDataset, prepare: Mapping[str, Prepare]) -> PairBatch:
    """Pairs with their photos; points padded to the longest record with invisible ones at (0, 0)."""
    source, target = zip(*(record.sides for record in records), strict=True)
    visible = pad_points([record.visible for record in records]).bool()
    return PairBatch(
        source=_images(source, dataset, prepare),
        target=_images(target, dataset, prepare),
        source_points=Keypoints(pad_points([record.source_points for record in records]).float(), visible),
        target_points=Keypoints(pad_points([record.target_points for record in records]).float(), visible),
        pair_ids=tuple(record.pair_id for record in records),
    )


def _images(
    sides: Sequence[tuple[str, str | None]], dataset: PairDataset, prepare: Mapping[str, Prepare]
) -> ImageBatch:
    return make_images([dataset.photo(one) for one, _ in sides], [category for _, category in sides], prepare)


def pad_points(arrays: Sequence[np.ndarray]) -> torch.Tensor:
    """Stack arrays of different first size, padded with zeros."""
    longest = max(len(array) for array in arrays)
    padded = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), dtype=arrays[0].dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(padded)
