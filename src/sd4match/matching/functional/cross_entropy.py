"""Cross-entropy with a Gaussian-smoothed target (Eq. 5), and its lower bound.

Letters: B pairs, N points, C channels, (h, w) cells. Cells are (x, y) in [0, w - 1] x [0, h - 1], cell centers at whole
numbers. Half-precision input is computed and returned in float32. Equations are those of arXiv 2310.17569.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

from sd4match.checks import check_count, check_odd, check_same_device, check_shape
from sd4match.errors import InputError, shown
from sd4match.matching.functional.probability import log_match_probability
from sd4match.matching.functional.sampling import as_floats, bilinear_corners, full_precision


def gaussian_cross_entropy(
    correlation: Float[Tensor, "batch points h w"],
    target_cells: Real[Tensor, "batch points 2"],
    visible: Bool[Tensor, "batch points"],
    *,
    temperature: float | Tensor,
    kernel_size: int = 7,
) -> Float[Tensor, ""]:
    """Compute the cross-entropy of the match probability with a Gaussian-smoothed Dirac at the true location (Eq. 5).

    For each point, over the k x k whole-cell offsets d around its true location c,
    -sum_d exp(-|d|^2 / (2 s^2)) / (2 pi s^2) * log p(c + d), p of Eq. 4 sampled bilinearly, s = (k - 1) / 4.
    Computed in log space: log p(c + d) is a log-sum-exp over the four cells around it, finite at any temperature.

    Convention: locations outside the open interval (0, w - 1) x (0, h - 1) are left out, and the weights are not
    renormalized (at k = 7 they sum to 0.965). A point near the border of the map therefore counts less: at k = 7, one
    on the center of an outermost cell keeps 36 % of the weights and one in a corner 13 %; a point further outside keeps
    less, and none from 3 cells outside on. A cell whose correlation is -inf is impossible: its probability is 0, and a
    location that reads only impossible cells is left out as well.

    Args:
        correlation: (B, N, h, w).
        target_cells: (B, N, 2), (x, y), the true locations in cells.
        visible: (B, N); a point that is not visible has no influence, whatever its coordinates are.
        temperature: divisor of the correlation, > 0; may be learned.
        kernel_size: k, odd, at least 3.

    Returns:
        A scalar: the mean over visible points, then over the pairs that have one; 0 if none has.

    Raises:
        ShapeError: there is not one true location and one flag for each point.
        InputError: an even kernel, a temperature that is not positive, flags that are not booleans, or a visible point
            whose true location is not finite.
        NonFiniteError: differences of the correlations, divided by the temperature, are beyond the range of floats.

    >>> gaussian_cross_entropy(
    ...     torch.zeros(1, 1, 9, 9), torch.full((1, 1, 2), 4.0), torch.ones(1, 1, dtype=torch.bool), temperature=0.04
    ... )
    tensor(4.2425)
    """
    loss, _ = gaussian_cross_entropy_with_bound(
        correlation, target_cells, visible, temperature=temperature, kernel_size=kernel_size
    )
    return loss


def gaussian_cross_entropy_with_bound(
    correlation: Float[Tensor, "batch points h w"],
    target_cells: Real[Tensor, "batch points 2"],
    visible: Bool[Tensor, "batch points"],
    *,
    temperature: float | Tensor,
    kernel_size: int = 7,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return `gaussian_cross_entropy` and its lower bound, the entropy of the smoothed target.

    The probabilities that Eq. 5 reads at its offsets sum to 1 at most, so -sum_d w_d log p(c + d) is at least
    -sum_d w_d log(w_d / W), W the sum of the weights w_d inside the map (Gibbs). The bound is reached where the true
    location is a whole cell and p is w / W there; between cells, bilinear sampling keeps the loss above it.

    Args:
        correlation: (B, N, h, w).
        target_cells: (B, N, 2), (x, y), the true locations in cells.
        visible: (B, N); a point that is not visible has no influence, whatever its coordinates are.
        temperature: divisor of the correlation, > 0; may be learned.
        kernel_size: k, odd, at least 3.

    Returns:
        Two scalars: the loss, and the bound, averaged in the same way.

    Raises:
        ShapeError: there is not one true location and one flag for each point.
        InputError: an even kernel, a temperature that is not positive, flags that are not booleans, or a visible point
            whose true location is not finite.
        NonFiniteError: differences of the correlations, divided by the temperature, are beyond the range of floats.

    >>> loss, bound = gaussian_cross_entropy_with_bound(
    ...     torch.zeros(1, 1, 9, 9), torch.full((1, 1, 2), 4.0), torch.ones(1, 1, dtype=torch.bool), temperature=0.04
    ... )
    >>> loss, bound
    (tensor(4.2425), tensor(3.3742))
    """
    sizes = check_shape("correlation", correlation, "B N h w", of="floats")
    height, width = sizes["h"], sizes["w"]
    check_shape("target_cells", target_cells, "B N 2", of="numbers", B=sizes["B"], N=sizes["N"])
    check_shape("visible", visible, "B N", of="flags", B=sizes["B"], N=sizes["N"])
    check_same_device(correlation=correlation, target_cells=target_cells, visible=visible)
    has_match = correlation.detach().flatten(2).amax(dim=-1) != -torch.inf
    counted_points = visible & has_match
    correlation = torch.where(counted_points[..., None, None], full_precision(correlation), 0.0)
    cells = torch.where(visible[..., None], target_cells.to(correlation.dtype), 0.0).detach()
    if not bool(cells.isfinite().all()):
        raise InputError("target_cells of visible points must be finite")
    target = smoothed_target(cells, map_size=(height, width), kernel_size=kernel_size)

    index, blend = bilinear_corners(target.cells, height, width)
    log_probability = log_match_probability(correlation, temperature=temperature).flatten(2)
    corners = log_probability.gather(2, index.flatten(2)).unflatten(2, index.shape[2:])
    terms = corners + blend.log()
    impossible = terms.detach().amax(dim=-1) == -torch.inf
    log_sampled = torch.logsumexp(terms.masked_fill(impossible[..., None], 0.0), dim=-1)

    target = replace(target, inside=target.inside & ~impossible & counted_points[..., None])
    per_point = -(torch.where(target.inside, log_sampled, 0.0) * target.weights).sum(-1)
    return mean_over_pairs(per_point, visible), mean_over_pairs(target.entropy(), visible)


