"""Semantic matcher with the interface of vismatch (image-matching-models).

vismatch's matchers take two images and return matched keypoints. Its homographies, drawing functions and command line
can thus be used with a semantic matcher.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sd4match.arguments import check_arguments
from sd4match.checks import check_count, check_number
from sd4match.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from sd4match.pipeline import SemanticMatcher

_Points = npt.NDArray[np.float64]


@check_arguments
def as_vismatch(
    matcher: SemanticMatcher,
    *,
    category: str | tuple[str, str] | None = None,
    grid: int = 32,
    mutual: bool = True,
    min_score: float = 0.0,
    **options: float,
) -> Any:
    """Return a `vismatch.base_matcher.BaseMatcher` that matches a grid of points semantically.

    Args:
        matcher: any.
        category: as in `SemanticMatcher.match`.
        grid: number of points per side of the grid that is matched, in [1, 1000].
        mutual: whether to return only points whose match, matched back, is near them.
        min_score: smallest score of returned matches, in [0, 1].
        options: options of `BaseMatcher`, for example ransac_reproj_thresh.

    Raises:
        InputError: vismatch is not installed, or an argument is out of range.

    >>> vismatcher = as_vismatch(matcher, grid=16)  # doctest: +SKIP
    >>> vismatcher("cat.jpg", "other_cat.jpg")["matched_kpts0"]  # doctest: +SKIP
    """
    check_count("grid", grid, 1, 1000)
    check_number("min_score", min_score, 0.0, 1.0)
    try:
        from vismatch.base_matcher import BaseMatcher
    except ImportError:
        raise InputError("as_vismatch needs vismatch: pip install vismatch") from None

    class SemanticVismatch(BaseMatcher):  # type: ignore[misc]
        """vismatch's interface around a `SemanticMatcher`."""

        def __init__(self) -> None:
            super().__init__(str(matcher.device), **options)

        @property
        def name(self) -> str:
            return "sd4match"

        def _forward(
            self, img0: Tensor, img1: Tensor
        ) -> tuple[_Points, _Points, _Points, _Points, None, None, _Points]:
            """Return matched and all keypoints of two images (3, H, W) in [0, 1], no descriptors, and confidences."""
            result = matcher.match(
                img0.clamp(0, 1), img1.clamp(0, 1), category=category, mutual=mutual, grid=grid
            ).filter(min_score=min_score)
            start, end = result.source_points, result.target_points
            return start, end, start, end, None, None, result.scores

    return SemanticVismatch()
