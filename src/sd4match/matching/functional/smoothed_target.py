"""The target of Eq. 5: a Dirac at the true place, smoothed by a Gaussian, and the floor of a loss against it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sd4match.errors import InputError


@dataclass(frozen=True)
class SmoothedTarget:
    """The k x k whole-cell offsets around each true place."""

    places: Float[Tensor, "batch points offsets 2"]
    """(x, y), in cells."""
    weights: Float[Tensor, " offsets"]
    """exp(-|d|^2 / (2 s^2)) / (2 pi s^2), s = (k - 1) / 4: a density, not renormalised (at k = 7 they sum to 0.965)."""
    inside: Bool[Tensor, "batch points offsets"]
    """Whether a place lies in the open interval (0, w - 1) x (0, h - 1); others are left out."""


def smoothed_target(
    target_cells: Float[Tensor, "batch points 2"], *, map_size: tuple[int, int], kernel_size: int = 7
) -> SmoothedTarget:
    """Offsets, weights and what of them counts.

    Args:
        target_cells: (B, N, 2), (x, y), the true places.
        map_size: (h, w).
        kernel_size: k, odd, at least 3.

    Raises:
        InputError: an even kernel.
    """
    if kernel_size < 3 or kernel_size % 2 == 0:
        raise InputError(f"kernel_size must be odd and at least 3, not {kernel_size}")
    height, width = map_size
    reach = kernel_size // 2
    steps = torch.arange(-reach, reach + 1, dtype=target_cells.dtype, device=target_cells.device)
    offsets = torch.cartesian_prod(steps, steps)
    sigma = (kernel_size - 1) / 4
    weights: Tensor = torch.exp(-offsets.square().sum(-1) / (2 * sigma**2)) / (2 * torch.pi * sigma**2)
    places = target_cells[:, :, None] + offsets
    x, y = places.unbind(-1)
    return SmoothedTarget(places, weights, (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1))


def mean_over_pairs(
    per_point: Float[Tensor, "batch points"], visible: Bool[Tensor, "batch points"]
) -> Float[Tensor, ""]:
    """The mean over visible points, then over the pairs that have one; 0 if none has.

    >>> mean_over_pairs(torch.tensor([[1.0, 9.0], [3.0, 5.0]]), torch.tensor([[True, False], [True, True]]))
    tensor(2.5000)
    """
    per_pair = torch.where(visible, per_point, 0.0).sum(-1) / visible.sum(-1).clamp(min=1)
    return per_pair.sum() / visible.any(-1).sum().clamp(min=1)


def gaussian_cross_entropy_floor(
    target_cells: Float[Tensor, "batch points 2"],
    visible: Bool[Tensor, "batch points"],
    *,
    map_size: tuple[int, int],
    kernel_size: int = 7,
) -> Float[Tensor, ""]:
    """What `functional.gaussian_cross_entropy` cannot fall below: the entropy of its target.

    The probabilities that Eq. 5 reads at its offsets sum to 1 at most, so -sum_d w_d log p(c + d) is at least
    -sum_d w_d log(w_d / W), W the sum of the weights w_d that lie inside (Gibbs). The bound is reached where the true
    place is a whole cell and p is w / W there; between cells the bilinear reading keeps the loss above it.

    Args:
        target_cells: (B, N, 2), (x, y), the true places.
        visible: (B, N).
        map_size: (h, w).
        kernel_size: k, odd, at least 3.

    Returns:
        A scalar: the mean over visible points, then over the pairs that have one; 0 if none has.

    Raises:
        InputError: an even kernel.

    >>> gaussian_cross_entropy_floor(
    ...     torch.full((1, 1, 2), 4.0), torch.ones(1, 1, dtype=torch.bool), map_size=(9, 9)
    ... )
    tensor(3.3742)
    """
    cells = torch.where(visible[..., None], target_cells, 0.0)
    target = smoothed_target(cells, map_size=map_size, kernel_size=kernel_size)
    weights = torch.where(target.inside, target.weights, 0.0)
    total = weights.sum(-1, keepdim=True)
    entropy = -torch.special.xlogy(weights, weights / total.clamp_min(torch.finfo(weights.dtype).tiny)).sum(-1)
    return mean_over_pairs(entropy, visible)
