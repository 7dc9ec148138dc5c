"""Base class of the data sets on disk, and the readers that they share, whose errors name the file."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sd4match.errors import DatasetError
from sd4match.geometry import Size
from sd4match.interfaces import PairDataset as PairDataset
from sd4match.structures.images import Photo as Photo
from sd4match.structures.pairs import Box
from sd4match.structures.pairs import PairKey as PairKey
from sd4match.structures.pairs import PairRecord as PairRecord

Points = npt.NDArray[np.float64]
"""(N, 2), (x, y) in pixels; NaN for points that are not annotated."""


class FilePairs(PairDataset):
    """Base class of data sets of files below a folder.

    Annotations are read when a pair is asked for, photos when they are asked for. A subclass defines `__getitem__` and
    `photo_path`.

    Args:
        root: folder of the data set.
        split: name of the split.
        keys: all pairs of the split.
    """

    def __init__(self, root: Path, split: str, keys: Iterable[PairKey]) -> None:
        self.root = root
        self.split = split
        self.keys = tuple(keys)
        self.categories = tuple(sorted({category for key in self.keys for _, category in key.sides if category}))
        self.photo_size = lru_cache(maxsize=None)(self._photo_size)

    @abstractmethod
    def photo_path(self, image_id: str) -> Path:
        """Return the file of a photo."""

    def annotation_path(self, index: int) -> Path | None:
        """Return the file that holds the annotation of one pair alone; None (default) if there is no such file."""
        return None

    def photo(self, image_id: str) -> Photo:
        """Decode a photo in its stored frame, which is the one of the annotations, whatever its EXIF tag says.

        Raises:
            PhotoError: it cannot be read.
        """
        return Photo.open(self.photo_path(image_id), exif=False)

    def _photo_size(self, image_id: str) -> Size:
        return Photo.size_of(self.photo_path(image_id))


def find_root(root: str | Path, *, subfolders: Sequence[str], entries: Sequence[str], name: str) -> Path:
    """Return the folder of a data set: `root` or one of its subfolders.

    Args:
        root: folder that the user named.
        subfolders: further folders to look into, relative to `root`.
        entries: names of files or folders; the data set's folder has at least one of them.
        name: name of the data set in messages.

    Raises:
        DatasetError: no folder has any of the entries.
    """
    base = Path(root).expanduser()
    if not base.is_dir():
        raise DatasetError(f"no such folder: {base}; give the root of {name}")
    for folder in (base, *(base / subfolder for subfolder in subfolders)):
        if any((folder / entry).exists() for entry in entries):
            return folder
    raise DatasetError(f"{base} is not the root of {name}: it has no {' or '.join(entries)}")


def read_lines(path: Path) -> list[str]:
    """Return the non-empty lines of a text file, with any line endings, without surrounding white space.

    Raises:
        DatasetError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot read the list {path}: {getattr(error, 'strerror', None) or error}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_annotation(path: Path) -> Mapping[str, Any]:
    """Return the JSON object of a file.

    Raises:
        DatasetError: the file is missing, is not JSON, or holds no object.
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
    """Convert a value of an annotation to points (N, 2); NaN stays NaN.

    Args:
        value: what the annotation holds.
        where: file and field, for messages.

    Raises:
        DatasetError: the value has another shape, or no point.
    """
    try:
        points = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise DatasetError(f"{where} must be points (x, y), at least one; it is {str(value)[:60]}")
    return points


def as_box(value: object, where: str) -> Box:
    """Convert a value of an annotation to a box (left, top, right, bottom).

    Args:
        value: what the annotation holds.
        where: file and field, for messages.

    Raises:
        DatasetError: the value is not four numbers, or the box is empty.
    """
    try:
        left, top, right, bottom = (float(side) for side in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise DatasetError(f"{where} must be left, top, right, bottom; it is {str(value)[:60]}") from None
    if not (right > left and bottom > top):
        raise DatasetError(f"{where} has nothing inside: {value}")
    return left, top, right, bottom


def as_size(value: object, where: str) -> Size:
    """Convert SPair-71k's [W, H, channels] to (H, W).

    Args:
        value: what the annotation holds.
        where: file and field, for messages.

    Raises:
        DatasetError: the value does not start with two positive numbers.
    """
    try:
        width, height = (int(side) for side in value[:2])  # type: ignore[index]
    except (TypeError, ValueError):
        raise DatasetError(f"{where} must be width, height; it is {str(value)[:60]}") from None
    if width < 1 or height < 1:
        raise DatasetError(f"{where} must be positive; it is {value}")
    return height, width


def visible_in_both(source: Points, target: Points, where: str) -> npt.NDArray[np.bool_]:
    """Return the mask (N,) of points that are annotated, that is finite, in both photos.

    Args:
        source: (N, 2).
        target: (N, 2).
        where: file or pair, for messages.

    Raises:
        DatasetError: the photos have different numbers of points.
    """
    if len(source) != len(target):
        raise DatasetError(f"{where}: {len(source)} source points and {len(target)} target points")
    return np.asarray((np.isfinite(source) & np.isfinite(target)).all(axis=1))


def extent(points: Points, where: str) -> Box:
    """Return the smallest box around the finite points.

    Args:
        points: (N, 2).
        where: photo and pair, for messages.

    Raises:
        DatasetError: no point is finite.
    """
    finite = points[np.isfinite(points).all(axis=1)]
    if len(finite) == 0:
        raise DatasetError(f"{where} has no point")
    (left, top), (right, bottom) = finite.min(axis=0), finite.max(axis=0)
    return float(left), float(top), float(right), float(bottom)


def zero_invisible(points: Points, visible: npt.NDArray[np.bool_]) -> Points:
    """Return the points (N, 2) with invisible ones moved to (0, 0), so that no NaN leaves the data set."""
    return np.where(visible[:, None], points, 0.0)
