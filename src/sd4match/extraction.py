"""Photos of pairs, a prompt provider and a backbone -> the feature maps of both sides."""

from __future__ import annotations

import torch

from sd4match.prompting.pairing import pair_prompts
from sd4match.protocols import Backbone, PromptProvider
from sd4match.types import FeatureMap, ImageBatch, PromptEmbedding, Sampling


def pair_maps(
    backbone: Backbone, prompt: PromptProvider, source: ImageBatch, target: ImageBatch, sampling: Sampling
) -> tuple[FeatureMap, FeatureMap]:
    """The maps of B sources and of B targets under their prompts, in one extraction.

    Args:
        backbone: as built.
        prompt: any provider.
        source: B photos, with the views of backbone and provider.
        target: their partners.
        sampling: of the 2 B photos, sources first.
    """
    latents = backbone.encode(source.views["backbone"] + target.views["backbone"])
    own, partners = pair_prompts(prompt, source, target)
    prompts = [side.values.expand(len(source), -1, -1) for side in (own, partners)]
    maps = backbone.extract(latents, PromptEmbedding(torch.cat(prompts)), sampling)
    return maps[: len(source)], maps[len(source) :]
