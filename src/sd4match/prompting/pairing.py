"""The rule of prompts in pairs, in one place."""

from __future__ import annotations

import torch

from sd4match.interfaces import Backbone, LooksAtPhotos, Prepare, PromptProvider
from sd4match.structures.images import ImageBatch
from sd4match.structures.tensors import FeatureMap, PromptEmbedding, Sampling


def pair_prompts(
    provider: PromptProvider, source: ImageBatch, target: ImageBatch
) -> tuple[PromptEmbedding, PromptEmbedding]:
    """Prompts for the sources and the targets of B pairs.

    A provider of scope "pair" is asked once, with (source, target), and its answer serves both; any other is asked for
    each photo alone. What photos share, a prompt for all or for a category, is asked for together, so that it goes
    through the text encoder once.
    """
    if provider.scope == "pair":
        shared = provider(source, target)
        return shared, shared
    if provider.scope == "image":
        return provider(source), provider(target)
    values = provider(source + target).values.expand(len(source) + len(target), -1, -1)
    return PromptEmbedding(values[: len(source)]), PromptEmbedding(values[len(source) :])


def wanted_views(backbone: Backbone, provider: PromptProvider) -> dict[str, Prepare]:
    """Everyone who will look at a photo, by name: the backbone, and whoever the provider names."""
    more = provider.views if isinstance(provider, LooksAtPhotos) else {}
    return {"backbone": backbone.prepare, **more}


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
