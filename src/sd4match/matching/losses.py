"""Configs of the losses. Importing this module loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from sd4match.arguments import check_arguments
from sd4match.checks import LARGEST_WINDOW
from sd4match.errors import InputError
from sd4match.fields import PositiveNumber
from sd4match.interfaces import Loss as Loss
from sd4match.interfaces import LossConfig as LossConfig
from sd4match.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from sd4match.matching.gaussian_cross_entropy import GaussianCrossEntropy
    from sd4match.structures.tensors import Correlation, Keypoints, Matches


@register
class GaussianCrossEntropyConfig(LossConfig):
    """Config of the cross-entropy with a Gaussian-smoothed target (Eq. 5); the defaults are the paper's.

    >>> GaussianCrossEntropyConfig(temperature="learned", initial_temperature=0.1).build().log_values()
    {'temperature': 0.1}
    """

    kind: Literal["gaussian_cross_entropy"] = "gaussian_cross_entropy"
    temperature: PositiveNumber | Literal["learned"] = Field(
        default=0.04,
        description='the correlation is divided by it; "learned": a parameter beside the prompt, as in SimSC',
    )
    initial_temperature: PositiveNumber | None = Field(
        default=None, description="initial value of a learned temperature; None: 0.04"
    )
    kernel_size: int = Field(
        default=7, ge=3, le=LARGEST_WINDOW, description="side of the smoothed target in cells, odd"
    )

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


@register
class EndPointError(Loss):
    """Mean distance between matches and true points, in cells of the target map.

    The gradient goes through the matches, so this loss fits matchers that learn. With a differentiable matcher that
    learns nothing, such as `soft_argmax`, it trains the prompt.

    >>> from sd4match.testing import random_correlation
    >>> from sd4match.matching import Keypoints, SoftArgmax
    >>> import torch
    >>> correlation = random_correlation()
    >>> matches = SoftArgmax()(correlation)
    >>> EndPointError()(correlation, Keypoints(matches.points, torch.ones(2, 3, dtype=torch.bool)), matches)
    tensor(0.)
    """

    takes_matches: ClassVar[bool] = True

    kind: Literal["end_point_error"] = "end_point_error"

    @check_arguments
    def __call__(self, correlation: Correlation, targets: Keypoints, matches: Matches | None = None) -> Tensor:
        """Return the loss of B pairs.

        Args:
            correlation: correlation of the source points with every target cell.
            targets: true points in original pixels of the target photos.
            matches: matches of the source points, from the matcher of the experiment.

        Returns:
            A scalar: the mean over visible points, then over the pairs that have one; 0 if none has.

        Raises:
            InputError: there are no matches.
        """
        import torch

        from sd4match.matching.functional.cross_entropy import mean_over_pairs

        if matches is None:
            raise InputError("end_point_error needs matches: give them as the third argument")
        grid, visible = correlation.target.grid, targets.visible
        found, truth = (
            grid.to_cells(torch.where(visible[..., None], points.to(correlation.values), 0.0))
            for points in (matches.points, targets.points)
        )
        return mean_over_pairs(torch.linalg.vector_norm(found - truth, dim=-1), visible)
