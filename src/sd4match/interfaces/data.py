"""Interface of data sets of annotated pairs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from sd4match.structures.images import Photo
from sd4match.structures.pairs import PairKey, PairRecord, Reference


class PairDataset(ABC):
    """Base class of data sets: annotated pairs by index, and photos by id.

    Photos are read apart from the pairs, since one photo belongs to many pairs. A subclass sets `name`, `split`,
    `categories` and `keys`, and defines `__getitem__` and `photo`.

    >>> from sd4match.testing import FakePairs
    >>> pairs = FakePairs(pairs=2)
    >>> len(pairs), pairs[0].category, pairs[0].source_points.shape
    (2, 'left', (5, 2))
    >>> pairs.photo(pairs[0].source_id).size
    (24, 32)
    """

    name: str
    """Name of the data set in reports."""
    split: str
    """Split of the data set, for example "test"."""
    categories: tuple[str, ...]
    """Categories of all pairs."""
    keys: Sequence[PairKey]
    """Ids and category of all pairs in order, known before annotations are read."""
    reference: Reference = "box"
    """Reference length of which alpha is a fraction, for protocols that follow the data set."""
    published_pairs: Mapping[str, int] = MappingProxyType({})
    """Number of pairs of the published data set, by split."""

    @abstractmethod
    def __getitem__(self, index: int) -> PairRecord:
        """Read one pair.

        Raises:
            DatasetError, PhotoError: its annotation or a photo's header cannot be read; the message names the file.
        """

    @abstractmethod
    def photo(self, image_id: str) -> Photo:
        """Decode a photo. The points and boxes of pairs are in its pixels. Called from several threads.

        Args:
            image_id: `source_id` or `target_id` of a pair.

        Raises:
            PhotoError: it cannot be read; the message names the file.
        """

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[PairRecord]:
        return (self[index] for index in range(len(self)))
