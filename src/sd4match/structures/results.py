"""Results of matching two photos, in the original pixels of each. They are compared by identity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sd4match.arguments import check_fields
from sd4match.errors import NonFiniteError, ShapeError
from sd4match.structures.images import Photo


def _check(name: str, values: npt.NDArray[np.generic], shape: tuple[int, ...]) -> None:
    """Check an array of a result.

    Raises:
        ShapeError: it is of another shape.
        NonFiniteError: a value is NaN or infinite.
    """
    if values.shape != shape:
        raise ShapeError(f"{name} must be {shape}, not {values.shape}")
    if not np.isfinite(values).all():
        raise NonFiniteError(f"{name} must be finite, and hold NaN or infinite values")


@dataclass(frozen=True, eq=False)
class MatchResult:
    """Matches between two photos, in the original pixels of each."""

    source: Photo
    target: Photo
    source_points: npt.NDArray[np.float64]
    """(N, 2), (x, y)."""
    target_points: npt.NDArray[np.float64]
    """(N, 2), (x, y)."""
    scores: npt.NDArray[np.float64]
    """(N,), in [0, 1]: the probability mass around the match."""

    def __post_init__(self) -> None:
        check_fields(self)
        count, *_ = (*self.source_points.shape, 0)
        _check("source_points", self.source_points, (count, 2))
        _check("target_points", self.target_points, (count, 2))
        _check("scores", self.scores, (count,))

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, eq=False)
class Candidates:
    """Several candidates for each point, best first."""

    source_points: npt.NDArray[np.float64]
    """(N, 2), in pixels of the source."""
    target_points: npt.NDArray[np.float64]
    """(N, K, 2), in pixels of the target."""
    scores: npt.NDArray[np.float64]
    """(N, K), in [0, 1]: the probability mass around each candidate."""

    def __post_init__(self) -> None:
        check_fields(self)
        count, each, *_ = (*self.scores.shape, 0, 0)
        _check("scores", self.scores, (count, each))
        _check("source_points", self.source_points, (count, 2))
        _check("target_points", self.target_points, (count, each, 2))


@dataclass(frozen=True, eq=False)
class DenseMatch:
    """A match for every cell of the source's feature map."""

    source_points: npt.NDArray[np.float64]
    """(h, w, 2), centers of the cells in pixels of the source."""
    target_points: npt.NDArray[np.float64]
    """(h, w, 2), in pixels of the target."""
    scores: npt.NDArray[np.float64]
    """(h, w), in [0, 1]."""
    inside: npt.NDArray[np.bool_]
    """(h, w), whether a cell lies in the source photo, not in its padding."""

    def __post_init__(self) -> None:
        check_fields(self)
        height, width, *_ = (*self.inside.shape, 0, 0)
        _check("inside", self.inside, (height, width))
        cells = (*self.inside.shape, 2)
        _check("source_points", self.source_points, cells)
        _check("target_points", self.target_points, cells)
        _check("scores", self.scores, self.inside.shape)
