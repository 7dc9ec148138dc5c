"""What the data sets on disk share: a list of pairs, photos by id, and errors that name files."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sd4match.errors import DatasetError
from sd4match.geometry import Size
from sd4match.structures.images import Photo
from sd4match.structures.pairs import Box, PairKey, PairRecord, Reference

Points = npt.NDArray[np.float64]


class ListedPairs(ABC):
    """A `PairDataset` of files below `root`. Annotations are read when a pair is asked for, photos when they are."""

    name: ClassVar[str]
    published_pairs: ClassVar[Mapping[str, int]] = {}
    """How many pairs the published data set has, by split."""

    def __init__(self, root: Path, split: str, keys: Iterable[PairKey], *, reference: Reference = "box") -> None:
        self.root = root
        self.split = split
        self.reference: Reference = reference
        self.keys: tuple[PairKey, ...] = tuple(keys)
        self.categories = tuple(sorted({category for key in self.keys for _, category in key.sides if category}))
        self.photo_size = lru_cache(maxsize=None)(self._photo_size)

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[PairRecord]:
        return (self[index] for index in range(len(self)))

    @abstractmethod
    def __getitem__(self, index: int) -> PairRecord:
        """One pair; reads its annotation."""

    @abstractmethod
    def photo_path(self, image_id: str) -> Path:
        """The file of a photo."""

    def annotation_path(self, index: int) -> Path | None:
        """The file that a pair's points come from, if it has one of its own."""
        return None

    def photo(self, image_id: str) -> Photo:
        """The photo of an id, in its stored frame: that is the one of the annotations, whatever EXIF says."""
        return Photo.open(self.photo_path(image_id), exif=False)

    def _photo_size(self, image_id: str) -> Size:
        return Photo.size_of(self.photo_path(image_id))


def find_root(root: str | Path, *, inner: Sequence[str], has: Sequence[str], name: str) -> Path:
    """The folder of a data set: `root`, or one of the folders `inner` in it, that has one of the entries `has`.

    Raises:
        DatasetError: none has; the message says what was looked for.
    """
    base = Path(root).expanduser()
    if not base.is_dir():
        raise DatasetError(f"no such folder: {base}; give the root of {name}")
    for folder in (base, *(base / part for part in inner)):
        if any((folder / entry).exists() for entry in has):
            return folder
    raise DatasetError(f"{base} is not the root of {name}: it has no {' or '.join(has)}")


def read_lines(path: Path) -> list[str]:
    """The lines of a list that are not empty, whatever ends them.

    Raises:
        DatasetError: not readable.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot read the list {path}: {getattr(error, 'strerror', None) or error}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_annotation(path: Path) -> Mapping[str, Any]:
    """A JSON object from a file.

    Raises:
        DatasetError: missing, not JSON, or not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DatasetError(f"no such annotation: {path}") from None
    except (OSError, ValueError) as error:
        raise DatasetError(f"not a readable annotation: {path} ({error})") from None
    if not isinstance(content, dict):
        raise DatasetError(f"not a readable annotation: {path} holds no JSON object")
    return content


def as_points(value: object, where: str) -> Points:
    """(N, 2) in float64; what is not a number stays NaN.

    Raises:
        DatasetError: another shape.
    """
    try:
        points = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise DatasetError(f"{where} must be points (x, y), at least one; it is {str(value)[:60]}")
    return points


def as_box(value: object, where: str) -> Box:
    """(left, top, right, bottom).

    Raises:
        DatasetError: not four numbers, or nothing inside.
    """
    try:
        left, top, right, bottom = (float(side) for side in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise DatasetError(f"{where} must be left, top, right, bottom; it is {str(value)[:60]}") from None
    if not (right > left and bottom > top):
        raise DatasetError(f"{where} has nothing inside: {value}")
    return left, top, right, bottom


def as_size(value: object, where: str) -> Size:
    """(H, W) from SPair-71k's [W, H, channels].

    Raises:
        DatasetError: not at least two positive numbers.
    """
    try:
        width, height = (int(side) for side in value[:2])  # type: ignore[index]
    except (TypeError, ValueError):
        raise DatasetError(f"{where} must be width, height; it is {str(value)[:60]}") from None
    if width < 1 or height < 1:
        raise DatasetError(f"{where} must be positive; it is {value}")
    return height, width


def seen_in_both(source: Points, target: Points, where: str) -> npt.NDArray[np.bool_]:
    """(N,): the points that are numbers in both.

    Raises:
        DatasetError: the two have different numbers of points.
    """
    if len(source) != len(target):
        raise DatasetError(f"{where}: {len(source)} source points and {len(target)} target points")
    return np.asarray((np.isfinite(source) & np.isfinite(target)).all(axis=1))


def extent(points: Points, where: str) -> Box:
    """The box around points that are numbers.

    Raises:
        DatasetError: there are none.
    """
    known = points[np.isfinite(points).all(axis=1)]
    if len(known) == 0:
        raise DatasetError(f"{where} has no point")
    (left, top), (right, bottom) = known.min(axis=0), known.max(axis=0)
    return float(left), float(top), float(right), float(bottom)


def cleared(points: Points, visible: npt.NDArray[np.bool_]) -> Points:
    """Points with (0, 0) in the place of those that are not visible, so that no NaN travels on."""
    return np.where(visible[:, None], points, 0.0)
