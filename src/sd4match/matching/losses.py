"""Configs of the losses. Importing this module loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator, model_validator

from sd4match.fields import PositiveNumber
from sd4match.interfaces import Loss as Loss
from sd4match.interfaces import LossConfig as LossConfig
from sd4match.registry import register

if TYPE_CHECKING:
    from sd4match.matching.gaussian_cross_entropy import GaussianCrossEntropy


@register
class GaussianCrossEntropyConfig(LossConfig):
    """Cross-entropy with a Gaussian-smoothed target (Eq. 5); the defaults are the paper's."""

    kind: Literal["gaussian_cross_entropy"] = "gaussian_cross_entropy"
    temperature: PositiveNumber | Literal["learned"] = Field(
        default=0.04,
        description='the correlation is divided by it; "learned": a parameter beside the prompt, as in SimSC',
    )
    initial_temperature: PositiveNumber | None = Field(default=None, description="start of a learned one; None: 0.04")
    kernel_size: int = Field(default=7, ge=3, le=1023, description="side of the smoothed target in cells, odd")

    @field_validator("kernel_size")
    @classmethod
    def _odd(cls, kernel_size: int) -> int:
        if kernel_size % 2 == 0:
            raise ValueError(f"must be odd, not {kernel_size}")
        return kernel_size

    @model_validator(mode="after")
    def _initial_only_if_learned(self) -> GaussianCrossEntropyConfig:
        if self.initial_temperature is not None and self.temperature != "learned":
            raise ValueError(f"initial_temperature goes with temperature = learned, not with {self.temperature}")
        return self

    def build(self) -> GaussianCrossEntropy:
        """Return the loss."""
        from sd4match.matching.gaussian_cross_entropy import GaussianCrossEntropy

        return GaussianCrossEntropy(self)
