"""Interface of data sets of annotated pairs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from sd4match.structures.images import Photo
from sd4match.structures.pairs import PairKey, PairRecord, Reference


class PairDataset(ABC):
    """Annotated pairs by index and photos by id, so that a photo of many pairs is decoded only when it is needed.

    A subclass sets `name`, `split`, `categories` and `keys`, and defines `__getitem__` and `photo`.
    """

    name: str
    split: str
    categories: tuple[str, ...]
    keys: Sequence[PairKey]
    """All pairs in order: what is known of each before its annotation is read."""
    reference: Reference = "box"
    """What alpha is a fraction of in this benchmark, for protocols that follow the data set."""
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
        """Decode the photo of an id, in the frame of its annotations; called from several threads.

        Raises:
            PhotoError: it cannot be read; the message names the file.
        """

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[PairRecord]:
        return (self[index] for index in range(len(self)))
