"""Target cells from correlations: arg-max, its soft forms, and several peaks.

Letters: B pairs, N points, C channels, (h, w) cells. Cells are (x, y) in [0, w - 1] x [0, h - 1], cell centers at whole
numbers. Half-precision input is computed and returned in float32. Equations are those of arXiv 2310.17569.

A cell whose correlation is -inf is impossible: it is never the match and is left out of means. A point all of whose
cells are impossible, or one of whose correlations is NaN, has no match: the answer is (NaN, NaN).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

from sd4match.checks import (
    LARGEST_POSITIVE,
    SMALLEST_POSITIVE,
    check_count,
    check_flag,
    check_number,
    check_odd,
    check_same_device,
    check_shape,
)
from sd4match.errors import InputError, shown
from sd4match.matching.functional.correlation import checked_maps, similarities
from sd4match.matching.functional.probability import match_probability
from sd4match.matching.functional.sampling import bilinear_corners, full_precision, gather_cells
from sd4match.norms import in_range


def nearest_neighbor(correlation: Float[Tensor, "batch points h w"]) -> Float[Tensor, "batch points 2"]:
    """Return the cell of the largest value; of equal ones, the first in reading order. Not differentiable.

    Args:
        correlation: (B, N, h, w).

    Returns:
        (B, N, 2), (x, y) in cells.

    Raises:
        ShapeError: it has another number of dimensions, or no cells.

    >>> nearest_neighbor(torch.tensor([[[[0.0, 3.0], [1.0, 2.0]]]]))
    tensor([[[1., 0.]]])
    """
    check_shape("correlation", correlation, "B N h w", of="floats")
    values, best = correlation.detach().flatten(2).max(dim=-1)  # max treats NaN as the largest value
    return cells_of_index(values, best, correlation.shape[-1])


def cells_of_index(values: Tensor, index: Tensor, width: int) -> Tensor:
    """Return the cells (..., 2) of flat indices in rows of `width`; NaN where the value is NaN or -inf."""
    cells = torch.stack([index % width, index.div(width, rounding_mode="floor")], dim=-1)
    cells = cells.to(full_precision(values).dtype)
    return torch.where((values > -torch.inf)[..., None], cells, torch.nan)


def soft_argmax(
    correlation: Float[Tensor, "batch points h w"], *, temperature: float | Tensor
) -> Float[Tensor, "batch points 2"]:
    """Compute the mean cell under softmax(correlation / temperature) (Eq. 4).

    Args:
        correlation: (B, N, h, w).
        temperature: divisor of the correlation, > 0.

    Returns:
        (B, N, 2), (x, y) in cells.

    Raises:
        ShapeError: the correlation has another number of dimensions, or the temperature is a tensor of several numbers.
        InputError: a correlation of integers or booleans, or a temperature that is not positive.

    >>> soft_argmax(torch.zeros(1, 1, 3, 5), temperature=0.04).round(decimals=3)
    tensor([[[2., 1.]]])
    """
    return mean_cell(match_probability(correlation, temperature=temperature))


def mean_cell(probability: Float[Tensor, "batch points h w"]) -> Float[Tensor, "batch points 2"]:
    """Compute the expectation of the cell under a probability map.

    Args:
        probability: (B, N, h, w), sums to 1 over the cells of each point.

    Returns:
        (B, N, 2), (x, y) in cells.

    Raises:
        ShapeError: the map has another number of dimensions.
        InputError: a map of integers or booleans.

    >>> mean_cell(torch.tensor([[[[0.5, 0.0], [0.0, 0.5]]]]))
    tensor([[[0.5000, 0.5000]]])
    """
    check_shape("probability", probability, "B N h w", of="floats")
    probability = full_precision(probability)
    y, x = (torch.arange(n, dtype=probability.dtype, device=probability.device) for n in probability.shape[-2:])
    return torch.stack([probability.sum(dim=-2) @ x, probability.sum(dim=-1) @ y], dim=-1)


def kernel_soft_argmax(
    correlation: Float[Tensor, "batch points h w"],
    *,
    temperature: float | Tensor,
    sigma: float,
    peak: Float[Tensor, "batch points 2"] | None = None,
) -> Float[Tensor, "batch points 2"]:
    """Compute the soft arg-max of the correlation times a Gaussian around its arg-max.

    Convention: the Gaussian multiplies the correlation, and the softmax runs over the whole map. A suppressed cell
    therefore counts as a correlation of 0, not as minus infinity, and keeps some probability (the paper's inference;
    sigma 7, temperature 0.04). Cells whose correlation is -inf stay impossible.

    Args:
        correlation: (B, N, h, w).
        temperature: divisor of the correlation, > 0.
        sigma: standard deviation of the Gaussian in cells, > 0.
        peak: (B, N, 2), the arg-max, if it is known; inside the map, or NaN for a point without a match.

    Returns:
        (B, N, 2), (x, y) in cells.

    Raises:
        ShapeError: the correlation or the peak has another shape.
        InputError: sigma or the temperature is not positive, or a peak lies outside the map.

    >>> peak = torch.zeros(1, 1, 5, 5); peak[0, 0, 1, 3] = 1.0
    >>> kernel_soft_argmax(peak, temperature=0.01, sigma=7.0).round()
    tensor([[[3., 1.]]])
    """
    sigma = check_number("sigma (positive)", sigma, SMALLEST_POSITIVE, LARGEST_POSITIVE)
    across, down = (torch.exp(-away.square() / (2 * sigma**2)) for away in _distance_to_peak(correlation, peak))
    damped = correlation * across * down
    return soft_argmax(damped.masked_fill(correlation == -torch.inf, -torch.inf), temperature=temperature)


def window_soft_argmax(
    correlation: Float[Tensor, "batch points h w"],
    *,
    temperature: float | Tensor,
    window: int,
    peak: Float[Tensor, "batch points 2"] | None = None,
) -> Float[Tensor, "batch points 2"]:
    """Compute the soft arg-max of the correlation set to 0 outside a square around its arg-max.

    Convention: a cell outside of the square counts as a correlation of 0, not as minus infinity, so the softmax still
    runs over the whole map. Cells whose correlation is -inf stay impossible.

    Args:
        correlation: (B, N, h, w).
        temperature: divisor of the correlation, > 0.
        window: side of the square in cells, odd.
        peak: (B, N, 2), the arg-max, if it is known; inside the map, or NaN for a point without a match.

    Returns:
        (B, N, 2), (x, y) in cells.

    Raises:
        ShapeError: the correlation or the peak has another shape.
        InputError: an even window, a temperature that is not positive, or a peak outside the map.

    >>> peak = torch.zeros(1, 1, 5, 5); peak[0, 0, 1, 3] = 1.0
    >>> window_soft_argmax(peak, temperature=0.01, window=3).round()
    tensor([[[3., 1.]]])
    """
    window = check_odd("window", window)
    across, down = _distance_to_peak(correlation, peak)
    outside = (across.abs() > window // 2) | (down.abs() > window // 2)  # False everywhere where the peak is NaN
    return soft_argmax(correlation.masked_fill(outside & (correlation > -torch.inf), 0.0), temperature=temperature)


def _distance_to_peak(correlation: Tensor, peak: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the distance of each cell to the arg-max: across (B, N, 1, w) and down (B, N, h, 1)."""
    sizes = check_shape("correlation", correlation, "B N h w", of="floats")
    if peak is not None:
        check_shape("peak", peak, "B N 2", of="floats", B=sizes["B"], N=sizes["N"])
        check_same_device(correlation=correlation, peak=peak)
        _check_peak(peak, correlation)
    peak = nearest_neighbor(correlation) if peak is None else peak
    y, x = (torch.arange(n, device=peak.device) for n in correlation.shape[-2:])
    return x - peak[..., 0, None, None], y[:, None] - peak[..., 1, None, None]


