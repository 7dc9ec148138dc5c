"""A prompt and a trainer of the smallest size."""

from __future__ import annotations

import torch
from torch import nn

from sd4match.config.protocols import Measurement
from sd4match.config.sections import SamplingSettings, TrainingSettings
from sd4match.matching.losses import GaussianCrossEntropy
from sd4match.matching.matchers import NearestNeighbor
from sd4match.structures.tensors import ParameterGroup
from sd4match.testing import FakeBackbone, FakePairs
from sd4match.training.trainer import Trainer


class Vector(nn.Module):
    """A prompt of nobody's kind: the trainer knows protocols only."""

    scope = "dataset"

    def __init__(self):
        super().__init__()
        self.vector = nn.Parameter(torch.zeros(1, 16, 8))

    def forward(self, images, partners=None):
        from sd4match.structures.tensors import PromptEmbedding

        return PromptEmbedding(self.vector.expand(len(images), -1, -1))

    def parameter_groups(self):
        return [ParameterGroup("vector", (self.vector,), scale=0.5)]


def trainer(prompt=None, loss=None, **settings):
    options = {"steps": 6, "batch_size": 2, "validate_every": 3, "sampling": SamplingSettings(timestep=0)} | settings
    return Trainer(
        backbone=FakeBackbone(),
        prompt=prompt or Vector(),
        loss=loss or GaussianCrossEntropy(temperature=0.15),
        settings=TrainingSettings(**options),
        train_data=FakePairs(pairs=5),
        validation_data=FakePairs(pairs=4),
        validation_matcher=NearestNeighbor(),
        measurement=Measurement(),
    )
