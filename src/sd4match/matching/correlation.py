"""From two feature maps and points in photo pixels to a `Correlation`."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from sd4match import geometry
from sd4match.matching import functional
from sd4match.types import Correlation, FeatureMap

QueryMode = Literal["bilinear", "floor", "pixel"]
"""How the source feature of a point is read: between cells; from the cell whose area holds the point; or between cells
at the whole pixel, rounded down, of the frame."""


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
        query_mode: "bilinear" (SD4Match), "floor" (SD+DINO, GeoAware) or "pixel" (DIFT).
        normalize: L2-normalise features.

    Returns:
        Values (B, N, h, w), the queries and both maps.
    """
    cells = query_cells(query_points.to(source.values), source, mode=query_mode)
    norms = target.norms if normalize else None
    values = functional.correlate(source.values, target.values, cells, normalize=normalize, target_norms=norms)
    return Correlation(values, query_points, cells, source, target)


def query_cells(
    points: Float[Tensor, "batch points 2"], features: FeatureMap, *, mode: QueryMode
) -> Float[Tensor, "batch points 2"]:
    """Where a map is read for points in photo pixels."""
    if mode == "floor":
        return geometry.photo_to_cells(
            points, features.frames, features.map_size, alignment="patch", patch_offset=0.0
        ).floor()
    if mode == "pixel":
        whole = geometry.to_model(points, features.frames).floor()
        points = geometry.to_photo(whole, features.frames)
    return photo_to_cells(points, features)


def photo_to_cells(points: Float[Tensor, "batch points 2"], features: FeatureMap) -> Float[Tensor, "batch points 2"]:
    """Photo pixels to cells of a feature map, each image by its frame."""
    return geometry.photo_to_cells(
        points, features.frames, features.map_size, alignment=features.alignment, patch_offset=features.patch_offset
    )


def cells_to_photo(cells: Float[Tensor, "batch points 2"], features: FeatureMap) -> Float[Tensor, "batch points 2"]:
    """Cells of a feature map to photo pixels, each image by its frame."""
    return geometry.cells_to_photo(
        cells, features.frames, features.map_size, alignment=features.alignment, patch_offset=features.patch_offset
    )
