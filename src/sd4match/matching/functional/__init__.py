"""The arithmetic of matching: pure, batched, differentiable, without a loop over the batch.

Letters: B pairs, N points, C channels, (h, w) cells. Cells are (x, y) in [0, w - 1] x [0, h - 1], cell centres at whole
numbers. Half-precision input is computed and returned in float32. Equations are those of arXiv 2310.17569.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from sd4match.errors import InputError, ShapeError
from sd4match.matching.functional.probability import check_positive
from sd4match.matching.functional.probability import log_match_probability as log_match_probability
from sd4match.matching.functional.probability import mass_around as mass_around
from sd4match.matching.functional.probability import match_probability as match_probability
from sd4match.matching.functional.probability import probability_mass as probability_mass
from sd4match.matching.functional.sampling import bilinear_corners, full_precision, gather_cells
from sd4match.matching.functional.sampling import sample_bilinear as sample_bilinear
from sd4match.matching.functional.smoothed_target import mean_over_pairs, smoothed_target

_SMALLEST_NORM = 1e-12
"""A cell without features has a cosine of 0 with everything."""


def correlate(
    source_features: Float[Tensor, "batch channels h w"],
    target_features: Float[Tensor, "batch channels h2 w2"],
    query_cells: Float[Tensor, "batch points 2"],
    *,
    normalize: bool = True,
    target_norms: Float[Tensor, "batch h2 w2"] | None = None,
) -> Float[Tensor, "batch points h2 w2"]:
    """Similarity of the source feature at each query to every target cell (Eq. 3): a cosine, if normalised.

    The query feature is sampled bilinearly between the four cells around it, then L2-normalised, as is every cell
    of the target: by dividing the products, since a map is much larger than its products with a few queries.

    Args:
        source_features: (B, C, h, w).
        target_features: (B, C, h', w').
        query_cells: (B, N, 2), (x, y) in source cells; clamped into the map. Not finite means cell (0, 0): such a point
            is padding, and must not spoil the gradient of the others.
        normalize: divide both sides by their L2 norm.
        target_norms: (B, h', w'), of the target's cells, where they are known.

    Returns:
        (B, N, h', w').

    Raises:
        ShapeError: the two maps differ in B or C, or the queries in B.

    >>> features = torch.eye(4).reshape(1, 4, 2, 2)
    >>> correlate(features, features, torch.tensor([[[1.0, 0.0]]])).flatten().tolist()
    [0.0, 1.0, 0.0, 0.0]
    """
    source_features, target_features = full_precision(source_features), full_precision(target_features)
    _check_maps(source_features, target_features, query_cells)
    queries = sample_bilinear(source_features, query_cells)
    if normalize:
        queries = F.normalize(queries, dim=-1)
    return _products(queries, target_features, normalize=normalize, target_norms=target_norms)


def correlate_with_corners(
    source_features: Float[Tensor, "batch channels h w"],
    target_features: Float[Tensor, "batch channels h2 w2"],
    query_cells: Float[Tensor, "batch points 2"],
    *,
    normalize: bool = True,
    target_norms: Float[Tensor, "batch h2 w2"] | None = None,
) -> tuple[Float[Tensor, "batch points h2 w2"], Float[Tensor, "batch points 4 2"]]:
    """`correlate`, and the best match of each of the four source cells around a query, from one product.

    A query's feature is a blend of four cells, and so is its product with the target.

    Args and errors: as `correlate`.

    Returns:
        (B, N, h', w') as `correlate`, and (B, N, 4, 2), (x, y) in target cells: of the cells left and above, right and
        above, left and below, right and below.

    >>> features = torch.eye(4).reshape(1, 4, 2, 2)
    >>> values, corners = correlate_with_corners(features, features, torch.tensor([[[0.0, 1.0]]]))
    >>> values.flatten().tolist(), corners.tolist()
    ([0.0, 0.0, 1.0, 0.0], [[[[0.0, 1.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]]]])
    """
    source_features, target_features = full_precision(source_features), full_precision(target_features)
    _check_maps(source_features, target_features, query_cells)
    index, weight = bilinear_corners(query_cells.to(source_features.dtype), *source_features.shape[-2:])
    cells = gather_cells(source_features, index.flatten(1))
    products = _products(cells, target_features, normalize=normalize, target_norms=target_norms)
    best = nearest_neighbor(products).unflatten(1, index.shape[1:])
    if normalize:  # which does not move the best of a corner, and so is left to the blend
        blended = torch.einsum("bnkc,bnk->bnc", cells.unflatten(1, index.shape[1:]), weight)
        weight = weight / torch.linalg.vector_norm(blended, dim=-1, keepdim=True).clamp_min(_SMALLEST_NORM)
    values = torch.einsum("bnkhw,bnk->bnhw", products.unflatten(1, index.shape[1:]), weight)
    return values, best


def _products(cells: Tensor, target_features: Tensor, *, normalize: bool, target_norms: Tensor | None) -> Tensor:
    """(B, N, C) with every cell of (B, C, h, w), normalised or not -> (B, N, h, w)."""
    values: Tensor = torch.bmm(cells, target_features.flatten(2)).unflatten(2, target_features.shape[2:])
    if normalize:
        norms = torch.linalg.vector_norm(target_features, dim=1) if target_norms is None else target_norms
        values = values / norms[:, None].clamp_min(_SMALLEST_NORM)
    return values


def _check_maps(source_features: Tensor, target_features: Tensor, query_cells: Tensor) -> None:
    if source_features.shape[:2] != target_features.shape[:2] or query_cells.shape[0] != source_features.shape[0]:
        raise ShapeError(
            "expected source (B, C, h, w), target (B, C, h', w') and queries (B, N, 2), got "
            f"{tuple(source_features.shape)}, {tuple(target_features.shape)} and {tuple(query_cells.shape)}"
        )


def nearest_neighbor(correlation: Float[Tensor, "batch points h w"]) -> Float[Tensor, "batch points 2"]:
    """The cell of the largest value; of equal ones, the first in reading order. Not differentiable.

    >>> nearest_neighbor(torch.tensor([[[[0.0, 3.0], [1.0, 2.0]]]]))
    tensor([[[1., 0.]]])
    """
    width = correlation.shape[-1]
    best = correlation.flatten(2).max(dim=-1).indices
    cells = torch.stack([best % width, best.div(width, rounding_mode="floor")], dim=-1)
    return cells.to(full_precision(correlation[:0]).dtype)


def soft_argmax(
    correlation: Float[Tensor, "batch points h w"], *, temperature: float | Tensor
) -> Float[Tensor, "batch points 2"]:
    """The mean cell under softmax(correlation / temperature) (Eq. 4).

    Args:
        correlation: (B, N, h, w).
        temperature: the correlation is divided by it; positive.

    Returns:
        (B, N, 2), (x, y) in cells.

    >>> soft_argmax(torch.zeros(1, 1, 3, 5), temperature=0.04).round(decimals=3)
    tensor([[[2., 1.]]])
    """
    return mean_cell(match_probability(correlation, temperature=temperature))


def mean_cell(probability: Float[Tensor, "batch points h w"]) -> Float[Tensor, "batch points 2"]:
    """The expectation of the cell, (x, y).

    >>> mean_cell(torch.tensor([[[[0.5, 0.0], [0.0, 0.5]]]]))
    tensor([[[0.5000, 0.5000]]])
    """
    y, x = (torch.arange(n, dtype=probability.dtype, device=probability.device) for n in probability.shape[-2:])
    return torch.stack([probability.sum(dim=-2) @ x, probability.sum(dim=-1) @ y], dim=-1)


def kernel_soft_argmax(
    correlation: Float[Tensor, "batch points h w"],
    *,
    temperature: float | Tensor,
    sigma: float,
    peak: Float[Tensor, "batch points 2"] | None = None,
) -> Float[Tensor, "batch points 2"]:
    """Soft arg-max of the correlation damped by a Gaussian around its arg-max.

    Convention: the Gaussian multiplies the correlation, and the softmax runs over the whole map, so that what is
    suppressed counts as 0, not as minus infinity (the paper's inference; sigma 7, temperature 0.04).

    Args:
        correlation: (B, N, h, w).
        temperature: the correlation is divided by it; positive.
        sigma: of the Gaussian, in cells; positive.
        peak: (B, N, 2), the arg-max, where it is known.

    Returns:
        (B, N, 2), (x, y) in cells.

    >>> peak = torch.zeros(1, 1, 5, 5); peak[0, 0, 1, 3] = 1.0
    >>> kernel_soft_argmax(peak, temperature=0.01, sigma=7.0).round()
    tensor([[[3., 1.]]])
    """
    check_positive("sigma", sigma)
    across, down = (torch.exp(-away.square() / (2 * sigma**2)) for away in _distance_to_peak(correlation, peak))
    return soft_argmax(correlation * across * down, temperature=temperature)


def window_soft_argmax(
    correlation: Float[Tensor, "batch points h w"],
    *,
    temperature: float | Tensor,
    window: int,
    peak: Float[Tensor, "batch points 2"] | None = None,
) -> Float[Tensor, "batch points 2"]:
    """Soft arg-max of the correlation set to 0 outside a square around its arg-max.

    Convention: outside is 0, not minus infinity, so the softmax still runs over the whole map.

    Args:
        correlation: (B, N, h, w).
        temperature: the correlation is divided by it; positive.
        window: side of the square in cells; odd.
        peak: (B, N, 2), the arg-max, where it is known.

    Returns:
        (B, N, 2), (x, y) in cells.

    >>> peak = torch.zeros(1, 1, 5, 5); peak[0, 0, 1, 3] = 1.0
    >>> window_soft_argmax(peak, temperature=0.01, window=3).round()
    tensor([[[3., 1.]]])
    """
    if window < 1 or window % 2 == 0:
        raise InputError(f"window must be odd and positive, not {window}")
    across, down = _distance_to_peak(correlation, peak)
    inside = (across.abs() <= window // 2) & (down.abs() <= window // 2)
    return soft_argmax(torch.where(inside, correlation, 0.0), temperature=temperature)


def _distance_to_peak(correlation: Tensor, peak: Tensor | None) -> tuple[Tensor, Tensor]:
    """Of each cell to the arg-max: across (B, N, 1, w) and down (B, N, h, 1)."""
    peak = nearest_neighbor(correlation) if peak is None else peak
    y, x = (torch.arange(n, dtype=peak.dtype, device=peak.device) for n in correlation.shape[-2:])
    return x - peak[..., 0, None, None], y[:, None] - peak[..., 1, None, None]


def bilinear_nearest_neighbor(
    source_features: Float[Tensor, "batch channels h w"],
    target_features: Float[Tensor, "batch channels h2 w2"],
    query_cells: Float[Tensor, "batch points 2"],
    *,
    normalize: bool = True,
    target_norms: Float[Tensor, "batch h2 w2"] | None = None,
) -> Float[Tensor, "batch points 2"]:
    """Arg-max of each of the four cells around a query, blended with the query's bilinear weights.

    Args and errors: as `correlate`.

    Returns:
        (B, N, 2), (x, y) in target cells.

    >>> features = torch.eye(4).reshape(1, 4, 2, 2)
    >>> bilinear_nearest_neighbor(features, features, torch.tensor([[[0.25, 1.0]]]))
    tensor([[[0.2500, 1.0000]]])
    """
    _, corners = correlate_with_corners(
        source_features, target_features, query_cells, normalize=normalize, target_norms=target_norms
    )
    return blend_corners(corners, query_cells, (source_features.shape[2], source_features.shape[3]))


def blend_corners(
    corners: Float[Tensor, "batch points 4 2"],
    query_cells: Float[Tensor, "batch points 2"],
    source_size: tuple[int, int],
) -> Float[Tensor, "batch points 2"]:
    """The second half of `bilinear_nearest_neighbor`.

    Args:
        corners: (B, N, 4, 2), of `correlate_with_corners`.
        query_cells: (B, N, 2), likewise.
        source_size: (h, w).

    Returns:
        (B, N, 2), (x, y) in target cells.

    >>> corners = torch.tensor([[[[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0]]]])
    >>> blend_corners(corners, torch.tensor([[[0.25, 0.5]]]), (2, 2))
    tensor([[[1., 2.]]])
    """
    _, weight = bilinear_corners(query_cells.to(corners.dtype), *source_size)
    blended: Tensor = (corners * weight[..., None]).sum(dim=2)
    return blended


def gaussian_cross_entropy(
    correlation: Float[Tensor, "batch points h w"],
    target_cells: Float[Tensor, "batch points 2"],
    visible: Bool[Tensor, "batch points"],
    *,
    temperature: float | Tensor,
    kernel_size: int = 7,
) -> Float[Tensor, ""]:
    """Cross-entropy of the match probability with a Gaussian-smoothed Dirac at the true place (Eq. 5).

    For each point, over the k x k whole-cell offsets d around its true place c,
    -sum_d exp(-|d|^2 / (2 s^2)) / (2 pi s^2) * log p(c + d), p of Eq. 4 sampled bilinearly, s = (k - 1) / 4.
    Computed in log space: log p(c + d) is a log-sum-exp over the four cells around it, finite at any temperature.

    Convention: places outside the open interval (0, w - 1) x (0, h - 1) are left out, and the weights are not
    renormalised (at k = 7 they sum to 0.965).

    Args:
        correlation: (B, N, h, w).
        target_cells: (B, N, 2), (x, y), the true places.
        visible: (B, N); a point that is not visible has no influence, whatever stands in its place.
        temperature: the correlation is divided by it; positive; may be learned.
        kernel_size: k, odd, at least 3.

    Returns:
        A scalar: the mean over visible points, then over the pairs that have one; 0 if none has.

    Raises:
        InputError: an even kernel or a temperature that is not positive.

    >>> gaussian_cross_entropy(
    ...     torch.zeros(1, 1, 9, 9), torch.full((1, 1, 2), 4.0), torch.ones(1, 1, dtype=torch.bool), temperature=0.04
    ... )
    tensor(4.2425)
    """
    height, width = correlation.shape[-2:]
    correlation = torch.where(visible[..., None, None], full_precision(correlation), 0.0)
    places = torch.where(visible[..., None], target_cells.to(correlation.dtype), 0.0).detach()
    target = smoothed_target(places, map_size=(height, width), kernel_size=kernel_size)

    index, blend = bilinear_corners(target.places, height, width)
    log_probability = log_match_probability(correlation, temperature=temperature).flatten(2)
    corners = log_probability.gather(2, index.flatten(2)).unflatten(2, index.shape[2:])
    log_sampled = torch.logsumexp(corners + blend.log(), dim=-1)

    counted = target.inside & visible[..., None]
    per_point = -(torch.where(counted, log_sampled, 0.0) * target.weights).sum(-1)
    return mean_over_pairs(per_point, visible)
