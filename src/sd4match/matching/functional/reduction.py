"""Reduction of feature channels: co-PCA of a pair, and weighted concatenation of normalized blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sd4match.checks import check_count, check_finite, check_number, check_same_device, check_shape
from sd4match.errors import InputError, shown
from sd4match.norms import unit_vectors


def co_pca(
    source: Float[Tensor, "batch channels h w"], target: Float[Tensor, "batch channels h2 w2"], components: int
) -> tuple[Float[Tensor, "batch reduced h w"], Float[Tensor, "batch reduced h2 w2"]]:
    """Project both maps of a pair onto the principal directions of all their cells together (SD-DINO).

    The cells of both maps are centered by their common mean and projected onto the eigenvectors of their covariance
    with the largest eigenvalues. Signs are arbitrary, and the same for both maps.

    Args:
        source: (B, C, h, w).
        target: (B, C, h', w').
        components: number of directions, >= 0; with 0, or C and more, the maps are returned unchanged.

    Returns:
        Both maps with `components` channels, in their data types.

    Raises:
        ShapeError: the maps differ in B or C.
        InputError: maps of integers or booleans, or a negative number of components.
        NonFiniteError: a feature is NaN or infinite.

    >>> source, target = co_pca(torch.randn(1, 6, 3, 3), torch.randn(1, 6, 4, 4), 2)
    >>> source.shape, target.shape
    (torch.Size([1, 2, 3, 3]), torch.Size([1, 2, 4, 4]))
    """
    sizes = check_shape("source", source, "B C h w", of="floats")
    check_shape("target", target, "B C h2 w2", of="floats", B=sizes["B"], C=sizes["C"])
    check_same_device(source=source, target=target)
    components = check_count("components", components, 0)
    if components == 0 or components >= source.shape[1]:
        return source, target
    cells = torch.cat([source.flatten(2), target.flatten(2)], dim=2).double()
    center = cells.mean(dim=2, keepdim=True)
    covariance = (cells - center) @ (cells - center).transpose(1, 2)
    check_finite("the covariances of the features", covariance)
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
        values: maps (B, C_i, h, w).
        blocks: numbers of consecutive maps in each block; they sum to the number of maps.
        weights: weight of each block.

    Returns:
        (B, sum of C_i, h, w).

    Raises:
        ShapeError: the maps differ in B, h or w.
        InputError: the blocks are not of all maps, there is not one weight for each, or one is not finite.

    >>> weighted_concatenation([torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1)], [1, 1], [0.5, 2.0]).flatten()
    tensor([0.5000, 2.0000])
    """
    for name, value in (("values", values), ("blocks", blocks), ("weights", weights)):
        if not isinstance(value, (tuple, list)):
            raise InputError(f"{name} must be a tuple or a list, not {shown(value)}")
    count = sum(check_count("blocks", size) for size in blocks)
    if count != len(values) or count == 0 or len(blocks) != len(weights):
        raise InputError(
            f"blocks must sum to the number of maps and have a weight each: not blocks of {count} maps and "
            f"{len(weights)} weights for {len(values)} maps"
        )
    weights = [check_number("weights", weight) for weight in weights]
    sizes: dict[str, int] = {}
    for number, features in enumerate(values):
        found = check_shape(f"values[{number}]", features, "B channels h w", of="floats", **sizes)
        sizes = {name: found[name] for name in ("B", "h", "w")}
    pieces = iter(values)
    joined = [torch.cat([next(pieces) for _ in range(count)], dim=1) for count in blocks]
    scaled = [weight * unit_vectors(block, dim=1) for block, weight in zip(joined, weights, strict=True)]
    return torch.cat(scaled, dim=1)
