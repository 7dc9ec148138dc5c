"""A prompt and a trainer of the smallest size."""

from __future__ import annotations

import torch
from torch import nn

from sd4match.config.protocols import EvaluationProtocol
from sd4match.config.sections import SamplingConfig, TrainingConfig
from sd4match.interfaces import Prompt
from sd4match.matching.losses import GaussianCrossEntropyConfig
from sd4match.matching.matchers import NearestNeighbor
from sd4match.structures.tensors import ParameterGroup, PromptEmbedding
from sd4match.testing import FakeBackbone, FakePairs
from sd4match.training.trainer import Trainer


class Vector(Prompt):
    """Prompt of no registered kind: a trainer needs the interface only."""

    def __init__(self):
        super().__init__()
        self.vector = nn.Parameter(torch.zeros(1, 16, 8))

    def forward(self, images, partners=None):
        return PromptEmbedding(self.vector.expand(len(images), -1, -1))

    def parameter_groups(self):
        return [ParameterGroup("vector", (self.vector,), scale=0.5)]


class DropoutVector(Vector):
    """Prompt that draws from torch's global generator."""

    def forward(self, images, partners=None):
        prompt = super().forward(images)
        return PromptEmbedding(nn.functional.dropout(prompt.values + 1.0))


def gaussian_cross_entropy(**fields):
    """Return the loss of the paper at a temperature that suits random features."""
    return GaussianCrossEntropyConfig(**({"temperature": 0.15} | fields)).build()


def trainer(prompt=None, loss=None, *, train_data=None, matcher=None, pair_transform=None, **fields):
    options = {"steps": 6, "batch_size": 2, "validate_every": 3, "sampling": SamplingConfig(timestep=0)} | fields
    return Trainer(
        backbone=FakeBackbone(),
        prompt=prompt or Vector(),
        loss=loss or gaussian_cross_entropy(),
        config=TrainingConfig(**options),
        train_data=train_data or FakePairs(pairs=5),
        validation_data=FakePairs(pairs=4),
        validation_matcher=NearestNeighbor(),
        protocol=EvaluationProtocol(),
        matcher=matcher,
        pair_transform=pair_transform,
    )
