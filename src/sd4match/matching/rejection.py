"""Matchers that reject some of the matches of an inner matcher.

They can be nested: `Threshold(inner=Mutual(inner=KernelSoftArgmax()), min_score=0.1)`. Importing this module loads no
torch.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny
from typing_extensions import override

from sd4match.arguments import check_arguments
from sd4match.errors import InputError
from sd4match.fields import PositiveNumber
from sd4match.interfaces import Matcher
from sd4match.matching.matchers import KernelSoftArgmax
from sd4match.registry import matchers, register

if TYPE_CHECKING:
    from jaxtyping import Bool
    from torch import Tensor, nn

    from sd4match.structures.tensors import Correlation, Matches, MatchFunction

_Inner = Annotated[SerializeAsAny[Matcher], BeforeValidator(matchers.parse)]


class RejectingMatcher(Matcher):
    """Base class of matchers that reject some matches of an inner matcher: subclasses define `accepts`.

    >>> from sd4match.testing import random_correlation
    >>> class FarApart(RejectingMatcher):
    ...     kind: Literal["far_apart"] = "far_apart"
    ...
    ...     def accepts(self, matches, correlation):
    ...         return (matches.points - correlation.query_points).norm(dim=-1) > 1e6
    >>> FarApart()(random_correlation()).valid.any()
    tensor(False)
    """

    inner: _Inner = Field(default=KernelSoftArgmax(), description="matcher whose matches are tested")

    def build(self) -> Self:
        """Return this matcher; a copy with the built inner matcher where the inner config builds another object."""
        inner = self.inner.build()
        if inner is self.inner:
            return self
        built = self.model_copy()
        built.__dict__["match"] = inner
        return built

    @cached_property
    def match(self) -> MatchFunction:
        """Inner matcher, built from the config `inner`."""
        return self.inner.build()

    @property
    def module(self) -> nn.Module | None:
        """Module of an inner matcher that learns; None if there is none."""
        from sd4match.interfaces import Learned

        return Learned("matcher", self.match).module

    def accepts(self, matches: Matches, correlation: Correlation) -> Bool[Tensor, "batch points"]:
        """Return which matches are accepted; the others get `valid = False`.

        Args:
            matches: matches of the inner matcher.
            correlation: correlation that they come from.

        Returns:
            (B, N), True where a match is accepted.
        """
        raise NotImplementedError

    @check_arguments
    def __call__(self, correlation: Correlation) -> Matches:
        """Return the inner matcher's points and scores; `valid` is False where a match is rejected."""
        from sd4match.structures.tensors import Matches

        matches = self.match(correlation)
        return Matches(matches.points, lambda: matches.scores, matches.valid & self.accepts(matches, correlation))


@register
class Threshold(RejectingMatcher):
    """Reject matches whose score is less than `min_score`.

    Convention: scores depend on the temperature and on the size of the map, so a threshold suits one resolution;
    `Calibration.threshold_for` finds one for a wanted precision.

    >>> from sd4match.testing import random_correlation
    >>> Threshold(min_score=1.0)(random_correlation()).valid.any()
    tensor(False)
    """

    kind: Literal["threshold"] = "threshold"
    min_score: float = Field(default=0.1, ge=0, le=1, description="smallest score of an accepted match")

    @override
    @check_arguments
    def accepts(self, matches: Matches, correlation: Correlation) -> Bool[Tensor, "batch points"]:
        return matches.scores >= self.min_score


@register
class Mutual(RejectingMatcher):
    """Reject matches that are no mutual nearest neighbors.

    The source cell that is most similar to the matched point must be less than a cell away from the query, in x and in
    y: one of the four cells around it.

    >>> from sd4match.testing import random_correlation
    >>> Mutual()(random_correlation()).valid.shape
    torch.Size([2, 3])
    """

    kind: Literal["mutual"] = "mutual"

    @override
    @check_arguments
    def accepts(self, matches: Matches, correlation: Correlation) -> Bool[Tensor, "batch points"]:
        back = correlation.reversed(matches.points)
        return ((back.peak - correlation.query_cells).abs() < 1).all(dim=-1)


@register
class CycleConsistent(RejectingMatcher):
    """Reject matches that do not return to the query when the inner matcher matches them back to the source photo.

    A match is accepted if its match back exists and lies within `cells` of the query, in x and in y.

    >>> from sd4match.testing import random_correlation
    >>> CycleConsistent(cells=100)(random_correlation()).valid.all()
    tensor(True)
    """

    kind: Literal["cycle"] = "cycle"
    cells: PositiveNumber = Field(default=1.5, description="largest distance to the query, in x and in y, in cells")

    @override
    @check_arguments
    def accepts(self, matches: Matches, correlation: Correlation) -> Bool[Tensor, "batch points"]:
        back = self.match(correlation.reversed(matches.points))
        away = correlation.source.grid.to_cells(back.points) - correlation.source.grid.to_cells(
            correlation.query_points
        )
        return (away.abs() <= self.cells).all(dim=-1) & back.valid


@register
class RatioTest(RejectingMatcher):
    """Reject matches that are hardly better than the best one elsewhere in the map (Lowe's ratio test, IJCV 2004).

    A match is accepted if d1 / d2 <= ratio, with the distances d = sqrt(2 - 2 cos) of the best cell and of the best one
    farther than `radius` from it. The test needs normalized features.

    >>> from sd4match.testing import random_correlation
    >>> RatioTest(ratio=1.0)(random_correlation()).valid.all()
    tensor(True)
    """

    kind: Literal["ratio"] = "ratio"
    ratio: float = Field(default=0.9, gt=0, le=1, description="largest ratio of the two distances")
    radius: PositiveNumber = Field(
        default=2.5, description="distance in x and in y within which cells count as the best one, in cells"
    )

    @check_arguments
    def accepts(self, matches: Matches, correlation: Correlation) -> Bool[Tensor, "batch points"]:
        """Return where the ratio test passes; a map without cells farther than `radius` passes.

        Args:
            matches: matches of the inner matcher.
            correlation: correlation that they come from, of normalized features.

        Returns:
            (B, N), True where a match is accepted.

        Raises:
            InputError: the features of the correlation are not normalized.
        """
        import torch

        if not correlation.normalize:
            raise InputError("the ratio test compares cosines: correlate with normalize=True")
        values = correlation.values
        (column, row), (height, width) = correlation.peak[..., None, None].unbind(2), values.shape[-2:]
        across, down = (torch.arange(size, device=values.device) for size in (width, height))
        near = ((across - column).abs() <= self.radius) & ((down[:, None] - row).abs() <= self.radius)
        best = values.flatten(2).amax(dim=-1)
        other = values.masked_fill(near, -torch.inf).flatten(2).amax(dim=-1)
        return (1 - best).clamp(min=0) <= self.ratio**2 * (1 - other)
