"""From two feature maps and points in photo pixels to a `Correlation`."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from sd4match.geometry import cells_to_pixels, pixels_to_cells, to_model, to_photo
from sd4match.matching import functional
from sd4match.types import Correlation, FeatureMap

QueryMode = Literal["bilinear", "floor"]
"""How the source feature of a point is read: between cells, or from the cell that holds the point."""


def correlate_maps(
    source: FeatureMap,
    target: FeatureMap,
    query_points: Float[Tensor, "batch points 2"],
    *,
    query_mode: QueryMode = "bilinear",
    normalize: bool = True,
) -> Correlation:
    """Correlate points of the source photos with every cell of the target maps (Eq. 3).

    Args:
        source: B maps.
        target: B maps.
        query_points: (B, N, 2), (x, y) in original pixels of the source photos.
        query_mode: "bilinear" (SD4Match) or "floor".
        normalize: L2-normalise features.

    Returns:
        Values (B, N, h, w), the queries and both maps.
    """
    cells = photo_to_cells(query_points.to(source.values), source)
    if query_mode == "floor":
        cells = cells.floor()
    values = functional.correlate(source.values, target.values, cells, normalize=normalize)
    return Correlation(values, query_points, source, target)


def photo_to_cells(points: Float[Tensor, "batch points 2"], features: FeatureMap) -> Float[Tensor, "batch points 2"]:
    """Photo pixels to cells of a feature map, each image by its frame."""
    size = features.frames[0].model_size
    return pixels_to_cells(to_model(points, features.frames), size, features.map_size, alignment=features.alignment)


def cells_to_photo(cells: Float[Tensor, "batch points 2"], features: FeatureMap) -> Float[Tensor, "batch points 2"]:
    """Cells of a feature map to photo pixels, each image by its frame."""
    size = features.frames[0].model_size
    pixels = cells_to_pixels(cells, size, features.map_size, alignment=features.alignment)
    return to_photo(pixels, features.frames)
