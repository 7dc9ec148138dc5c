"""Percentage of correct keypoints (PCK)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["correct_points", "pck"]


def correct_points(
    predicted: Float[Tensor, "batch points 2"],
    target: Float[Tensor, "batch points 2"],
    visible: Bool[Tensor, "batch points"],
    reference_length: Float[Tensor, " batch"],
    *,
    alphas: Sequence[float],
    inclusive: bool = True,
) -> Bool[Tensor, "batch points alphas"]:
    """Return which visible points lie within alpha * reference length of the truth: |p - p^| <= alpha * l (Eq. 8).

    A prediction that is not finite is wrong; a point that is not visible is never correct.
    """
    distance = torch.linalg.vector_norm(predicted - target, dim=-1)
    limit = reference_length[:, None] * reference_length.new_tensor(alphas)
    near = distance[..., None] <= limit[:, None] if inclusive else distance[..., None] < limit[:, None]
    correct: Tensor = near & visible[..., None]
    return correct


def pck(
    predicted: Float[Tensor, "batch points 2"],
    target: Float[Tensor, "batch points 2"],
    visible: Bool[Tensor, "batch points"],
    reference_length: Float[Tensor, " batch"],
    *,
    alphas: Sequence[float],
    inclusive: bool = True,
) -> Float[Tensor, "batch alphas"]:
    """Compute per-image PCK (Eq. 8): the fraction of an image's visible points that are correct.

    Args:
        predicted: (B, N, 2), in the same unit as the rest.
        target: (B, N, 2).
        visible: (B, N); other points never influence the result.
        reference_length: (B,), what alpha is a fraction of: for SPair-71k the longer side of the target's box.
        alphas: thresholds, for example 0.05, 0.1, 0.15.
        inclusive: compare with <= (SD4Match, DIFT) or with < (SD+DINO, GeoAware).

    Returns:
        (B, len(alphas)), in [0, 1]; NaN for an image without a visible point, which averages leave out.

    >>> truth = torch.zeros(1, 2, 2)
    >>> guess = torch.tensor([[[3.0, 4.0], [60.0, 0.0]]])
    >>> pck(guess, truth, torch.ones(1, 2, dtype=torch.bool), torch.tensor([100.0]), alphas=(0.01, 0.05))
    tensor([[0.0000, 0.5000]])
    """
    correct = correct_points(predicted, target, visible, reference_length, alphas=alphas, inclusive=inclusive)
    share = correct.sum(dim=1) / visible.sum(dim=1, keepdim=True)
    return share.to(predicted.dtype)
