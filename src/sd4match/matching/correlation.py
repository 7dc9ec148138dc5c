"""Conversion of the cells or points that a matcher finds into `Matches`."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sd4match.arguments import check_arguments
from sd4match.checks import check_positive, check_shape
from sd4match.geometry import Size, pixels_to_cells, to_photo
from sd4match.matching import functional
from sd4match.structures.tensors import Correlation as Correlation
from sd4match.structures.tensors import FeatureMap
from sd4match.structures.tensors import Matches as Matches
from sd4match.structures.tensors import correlate_maps as correlate_maps


@check_arguments
def matches_from_cells(
    cells: Float[Tensor, "batch points 2"], correlation: Correlation, *, temperature: float
) -> Matches:
    """Return matches in original pixels from target cells, for authors of matchers.

    Scores are computed when they are first read; see `functional.probability_mass`.

    Args:
        cells: (B, N, 2), (x, y) in target cells.
        correlation: correlation that the matches come from.
        temperature: divisor of the correlation in the scores, > 0.

    Returns:
        Points (B, N, 2) in original pixels of the target photos, and their scores.

    Raises:
        ShapeError: there is not one cell for each query point.
        InputError: an argument is of another type, or the temperature is not positive.

    >>> from sd4match.testing import random_correlation
    >>> correlation = random_correlation()
    >>> matches_from_cells(correlation.peak, correlation, temperature=0.04).scores.shape
    torch.Size([2, 3])
    """
    _check_answers("cells", cells, correlation, temperature)

    def scores() -> Tensor:
        return functional.mass_around(cells, correlation.probability(temperature))

    return Matches(correlation.target.grid.to_pixels(cells), scores)


@check_arguments
def matches_from_points(
    points: Float[Tensor, "batch points 2"], correlation: Correlation, *, temperature: float
) -> Matches:
    """Return matches from points in original pixels of the target photos, for authors of matchers.

    Scores are computed when they are first read; see `functional.probability_mass`.

    Args:
        points: (B, N, 2), (x, y) in original pixels of the target photos.
        correlation: correlation that the matches come from.
        temperature: divisor of the correlation in the scores, > 0.

    Returns:
        The points, and their scores.

    Raises:
        ShapeError: there is not one point for each query point.
        InputError: an argument is of another type, or the temperature is not positive.

    >>> from sd4match.testing import random_correlation
    >>> correlation = random_correlation()
    >>> matches_from_points(correlation.query_points, correlation, temperature=0.04).points is correlation.query_points
    True
    """
    _check_answers("points", points, correlation, temperature)

    def scores() -> Tensor:
        cells = correlation.target.grid.to_cells(points)
        return functional.mass_around(cells, correlation.probability(temperature))

    return Matches(points, scores)


def _check_answers(name: str, values: Tensor, correlation: Correlation, temperature: float) -> None:
    batch, points, _ = correlation.query_points.shape
    check_shape(name, values, "B N 2", of="floats", B=batch, N=points)
    check_positive("temperature", temperature)


def nearest_pixels(correlation: Correlation) -> Float[Tensor, "batch points 2"]:
    """Return the pixel of the model's image, in original pixels, whose interpolated feature is most similar.

    Args:
        correlation: correlation whose maps are compared; its values are not used.

    Returns:
        (B, N, 2), (x, y) in original pixels of the target photos.
    """
    source, target = correlation.source, correlation.target
    queries = functional.sample_bilinear(functional.full_precision(source.values), correlation.query_cells)
    found = []
    masks = [None] * len(target) if target.mask is None else target.mask
    for query, features, frame, mask in zip(queries, target.values, target.grid.frames, masks, strict=True):
        columns, rows = _cells_of_pixels(frame.model_size, target)
        found.append(functional.upsampled_nearest_neighbor(query, features, columns, rows, mask=mask))
    return to_photo(torch.stack(found), target.grid.frames)


def _cells_of_pixels(size: Size, features: FeatureMap) -> tuple[Tensor, Tensor]:
    """Return the (fractional) cell of every column (W,) and of every row (H,) of pixels of the model's image."""
    height, width = size
    index = torch.arange(max(size), device=features.values.device, dtype=torch.float64)
    grid = features.grid
    cells = pixels_to_cells(index[:, None].expand(-1, 2), size, grid.size, alignment=grid.alignment, offset=grid.offset)
    return cells[:width, 0], cells[:height, 1]
