"""Data sets that hold some pairs of another data set."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from sd4match.arguments import check_arguments
from sd4match.checks import check_count
from sd4match.data.base import pair_index
from sd4match.errors import InputError, choose_from, shown
from sd4match.interfaces import PairDataset
from sd4match.structures.images import Photo
from sd4match.structures.pairs import PairRecord


class Subset(PairDataset):
    """Pairs of a data set at given indices, in the given order.

    Args:
        dataset: data set to choose from.
        indices: indices of its pairs; negative ones count from the end.

    Raises:
        InputError: an index is not a whole number, or beyond the data set.

    >>> from sd4match.testing import FakePairs
    >>> [key.pair_id for key in Subset(FakePairs(pairs=5), [3, 1]).keys]
    ['pair-3', 'pair-1']
    """

    @check_arguments
    def __init__(self, dataset: PairDataset, indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = tuple(pair_index(index, len(dataset)) for index in indices)
        self.name = dataset.name
        self.split = dataset.split
        self.reference = dataset.reference
        all_keys = dataset.keys
        self.keys = tuple(all_keys[index] for index in self.indices)
        present = {category for key in self.keys for _, category in key.sides}
        self.categories = tuple(name for name in dataset.categories if name in present)

    @check_arguments
    def __getitem__(self, index: int) -> PairRecord:
        return self.dataset[self.indices[pair_index(index, len(self.indices))]]

    @override
    @check_arguments
    def photo(self, image_id: str) -> Photo:
        return self.dataset.photo(image_id)


@check_arguments
def of_categories(dataset: PairDataset, names: Sequence[str]) -> PairDataset:
    """Return the pairs whose source is of one of the categories; the data set itself if there are no names.

    Args:
        dataset: any data set.
        names: names of categories.

    Raises:
        InputError: the data set has no such category, or no pair whose source is of one of them.

    >>> from sd4match.testing import FakePairs
    >>> of_categories(FakePairs(), ["left"]).categories
    ('left',)
    """
    for name in names:
        if not isinstance(name, str) or name not in dataset.categories:
            raise InputError(
                f"no category {shown(name)} in {dataset.name}, {dataset.split} split; "
                f"{choose_from(str(name)[:80], dataset.categories)}"
            )
    if not names:
        return dataset
    indices = [index for index, key in enumerate(dataset.keys) if key.category in names]
    if not indices:
        there = sorted({str(key.category) for key in dataset.keys})
        raise InputError(
            f"no pair of {dataset.name}, {dataset.split} split, has a source of the category {shown(list(names))}; "
            f"sources are of: {', '.join(there[:20])}"
        )
    return Subset(dataset, indices)


@check_arguments
def first(dataset: PairDataset, limit: int | None) -> PairDataset:
    """Return the first `limit` pairs; the data set itself if it has no more, or if `limit` is None.

    Args:
        dataset: any data set.
        limit: largest number of pairs, at least 1; None: all.

    Raises:
        InputError: the limit is not a whole number of at least 1.

    >>> from sd4match.testing import FakePairs
    >>> len(first(FakePairs(pairs=5), 2))
    2
    """
    if limit is None or check_count("limit", limit) >= len(dataset):
        return dataset
    return Subset(dataset, range(limit))