def _check_peak(peak: Tensor, correlation: Tensor) -> None:
    """Check that a peak lies in the map, and is NaN only where a point has no match."""
    height, width = correlation.shape[-2:]
    inside = ((peak >= 0) & (peak <= peak.new_tensor([width - 1, height - 1]))).all(dim=-1)
    if not bool(inside.all()):
        missing = peak.isnan().any(dim=-1)
        if missing.any():
            inside = inside | (missing & nearest_neighbor(correlation)[..., 0].isnan())
        if not bool(inside.all()):
            raise InputError(
                f"peak must be cells of the map, x from 0 to {width - 1} and y from 0 to {height - 1}, not "
                f"{shown(peak[~inside][0].tolist())}"
            )


def bilinear_nearest_neighbor(
    source_features: Float[Tensor, "batch channels h w"],
    target_features: Float[Tensor, "batch channels h2 w2"],
    query_cells: Real[Tensor, "batch points 2"],
    *,
    normalize: bool = True,
    target_norms: Float[Tensor, "batch h2 w2"] | None = None,
    target_mask: Bool[Tensor, "batch h2 w2"] | None = None,
) -> Float[Tensor, "batch points 2"]:
    """Blend the arg-max of each of the four source cells around a query with the query's bilinear weights.

    Args:
        source_features: (B, C, h, w).
        target_features: (B, C, h', w').
        query_cells: (B, N, 2), (x, y) in source cells; clamped into the map.
        normalize: compare cosines; otherwise, inner products.
        target_norms: (B, h', w'), L2 norms of the target's cells, if they are known.
        target_mask: (B, h', w'), cells that may be matched; None: all.

    Returns:
        (B, N, 2), (x, y) in target cells.

    Raises:
        ShapeError: the two maps differ in B or C, the queries in B, or norms or mask are not those of the target's
            cells.
        InputError: maps of integers or booleans, norms that are negative or NaN, or tensors on several devices.

    >>> features = torch.eye(4).reshape(1, 4, 2, 2)
    >>> bilinear_nearest_neighbor(features, features, torch.tensor([[[0.25, 1.0]]]))
    tensor([[[0.2500, 1.0000]]])
    """
    check_flag("normalize", normalize)
    source_features, target_features = checked_maps(source_features, target_features, query_cells, target_norms)
    index, weight = bilinear_corners(query_cells.to(source_features.dtype), *source_features.shape[-2:])
    cells, _ = in_range(gather_cells(source_features, index.flatten(1)), -1)  # scaling keeps the arg-max
    if not normalize:
        target_features = in_range(target_features.flatten(1), 1)[0].view_as(target_features)
    products = similarities(cells, target_features, normalize=normalize, target_norms=target_norms)
    if target_mask is not None:
        batch, _, height, width = products.shape
        check_shape("target_mask", target_mask, "B h w", of="flags", B=batch, h=height, w=width)
        products = products.masked_fill(~target_mask[:, None], -torch.inf)
    corners = nearest_neighbor(products).unflatten(1, index.shape[1:])
    blended: Tensor = (corners * weight[..., None]).sum(dim=2)
    return blended


