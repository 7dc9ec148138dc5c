"""Semantic matcher with the interface of transformers' pipeline "keypoint-matching"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sd4match.arguments import check_arguments
from sd4match.checks import check_number
from sd4match.errors import InputError, shown

if TYPE_CHECKING:
    from sd4match.pipeline import SemanticMatcher


@check_arguments
def as_pipeline(
    matcher: SemanticMatcher,
    *,
    category: str | tuple[str, str] | None = None,
    grid: int = 16,
    mutual: bool = False,
    batch_size: int = 8,
) -> Callable[..., list[Any]]:
    """Return a function with the interface of `transformers.pipeline("keypoint-matching")`.

    Its arguments are `inputs`, a pair of images or a list of pairs, and `threshold`, the smallest score. The result is
    a list of {"keypoint_image_0": {"x", "y"}, "keypoint_image_1": {"x", "y"}, "score"} for a pair, best first, or a
    list of such lists. For a list of one pair it is the list of that pair, as in the pipeline. `timeout` has no effect,
    since photos are not downloaded from URLs.

    Args:
        matcher: any.
        category: as in `SemanticMatcher.match`.
        grid: number of points per side of the grid that is matched.
        mutual: as in `SemanticMatcher.match`.
        batch_size: as in `SemanticMatcher.match_pairs`.

    >>> import numpy as np
    >>> from sd4match import SemanticMatcher
    >>> match = as_pipeline(SemanticMatcher.from_preset("mini-empty"), grid=1)
    >>> photo = np.zeros((60, 90, 3), dtype=np.uint8); photo[20:40, 30:50] = 255
    >>> match([photo, photo])[0]["keypoint_image_0"]
    {'x': 44.5, 'y': 29.5}
    """

    def match(inputs: Any, threshold: float = 0.0, *, timeout: float | None = None) -> list[Any]:
        check_number("threshold", threshold, 0.0, 1.0)
        if isinstance(inputs, (str, bytes)) or not isinstance(inputs, Sequence) or not inputs:
            raise InputError(f"inputs must be a pair of images, or a list of pairs, not {shown(inputs)}")
        is_pair = len(inputs) == 2 and not any(isinstance(image, (list, tuple)) for image in inputs)
        pairs: Any = [inputs] if is_pair else inputs
        results = matcher.match_pairs(pairs, category=category, grid=grid, mutual=mutual, batch_size=batch_size)
        found = [result.filter(min_score=threshold).as_dicts() for result in results]
        return found[0] if len(found) == 1 else found

    return match