@dataclass(frozen=True, eq=False)
class SmoothedTarget:
    """Whole-cell offsets, k x k of them, around each true location."""

    cells: Float[Tensor, "batch points offsets 2"]
    """(x, y) in target cells."""
    weights: Float[Tensor, " offsets"]
    """exp(-|d|^2 / (2 s^2)) / (2 pi s^2), s = (k - 1) / 4: a density, not renormalized (at k = 7 they sum to 0.965)."""
    inside: Bool[Tensor, "batch points offsets"]
    """True where a location lies in the open interval (0, w - 1) x (0, h - 1); others are left out."""

    def entropy(self) -> Float[Tensor, "batch points"]:
        """Return -sum_d w_d log(w_d / W) over the offsets inside the map, W the sum of their weights."""
        weights = torch.where(self.inside, self.weights, 0.0)
        total = weights.sum(-1, keepdim=True)
        smallest = torch.finfo(weights.dtype).tiny
        entropy: Tensor = -torch.special.xlogy(weights, weights / total.clamp_min(smallest)).sum(-1)
        return entropy


def smoothed_target(
    target_cells: Real[Tensor, "batch points 2"], *, map_size: tuple[int, int], kernel_size: int = 7
) -> SmoothedTarget:
    """Return the offset cells around each true location, their weights, and which of them lie inside the map.

    Args:
        target_cells: (B, N, 2), (x, y), the true cells.
        map_size: (h, w).
        kernel_size: k, odd, at least 3.

    Raises:
        ShapeError: the cells are not (B, N, 2).
        InputError: an even kernel, or a map without cells.

    >>> smoothed_target(torch.full((1, 1, 2), 2.0), map_size=(5, 5), kernel_size=3).inside.sum()
    tensor(9)
    """
    check_shape("target_cells", target_cells, "B N 2", of="numbers")
    kernel_size = check_odd("kernel_size", kernel_size, 3)
    if not isinstance(map_size, (tuple, list)) or len(map_size) != 2:
        raise InputError(f"map_size must be (h, w), not {shown(map_size)}")
    height, width = (check_count("map_size", side) for side in map_size)
    target_cells = as_floats(target_cells)
    reach = kernel_size // 2
    steps = torch.arange(-reach, reach + 1, dtype=target_cells.dtype, device=target_cells.device)
    offsets = torch.cartesian_prod(steps, steps)
    sigma = (kernel_size - 1) / 4
    weights: Tensor = torch.exp(-offsets.square().sum(-1) / (2 * sigma**2)) / (2 * torch.pi * sigma**2)
    cells = target_cells[:, :, None] + offsets
    x, y = cells.unbind(-1)
    return SmoothedTarget(cells, weights, (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1))


def mean_over_pairs(
    per_point: Float[Tensor, "batch points"], visible: Bool[Tensor, "batch points"]
) -> Float[Tensor, ""]:
    """Average over visible points, then over the pairs that have one; 0 if none has.

    >>> mean_over_pairs(torch.tensor([[1.0, 9.0], [3.0, 5.0]]), torch.tensor([[True, False], [True, True]]))
    tensor(2.5000)
    """
    per_pair = torch.where(visible, per_point, 0.0).sum(-1) / visible.sum(-1).clamp(min=1)
    return per_pair.sum() / visible.any(-1).sum().clamp(min=1)
