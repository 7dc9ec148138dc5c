"""A semantic matcher in the interface of vismatch (image-matching-models), which has none of its own.

vismatch's matchers take two images and return matched key points; homographies, drawing and its command line follow.
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
        grid: points a side of the grid that is matched.
        mutual: keep only points whose match, matched back, comes near them.
        min_score: least score of a match that is kept.
        options: of `BaseMatcher`, for example ransac_reproj_thresh.

    Raises:
        InputError: vismatch is not installed.
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
            """Match two images (3, H, W) in [0, 1]: matched and all key points, no descriptors, and confidences."""
            result = matcher.match(
                img0.clamp(0, 1), img1.clamp(0, 1), category=category, mutual=mutual, grid=grid
            ).filter(min_score=min_score)
            start, end = result.source_points, result.target_points
            return start, end, start, end, None, None, result.scores

    return SemanticVismatch()
