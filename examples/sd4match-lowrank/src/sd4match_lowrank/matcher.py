"""A matcher that rejects doubtful answers of another one."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from sd4match.matching import Correlation, Matches, Mutual, RatioTest, RejectingMatcher
from sd4match.registry import register


@register
class MutualRatio(RejectingMatcher):
    """Keep matches that are mutual nearest neighbors and clearly better than any other place."""

    kind: Literal["mutual_ratio"] = "mutual_ratio"
    ratio: float = Field(default=0.95, gt=0, le=1, description="largest ratio of the two best distances")

    def accepts(self, matches: Matches, correlation: Correlation) -> Tensor:
        """Return which matches (B, N) are kept."""
        is_mutual: Tensor = Mutual().accepts(matches, correlation)
        return is_mutual & RatioTest(ratio=self.ratio).accepts(matches, correlation)
