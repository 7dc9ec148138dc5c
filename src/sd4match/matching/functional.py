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
from sd4match.matching.smoothed_target import mean_over_pairs, smoothed_target

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
    if source_features.shape[:2] != target_features.shape[:2] or query_cells.shape[0] != source_features.shape[0]:
        raise ShapeError(
            "expected source (B, C, h, w), target (B, C, h', w') and queries (B, N, 2), got "
            f"{tuple(source_features.shape)}, {tuple(target_features.shape)} and {tuple(query_cells.shape)}"
        )
    queries = sample_bilinear(source_features, query_cells)
    return _similarity(queries, target_features, normalize=normalize, target_norms=target_norms)


def _similarity(queries: Tensor, target_features: Tensor, *, normalize: bool, target_norms: Tensor | None) -> Tensor:
    """(B, N, C) with every cell of (B, C, h, w) -> (B, N, h, w)."""
    if normalize:
        queries = F.normalize(queries, dim=-1)
    values: Tensor = torch.bmm(queries, target_features.flatten(2)).unflatten(2, target_features.shape[2:])
    if normalize:
        norms = torch.linalg.vector_norm(target_features, dim=1) if target_norms is None else target_norms
        values = values / norms[:, None].clamp_min(_SMALLEST_NORM)
    return values


def sample_bilinear(
    maps: Float[Tensor, "batch channels h w"], cells: Float[Tensor, "batch points 2"]
) -> Float[Tensor, "batch points channels"]:
    """Values between cells, bilinear, corners aligned, clamped at the border.

    >>> sample_bilinear(torch.arange(4.0).reshape(1, 1, 2, 2), torch.tensor([[[0.5, 0.5]]]))
    tensor([[[1.5000]]])
    """
    index, weight = _bilinear_corners(cells.to(maps.dtype), maps.shape[-2], maps.shape[-1])
    values = _gather_cells(maps, index.flatten(1)).unflatten(1, index.shape[1:])
    blended: Tensor = (values * weight[..., None]).sum(dim=2)
    return blended


def _gather_cells(maps: Tensor, index: Tensor) -> Tensor:
    """(B, C, h, w) at flat cells (B, M) -> (B, M, C)."""
    return maps.flatten(2).gather(2, index[:, None].expand(-1, maps.shape[1], -1)).transpose(1, 2)


