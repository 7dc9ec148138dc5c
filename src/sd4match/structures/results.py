"""Results of matching two photos, in the original pixels of each. They are compared by identity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sd4match.structures.images import Photo


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
