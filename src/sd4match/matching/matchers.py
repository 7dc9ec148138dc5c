"""Matchers: thin shells around the functional core that answer in photo pixels, with a score.

Every score is `functional.probability_mass` at the matcher's temperature.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from sd4match.matching import functional
from sd4match.matching.correlation import cells_to_photo, photo_to_cells
from sd4match.types import Correlation, Matches


def matches_at(cells: Float[Tensor, "batch points 2"], correlation: Correlation, *, temperature: float) -> Matches:
    """Matches from target cells: for writers of matchers."""
    score = functional.probability_mass(correlation.values, cells, temperature=temperature)
    return Matches(cells_to_photo(cells, correlation.target), score)


class NearestNeighbor:
    """The cell of the largest correlation; no finer than the map."""

    def __init__(self, *, temperature: float = 0.04) -> None:
        self.temperature = temperature

    def __call__(self, correlation: Correlation) -> Matches:
        """Match by arg-max."""
        cells = functional.nearest_neighbor(correlation.values)
        return matches_at(cells, correlation, temperature=self.temperature)


class SoftArgmax:
    """The mean place under the match probability; two peaks meet in the middle."""

    def __init__(self, *, temperature: float = 0.04) -> None:
        self.temperature = temperature

    def __call__(self, correlation: Correlation) -> Matches:
        """Match by soft arg-max."""
        cells = functional.soft_argmax(correlation.values, temperature=self.temperature)
        return matches_at(cells, correlation, temperature=self.temperature)


class KernelSoftArgmax:
    """SD4Match's inference: soft arg-max of the correlation under a Gaussian around its peak."""

    def __init__(self, *, temperature: float = 0.04, sigma: float = 7.0) -> None:
        self.temperature = temperature
        self.sigma = sigma

    def __call__(self, correlation: Correlation) -> Matches:
        """Match by kernel soft arg-max."""
        cells = functional.kernel_soft_argmax(correlation.values, temperature=self.temperature, sigma=self.sigma)
        return matches_at(cells, correlation, temperature=self.temperature)


class WindowSoftArgmax:
    """GeoAware's inference: soft arg-max in a window around the peak."""

    def __init__(self, *, temperature: float = 0.02, window: int = 15) -> None:
        self.temperature = temperature
        self.window = window

    def __call__(self, correlation: Correlation) -> Matches:
        """Match by window soft arg-max."""
        cells = functional.window_soft_argmax(correlation.values, temperature=self.temperature, window=self.window)
        return matches_at(cells, correlation, temperature=self.temperature)


class BilinearNearestNeighbor:
    """Arg-max of the four cells around the query, blended; needs the features, not only the correlation."""

    def __init__(self, *, temperature: float = 0.04) -> None:
        self.temperature = temperature

    def __call__(self, correlation: Correlation) -> Matches:
        """Match by blended arg-max."""
        source, target = correlation.source, correlation.target
        queries = photo_to_cells(correlation.query_points.to(source.values), source)
        cells = functional.bilinear_nearest_neighbor(source.values, target.values, queries)
        return matches_at(cells, correlation, temperature=self.temperature)
