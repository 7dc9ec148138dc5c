"""Collation of pair records and their photos into batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sd4match.arguments import check_arguments
from sd4match.data.loading import Prepared, prepare_all
from sd4match.errors import DatasetError, InputError, PhotoError, shown
from sd4match.interfaces import PairDataset, Prepare
from sd4match.structures.images import ImageBatch, Photo, Views
from sd4match.structures.pairs import PairBatch, PairRecord
from sd4match.structures.tensors import Keypoints


@check_arguments
def make_images(
    photos: Sequence[Photo], categories: Sequence[str | None], prepare: Mapping[str, Prepare]
) -> ImageBatch:
    """Preprocess photos and collate them.

    Args:
        photos: B decoded photos.
        categories: category of each photo, or None.
        prepare: preprocessing functions by name; "backbone" is the backbone's.

    Returns:
        A batch of B photos with a view of each function.

    Raises:
        InputError: there is no photo, or not one category for each.

    >>> from sd4match.testing import FakeBackbone, FakePairs
    >>> images = make_images([FakePairs().photo("0")], ["left"], {"backbone": FakeBackbone().prepare})
    >>> images.views["backbone"].pixels.shape[:2]
    torch.Size([1, 3])
    """
    views = [{name: function(photo) for name, function in prepare.items()} for photo in photos]
    return collate([Prepared(photo, own) for photo, own in zip(photos, views, strict=True)], categories)


def collate(prepared: Sequence[Prepared], categories: Sequence[str | None]) -> ImageBatch:
    """Return a batch of photos that are already preprocessed.

    Args:
        prepared: B photos with the same views.
        categories: category of each photo, or None.

    Raises:
        InputError: there is no photo, or not one category for each.
    """
    if not prepared or len(prepared) != len(categories):
        raise InputError(f"a batch has photos and one category, or None, for each: {len(prepared)} photos and "
                         f"{len(categories)} categories do not make one")  # fmt: skip
    views = {name: Views.of(photo.views[name] for photo in prepared) for name in prepared[0].views}
    return ImageBatch(views, tuple(categories), tuple(photo.photo for photo in prepared))


@check_arguments
def make_pairs(records: Sequence[PairRecord], dataset: PairDataset, prepare: Mapping[str, Prepare]) -> PairBatch:
    """Read and preprocess the photos of pairs and collate them.

    Args:
        records: B pairs of the data set.
        dataset: data set of the photos.
        prepare: preprocessing functions by name; "backbone" is the backbone's.

    Returns:
        A batch of B pairs. Points are padded to the longest record with invisible points at (0, 0).

    Raises:
        PhotoError: a photo cannot be read.
        DatasetError: a photo is of another size than its annotation says.
        InputError: there is no pair.

    >>> from sd4match.testing import FakeBackbone, FakePairs
    >>> pairs = FakePairs(pairs=4, points=5)
    >>> make_pairs(list(pairs), pairs, {"backbone": FakeBackbone().prepare}).source_points.visible.shape
    torch.Size([4, 6])
    """
    sides = [side for record in records for side in record.sides]
    prepared = []
    for result in prepare_all(dataset, [image_id for image_id, _ in sides], prepare):
        if isinstance(result, PhotoError):
            raise result
        prepared.append(result)
    sizes = [size for record in records for size in (record.source_size, record.target_size)]
    for (image_id, _), photo, (height, width) in zip(sides, prepared, sizes, strict=True):
        if photo.photo.size != (height, width):
            actual = f"{photo.photo.size[1]} x {photo.photo.size[0]}"
            raise DatasetError(f"{image_id} is {actual} pixels, but its annotation says {width} x {height}")
    categories = [category for _, category in sides]
    visible = pad_points([record.visible for record in records]).bool()
    return PairBatch(
        source=collate(prepared[::2], categories[::2]),
        target=collate(prepared[1::2], categories[1::2]),
        source_points=Keypoints(pad_points([record.source_points for record in records]).float(), visible),
        target_points=Keypoints(pad_points([record.target_points for record in records]).float(), visible),
        pair_ids=tuple(record.pair_id for record in records),
    )


@check_arguments
def pad_points(arrays: Sequence[np.ndarray]) -> torch.Tensor:
    """Stack arrays of different lengths, padded with zeros.

    Args:
        arrays: B arrays (N_i, ...), equal in all but the first size.

    Returns:
        (B, max N_i, ...), in the data type of the first array.

    Raises:
        InputError: there is no array, an item is not an array, or they differ in more than the first size.

    >>> pad_points([np.ones((1, 2)), np.ones((2, 2))])[0].tolist()
    [[1.0, 1.0], [0.0, 0.0]]
    """
    is_list = isinstance(arrays, Sequence) and all(isinstance(array, np.ndarray) and array.ndim for array in arrays)
    if not is_list:
        raise InputError(f"arrays to pad must be a list of NumPy arrays, not {shown(arrays)}")
    if len({array.shape[1:] for array in arrays}) != 1:
        raise InputError(f"arrays to pad must differ in their first size alone, not {[a.shape for a in arrays][:4]}")
    longest = max(len(array) for array in arrays)
    padded = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), dtype=arrays[0].dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(padded)
