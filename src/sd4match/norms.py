"""L2 norms of feature vectors, also for vectors whose squares overflow or underflow.

Usually this is the plain norm. Vectors whose norm is not between 1e-12 and 1e18 are divided by a power of two, which is
exact, before the norm is computed again. Only vectors of zeros count as zero; their cosine with any vector is 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SMALLEST, _LARGEST = 1e-12, 1e18


def vector_norms(values: Tensor, dim: int) -> Tensor:
    """Return the L2 norms of vectors along a dimension, in float32 or better; inf only if the norm itself overflows.

    Args:
        values: vectors of any magnitude.
        dim: dimension of the vectors, which the result does not have.

    >>> vector_norms(torch.tensor([[3e25, 4e25], [3e-30, 4e-30]]), dim=1)
    tensor([5.0000e+25, 5.0000e-30])
    """
    dtype = torch.promote_types(values.dtype, torch.float32)
    norms: Tensor = torch.linalg.vector_norm(values, dim=dim, keepdim=True, dtype=dtype)
    scale = _scale(values, norms, dim)
    if scale is not None:
        scaled = torch.linalg.vector_norm(values / scale, dim=dim, keepdim=True, dtype=dtype)
        norms = torch.where(scale == 1, norms, scaled * scale)
    return norms.squeeze(dim)


def in_range(values: Tensor, dim: int, norms: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Scale vectors whose norm is out of range, so that all vectors can be divided by their norms.

    Args:
        values: vectors of any magnitude.
        dim: dimension of the vectors.
        norms: norms of the vectors with `dim` of size 1; None: computed.

    Returns:
        The vectors and their norms with `dim` of size 1. The norm of scaled vectors of zeros is 1.

    >>> vectors, norms = in_range(torch.tensor([[3.0, 4.0], [3e-30, 4e-30], [0.0, 0.0]]), dim=1)
    >>> (vectors / norms)
    tensor([[0.6000, 0.8000],
            [0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    if norms is None:
        norms = torch.linalg.vector_norm(values, dim=dim, keepdim=True)
    scale = _scale(values, norms, dim)
    if scale is None:
        return values, norms
    values = values / scale
    again = torch.linalg.vector_norm(values, dim=dim, keepdim=True)
    return values, torch.where(is_ordinary(norms), norms, torch.where(again == 0, 1, again))


def unit_vectors(values: Tensor, dim: int) -> Tensor:
    """Divide vectors along a dimension by their norms; vectors of zeros are not changed.

    Args:
        values: vectors of any magnitude.
        dim: dimension of the vectors.

    >>> unit_vectors(torch.tensor([3e25, 4e25]), dim=0)
    tensor([0.6000, 0.8000])
    """
    values, norms = in_range(values, dim)
    return values / norms


def is_ordinary(norms: Tensor) -> Tensor:
    """Return which norms belong to vectors whose squares are in range.

    Args:
        norms: any shape.
    """
    limits = torch.finfo(norms.dtype)
    return (norms >= max(_SMALLEST, limits.tiny)) & (norms <= min(_LARGEST, limits.max))


def _scale(values: Tensor, norms: Tensor, dim: int) -> Tensor | None:
    """Return powers of two that bring the largest magnitude of vectors near 1; None if all norms are in range."""
    ordinary = is_ordinary(norms.detach())
    if norms.is_meta or bool(ordinary.all()):
        return None
    largest = values.detach().abs().amax(dim=dim, keepdim=True)
    wide = largest if largest.dtype == torch.float64 else largest.float()
    limits = torch.finfo(values.dtype)
    low, high = (math.frexp(limit)[1] - 1 for limit in (limits.tiny, limits.max))
    exponents = torch.frexp(wide).exponent.clamp(low, high).to(wide.dtype)
    unscaled = ordinary | (largest == 0) | ~largest.isfinite()
    return torch.pow(2.0, exponents).masked_fill(unscaled, 1.0).to(values.dtype)
