"""Matchers: from correlations to locations in the target photos. Importing this module loads no torch.

A correlation holds the cosine similarity of each query feature to every cell of the target map.

Scores are `functional.probability_mass` at the matcher's temperature. They depend on the size of the target map: scores
of maps of different sizes cannot be compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator
from typing_extensions import override

from sd4match.arguments import check_arguments
from sd4match.checks import LARGEST_WINDOW
from sd4match.fields import PositiveNumber
from sd4match.interfaces import Matcher as Matcher
from sd4match.registry import register

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from sd4match.structures.tensors import Correlation, Matches


class CellMatcher(Matcher):
    """Base class of matchers that return cells of the target map: subclasses define `cells`.

    Scores are computed from the correlation around the returned cells; see `functional.probability_mass`.

    >>> from sd4match.testing import random_correlation
    >>> class FirstCell(CellMatcher):
    ...     kind: Literal["first_cell"] = "first_cell"
    ...
    ...     def cells(self, correlation):
    ...         return correlation.peak * 0
    >>> FirstCell()(random_correlation()).points.shape
    torch.Size([2, 3, 2])
    """

    temperature: PositiveNumber = Field(default=0.04, description="temperature of the score")

    @check_arguments
    def cells(self, correlation: Correlation) -> Float[Tensor, "batch points 2"]:
        """Return the matched cell of each query point.

        Args:
            correlation: of N query points with every target cell.

        Returns:
            (B, N, 2), (x, y) in target cells; fractional for matchers finer than the map.
        """
        raise NotImplementedError

    @check_arguments
    def __call__(self, correlation: Correlation) -> Matches:
        """Return the matches in original pixels; scores are computed when they are first read."""
        from sd4match.matching.correlation import matches_from_cells

        return matches_from_cells(self.cells(correlation), correlation, temperature=self.temperature)


@register
class NearestNeighbor(CellMatcher):
    """Cell of the largest correlation (arg-max); no finer than the map.

    >>> from sd4match.testing import random_correlation
    >>> NearestNeighbor()(random_correlation()).points.shape
    torch.Size([2, 3, 2])
    """

    kind: Literal["nearest_neighbor"] = "nearest_neighbor"

    @override
    @check_arguments
    def cells(self, correlation: Correlation) -> Float[Tensor, "batch points 2"]:
        return correlation.peak


@register
class SoftArgmax(CellMatcher):
    """Expected cell under softmax(correlation / temperature) (Eq. 4). With several peaks it lies between them.

    >>> from sd4match.testing import random_correlation
    >>> SoftArgmax(temperature=0.02)(random_correlation()).points.shape
    torch.Size([2, 3, 2])
    """

    kind: Literal["soft_argmax"] = "soft_argmax"
    temperature: PositiveNumber = Field(default=0.04, description="the correlation is divided by it")

    @override
    @check_arguments
    def cells(self, correlation: Correlation) -> Float[Tensor, "batch points 2"]:
        from sd4match.matching import functional

        return functional.mean_cell(correlation.probability(self.temperature))


@register
class KernelSoftArgmax(CellMatcher):
    """Soft arg-max of the correlation multiplied by a Gaussian around its peak (SD4Match's inference).

    Convention: suppressed cells count as a correlation of 0, not as minus infinity; see
    `functional.kernel_soft_argmax`.

    >>> from sd4match.testing import random_correlation
    >>> KernelSoftArgmax(sigma=5)(random_correlation()).points.shape
    torch.Size([2, 3, 2])
    """

    kind: Literal["kernel_soft_argmax"] = "kernel_soft_argmax"
    temperature: PositiveNumber = Field(default=0.04, description="the correlation is divided by it")
    sigma: PositiveNumber = Field(default=7.0, description="standard deviation of the Gaussian, in cells")

    @override
    @check_arguments
    def cells(self, correlation: Correlation) -> Float[Tensor, "batch points 2"]:
        from sd4match.matching import functional

        return functional.kernel_soft_argmax(
            correlation.values, temperature=self.temperature, sigma=self.sigma, peak=correlation.peak
        )


@register
class WindowSoftArgmax(CellMatcher):
    """Soft arg-max of the correlation with values outside a square around its peak set to 0 (GeoAware's inference).

    Convention: cells outside of the square keep the probability of a correlation of 0; see
    `functional.window_soft_argmax`.

    >>> from sd4match.testing import random_correlation
    >>> WindowSoftArgmax(window=5)(random_correlation()).points.shape
    torch.Size([2, 3, 2])
    """

    kind: Literal["window_soft_argmax"] = "window_soft_argmax"
    temperature: PositiveNumber = Field(default=0.02, description="the correlation is divided by it")
    window: int = Field(default=15, ge=1, le=LARGEST_WINDOW, description="side of the square in cells, odd")

    @field_validator("window")
    @classmethod
    def _odd(cls, window: int) -> int:
        if window % 2 == 0:
            raise ValueError(f"must be odd, not {window}")
        return window

    @override
    @check_arguments
    def cells(self, correlation: Correlation) -> Float[Tensor, "batch points 2"]:
        from sd4match.matching import functional

        return functional.window_soft_argmax(
            correlation.values, temperature=self.temperature, window=self.window, peak=correlation.peak
        )


@register
class BilinearNearestNeighbor(CellMatcher):
    """Arg-max of each of the four source cells around a query, averaged with the query's bilinear weights.

    >>> from sd4match.testing import random_correlation
    >>> BilinearNearestNeighbor()(random_correlation()).points.shape
    torch.Size([2, 3, 2])
    """

    kind: Literal["bilinear_nearest_neighbor"] = "bilinear_nearest_neighbor"

    @override
    @check_arguments
    def cells(self, correlation: Correlation) -> Float[Tensor, "batch points 2"]:
        from sd4match.matching import functional

        source, target = correlation.source, correlation.target
        return functional.bilinear_nearest_neighbor(
            source.values, target.values, correlation.query_cells, target_norms=target.norms, target_mask=target.mask
        )


@register
class PixelNearestNeighbor(Matcher):
    """Pixel of the model's image whose bilinearly upsampled feature has the highest cosine similarity (DIFT).

    The upsampled feature map is never materialized; see `functional.upsampled_nearest_neighbor`.

    >>> from sd4match.testing import random_correlation
    >>> PixelNearestNeighbor()(random_correlation()).points.shape
    torch.Size([2, 3, 2])
    """

    kind: Literal["pixel_nearest_neighbor"] = "pixel_nearest_neighbor"
    temperature: PositiveNumber = Field(default=0.04, description="temperature of the score")

    @check_arguments
    def __call__(self, correlation: Correlation) -> Matches:
        """Return the matches in original pixels; scores are computed when they are first read."""
        from sd4match.matching.correlation import matches_from_points, nearest_pixels

        return matches_from_points(nearest_pixels(correlation), correlation, temperature=self.temperature)


from sd4match.matching import rejection as rejection  # noqa: E402 # registers its kinds, which need the classes above
