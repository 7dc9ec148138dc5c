"""Concatenation of the maps of several layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def joined(
    layers: Sequence[Float[Tensor, "batch _ _ _"]], size: tuple[int, int]
) -> Float[Tensor, "batch channels height width"]:
    """Resize the maps of some layers to one size (bilinear, by cell centers, as SD-DINO does) and concatenate them.

    Args:
        layers: map (B, C, h, w) of each layer.
        size: (h, w) of the result.

    >>> joined([torch.zeros(1, 3, 2, 2), torch.ones(1, 2, 4, 4)], (4, 4)).shape
    torch.Size([1, 5, 4, 4])
    """
    resized = [
        layer if tuple(layer.shape[-2:]) == size else F.interpolate(layer, size=size, mode="bilinear")
        for layer in layers
    ]
    return torch.cat(resized, dim=1)
