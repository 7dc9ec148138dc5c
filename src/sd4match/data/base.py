"""Base class of the data sets on disk."""

from __future__ import annotations

import operator
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar, get_args

import numpy as np

from sd4match.checks import check_choice
from sd4match.data.config import Split
from sd4match.errors import DatasetError, InputError, PhotoError, shown
from sd4match.geometry import Size
from sd4match.interfaces import PairDataset as PairDataset
from sd4match.paths import as_path, exists, is_folder
from sd4match.structures.images import Photo as Photo
from sd4match.structures.pairs import PairKey as PairKey
from sd4match.structures.pairs import PairRecord as PairRecord

_MARGIN = 0.25
"""Largest distance of points and boxes from their photo, as a share of its longer side."""

Item = TypeVar("Item")
Value = TypeVar("Value")


class DamagedListError(DatasetError):
    """Error of a list or an annotation that may have several problems; its message is that of the first.

    Args:
        message: text of the error, so that a caller can raise it again with the name of the pair.
        problems: one line each; the message alone, if not given.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems) or (message,)


class NoSuchPairError(InputError, IndexError):
    """Error of an index beyond the pairs of a data set."""


class FilePairs(PairDataset):
    """Base class of data sets of files below a folder.

    Annotations and photos are read when they are needed, so a damaged file affects only the pairs that need it. Points
    and boxes may exceed the border of a photo by a quarter of its longer side, as in published data sets. A subclass
    defines `read` and `photo_path`.

    Args:
        root: folder of the data set.
        split: name of the split.
        keys: all pairs of the split.
        problems: faults of annotations, whether a pair needs them or not, one line each.
        notes: findings that may be unintended, one line each.

    Raises:
        InputError: there is no such split.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        keys: Iterable[PairKey],
        *,
        problems: Sequence[str] = (),
        notes: Sequence[str] = (),
    ) -> None:
        self.root = root
        self.split = check_split_name(split)
        self.keys = tuple(keys)
        self.problems = tuple(problems)
        self.notes = tuple(notes)
        self.categories = tuple(sorted({category for key in self.keys for _, category in key.sides if category}))
        self.photo_size = lru_cache(maxsize=None)(self._photo_size)
        twice = repeated_pairs(self.keys)
        if twice and not self.repeats_are_published:
            pair_id = self.keys[twice[0]].pair_id
            warnings.warn(
                f"{self.name}, {split} split: {len(twice)} pairs are listed twice and count twice, first {pair_id}",
                stacklevel=3,
            )

    published_overlaps = False
    """True if the published splits share photos and pairs."""

    @property
    def repeats_are_published(self) -> bool:
        """True if the published list of this split contains pairs twice."""
        return False

    @abstractmethod
    def read(self, index: int) -> PairRecord:
        """Read one pair, without a check of points outside the photos.

        Args:
            index: index of the pair, from 0 to len(self) - 1.

        Returns:
            The pair, with the points that are visible in both photos.

        Raises:
            DatasetError: its annotation is missing or damaged.
            PhotoError: the header of a photo cannot be read.
        """

    @abstractmethod
    def photo_path(self, image_id: str) -> Path:
        """Return the file of a photo.

        Args:
            image_id: id of the photo.

        Returns:
            The path, whether or not the file exists.
        """

    def annotation_path(self, index: int) -> Path | None:
        """Return the file that holds the annotation of one pair alone.

        Args:
            index: index of the pair, from 0 to len(self) - 1.

        Returns:
            The path; None (default) if there is no such file.
        """
        return None

    def __getitem__(self, index: int) -> PairRecord:
        index = pair_index(index, len(self.keys))
        key = self.keys[index]
        if key.source_id == key.target_id:
            raise DatasetError(f"{key.source_id} is paired with itself")
        record = self.read(index)
        for problem in outside_photos(record, margin=_MARGIN):
            raise DatasetError(problem)
        return record

    def photo(self, image_id: str) -> Photo:
        """Decode a photo in its stored frame, to which the annotations refer; its EXIF tag is ignored.

        Args:
            image_id: id of the photo.

        Raises:
            PhotoError: it cannot be read.
        """
        return Photo.open(self._photo_path(image_id), exif=False)

    def _photo_path(self, image_id: str) -> Path:
        if not isinstance(image_id, str):
            raise PhotoError(f"a photo of {self.name} is named by a text, not {shown(image_id)}")
        return self.photo_path(image_id)

    def _photo_size(self, image_id: str) -> Size:
        return Photo.size_of(self._photo_path(image_id))


