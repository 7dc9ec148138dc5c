"""Losses: what a prompt is learned from."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from sd4match.matching import functional
from sd4match.matching.correlation import photo_to_cells
from sd4match.types import Correlation, Keypoints


class GaussianCrossEntropy:
    """Eq. 5; see `functional.gaussian_cross_entropy`."""

    def __init__(self, *, temperature: float = 0.04, kernel_size: int = 7) -> None:
        self.temperature = temperature
        self.kernel_size = kernel_size

    def __call__(self, correlation: Correlation, targets: Keypoints) -> Float[Tensor, ""]:
        """Loss of a batch; `targets` are in photo pixels."""
        cells = photo_to_cells(targets.points.to(correlation.values), correlation.target)
        return functional.gaussian_cross_entropy(
            correlation.values, cells, targets.visible, temperature=self.temperature, kernel_size=self.kernel_size
        )