def best_cells(
    correlation: Float[Tensor, "batch points h w"], *, count: int, radius: float = 1.5
) -> tuple[Float[Tensor, "batch points count 2"], Float[Tensor, "batch points count"]]:
    """Find several best cells of each point, none within `radius` of a better one in x and in y.

    Args:
        correlation: (B, N, h, w).
        count: K, the number of cells, from 1 to h * w.
        radius: largest distance, in x and in y, at which a worse cell is left out, in cells; >= 0.

    Returns:
        (B, N, K, 2), (x, y), best first, and their values (B, N, K); NaN and -inf where there are no more cells.

    Raises:
        ShapeError: the correlation has another number of dimensions.
        InputError: more cells than the map has, or a radius that is negative or not finite.

    >>> best_cells(torch.tensor([[[[0.0, 3.0, 2.9, 0.0, 1.0]]]]), count=2)[0].tolist()
    [[[[1.0, 0.0], [4.0, 0.0]]]]
    """
    sizes = check_shape("correlation", correlation, "B N h w", of="floats")
    check_same_device(correlation=correlation)
    check_count("count", count, 1, sizes["h"] * sizes["w"])
    radius = check_number("radius", radius, low=0.0)
    left = full_precision(correlation).clone()
    y, x = (torch.arange(n, device=left.device) for n in left.shape[-2:])
    cells, values = [], []
    for _ in range(count):
        best = nearest_neighbor(left)
        values.append(left.flatten(2).amax(dim=-1))
        cells.append(best)
        near = (x - best[..., 0, None, None]).abs() <= radius
        near = near & ((y[:, None] - best[..., 1, None, None]).abs() <= radius)
        left = left.masked_fill(near, -torch.inf)
    return torch.stack(cells, dim=2), torch.stack(values, dim=2)
