"""Percentage of correct keypoints (PCK)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

import numpy as np
import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

from sd4match.checks import check_flag, check_number, check_same_device, check_shape
from sd4match.errors import InputError, shown

__all__ = ["correct_points", "pck"]

_ROUNDING = 1e-12
"""Relative difference of two float64 that stand for the same decimal number."""


def correct_points(
    predicted: Real[Tensor, "batch points 2"],
    target: Real[Tensor, "batch points 2"],
    visible: Bool[Tensor, "batch points"],
    reference_length: Real[Tensor, " batch"],
    *,
    alphas: Sequence[float],
    inclusive: bool = True,
) -> Bool[Tensor, "batch points alphas"]:
    """Return which visible points lie within alpha * reference length of the truth: |p - p^| <= alpha * l (Eq. 8).

    A prediction that is not finite is wrong; a point that is not visible is never correct. Distances and limits are
    computed in float64, whatever the data types are, and are equal if they differ by no more than its rounding (a
    relative 1e-12): a point exactly on the limit in decimal numbers, such as 7 of 0.07 * 100, counts only if the
    comparison is inclusive.

    Args:
        predicted: (B, N, 2), in the same unit as the rest.
        target: (B, N, 2), the true points.
        visible: (B, N); other points never influence the result.
        reference_length: (B,), the length that alpha is a fraction of; finite and >= 0 for images with a visible point.
        alphas: one threshold or more, >= 0.
        inclusive: compare with <= (SD4Match, DIFT) or with < (SD+DINO, GeoAware).

    Returns:
        (B, N, len(alphas)), False for points that are not visible.

    Raises:
        ShapeError: one is of another number of images or points.
        InputError: flags that are not booleans, lengths or alphas that are negative or not finite, no alpha, or a true
            point that is visible and not finite.

    >>> truth, guess = torch.zeros(1, 1, 2), torch.tensor([[[15.0, 0.0]]])
    >>> visible, length = torch.tensor([[True]]), torch.tensor([100])
    >>> [correct_points(guess, truth, visible, length, alphas=[0.15], inclusive=on).item() for on in (True, False)]
    [True, False]
    """
    sizes = check_shape("predicted", predicted, "B N 2", of="numbers")
    batch, points = sizes["B"], sizes["N"]
    check_shape("target", target, "B N 2", of="numbers", B=batch, N=points)
    check_shape("visible", visible, "B N", of="flags", B=batch, N=points)
    check_shape("reference_length", reference_length, "B", of="numbers", B=batch)
    check_same_device(predicted=predicted, target=target, visible=visible, reference_length=reference_length)
    thresholds = _check_alphas(alphas)
    check_flag("inclusive", inclusive)
    length = reference_length.double()
    counted = visible.any(dim=-1)
    if not bool(((length >= 0) & length.isfinite() | ~counted).all()):
        raise InputError(f"reference_length must be finite and not negative, not {shown(length[counted].tolist())}")
    if not bool((target.isfinite().all(dim=-1) | ~visible).all()):
        raise InputError("target must be finite where a point is visible")
    distance = torch.linalg.vector_norm(predicted.double() - target.double(), dim=-1)
    limit = length[:, None] * length.new_tensor(thresholds)
    limit = limit * (1 + _ROUNDING if inclusive else 1 - _ROUNDING)
    near = distance[..., None] <= limit[:, None] if inclusive else distance[..., None] < limit[:, None]
    correct: Tensor = near & visible[..., None]
    return correct


def pck(
    predicted: Real[Tensor, "batch points 2"],
    target: Real[Tensor, "batch points 2"],
    visible: Bool[Tensor, "batch points"],
    reference_length: Real[Tensor, " batch"],
    *,
    alphas: Sequence[float],
    inclusive: bool = True,
) -> Float[Tensor, "batch alphas"]:
    """Compute per-image PCK (Eq. 8): the fraction of an image's visible points that are correct.

    Args:
        predicted: (B, N, 2), in the same unit as the rest.
        target: (B, N, 2), the true points.
        visible: (B, N); other points never influence the result.
        reference_length: (B,), the length that alpha is a fraction of: for SPair-71k the longer side of the target's
            box. It is finite and not negative for images with a visible point.
        alphas: one threshold or more, not negative, for example 0.05, 0.1, 0.15.
        inclusive: compare with <= (SD4Match, DIFT) or with < (SD+DINO, GeoAware).

    Returns:
        (B, len(alphas)), in [0, 1]; NaN for an image without a visible point, which averages leave out.

    Raises:
        ShapeError: one is of another number of images or points.
        InputError: flags that are not booleans, lengths or alphas that are negative or not finite, no alpha, or a true
            point that is visible and not finite.

    >>> truth = torch.zeros(1, 2, 2)
    >>> guess = torch.tensor([[[3.0, 4.0], [60.0, 0.0]]])
    >>> pck(guess, truth, torch.ones(1, 2, dtype=torch.bool), torch.tensor([100.0]), alphas=(0.01, 0.05))
    tensor([[0.0000, 0.5000]])
    """
    correct = correct_points(predicted, target, visible, reference_length, alphas=alphas, inclusive=inclusive)
    share = correct.sum(dim=1) / visible.sum(dim=1, keepdim=True)
    return share.to(torch.float64 if predicted.dtype == torch.float64 else torch.float32)


def _check_alphas(alphas: Sequence[float]) -> list[float]:
    unordered = (str, bytes, Tensor, Mapping, Set, np.ma.MaskedArray)
    if isinstance(alphas, unordered) or not isinstance(alphas, Iterable):
        raise InputError(f"alphas must be a sequence of numbers, not {shown(alphas)}")
    thresholds = [check_number("alphas", _decimal(alpha), low=0.0) for alpha in alphas]
    if not thresholds:
        raise InputError("alphas must hold one threshold or more")
    return thresholds


def _decimal(alpha: object) -> object:
    """Return the decimal number that NumPy's floats of 16 or 32 bits stand for: 0.15, not 0.1500000060."""
    return float(str(alpha)) if isinstance(alpha, (np.float16, np.float32)) else alpha
