"""Transforms of the two feature maps of a pair together, after they are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from sd4match.errors import InputError
from sd4match.structures.tensors import FeatureMap


class CoPCA:
    """SD-DINO's: the channels of each layer reduced to the main directions of both maps together.

    For each channel group, the cells of both maps of a pair are centred by their common mean and projected onto the
    `components` eigenvectors of their covariance with the largest eigenvalues (signs are arbitrary, and the same for
    both). Then consecutive groups are L2-normalised together, `parts` at a time, weighted, and concatenated: for
    SD+DINO, three layers of Stable Diffusion as one part, DINOv2 as the other.

    Args:
        components: for every group, or one number for all; 0 keeps a group as it is. A group that has no more channels
            is kept too.
        parts: how many consecutive groups make a part; all of them one part, if not given.
        weights: of each part; all 1, if not given.
    """

    def __init__(
        self,
        *,
        components: int | Sequence[int] = 256,
        parts: Sequence[int] | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.components = components
        self.parts = parts
        self.weights = weights

    def __call__(self, source: FeatureMap, target: FeatureMap) -> tuple[FeatureMap, FeatureMap]:
        """Both maps, reduced.

        Raises:
            InputError: settings for another number of groups than the maps have.
        """
        groups = source.groups or (source.values.shape[1],)
        components = [self.components] * len(groups) if isinstance(self.components, int) else list(self.components)
        parts = [len(groups)] if self.parts is None else list(self.parts)
        weights = [1.0] * len(parts) if self.weights is None else list(self.weights)
        if len(components) != len(groups) or sum(parts) != len(groups) or len(weights) != len(parts):
            raise InputError(
                f"co-PCA has {len(components)} components, parts {parts} and {len(weights)} weights for maps of "
                f"{len(groups)} channel groups"
            )
        split = zip(source.values.split(groups, dim=1), target.values.split(groups, dim=1), components, strict=True)
        reduced = [_reduced(one, other, count) for one, other, count in split]
        sizes = tuple(one.shape[1] for one, _ in reduced)
        maps = []
        for side, whole in enumerate((source, target)):
            pieces = iter([pair[side] for pair in reduced])
            joined = [torch.cat([next(pieces) for _ in range(count)], dim=1) for count in parts]
            values = [weight * F.normalize(one, dim=1) for one, weight in zip(joined, weights, strict=True)]
            maps.append(replace(whole, values=torch.cat(values, dim=1), groups=sizes if len(sizes) > 1 else ()))
        return maps[0], maps[1]


def _reduced(source: Tensor, target: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """(B, C, h, w) and (B, C, h', w') -> the same with `components` channels."""
    if components == 0 or components >= source.shape[1]:
        return source, target
    cells = torch.cat([source.flatten(2), target.flatten(2)], dim=2).double()
    centre = cells.mean(dim=2, keepdim=True)
    covariance = (cells - centre) @ (cells - centre).transpose(1, 2)
    directions = torch.linalg.eigh(covariance).eigenvectors[..., -components:].flip(-1).transpose(1, 2)

    def project(values: Tensor) -> Tensor:
        projected: Tensor = directions @ (values.flatten(2).double() - centre)
        shaped: Tensor = projected.unflatten(2, values.shape[2:]).to(values)
        return shaped

    return project(source), project(target)
