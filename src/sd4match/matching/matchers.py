"""Matchers: thin shells around the functional core that answer in photo pixels, with a score.

Every score is `functional.probability_mass` at the matcher's temperature.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sd4match.geometry import pixels_to_cells, to_photo
from sd4match.matching import functional
from sd4match.matching.correlation import cells_to_photo, photo_to_cells
from sd4match.matching.upsampled import upsampled_nearest_neighbor
from sd4match.types import Correlation, FeatureMap, Matches


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
        source, target = correlation.source.values, correlation.target
        cells = functional.bilinear_nearest_neighbor(
            source, target.values, correlation.query_cells, target_norms=target.norms
        )
        return matches_at(cells, correlation, temperature=self.temperature)


class PixelNearestNeighbor:
    """DIFT's inference: arg-max over the pixels of the frame, of the cosine with features interpolated to its size."""

    def __init__(self, *, temperature: float = 0.04) -> None:
        self.temperature = temperature

    def __call__(self, correlation: Correlation) -> Matches:
        """Match by arg-max over pixels."""
        target = correlation.target
        queries = functional.sample_bilinear(
            functional.full_precision(correlation.source.values), correlation.query_cells
        )
        pixels = []
        for row, frame in enumerate(target.frames):  # frames may differ in size
            columns, rows = _cells_of_pixels(frame.model_size, target)
            pixels.append(upsampled_nearest_neighbor(queries[row], target.values[row], columns, rows))
        points = to_photo(torch.stack(pixels), target.frames)
        score = functional.probability_mass(
            correlation.values, photo_to_cells(points, target), temperature=self.temperature
        )
        return Matches(points, score)


def _cells_of_pixels(size: tuple[int, int], features: FeatureMap) -> tuple[Tensor, Tensor]:
    """The cell of every column and of every row of pixels of a frame."""
    height, width = size
    places = torch.arange(max(size), device=features.values.device, dtype=torch.float64)
    cells = pixels_to_cells(
        places[:, None].expand(-1, 2), size, features.map_size, alignment=features.alignment,
        patch_offset=features.patch_offset,
    )  # fmt: skip
    return cells[:width, 0], cells[:height, 1]
