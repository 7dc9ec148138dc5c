"""A matcher with a learned temperature and a transform with learned weights of channels."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from sd4match import registry
from sd4match.matching import functional, matches_from_cells


class Tempered(nn.Module):
    def __init__(self, *, start: float = 0.05) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(start).log())

    def forward(self, correlation):
        temperature = self.log_temperature.exp()
        cells = functional.soft_argmax(correlation.values / temperature, temperature=1.0)
        return matches_from_cells(cells, correlation, temperature=temperature.item())

    def log_values(self):
        return {"matcher_temperature": self.log_temperature.exp().item()}


class Weighted(nn.Module):
    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(channels))
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, source, target):
        if self.training:
            self.calls += 1
        weights = self.weights[:, None, None]
        return tuple(replace(each, values=each.values * weights) for each in (source, target))


@contextmanager
def learned_parts():
    """Register both for a while, as "tempered" and "weighted"."""
    with registry.matchers.temporarily(), registry.pair_transforms.temporarily():
        registry.register_matcher("tempered")(Tempered)
        registry.register_pair_transform("weighted")(Weighted)
        yield
