"""Losses: what a prompt is learned from."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sd4match.errors import InputError
from sd4match.matching import functional
from sd4match.matching.correlation import photo_to_cells
from sd4match.matching.functional.smoothed_target import gaussian_cross_entropy_floor
from sd4match.structures.tensors import Correlation, Keypoints, ParameterGroup

_DEFAULT_TEMPERATURE = 0.04


class GaussianCrossEntropy(nn.Module):
    """Eq. 5; see `functional.gaussian_cross_entropy`.

    Args:
        temperature: the correlation is divided by it; "learned": it is a parameter, kept positive by its logarithm, as
            SimSC learns one beside its features.
        kernel_size: k, odd, at least 3.
        initial_temperature: where a learned one starts; 0.04, if not given.

    Raises:
        InputError: a temperature that is not positive, or an initial one beside a fixed one.

    >>> GaussianCrossEntropy(temperature="learned").readings()
    {'temperature': 0.04}
    """

    def __init__(
        self,
        *,
        temperature: float | Literal["learned"] = _DEFAULT_TEMPERATURE,
        kernel_size: int = 7,
        initial_temperature: float | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        learned = temperature == "learned"
        if initial_temperature is not None and not learned:
            raise InputError(f'initial_temperature goes with temperature "learned", not with {temperature}')
        start = (initial_temperature or _DEFAULT_TEMPERATURE) if temperature == "learned" else float(temperature)
        if not start > 0:
            raise InputError(f"temperature must be positive, not {start}")
        self._fixed = start
        self.log_temperature = nn.Parameter(torch.tensor(start).log()) if learned else None

    @property
    def temperature(self) -> float | Tensor:
        """A number, or a scalar that gradients reach."""
        return self._fixed if self.log_temperature is None else self.log_temperature.exp()

    def forward(self, correlation: Correlation, targets: Keypoints) -> Float[Tensor, ""]:
        """Loss of a batch; `targets` are in photo pixels."""
        return functional.gaussian_cross_entropy(
            correlation.values,
            self._cells(correlation, targets),
            targets.visible,
            temperature=self.temperature,
            kernel_size=self.kernel_size,
        )

    def floor(self, correlation: Correlation, targets: Keypoints) -> Float[Tensor, ""]:
        """What the loss of this batch cannot fall below; see `smoothed_target.gaussian_cross_entropy_floor`."""
        return gaussian_cross_entropy_floor(
            self._cells(correlation, targets),
            targets.visible,
            map_size=correlation.target.map_size,
            kernel_size=self.kernel_size,
        )

    def _cells(self, correlation: Correlation, targets: Keypoints) -> Tensor:
        return photo_to_cells(targets.points.to(correlation.values), correlation.target)

    def parameter_groups(self) -> list[ParameterGroup]:
        """The logarithm of the temperature, if it is learned."""
        return [] if self.log_temperature is None else [ParameterGroup("temperature", (self.log_temperature,))]

    def readings(self) -> dict[str, float]:
        """The temperature, if it is learned."""
        return {} if self.log_temperature is None else {"temperature": round(self.log_temperature.exp().item(), 6)}
