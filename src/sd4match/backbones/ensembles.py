"""Noise ensembles: the published one, and ensembles that need fewer passes. Importing this module loads no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from typing_extensions import override

from sd4match.interfaces.sampling import NoiseEnsemble as NoiseEnsemble
from sd4match.registry import register

if TYPE_CHECKING:
    from torch import Tensor


@register
class IndependentNoise(NoiseEnsemble):
    """Ensemble of independent noises, as published by DIFT and SD4Match. Its error falls with 1 / sqrt(size).

    >>> import torch
    >>> IndependentNoise().noises(lambda number: torch.full((1, 1, 1), 1.0 + number), 3, range(3)).flatten()
    tensor([1., 2., 3.])
    """

    kind: Literal["independent"] = "independent"

    @override
    def noises(self, draw: Callable[[int], Tensor], size: int, members: Sequence[int]) -> Tensor:
        import torch

        return torch.stack([draw(member) for member in members])


@register
class AntitheticNoise(NoiseEnsemble):
    """Ensemble of pairs of a noise and its negative, which cancel every odd term of the features in the noise.

    The noises of an ensemble of two or more add up to 0. An odd ensemble begins with three noises of correlation -1/2,
    which add up to 0 as well. An ensemble of one is the published one.

    >>> import torch
    >>> AntitheticNoise().noises(lambda number: torch.full((1, 1, 1), 1.0 + number), 4, range(4)).flatten()
    tensor([ 1., -1.,  2., -2.])
    """

    kind: Literal["antithetic"] = "antithetic"

    @override
    def noises(self, draw: Callable[[int], Tensor], size: int, members: Sequence[int]) -> Tensor:
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
    """Ensemble of noises whose mean is 0 and variance is 1 in every element of the latent (moment matching).

    This cancels the terms of the features that are linear in the noise, and the squares among the quadratic terms.
    Independent noises match these moments on average only. An ensemble of two consists of the signs +1 and -1; an
    ensemble of one is the published one.

    >>> import torch
    >>> MatchedNoise().noises(lambda number: torch.full((1, 1, 1), 1.0 + number), 3, range(3)).flatten()
    tensor([-1.2247,  0.0000,  1.2247])
    """

    kind: Literal["matched"] = "matched"

    @override
    def noises(self, draw: Callable[[int], Tensor], size: int, members: Sequence[int]) -> Tensor:
        import torch

        if size == 1:
            return draw(0)[None]
        draws = torch.stack([draw(number) for number in range(size)])
        centered = draws.double() - draws.double().mean(dim=0)  # float64, for precision where all draws are similar
        std = centered.square().mean(dim=0).sqrt().clamp_min(1e-12)  # 0 where all draws happen to be equal
        return (centered[list(members)] / std).to(draws)
