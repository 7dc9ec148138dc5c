"""Gaussian cross-entropy, the loss of the paper, as a module with a temperature that may be learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sd4match.arguments import check_arguments
from sd4match.interfaces import MatchingLoss as MatchingLoss
from sd4match.matching import functional
from sd4match.matching.losses import GaussianCrossEntropyConfig
from sd4match.structures.tensors import Correlation
from sd4match.structures.tensors import Keypoints as Keypoints
from sd4match.structures.tensors import LossValue as LossValue
from sd4match.structures.tensors import ParameterGroup as ParameterGroup

_DEFAULT_TEMPERATURE = 0.04


class GaussianCrossEntropy(nn.Module, MatchingLoss):
    """Cross-entropy with a Gaussian-smoothed target (Eq. 5); see `functional.gaussian_cross_entropy`.

    A learned temperature is stored as its logarithm, so that it stays positive, as in SimSC.

    Convention: weights of cells outside the map are dropped, so a true point at its border counts less.

    Args:
        config: temperature and kernel size; None: the paper's.

    >>> GaussianCrossEntropy(GaussianCrossEntropyConfig(temperature="learned")).log_values()
    {'temperature': 0.04}
    """

    has_lower_bound = True

    @check_arguments
    def __init__(self, config: GaussianCrossEntropyConfig | None = None) -> None:
        super().__init__()
        self.config = config or GaussianCrossEntropyConfig()
        temperature = self.config.temperature
        learned = temperature == "learned"
        self._fixed = _DEFAULT_TEMPERATURE if temperature == "learned" else temperature
        start = self.config.initial_temperature or _DEFAULT_TEMPERATURE
        self.log_temperature = nn.Parameter(torch.tensor(start).log()) if learned else None

    @property
    def temperature(self) -> float | Tensor:
        """Divisor of the correlation: a number, or a scalar tensor that gradients reach if it is learned."""
        return self._fixed if self.log_temperature is None else self.log_temperature.exp()

    @check_arguments
    def forward(self, correlation: Correlation, targets: Keypoints) -> LossValue:
        """Return the loss of B pairs and its lower bound.

        Args:
            correlation: correlation of the source points with every target cell.
            targets: true points in original pixels of the target photos.

        Returns:
            The mean over the pairs that have a visible point, 0 if none has, and the entropy of the smoothed target.
        """
        loss, bound = functional.gaussian_cross_entropy_with_bound(
            correlation.values,
            correlation.target.grid.to_cells(targets.points.to(correlation.values)),
            targets.visible,
            temperature=self.temperature,
            kernel_size=self.config.kernel_size,
        )
        return LossValue(loss, bound.detach())

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the logarithm of the temperature, if it is learned."""
        return [] if self.log_temperature is None else [ParameterGroup("temperature", (self.log_temperature,))]

    def log_values(self) -> dict[str, float]:
        """Return the temperature, if it is learned."""
        return {} if self.log_temperature is None else {"temperature": round(self.log_temperature.exp().item(), 6)}
