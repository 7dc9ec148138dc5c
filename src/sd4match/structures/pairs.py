"""Pairs of photos with corresponding points.

Structures that hold arrays are compared by identity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from sd4match.arguments import check_fields
from sd4match.checks import check_count, check_text
from sd4match.errors import DatasetError, shown
from sd4match.geometry import Size
from sd4match.structures.images import LONGEST_SIDE_OF_PHOTOS, ImageBatch
from sd4match.structures.tensors import Keypoints

Box = tuple[float, float, float, float]
"""(left, top, right, bottom) in pixels."""

Reference = Literal["box", "photo"]
"""Length that alpha is a fraction of: the longer side of the target's box, or of its photo."""


@dataclass(frozen=True, kw_only=True)
class PairKey:
    """Identity of a pair, known before its annotation is read.

    Args:
        pair_id: name of the pair.
        source_id: id of the source photo.
        target_id: id of the target photo.
        category: category of the source, under which the pair is counted.
        target_category: category of the target, if it differs.

    Raises:
        InputError: an id or a category is not a text, or is empty; the message names it.

    >>> PairKey(pair_id="1", source_id="cat/a.jpg", target_id="cat/b.jpg", category="cat").sides
    (('cat/a.jpg', 'cat'), ('cat/b.jpg', 'cat'))
    """

    pair_id: str
    source_id: str
    target_id: str
    category: str | None = None
    """Category of the source, under which the pair is counted."""
    target_category: str | None = None
    """Category of the target, if it differs."""

    def __post_init__(self) -> None:
        for name in ("pair_id", "source_id", "target_id"):
            check_text(name, getattr(self, name))
        for name in ("category", "target_category"):
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name))

    @property
    def sides(self) -> tuple[tuple[str, str | None], tuple[str, str | None]]:
        """(photo id, category) of source and target."""
        return (self.source_id, self.category), (self.target_id, self.target_category or self.category)


@dataclass(frozen=True, kw_only=True, eq=False)
class PairRecord(PairKey):
    """Annotated pair without its pixels.

    Points and boxes are in original pixels; points that are not visible have coordinates without a meaning.

    Raises:
        DatasetError: a size, a box or the points have another type or shape, or are not finite; the message names the
            photo.

    >>> record = PairRecord(
    ...     pair_id="1", source_id="a.jpg", target_id="b.jpg", source_size=(80, 100), target_size=(60, 60),
    ...     source_points=np.array([[10.0, 20.0]]), target_points=np.array([[12.0, 18.0]]), visible=np.array([True]),
    ... )
    >>> len(record.visible)
    1
    """

    source_size: Size
    """(H, W) of the photo in its stored frame, to which the annotations refer."""
    target_size: Size
    source_points: npt.NDArray[np.float64]
    """(N, 2), (x, y)."""
    target_points: npt.NDArray[np.float64]
    visible: npt.NDArray[np.bool_]
    """(N,), True where a point is visible in both photos. Coordinates of other points have no meaning."""
    source_box: Box | None = None
    target_box: Box | None = None
    difficulty: Mapping[str, int] = field(default_factory=dict)
    """Flags of the data set, for example SPair-71k's viewpoint_variation: 0, 1 or 2."""

    # `==` of arrays has no truth value, so records are compared by identity, unlike their keys.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __post_init__(self) -> None:
        super().__post_init__()
        sides = (
            ("source", self.source_id, self.source_size, self.source_points, self.source_box),
            ("target", self.target_id, self.target_size, self.target_points, self.target_box),
        )
        visible = self.visible
        if not isinstance(visible, np.ndarray) or visible.dtype != np.bool_ or visible.ndim != 1:
            raise DatasetError(f"visible must be an array (N,) of booleans, not {_described(visible)}")
        for side, name, size, points, box in sides:
            _check_size(size, name)
            shape = (len(visible), 2)
            if not isinstance(points, np.ndarray) or points.dtype.kind not in "fiu" or points.shape != shape:
                raise DatasetError(f"{side}_points must be an array {shape} of numbers, not {_described(points)}")
            if not np.isfinite(points[visible]).all():
                raise DatasetError(f"{name}: a visible point is not finite")
            if box is not None:
                _check_box(box, name)
        if not isinstance(self.difficulty, Mapping):
            raise DatasetError(
                f"difficulty must be a mapping from names of flags to numbers, not {shown(self.difficulty)}"
            )
        for flag, value in self.difficulty.items():
            check_text("a flag of difficulty", flag)
            check_count(f"difficulty: {flag[:80]}", value, 0)


def _described(value: object) -> str:
    return f"{value.shape} {value.dtype}" if isinstance(value, np.ndarray) else shown(value)


def _check_size(size: Size, name: str) -> None:
    """Check that a size is (H, W)."""
    whole = isinstance(size, tuple) and all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in size)
    if not whole or len(size) != 2 or min(size) < 1 or max(size) > LONGEST_SIDE_OF_PHOTOS:
        raise DatasetError(
            f"{name}: its size must be two whole numbers (height, width) from 1 to {LONGEST_SIDE_OF_PHOTOS:,}, "
            f"not {shown(size)}"
        )


def _check_box(box: Box, name: str) -> None:
    """Check a box; the extent of points may lack width or height, but not both."""
    numbers = isinstance(box, tuple) and all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in box)
    if not numbers or len(box) != 4 or not all(map(math.isfinite, box)):
        raise DatasetError(f"{name}: its box must be four finite numbers, not {shown(box)}")
    left, top, right, bottom = box
    if right < left or bottom < top or (right == left and bottom == top):
        raise DatasetError(f"{name}: its box has nothing inside: left, top, right, bottom = {shown(box)}")


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Batch of B pairs, padded to the same number of points; padding is not visible."""

    source: ImageBatch
    target: ImageBatch
    source_points: Keypoints
    target_points: Keypoints
    pair_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        check_fields(self)

    def __len__(self) -> int:
        return len(self.pair_ids)
