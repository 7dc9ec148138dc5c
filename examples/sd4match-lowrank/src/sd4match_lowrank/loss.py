"""A loss with a parameter."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sd4match.matching import Correlation, Keypoints, MatchingLoss, functional
from sd4match.registry import register_loss


@register_loss("tempered")
class TemperedCrossEntropy(nn.Module, MatchingLoss):
    """Cross-entropy of the true location, whose temperature is learned beside the prompt.

    Args:
        temperature: where the learned one starts.
    """

    def __init__(self, *, temperature: float = 0.04) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(temperature).log())

    def forward(self, correlation: Correlation, targets: Keypoints) -> Tensor:
        """Return the mean over the pairs that have a visible point."""
        truth = torch.where(targets.visible[..., None], targets.points.to(correlation.values), 0.0)
        cells = correlation.target.grid.to_cells(truth)
        return functional.gaussian_cross_entropy(
            correlation.values, cells, targets.visible, temperature=self.log_temperature.exp()
        )

    def log_values(self) -> dict[str, float]:
        """Return the temperature, a column of the training's CSV."""
        return {"temperature": self.log_temperature.exp().item()}
