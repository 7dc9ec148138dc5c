"""Noise ensembles, from the published one to those that need fewer passes. Importing this module loads no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from sd4match.interfaces.sampling import NoiseEnsemble as NoiseEnsemble
from sd4match.registry import register

if TYPE_CHECKING:
    from torch import Tensor


@register
class IndependentNoise(NoiseEnsemble):
    """Independent noises, as DIFT and SD4Match publish it. The error of their mean falls with 1 / sqrt(size)."""

    kind: Literal["independent"] = "independent"

    def noises(self, draw: Callable[[int], Tensor], size: int, members: Sequence[int]) -> Tensor:
        """Return one draw for each member."""
        import torch

        return torch.stack([draw(member) for member in members])


@register
class AntitheticNoise(NoiseEnsemble):
    """Pairs of a noise and its negative, which cancel every odd term of the features in the noise.

    The noises of an ensemble of two or more add up to 0. An odd ensemble begins with three noises of correlation -1/2,
    which add up to 0 as well; an ensemble of one is the published one.
    """

    kind: Literal["antithetic"] = "antithetic"

    def noises(self, draw: Callable[[int], Tensor], size: int, members: Sequence[int]) -> Tensor:
        """Return the noises of a triple, if the size is odd, and of pairs."""
        import torch

        if size == 1:
            return draw(0)[None]
        first = 3 if size % 2 else 0
        triple = torch.stack([draw(number) for number in range(first)]) if first else None

        def noise(member: int) -> Tensor:
            if triple is not None and member < first:
                return (triple[member] - triple.mean(dim=0)) * math.sqrt(1.5)
            pair, sign = divmod(member - first, 2)
            return -draw(first + pair) if sign else draw(first + pair)

        return torch.stack([noise(member) for member in members])


@register
class MatchedNoise(NoiseEnsemble):
    """Noises that have, in every number of the latent, mean 0 and variance 1 over the ensemble (moment matching).

    This cancels the linear terms of the features in the noise, and of the quadratic terms the squares; independent
    noises match these moments on average only. Two noises are signs, +1 and -1; a single one is the published one.
    """

    kind: Literal["matched"] = "matched"

    def noises(self, draw: Callable[[int], Tensor], size: int, members: Sequence[int]) -> Tensor:
        """Return independent draws, standardized over the ensemble."""
        import torch

        if size == 1:
            return draw(0)[None]
        draws = torch.stack([draw(number) for number in range(size)])
        centered = draws.double() - draws.double().mean(dim=0)  # in float32, draws that are near would not cancel
        deviation = centered.square().mean(dim=0).sqrt().clamp_min(1e-12)  # 0 where all draws happen to be equal
        return (centered[list(members)] / deviation).to(draws)