def outside_photos(record: PairRecord, *, margin: float = 0.0) -> Iterator[str]:
    """Iterate over lines that name the boxes and visible points outside their photo.

    Args:
        record: any pair.
        margin: accepted distance from the photo, as a share of its longer side.
    """
    for name, (height, width), points, box in (
        (record.source_id, record.source_size, record.source_points, record.source_box),
        (record.target_id, record.target_size, record.target_points, record.target_box),
    ):
        over = margin * max(height, width)
        where = f"is outside {name}, which is {width} x {height}"
        if box is not None:  # boxes may count pixels from 1
            left, top, right, bottom = box
            if min(left, top) < -over or right > width + over or bottom > height + over:
                yield f"the box {', '.join(f'{side:g}' for side in box)} {where}"
        visible = points[record.visible]
        last = np.array([width - 1, height - 1])
        for x, y in visible[((visible < -over) | (visible > last + over)).any(axis=1)]:
            yield f"point {x:g},{y:g} {where}"


def check_split_name(split: object) -> Split:
    """Return the name of a split.

    Raises:
        InputError: there is no such split.
    """
    return check_choice("split", split, get_args(Split))  # type: ignore[return-value] # one of the names


def pair_index(index: object, count: int) -> int:
    """Return the index of a pair from 0; negative ones count from the end.

    Raises:
        NoSuchPairError: there is no such pair.
        InputError: it is not a whole number.
    """
    try:
        number = operator.index(index)  # type: ignore[arg-type] # raises TypeError for what is no number
    except TypeError:
        raise InputError(f"a pair is read by a whole number, not {shown(index)}") from None
    if isinstance(index, bool) or not -count <= number < count:
        raise NoSuchPairError(f"no pair {shown(index)}: the data set has {count}")
    return number % count


def repeated_pairs(keys: Sequence[PairKey]) -> list[int]:
    """Return the indices of pairs of the same photos, in this order, as an earlier pair."""
    seen: set[tuple[str, str]] = set()
    repeated = []
    for index, key in enumerate(keys):
        photos = key.source_id, key.target_id
        if photos in seen:
            repeated.append(index)
        seen.add(photos)
    return repeated


def folder_of(root: object, name: str) -> Path:
    """Return the folder that the user named as the root of a data set.

    Raises:
        DatasetError: there is no such folder.
    """
    base = as_path(root, what=f"the root of {name}", error=DatasetError)
    if not exists(base):
        raise DatasetError(f"no such folder: {base}; give the root of {name}")
    if not is_folder(base):
        raise DatasetError(f"{base} is not a folder; give the root of {name}")
    return base


def find_root(root: str | Path, *, subfolders: Sequence[str], entries: Sequence[str], name: str) -> Path:
    """Return the folder of a data set: `root` or one of its subfolders.

    Args:
        root: folder that the user named.
        subfolders: further folders to search, relative to `root`.
        entries: names of files or folders; the data set's folder has at least one of them.
        name: name of the data set in messages.

    Raises:
        DatasetError: no folder has any of the entries.
    """
    base = folder_of(root, name)
    for folder in (base, *(base / subfolder for subfolder in subfolders)):
        if any(exists(folder / entry) for entry in entries):
            return folder
    raise DatasetError(f"{base} is not the root of {name}: it has no {' or '.join(entries)}")


def raise_problems(problems: Sequence[str]) -> None:
    """Raise the problems of a list, if there are any.

    Raises:
        DamagedListError: there is one.
    """
    if problems:
        more = f" (and {len(problems) - 1} more: `sd4match data check` names them)" if len(problems) > 1 else ""
        raise DamagedListError(problems[0] + more, problems)


def read_all(read: Callable[[Item], Value], items: Iterable[Item]) -> list[Value]:
    """Read every item of a list.

    Args:
        read: returns the value of an item; may raise DatasetError.
        items: items of the list.

    Raises:
        DamagedListError: items cannot be read; it carries all problems.
    """
    values, problems = [], []
    for item in items:
        try:
            values.append(read(item))
        except DatasetError as error:
            problems.append(str(error))
    raise_problems(problems)
    return values
