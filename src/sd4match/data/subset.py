"""Some pairs of a data set, as a data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sd4match.errors import InputError, choose_from
from sd4match.interfaces import PairDataset
from sd4match.structures.images import Photo
from sd4match.structures.pairs import PairKey, PairRecord, Reference


class Subset:
    """The pairs of a data set at `places`, in that order.

    >>> from sd4match.testing import FakePairs
    >>> [key.pair_id for key in Subset(FakePairs(pairs=5), [3, 1]).keys]
    ['pair-3', 'pair-1']
    """

    def __init__(self, dataset: PairDataset, places: Sequence[int]) -> None:
        self.dataset = dataset
        self.places = tuple(places)
        self.name = dataset.name
        self.split = dataset.split
        self.reference: Reference = dataset.reference
        every = dataset.keys
        self.keys: tuple[PairKey, ...] = tuple(every[place] for place in self.places)
        present = {category for key in self.keys for _, category in key.sides}
        self.categories = tuple(name for name in dataset.categories if name in present)

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[PairRecord]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> PairRecord:
        return self.dataset[self.places[index]]

    def photo(self, image_id: str) -> Photo:
        """As the whole data set."""
        return self.dataset.photo(image_id)


def of_categories(dataset: PairDataset, names: Sequence[str]) -> PairDataset:
    """The pairs that count to one of the categories; all of them, if there is no name.

    Raises:
        InputError: the data set has no such category.
    """
    for name in names:
        if name not in dataset.categories:
            raise InputError(
                f"no category {name!r} in {dataset.name}, {dataset.split} split; "
                f"{choose_from(name, dataset.categories)}"
            )
    if not names:
        return dataset
    return Subset(dataset, [place for place, key in enumerate(dataset.keys) if key.category in names])


def first(dataset: PairDataset, limit: int | None) -> PairDataset:
    """The first so many pairs, or all."""
    return dataset if limit is None or limit >= len(dataset) else Subset(dataset, range(limit))
