"""A tensor that was left on the CPU is noticed in every sort of component."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from helpers.small_presets import small_preset
from sd4match import SemanticMatcher
from sd4match.config import build_components
from sd4match.errors import ComponentError
from sd4match.matching import KernelSoftArgmax
from sd4match.matching.losses import GaussianCrossEntropyConfig
from sd4match.prompting import SinglePrompt
from sd4match.structures.tensors import PromptEmbedding
from sd4match.testing import random_photo
from sd4match.training import train

pytestmark = pytest.mark.slow


class Prompt(SinglePrompt):
    def forward(self, images, partners=None):
        prompt = super().forward(images, partners)
        return PromptEmbedding(prompt.values + torch.zeros(prompt.values.shape[-1]))


class Matcher(KernelSoftArgmax):
    def cells(self, correlation):
        return super().cells(correlation) + torch.zeros(2)


class Loss(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = GaussianCrossEntropyConfig(temperature=0.1).build()
        self.weights = torch.ones(7)  # should be a buffer

    def forward(self, correlation, targets):
        return self.inner(correlation, targets).value * (correlation.values.sum().expand(7) * self.weights).mean()


def transform(source, target):
    return replace(source, values=source.values * torch.ones(source.values.shape[1], 1, 1)), target


def forget_in_prompt(components):
    return replace(components, prompt=Prompt(backbone=components.backbone).to(components.backbone.device))


def forget_in_backbone(components):
    extract = components.backbone.extract

    def forgetful(encoded, prompt, sampling):
        features = extract(encoded, prompt, sampling)
        return replace(features, values=features.values + torch.zeros(features.values.shape[-1]))

    components.backbone.extract = forgetful
    return components


def forget_in_encoder(components):
    """Leave a weight of the image encoder behind."""
    model = components.prompt.image_encoder.encoder.model
    first = next(each for each in model.modules() if isinstance(each, nn.Linear))
    del first.weight
    first.weight = torch.zeros(first.out_features, first.in_features)
    return components


FORGETFUL = {
    "prompt": forget_in_prompt,
    "matcher": lambda components: replace(components, matcher=Matcher()),
    "loss": lambda components: replace(components, loss=Loss()),
    "pair transform": lambda components: replace(components, pair_transform=transform),
    "backbone": forget_in_backbone,
    "image encoder": forget_in_encoder,
}


@pytest.mark.parametrize("part", FORGETFUL)
def test_a_forgotten_move_is_an_error(part, accelerator, small_models, tmp_path):
    config = small_preset("sd2-1-cpm", small_models)
    photos = random_photo(), random_photo(seed=1)

    def use(device):
        components = FORGETFUL[part](build_components(config, device=str(device)))
        SemanticMatcher.from_components(components, config).match(*photos, [(3.0, 4.0)], category="fish")
        train(config, components, tmp_path)

    with accelerator() as device, pytest.raises((RuntimeError, ComponentError), match="same device"):
        use(device)
