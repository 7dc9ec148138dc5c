"""Conformance of data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import numpy as np

from sd4match.arguments import check_arguments
from sd4match.checks import check_count, check_number
from sd4match.data import checked
from sd4match.data.base import outside_photos
from sd4match.data.config import Split
from sd4match.errors import InputError, SD4MatchError, shown
from sd4match.interfaces import PairDataset
from sd4match.registry import Component, datasets
from sd4match.structures.images import Photo
from sd4match.structures.pairs import PairRecord
from sd4match.testing.conformance.common import THREADS, ask, check_config, config_of, hold, promising


@check_arguments
def check_dataset(dataset: Any, *, limit: int = 20, margin: float = 0.0) -> None:
    """Check that a data set keeps the promises of `PairDataset`.

    - There is one key for each pair, and it agrees with the pair's record. All categories are declared.
    - Visible points and boxes are inside the photos, and photos have the sizes of the records.
    - Pairs and photos are the same each time, photos also in several threads.
    - An index beyond the last pair raises an error.

    Args:
        dataset: a data set, or its config, registered class or kind.
        limit: largest number of pairs that are read, spread over the data set, >= 1.
        margin: largest distance of points and boxes outside of a photo, as a share of its longer side; published data
            sets need some.

    Raises:
        AssertionError: a promise is broken; the message says which.
        InputError: the argument is no data set.

    >>> from sd4match.testing import FakePairs
    >>> check_dataset(FakePairs())
    """
    check_count("limit", limit)
    check_number("margin", margin, low=0.0)
    if isinstance(dataset, (Component, type, str, Mapping)):
        config = config_of(datasets, dataset)
        check_config(config)
        dataset = config.build()
    if not isinstance(dataset, PairDataset):
        raise InputError(f"a data set must be a PairDataset, or a config or kind of one, not {shown(dataset)}")
    name = checked.describe_dataset(dataset)
    for what in ("name", "split"):
        value = getattr(dataset, what, None)
        hold(isinstance(value, str) and bool(value), f"{name} must have a {what}, not {shown(value)}")
    hold(dataset.split in get_args(Split), f"the split of {name} must be one of {', '.join(get_args(Split))}")
    with promising(f"{name} must hold pairs, as many as its length, each once, under keys of the type PairKey"):
        checked.check_dataset(dataset)
    _check_lists(name, dataset)
    rows = range(0, len(dataset), -(-len(dataset) // limit))
    records = [_read(name, dataset, index, margin) for index in rows]
    with promising(f"{name} must read a pair again"):
        again = [dataset[index] for index in rows]
    hold(all(map(_same, records, again)), f"{name} must read the same pair each time")
    _check_photos(name, dataset, records)
    try:
        extra = dataset[len(dataset)]
    except (SD4MatchError, IndexError):
        return
    raise AssertionError(f"{name} must raise an error for a pair that it does not have, not return {shown(extra)}")


def _check_lists(name: str, dataset: PairDataset) -> None:
    declared = getattr(dataset, "categories", None)
    hold(
        isinstance(declared, tuple) and all(isinstance(each, str) for each in declared),
        f"the categories of {name} must be a tuple of names, not {shown(declared)}",
    )
    missing = {category for key in dataset.keys for _, category in key.sides if category} - set(declared or ())
    hold(
        not missing,
        f"the categories of {name} must hold those of all pairs, and lack {shown(min(missing, default=''))}",
    )
    published = dataset.published_pairs
    hold(
        isinstance(published, Mapping)
        and all(isinstance(split, str) and isinstance(count, int) and count >= 0 for split, count in published.items()),
        f"published_pairs of {name} must be numbers by split, not {shown(published)}",
    )


def _read(name: str, dataset: PairDataset, index: int, margin: float) -> PairRecord:
    key = dataset.keys[index]
    where = f"{name}, pair {shown(key.pair_id)}"
    with promising(f"{where} must be a PairRecord of its key"):
        record = checked.read_pair(dataset, index)
    same = (record.category, record.target_category) == (key.category, key.target_category)
    hold(same, f"{where}: its record must be of the categories that its key says")
    for problem in outside_photos(record, margin=margin):
        raise AssertionError(f"{where}: visible points and boxes must be inside the photo, and {problem}")
    return record


def _same(first: PairRecord, other: PairRecord) -> bool:
    """Return whether two records are equal, apart from points that are not visible."""
    return (
        first.sides == other.sides
        and (first.source_size, first.target_size) == (other.source_size, other.target_size)
        and (first.source_box, first.target_box) == (other.source_box, other.target_box)
        and np.array_equal(first.visible, other.visible)
        and all(
            np.array_equal(points[first.visible], others[first.visible])
            for points, others in (
                (first.source_points, other.source_points),
                (first.target_points, other.target_points),
            )
        )
    )


def _check_photos(name: str, dataset: PairDataset, records: Sequence[PairRecord]) -> None:
    """Check that photos have the sizes of the records, and are the same each time and in any thread."""
    sizes = [
        (image_id, size)
        for record in records
        for image_id, size in ((record.source_id, record.source_size), (record.target_id, record.target_size))
    ]
    photos: dict[str, Photo] = {}
    for image_id, size in sizes:
        if image_id not in photos:
            photos[image_id] = ask(f"{name} must decode its photos", dataset.photo, image_id, kind=Photo)
        found = photos[image_id].size
        hold(found == size, f"{name}: the photo {shown(image_id)} is {found}, and a record says {size}")
    ids = list(photos)
    with promising(f"{name} must decode a photo again"):
        again = [dataset.photo(image_id).key for image_id in ids]
    keys = [photo.key for photo in photos.values()]
    hold(again == keys, f"{name} must decode the same photo each time")
    with promising(f"{name} must decode photos in several threads"), ThreadPoolExecutor(THREADS) as pool:
        found_keys = [photo.key for photo in pool.map(dataset.photo, ids * THREADS)]
    hold(found_keys == keys * THREADS, f"{name} must decode photos in several threads at once as it does one by one")
