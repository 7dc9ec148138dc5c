"""From two feature maps and points in photo pixels to a `Correlation`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sd4match import geometry
from sd4match.matching import functional
from sd4match.structures.tensors import Correlation, FeatureMap

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
    corners: bool = False,
) -> Correlation:
    """Correlate points of the source photos with every cell of the target maps (Eq. 3).

    Args:
        source: B maps.
        target: B maps.
        query_points: (B, N, 2), (x, y) in original pixels of the source photos.
        query_mode: "bilinear" (SD4Match), "floor" (SD+DINO, GeoAware) or "pixel" (DIFT).
        normalize: L2-normalise features.
        corners: match the four source cells around each query too.

    Returns:
        Values (B, N, h, w), the queries and both maps.
    """
    cells = query_cells(query_points.to(source.parts[0].values), source, mode=query_mode)
    parts = [_correlated(*part, normalize=normalize, corners=corners) for part in _parts(source, target, cells)]
    values, around = zip(*parts, strict=True)
    return Correlation(_together(values), query_points, cells, source, target, _together(around) if corners else None)


def _parts(source: FeatureMap, target: FeatureMap, cells: Tensor) -> Iterator[tuple[FeatureMap, FeatureMap, Tensor]]:
    """What can be correlated without bringing maps together that lie apart."""
    sizes = [[len(part.frames) for part in maps.parts] for maps in (source, target)]
    if sizes[0] == sizes[1]:
        yield from zip(source.parts, target.parts, cells.split(sizes[0]), strict=True)
    else:
        yield source, target, cells


def _correlated(
    source: FeatureMap, target: FeatureMap, cells: Tensor, *, normalize: bool, corners: bool
) -> tuple[Tensor, Tensor]:
    """Values and, if they are wanted, corners; the values twice otherwise."""
    correlate = functional.correlate_with_corners if corners else functional.correlate
    norms = target.norms if normalize else None
    found = correlate(source.values, target.values, cells, normalize=normalize, target_norms=norms)
    return found if isinstance(found, tuple) else (found, found)


def _together(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def peak_of(correlation: Correlation) -> Float[Tensor, "batch points 2"]:
    """`functional.nearest_neighbor`, computed once for all matchers of a correlation."""
    if "peak" not in correlation.shared:
        correlation.shared["peak"] = functional.nearest_neighbor(correlation.values)
    return correlation.shared["peak"]


def probability_of(correlation: Correlation, *, temperature: float) -> Float[Tensor, "batch points h w"]:
    """`functional.match_probability`, computed once for all matchers of a correlation."""
    if temperature not in correlation.shared:
        correlation.shared[temperature] = functional.match_probability(correlation.values, temperature=temperature)
    return correlation.shared[temperature]


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
