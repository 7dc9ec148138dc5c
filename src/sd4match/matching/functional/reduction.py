"""Reduction of feature channels: co-PCA of a pair, and weighted concatenation of normalized blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def co_pca(
    source: Float[Tensor, "batch channels h w"], target: Float[Tensor, "batch channels h2 w2"], components: int
) -> tuple[Float[Tensor, "batch reduced h w"], Float[Tensor, "batch reduced h2 w2"]]:
    """Project both maps of a pair onto the principal directions of all their cells together (SD-DINO).

    The cells of both maps are centered by their common mean and projected onto the eigenvectors of their covariance
    with the largest eigenvalues. Signs are arbitrary, and the same for both maps.

    Args:
        source: (B, C, h, w).
        target: (B, C, h', w').
        components: number of directions; 0, or C and more, keeps the maps as they are.

    Returns:
        Both maps with `components` channels.

    >>> source, target = co_pca(torch.randn(1, 6, 3, 3), torch.randn(1, 6, 4, 4), 2)
    >>> source.shape, target.shape
    (torch.Size([1, 2, 3, 3]), torch.Size([1, 2, 4, 4]))
    """
    if components == 0 or components >= source.shape[1]:
        return source, target
    cells = torch.cat([source.flatten(2), target.flatten(2)], dim=2).double()
    center = cells.mean(dim=2, keepdim=True)
    covariance = (cells - center) @ (cells - center).transpose(1, 2)
    directions = torch.linalg.eigh(covariance).eigenvectors[..., -components:].flip(-1).transpose(1, 2)

    def project(values: Tensor) -> Tensor:
        projected: Tensor = directions @ (values.flatten(2).double() - center)
        shaped: Tensor = projected.unflatten(2, values.shape[2:])
        return shaped.to(values)

    return project(source), project(target)


def weighted_concatenation(
    values: Sequence[Float[Tensor, "batch _ h w"]], blocks: Sequence[int], weights: Sequence[float]
) -> Float[Tensor, "batch channels h w"]:
    """L2-normalize blocks of consecutive maps over their channels, weight each block, and concatenate.

    Args:
        values: maps of one size.
        blocks: numbers of consecutive maps in each block; they sum to the number of maps.
        weights: weight of each block.

    >>> weighted_concatenation([torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1)], [1, 1], [0.5, 2.0]).flatten()
    tensor([0.5000, 2.0000])
    """
    pieces = iter(values)
    joined = [torch.cat([next(pieces) for _ in range(count)], dim=1) for count in blocks]
    scaled = [weight * F.normalize(block, dim=1) for block, weight in zip(joined, weights, strict=True)]
    return torch.cat(scaled, dim=1)
