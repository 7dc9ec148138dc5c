"""Pairs of photos with corresponding points. Structures that hold arrays are compared by identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from sd4match.geometry import Size
from sd4match.structures.images import ImageBatch
from sd4match.structures.tensors import Keypoints

Box = tuple[float, float, float, float]
"""(left, top, right, bottom) in pixels."""

Reference = Literal["box", "photo"]
"""Whether alpha is a fraction of the longer side of the target's box, or of its photo."""


@dataclass(frozen=True, kw_only=True)
class PairKey:
    """What is known of a pair before its annotation is read."""

    pair_id: str
    source_id: str
    target_id: str
    category: str | None = None
    """Category of the source, under which the pair is counted."""
    target_category: str | None = None
    """Category of the target, if it is another one."""

    @property
    def sides(self) -> tuple[tuple[str, str | None], tuple[str, str | None]]:
        """(photo id, category) of source and target."""
        return (self.source_id, self.category), (self.target_id, self.target_category or self.category)


@dataclass(frozen=True, kw_only=True, eq=False)
class PairRecord(PairKey):
    """One annotated pair, without its pixels. Points and boxes are in original pixels."""

    source_size: Size
    """(H, W) of the photo in its stored frame, which is the one of the annotations."""
    target_size: Size
    source_points: npt.NDArray[np.float64]
    """(N, 2), (x, y)."""
    target_points: npt.NDArray[np.float64]
    visible: npt.NDArray[np.bool_]
    """(N,), whether a point is visible in both photos. Coordinates of other points have no meaning."""
    source_box: Box | None = None
    target_box: Box | None = None
    difficulty: Mapping[str, int] = field(default_factory=dict)
    """Flags of the data set, for example SPair-71k's viewpoint_variation: 0, 1 or 2."""

    # Arrays have no truth value for `==`, so records are compared by identity, unlike their keys.
    __eq__ = object.__eq__
    __hash__ = object.__hash__


@dataclass(frozen=True, eq=False)
class PairBatch:
    """B pairs, padded to the same number of points; padding is not visible."""

    source: ImageBatch
    target: ImageBatch
    source_points: Keypoints
    target_points: Keypoints
    pair_ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pair_ids)
