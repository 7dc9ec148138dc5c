"""Prompts and photos for tests of prompts."""

from __future__ import annotations

import torch

from sd4match.data.collate import make_images
from sd4match.prompting import (
    ClassPrompt,
    ClassPromptConfig,
    ConditionalPrompt,
    ConditionalPromptConfig,
    Prompt,
    SinglePrompt,
    SinglePromptConfig,
)
from sd4match.prompting.pairing import preprocessors
from sd4match.structures.images import ImageBatch
from sd4match.structures.tensors import PromptEmbedding
from sd4match.testing import FakeBackbone, FakeTextEncoder, random_photo


class FakePrompt(Prompt):
    """Prompt of zeros, of any scope."""

    def __init__(self, scope="dataset"):
        super().__init__()
        self.scope = scope

    def forward(self, images, partners=None):
        return PromptEmbedding(torch.zeros(len(images), 16, 8))


def fake_backbone():
    """Return a backbone of text width 8 and length 77."""
    return FakeBackbone(text_encoder=FakeTextEncoder())


def photos(*categories):
    """Return a batch of photos that have categories and no views."""
    return ImageBatch({}, categories)


def photos_for(prompt, seeds, backbone=None):
    """Return random photos with the views that the prompt and the backbone need."""
    views = preprocessors(backbone or fake_backbone(), prompt)
    return make_images([random_photo(seed=seed) for seed in seeds], [None] * len(seeds), views)


def single_prompt(backbone=None, **fields):
    return SinglePrompt(SinglePromptConfig(**fields), backbone=backbone or fake_backbone())


def class_prompt(backbone=None, **fields):
    return ClassPrompt(ClassPromptConfig(**fields), backbone=backbone or fake_backbone())


def cpm(backbone=None, **fields):
    return ConditionalPrompt(ConditionalPromptConfig(**fields), backbone=backbone or fake_backbone())
