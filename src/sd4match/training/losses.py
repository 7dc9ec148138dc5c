"""Plain functions as losses of a training."""

from __future__ import annotations

from torch import Tensor

from sd4match.interfaces import MatchingLoss
from sd4match.structures.tensors import Correlation, Keypoints, LossFunction, LossValue


class FunctionLoss(MatchingLoss):
    """Loss that calls a plain function, without parameters and logged values.

    Args:
        function: `(Correlation, Keypoints) -> scalar`.
    """

    def __init__(self, function: LossFunction) -> None:
        self.function = function

    def __call__(self, correlation: Correlation, targets: Keypoints) -> Tensor | LossValue:
        """Return the value of the function."""
        return self.function(correlation, targets)


def as_matching_loss(loss: MatchingLoss | LossFunction) -> MatchingLoss:
    """Return a `MatchingLoss` unchanged, and a plain function as a `FunctionLoss`.

    >>> as_matching_loss(lambda correlation, targets: correlation.values.mean()).parameter_groups()
    []
    """
    return loss if isinstance(loss, MatchingLoss) else FunctionLoss(loss)
