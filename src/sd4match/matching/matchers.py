"""Matchers: from correlations to locations in the target photos. Importing this module loads no torch.

Every score is `functional.probability_mass` at the matcher's temperature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

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
    """Base class of matchers that return cells of the target map: subclasses define `cells`."""

    temperature: PositiveNumber = Field(default=0.04, description="temperature of the score")

    @check_arguments
    def cells(self, correlation: Correlation) -> Float[Tensor, "batch points 2"]:
        """Return the matches (B, N, 2), (x, y) in target cells."""
        raise NotImplementedError

    @check_arguments
    def __call__(self, correlation: Correlation) -> Matches:
        """Return the matches in original pixels; scores are computed when they are first read."""
        from sd4match.matching.correlation import matches_from_cells

        return matches_from_cells(self.cells(correlation), correlation, temperature=self.temperature)


@register
class NearestNeighbor(CellMatcher):
    """Cell of the largest correlation (arg-max); no finer than the map."""

    kind: Literal["nearest_neighbor"] = "nearest_neighbor"

    @check_arguments
    def cells(self, correlation: Correlation) -> Float[Tensor, "batch points 2"]:
        """Return the arg-max."""
        return correlation.peak


@register
class SoftArgmax(CellMatcher):
    """Mean cell under the match probability; two peaks are averaged."""

    kind: Literal["soft_argmax"] = "soft_argmax"
    temperature: PositiveNumber = Field(default=0.04, description="the correlation is divided by it")

    @check_arguments
    def cells(self, correlation: Correlation) -> Float[Tensor, "batch points 2"]:
        """Return the soft arg-max."""
        from sd4match.matching import functional

        return functional.mean_cell(correlation.probability(self.temperature))


@register
class KernelSoftArgmax(CellMatcher):
    """Soft arg-max of the correlation under a Gaussian around its peak (SD4Match's inference)."""

    kind: Literal["kernel_soft_argmax"] = "kernel_soft_argmax"
    temperature: PositiveNumber = Field(default=0.04, description="the correlation is divided by it")
    sigma: PositiveNumber = Field(default=7.0, description="standard deviation of the Gaussian, in cells")

    @check_arguments
    def cells(self, correlation: Correlation) -> Float[Tensor, "batch points 2"]:
        """Return the soft arg-max under the Gaussian."""
        from sd4match.matching import functional

        return functional.kernel_soft_argmax(
            correlation.values, temperature=self.temperature, sigma=self.sigma, peak=correlation.peak
        )


@register
class WindowSoftArgmax(CellMatcher):
    """Soft arg-max of the correlation set to 0 outside a square around its peak (GeoAware's inference)."""

    kind: Literal["window_soft_argmax"] = "window_soft_argmax"
    temperature: PositiveNumber = Field(default=0.02, description="the correlation is divided by it")
    window: int = Field(default=15, ge=1, le=LARGEST_WINDOW, description="side of the square in cells, odd")

    @field_validator("window")
    @classmethod
    def _odd(cls, window: int) -> int:
        if window % 2 == 0:
            raise ValueError(f"must be odd, not {window}")
        return window

    @check_arguments
    def cells(self, correlation: Correlation) -> Float[Tensor, "batch points 2"]:
        """Return the soft arg-max inside the window."""
        from sd4match.matching import functional

        return functional.window_soft_argmax(
            correlation.values, temperature=self.temperature, window=self.window, peak=correlation.peak
        )


@register
class BilinearNearestNeighbor(CellMatcher):
    """Arg-max of each of the four source cells around a query, blended with the query's bilinear weights."""

    kind: Literal["bilinear_nearest_neighbor"] = "bilinear_nearest_neighbor"

    @check_arguments
    def cells(self, correlation: Correlation) -> Float[Tensor, "batch points 2"]:
        """Return the blended arg-max."""
        from sd4match.matching import functional

        source, target = correlation.source, correlation.target
        return functional.bilinear_nearest_neighbor(
            source.values, target.values, correlation.query_cells, target_norms=target.norms, target_mask=target.mask
        )


@register
class PixelNearestNeighbor(Matcher):
    """Arg-max over the pixels of the model's image, of the cosine with features interpolated to its size (DIFT).

    Features are not interpolated: the result is exact, see `functional.upsampled_nearest_neighbor`.
    """

    kind: Literal["pixel_nearest_neighbor"] = "pixel_nearest_neighbor"
    temperature: PositiveNumber = Field(default=0.04, description="temperature of the score")

    @check_arguments
    def __call__(self, correlation: Correlation) -> Matches:
        """Return the matches in original pixels; scores are computed when they are first read."""
        from sd4match.matching.correlation import matches_from_points, nearest_pixels

        return matches_from_points(nearest_pixels(correlation), correlation, temperature=self.temperature)


from sd4match.matching import rejection as rejection  # noqa: E402 # registers its kinds, which need the classes above
