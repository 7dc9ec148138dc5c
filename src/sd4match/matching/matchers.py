"""Matchers: thin shells around the functional core that answer in photo pixels, with a score.

Every score is `functional.probability_mass` at the matcher's temperature.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sd4match.geometry import pixels_to_cells, to_photo
from sd4match.matching import functional
from sd4match.matching.correlation import cells_to_photo, peak_of, photo_to_cells, probability_of
from sd4match.matching.functional.sampling import full_precision
from sd4match.matching.functional.upsampled import upsampled_nearest_neighbor
from sd4match.structures.tensors import Correlation, FeatureMap, Matches


def matches_at(cells: Float[Tensor, "batch points 2"], correlation: Correlation, *, temperature: float) -> Matches:
    """Matches from target cells: for writers of matchers."""
    score = functional.mass_around(cells, probability_of(correlation, temperature=temperature))
    return Matches(cells_to_photo(cells, correlation.target), score)


class CellMatcher:
    """What matchers share that answer in cells of the target map."""

    def __init__(self, *, temperature: float) -> None:
        self.temperature = temperature

    def cells(self, correlation: Correlation) -> Float[Tensor, "batch points 2"]:
        """The matches, (x, y) in target cells."""
        raise NotImplementedError

    def places(self, correlation: Correlation) -> Float[Tensor, "batch points 2"]:
        """The matches without scores, in original pixels of the target photos."""
        return cells_to_photo(self.cells(correlation), correlation.target)

    def __call__(self, correlation: Correlation) -> Matches:
        """The matches."""
        return matches_at(self.cells(correlation), correlation, temperature=self.temperature)


class NearestNeighbor(CellMatcher):
    """The cell of the largest correlation; no finer than the map."""

    def __init__(self, *, temperature: float = 0.04) -> None:
        super().__init__(temperature=temperature)

    def cells(self, correlation: Correlation) -> Float[Tensor, "batch points 2"]:
        """By arg-max."""
        return peak_of(correlation)


class SoftArgmax(CellMatcher):
    """The mean place under the match probability; two peaks meet in the middle."""

    def __init__(self, *, temperature: float = 0.04) -> None:
        super().__init__(temperature=temperature)

    def cells(self, correlation: Correlation) -> Float[Tensor, "batch points 2"]:
        """By soft arg-max."""
        return functional.mean_cell(probability_of(correlation, temperature=self.temperature))


class KernelSoftArgmax(CellMatcher):
    """SD4Match's inference: soft arg-max of the correlation under a Gaussian around its peak."""

    def __init__(self, *, temperature: float = 0.04, sigma: float = 7.0) -> None:
        super().__init__(temperature=temperature)
        self.sigma = sigma

    def cells(self, correlation: Correlation) -> Float[Tensor, "batch points 2"]:
        """By kernel soft arg-max."""
        return functional.kernel_soft_argmax(
            correlation.values, temperature=self.temperature, sigma=self.sigma, peak=peak_of(correlation)
        )


class WindowSoftArgmax(CellMatcher):
    """GeoAware's inference: soft arg-max in a window around the peak."""

    def __init__(self, *, temperature: float = 0.02, window: int = 15) -> None:
        super().__init__(temperature=temperature)
        self.window = window

    def cells(self, correlation: Correlation) -> Float[Tensor, "batch points 2"]:
        """By window soft arg-max."""
        return functional.window_soft_argmax(
            correlation.values, temperature=self.temperature, window=self.window, peak=peak_of(correlation)
        )


class BilinearNearestNeighbor(CellMatcher):
    """Arg-max of the four cells around the query, blended; takes their correlation, or computes it."""

    reads_corners = True

    def __init__(self, *, temperature: float = 0.04) -> None:
        super().__init__(temperature=temperature)

    def cells(self, correlation: Correlation) -> Float[Tensor, "batch points 2"]:
        """By blended arg-max."""
        source, target, queries = correlation.source, correlation.target, correlation.query_cells
        if correlation.corners is None:
            return functional.bilinear_nearest_neighbor(
                source.values, target.values, queries, target_norms=target.norms
            )
        return functional.blend_corners(correlation.corners, queries, source.map_size)


class PixelNearestNeighbor:
    """DIFT's inference: arg-max over the pixels of the frame, of the cosine with features interpolated to its size."""

    def __init__(self, *, temperature: float = 0.04) -> None:
        self.temperature = temperature

    def places(self, correlation: Correlation) -> Float[Tensor, "batch points 2"]:
        """By arg-max over pixels; without scores."""
        source, target = correlation.source, correlation.target
        cells = correlation.query_cells.split([len(part.frames) for part in source.parts])
        queries = torch.cat(
            [
                functional.sample_bilinear(full_precision(part.values), own)
                for part, own in zip(source.parts, cells, strict=True)
            ]
        )
        features = [one for part in target.parts for one in part.values]
        pixels = []
        for own, one, frame in zip(queries, features, target.frames, strict=True):  # frames may differ in size
            columns, rows = _cells_of_pixels(frame.model_size, target)
            pixels.append(upsampled_nearest_neighbor(own, one, columns, rows))
        return to_photo(torch.stack(pixels), target.frames)

    def __call__(self, correlation: Correlation) -> Matches:
        """Match by arg-max over pixels."""
        points = self.places(correlation)
        probability = probability_of(correlation, temperature=self.temperature)
        return Matches(points, functional.mass_around(photo_to_cells(points, correlation.target), probability))


def _cells_of_pixels(size: tuple[int, int], features: FeatureMap) -> tuple[Tensor, Tensor]:
    """The cell of every column and of every row of pixels of a frame."""
    height, width = size
    places = torch.arange(max(size), device=features.values.device, dtype=torch.float64)
    cells = pixels_to_cells(
        places[:, None].expand(-1, 2), size, features.map_size, alignment=features.alignment,
        patch_offset=features.patch_offset,
    )  # fmt: skip
    return cells[:width, 0], cells[:height, 1]