def _bilinear_corners(cells: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Flat index and weight of the four cells around each place: (..., 4) both. Weights sum to 1."""
    cells = torch.where(cells.isfinite(), cells, 0.0)
    x, y = cells[..., 0].clamp(0, width - 1), cells[..., 1].clamp(0, height - 1)
    left, top = x.detach().floor(), y.detach().floor()
    right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    across, down = x - left, y - top
    index = torch.stack(
        [top * width + left, top * width + right, bottom * width + left, bottom * width + right], dim=-1
    ).long()
    weight = torch.stack([(1 - across) * (1 - down), across * (1 - down), (1 - across) * down, across * down], dim=-1)
    return index, weight


def nearest_neighbor(correlation: Float[Tensor, "batch points h w"]) -> Float[Tensor, "batch points 2"]:
    """The cell of the largest value; of equal ones, the first in reading order. Not differentiable.

    >>> nearest_neighbor(torch.tensor([[[[0.0, 3.0], [1.0, 2.0]]]]))
    tensor([[[1., 0.]]])
    """
    width = correlation.shape[-1]
    best = correlation.flatten(2).argmax(dim=-1)
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
    return _expectation(match_probability(correlation, temperature=temperature))


def match_probability(
    correlation: Float[Tensor, "batch points h w"], *, temperature: float | Tensor
) -> Float[Tensor, "batch points h w"]:
    """softmax(correlation / temperature) over all cells (Eq. 4)."""
    _check_positive("temperature", temperature)
    scores = full_precision(correlation) / temperature
    return scores.flatten(2).softmax(dim=-1).view_as(scores)


def log_match_probability(
    correlation: Float[Tensor, "batch points h w"], *, temperature: float | Tensor
) -> Float[Tensor, "batch points h w"]:
    """The logarithm of Eq. 4, which does not underflow."""
    _check_positive("temperature", temperature)
    scores = full_precision(correlation) / temperature
    return scores.flatten(2).log_softmax(dim=-1).view_as(scores)


def _expectation(probability: Tensor) -> Tensor:
    y, x = (torch.arange(n, dtype=probability.dtype, device=probability.device) for n in probability.shape[-2:])
    return torch.stack([(probability.sum(dim=-2) * x).sum(-1), (probability.sum(dim=-1) * y).sum(-1)], dim=-1)


def kernel_soft_argmax(
    correlation: Float[Tensor, "batch points h w"], *, temperature: float | Tensor, sigma: float
) -> Float[Tensor, "batch points 2"]:
    """Soft arg-max of the correlation damped by a Gaussian around its arg-max.

    Convention: the Gaussian multiplies the correlation, and the softmax runs over the whole map, so that what is
    suppressed counts as 0, not as minus infinity (the paper's inference; sigma 7, temperature 0.04).

    Args:
        correlation: (B, N, h, w).
        temperature: the correlation is divided by it; positive.
        sigma: of the Gaussian, in cells; positive.

    Returns:
        (B, N, 2), (x, y) in cells.

    >>> peak = torch.zeros(1, 1, 5, 5); peak[0, 0, 1, 3] = 1.0
    >>> kernel_soft_argmax(peak, temperature=0.01, sigma=7.0).round()
    tensor([[[3., 1.]]])
    """
    _check_positive("sigma", sigma)
    across, down = _distance_to_peak(correlation)
    gaussian = torch.exp(-(across.square() + down.square()) / (2 * sigma**2))
    return soft_argmax(correlation * gaussian, temperature=temperature)


def window_soft_argmax(
    correlation: Float[Tensor, "batch points h w"], *, temperature: float | Tensor, window: int
) -> Float[Tensor, "batch points 2"]:
    """Soft arg-max of the correlation set to 0 outside a square around its arg-max.

    Convention: outside is 0, not minus infinity, so the softmax still runs over the whole map.

    Args:
        correlation: (B, N, h, w).
        temperature: the correlation is divided by it; positive.
        window: side of the square in cells; odd.

    Returns:
        (B, N, 2), (x, y) in cells.

    >>> peak = torch.zeros(1, 1, 5, 5); peak[0, 0, 1, 3] = 1.0
    >>> window_soft_argmax(peak, temperature=0.01, window=3).round()
    tensor([[[3., 1.]]])
    """
    if window < 1 or window % 2 == 0:
        raise InputError(f"window must be odd and positive, not {window}")
    across, down = _distance_to_peak(correlation)
    inside = (across.abs() <= window // 2) & (down.abs() <= window // 2)
    return soft_argmax(torch.where(inside, correlation, 0.0), temperature=temperature)


def _distance_to_peak(correlation: Tensor) -> tuple[Tensor, Tensor]:
    """Of each cell to the arg-max: across and down, both broadcastable to (B, N, h, w)."""
    peak = nearest_neighbor(correlation)
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
    height, width = source_features.shape[-2:]
    index, weight = _bilinear_corners(query_cells.to(full_precision(source_features[:0]).dtype), height, width)
    corners = _gather_cells(full_precision(source_features), index.flatten(1))
    correlation = _similarity(corners, full_precision(target_features), normalize=normalize, target_norms=target_norms)
    found = nearest_neighbor(correlation).unflatten(1, index.shape[1:])
    blended: Tensor = (found * weight[..., None]).sum(dim=2)
    return blended


def probability_mass(
    correlation: Float[Tensor, "batch points h w"],
    cells: Float[Tensor, "batch points 2"],
    *,
    temperature: float | Tensor,
    radius: float = 1.5,
) -> Float[Tensor, "batch points"]:
    """The score of a match: the share of softmax(correlation / temperature) that lies around it.

    Args:
        correlation: (B, N, h, w).
        cells: (B, N, 2), the matches.
        temperature: as in Eq. 4.
        radius: cells at most so far away in x and in y count.

    Returns:
        (B, N), in [0, 1]; 1 if all probability is there, about (2 radius)^2 / (h w) where the map is flat.

    >>> probability_mass(torch.zeros(1, 1, 3, 3), torch.tensor([[[1.0, 1.0]]]), temperature=1.0).round(decimals=3)
    tensor([[1.]])
    """
    probability = match_probability(correlation, temperature=temperature)
    y, x = (torch.arange(n, dtype=cells.dtype, device=cells.device) for n in correlation.shape[-2:])
    near = (x - cells[..., 0, None, None]).abs() <= radius
    near = near & ((y[:, None] - cells[..., 1, None, None]).abs() <= radius)
    return torch.where(near, probability, 0.0).sum(dim=(-2, -1)).clamp(max=1.0)


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

    index, blend = _bilinear_corners(target.places, height, width)
    log_probability = log_match_probability(correlation, temperature=temperature).flatten(2)
    corners = log_probability.gather(2, index.flatten(2)).unflatten(2, index.shape[2:])
    log_sampled = torch.logsumexp(corners + blend.log(), dim=-1)

    counted = target.inside & visible[..., None]
    per_point = -(torch.where(counted, log_sampled, 0.0) * target.weights).sum(-1)
    return mean_over_pairs(per_point, visible)


def full_precision(values: Tensor) -> Tensor:
    """float32 for half-precision floats; other dtypes as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _check_positive(name: str, value: float | Tensor) -> None:
    if not isinstance(value, Tensor) and not value > 0:
        raise InputError(f"{name} must be positive, not {value}")
