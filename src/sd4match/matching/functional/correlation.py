"""Correlation of query points with the cells of a target map (Eq. 3).

Letters: B pairs, N points, C channels, (h, w) cells. Cells are (x, y) in [0, w - 1] x [0, h - 1], cell centers at whole
numbers. Half-precision input is computed and returned in float32. Equations are those of arXiv 2310.17569.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Real
from torch import Tensor

from sd4match.checks import check_flag, check_same_device, check_shape
from sd4match.errors import InputError, ShapeError
from sd4match.matching.functional.sampling import full_precision, sample_bilinear
from sd4match.norms import in_range, unit_vectors


def correlate(
    source_features: Float[Tensor, "batch channels h w"],
    target_features: Float[Tensor, "batch channels h2 w2"],
    query_cells: Real[Tensor, "batch points 2"],
    *,
    normalize: bool = True,
    target_norms: Float[Tensor, "batch h2 w2"] | None = None,
) -> Float[Tensor, "batch points h2 w2"]:
    """Compute the similarity of the source feature at each query to every target cell (Eq. 3): a cosine, if normalized.

    The query feature is sampled bilinearly between the four cells around it, then L2-normalized. The products
    are divided by the norms of the target's cells, which equals normalizing the map and takes less memory.

    Args:
        source_features: (B, C, h, w).
        target_features: (B, C, h', w').
        query_cells: (B, N, 2), (x, y) in source cells. A query outside the map is clamped to its border. A query of
            which a coordinate is not finite means cell (0, 0): such a point is padding, and must not spoil the gradient
            of the others.
        normalize: divide both sides by their L2 norm, whatever its magnitude. A cell or a query whose channels are all
            exactly 0 has a cosine of 0 with everything.
        target_norms: (B, h', w'), L2 norms of the target's cells, if they are known.

    Returns:
        (B, N, h', w'), in the higher precision of the two maps, float32 or float64.

    Raises:
        ShapeError: the two maps differ in B or C, the queries in B, or the norms are not those of the target's cells.
        InputError: maps of integers or booleans, norms that are negative or NaN, or tensors on several devices.

    >>> features = torch.eye(4).reshape(1, 4, 2, 2)
    >>> correlate(features, features, torch.tensor([[[1.0, 0.0]]])).flatten().tolist()
    [0.0, 1.0, 0.0, 0.0]
    """
    check_flag("normalize", normalize)
    source_features, target_features = checked_maps(source_features, target_features, query_cells, target_norms)
    queries = sample_bilinear(source_features, query_cells)
    if normalize:
        queries = unit_vectors(queries, dim=-1)
    return similarities(queries, target_features, normalize=normalize, target_norms=target_norms)


def similarities(cells: Tensor, target_features: Tensor, *, normalize: bool, target_norms: Tensor | None) -> Tensor:
    """Return products (B, N, h, w) of vectors (B, N, C) with every cell of (B, C, h, w), divided by its norm."""
    norms: Tensor | None = None
    if normalize:
        known = None if target_norms is None else target_norms[:, None]
        target_features, norms = in_range(target_features, 1, known)
        if known is not None and norms is not known and bool((~(known >= 0) & norms.isfinite()).any()):
            raise InputError("target_norms must be the L2 norms of the target's cells, not negative or NaN")
    values: Tensor = torch.bmm(cells, target_features.flatten(2)).unflatten(2, target_features.shape[2:])
    return values if norms is None else values / norms


def checked_maps(
    source_features: Tensor, target_features: Tensor, query_cells: Tensor, target_norms: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return both maps in the higher precision of the two, float32 or float64.

    Raises:
        ShapeError: maps, queries and norms do not go together.
        InputError: one is of another data type or on another device.
    """
    source = check_shape("source_features", source_features, "B C h w", of="floats")
    target = check_shape("target_features", target_features, "B C h w", of="floats")
    if source["B"] != target["B"] or source["C"] != target["C"]:
        raise ShapeError(
            "expected source_features (B, C, h, w) and target_features (B, C, h', w') of the same B and C, got "
            f"{tuple(source_features.shape)} and {tuple(target_features.shape)}"
        )
    check_shape("query_cells", query_cells, "B N 2", of="numbers", B=source["B"])
    tensors = {"source_features": source_features, "target_features": target_features, "query_cells": query_cells}
    if target_norms is not None:
        check_shape("target_norms", target_norms, "B h w", of="floats", B=target["B"], h=target["h"], w=target["w"])
        tensors["target_norms"] = target_norms
    check_same_device(**tensors)
    source_features, target_features = full_precision(source_features), full_precision(target_features)
    if source_features.dtype != target_features.dtype:
        return source_features.double(), target_features.double()
    return source_features, target_features
