"""Data sets that hold some pairs of another data set."""

from __future__ import annotations

from collections.abc import Sequence

from sd4match.errors import InputError, choose_from
from sd4match.interfaces import PairDataset
from sd4match.structures.images import Photo
from sd4match.structures.pairs import PairRecord


class Subset(PairDataset):
    """Pairs of a data set at given indices, in the given order.

    Args:
        dataset: the data set to choose from.
        indices: indices of its pairs.

    >>> from sd4match.testing import FakePairs
    >>> [key.pair_id for key in Subset(FakePairs(pairs=5), [3, 1]).keys]
    ['pair-3', 'pair-1']
    """

    def __init__(self, dataset: PairDataset, indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = tuple(indices)
        self.name = dataset.name
        self.split = dataset.split
        self.reference = dataset.reference
        all_keys = dataset.keys
        self.keys = tuple(all_keys[index] for index in self.indices)
        present = {category for key in self.keys for _, category in key.sides}
        self.categories = tuple(name for name in dataset.categories if name in present)

    def __getitem__(self, index: int) -> PairRecord:
        return self.dataset[self.indices[index]]

    def photo(self, image_id: str) -> Photo:
        """Decode a photo of the whole data set.

        Raises:
            PhotoError: it cannot be read.
        """
        return self.dataset.photo(image_id)


def of_categories(dataset: PairDataset, names: Sequence[str]) -> PairDataset:
    """Return the pairs whose category is one of the names; the data set itself if there are no names.

    Raises:
        InputError: the data set has no such category.

    >>> from sd4match.testing import FakePairs
    >>> of_categories(FakePairs(), ["left"]).categories
    ('left',)
    """
    for name in names:
        if name not in dataset.categories:
            raise InputError(
                f"no category {name!r} in {dataset.name}, {dataset.split} split; "
                f"{choose_from(name, dataset.categories)}"
            )
    if not names:
        return dataset
    return Subset(dataset, [index for index, key in enumerate(dataset.keys) if key.category in names])


def first(dataset: PairDataset, limit: int | None) -> PairDataset:
    """Return the first `limit` pairs; the data set itself if it has no more, or if `limit` is None.

    >>> from sd4match.testing import FakePairs
    >>> len(first(FakePairs(pairs=5), 2))
    2
    """
    return dataset if limit is None or limit >= len(dataset) else Subset(dataset, range(limit))
