"""From two feature maps and points in photo pixels to a `Correlation`, and from cells back to `Matches`."""

from __future__ import annotations

import torch
from jaxtyping import Float, Real
from torch import Tensor

from sd4match.arguments import check_arguments
from sd4match.checks import check_positive, check_shape
from sd4match.geometry import QueryMode, Size, pixels_to_cells, to_photo
from sd4match.matching import functional
from sd4match.structures.tensors import Correlation as Correlation
from sd4match.structures.tensors import FeatureMap, query_cells
from sd4match.structures.tensors import Matches as Matches


@check_arguments
def correlate_maps(
    source: FeatureMap,
    target: FeatureMap,
    query_points: Real[Tensor, "batch points 2"],
    *,
    query_mode: QueryMode = "bilinear",
    normalize: bool = True,
) -> Correlation:
    """Correlate points of the source photos with every cell of the target maps (Eq. 3).

    Args:
        source: B maps.
        target: B maps.
        query_points: (B, N, 2), (x, y) in original pixels of the source photos.
        query_mode: "bilinear" (SD4Match), "floor" (SD+DINO, GeoAware) or "pixel" (DIFT); see `Grid.query_cells`.
        normalize: divide features by their L2 norm.

    Returns:
        Values (B, N, h, w), the queries and both maps.

    Raises:
        ShapeError: the two maps differ in B or C, or the queries in B.
        InputError: one is of another type, or an unknown query mode.
    """
    cells = query_cells(source, query_points, query_mode)
    norms = target.norms if normalize else None
    values = functional.correlate(source.values, target.values, cells, normalize=normalize, target_norms=norms)
    return Correlation(values, query_points, source, target, query_mode)


@check_arguments
def matches_from_cells(
    cells: Float[Tensor, "batch points 2"], correlation: Correlation, *, temperature: float
) -> Matches:
    """Return matches in original pixels from target cells, for authors of matchers.

    Args:
        cells: (B, N, 2), (x, y) in target cells.
        correlation: that the matches come from.
        temperature: of the scores, see `functional.probability_mass`; they are computed when they are first read.

    Raises:
        ShapeError: there is not one cell for each query point.
        InputError: an argument is of another type, or the temperature is not positive.
    """
    _check_answers("cells", cells, correlation, temperature)

    def scores() -> Tensor:
        return functional.mass_around(cells, correlation.probability(temperature))

    return Matches(correlation.target.grid.to_pixels(cells), scores)


@check_arguments
def matches_from_points(
    points: Float[Tensor, "batch points 2"], correlation: Correlation, *, temperature: float
) -> Matches:
    """Return matches from points in original pixels of the target photos; otherwise as `matches_from_cells`."""
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

    Returns:
        (B, N, 2), (x, y) in original pixels of the target photos.
    """
    source, target = correlation.source, correlation.target
    queries = functional.sample_bilinear(functional.full_precision(source.values), correlation.query_cells)
    found = []
    for query, features, frame in zip(queries, target.values, target.grid.frames, strict=True):  # sizes may differ
        columns, rows = _cells_of_pixels(frame.model_size, target)
        found.append(functional.upsampled_nearest_neighbor(query, features, columns, rows))
    return to_photo(torch.stack(found), target.grid.frames)


def _cells_of_pixels(size: Size, features: FeatureMap) -> tuple[Tensor, Tensor]:
    """Return the (fractional) cell of every column (W,) and of every row (H,) of pixels of the model's image."""
    height, width = size
    index = torch.arange(max(size), device=features.values.device, dtype=torch.float64)
    grid = features.grid
    cells = pixels_to_cells(index[:, None].expand(-1, 2), size, grid.size, alignment=grid.alignment, offset=grid.offset)
    return cells[:width, 0], cells[:height, 1]
