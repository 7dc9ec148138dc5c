"""Arg-max over pixels as if the target's features had been interpolated, without interpolating them.

DIFT upsamples a map of 1280 channels to the photo, which costs gigabytes. Only the cosine of a query q with every
interpolated feature F(p) = sum_k w_k f_k is needed, the sum over the four cells around pixel p. Numerator and
denominator follow from the cells: q . F(p) is the interpolated correlation, and |F(p)|^2 = sum_kl w_k w_l f_k . f_l
needs only the products of neighboring cells. The result is exact, not an approximation.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from sd4match.checks import check_same_device, check_shape
from sd4match.errors import InputError
from sd4match.matching.functional.argmax import cells_of_index
from sd4match.matching.functional.sampling import full_precision
from sd4match.norms import unit_vectors

_POINTS_AT_ONCE = 8
_SMALLEST_NORM, _LARGEST_NORM = 1e-12, 1e18


def upsampled_nearest_neighbor(
    queries: Float[Tensor, "points channels"],
    target_features: Float[Tensor, "channels h w"],
    columns: Float[Tensor, " width"],
    rows: Float[Tensor, " height"],
    *,
    mask: Bool[Tensor, "h w"] | None = None,
) -> Float[Tensor, "points 2"]:
    """Find the pixel whose bilinearly interpolated feature has the largest cosine with each query.

    Args:
        queries: (N, C).
        target_features: (C, h, w) of one image.
        columns: (W,), fractional cell x of each column of pixels; clamped into the map.
        rows: (H,), fractional cell y of each row of pixels; clamped into the map.
        mask: (h, w), cells that may be matched; a pixel belongs to its nearest cell. None: all.

    Returns:
        (N, 2), (x, y), whole pixels; of equal ones, the first in reading order. NaN where a cosine is NaN.

    Raises:
        ShapeError: queries and features differ in C, the mask is not (h, w), or there is no pixel.
        InputError: a column or a row is not finite, or tensors on several devices.

    >>> features = torch.eye(4).reshape(4, 2, 2)
    >>> upsampled_nearest_neighbor(torch.eye(4)[1:2], features, torch.linspace(0, 1, 7), torch.linspace(0, 1, 5))
    tensor([[6., 0.]])
    """
    sizes = check_shape("target_features", target_features, "C h w", of="floats")
    check_shape("queries", queries, "N C", of="floats", C=sizes["C"])
    _check_pixels(target_features, columns, rows)
    check_same_device(target_features=target_features, queries=queries)
    features = full_precision(target_features)
    queries = unit_vectors(queries.to(features), dim=-1)
    scale = interpolated_norm(features, columns, rows)
    largest = float(scale.detach().max())
    if not _LARGEST_NORM > largest > _SMALLEST_NORM:  # scaling the whole map changes no cosine
        features = features / features.abs().amax().clamp_min(torch.finfo(features.dtype).tiny)
        scale = interpolated_norm(features, columns, rows)
    scale = scale.clamp(min=_SMALLEST_NORM)
    correlation = torch.einsum("nc,chw->nhw", queries, features)
    width = len(columns)
    outside = None
    if mask is not None:
        check_shape("mask", mask, "h w", of="flags", h=sizes["h"], w=sizes["w"])
        down, across = (
            cells.round().long().clamp(0, count - 1) for cells, count in zip((rows, columns), mask.shape, strict=True)
        )
        outside = ~mask[down[:, None], across]
    found = []
    for some in correlation.split(_POINTS_AT_ONCE):
        cosine = _interpolate(some, columns, rows) / scale
        cosine = cosine if outside is None else cosine.masked_fill(outside, -torch.inf)
        cosines, best = cosine.flatten(1).max(dim=-1)
        found.append(cells_of_index(cosines, best, width))
    return torch.cat(found).to(features.dtype)


def interpolated_norm(
    features: Float[Tensor, "channels h w"], columns: Float[Tensor, " width"], rows: Float[Tensor, " height"]
) -> Float[Tensor, "height width"]:
    """Compute |F(p)| of the bilinearly interpolated feature at every pixel, from products of neighboring cells.

    Args:
        features: (C, h, w).
        columns: (W,), fractional cell x of each column of pixels; clamped into the map.
        rows: (H,), fractional cell y of each row of pixels; clamped into the map.

    Returns:
        (H, W), in the data type of the features.

    Raises:
        ShapeError: one has another number of dimensions, or there is no pixel.
        InputError: a column or a row is not finite, or tensors on several devices.

    >>> features = torch.tensor([[[3.0, 0.0]], [[0.0, 4.0]]])
    >>> interpolated_norm(features, torch.tensor([0.0, 0.5, 1.0]), torch.zeros(1))
    tensor([[3.0000, 2.5000, 4.0000]])
    """
    check_shape("features", features, "C h w", of="floats")
    _check_pixels(features, columns, rows)
    near = features.double()
    own = near.square().sum(0)
    east = F.pad((near[:, :, :-1] * near[:, :, 1:]).sum(0), (0, 1))
    south = F.pad((near[:, :-1] * near[:, 1:]).sum(0), (0, 0, 0, 1))
    falling = F.pad((near[:, :-1, :-1] * near[:, 1:, 1:]).sum(0), (0, 1, 0, 1))
    rising = F.pad((near[:, :-1, 1:] * near[:, 1:, :-1]).sum(0), (0, 1, 0, 1))

    left, right, a = _neighbors(columns.double(), features.shape[2])
    top, bottom, d = (values[:, None] for values in _neighbors(rows.double(), features.shape[1]))
    nw, ne, sw, se = (1 - a) * (1 - d), a * (1 - d), (1 - a) * d, a * d
    squares = nw**2 * own[top, left] + ne**2 * own[top, right] + sw**2 * own[bottom, left] + se**2 * own[bottom, right]
    along = nw * ne * east[top, left] + sw * se * east[bottom, left]
    along = along + nw * sw * south[top, left] + ne * se * south[top, right]
    crossing = nw * se * falling[top, left] + ne * sw * rising[top, left]
    return (squares + 2 * (along + crossing)).clamp(min=0).sqrt().to(features.dtype)


def _check_pixels(features: Tensor, columns: Tensor, rows: Tensor) -> None:
    """Check the cells of the columns (W,) and the rows (H,) of pixels."""
    check_shape("columns", columns, "width", of="floats")
    check_shape("rows", rows, "height", of="floats")
    check_same_device(features=features, columns=columns, rows=rows)
    if not bool(columns.isfinite().all() & rows.isfinite().all()):
        raise InputError("columns and rows must be finite: the cells in which the pixels lie")


def _interpolate(
    maps: Float[Tensor, "points h w"], columns: Float[Tensor, " width"], rows: Float[Tensor, " height"]
) -> Float[Tensor, "points height width"]:
    left, right, a = _neighbors(columns, maps.shape[2])
    top, bottom, d = _neighbors(rows, maps.shape[1])
    lines = torch.lerp(maps[:, top], maps[:, bottom], d[:, None].to(maps))
    return torch.lerp(lines[:, :, left], lines[:, :, right], a.to(maps))


def _neighbors(locations: Tensor, cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the cells before and after each location, and its distance from the first; 0 beyond the last cell."""
    locations = locations.clamp(0, cells - 1)
    before = locations.floor()
    return before.long(), (before + 1).clamp(max=cells - 1).long(), locations - before
