"""Prompts and feature maps of pairs."""

from __future__ import annotations

import torch

from sd4match.interfaces import Backbone, Prepare, Prompt
from sd4match.structures.images import ImageBatch as ImageBatch
from sd4match.structures.tensors import FeatureMap, Sampling
from sd4match.structures.tensors import PromptEmbedding as PromptEmbedding


def pair_prompts(prompt: Prompt, source: ImageBatch, target: ImageBatch) -> tuple[PromptEmbedding, PromptEmbedding]:
    """Return the prompt embeddings of the sources and of the targets of B pairs.

    A prompt of scope "pair" is called once, with (source, target), and its embedding is that of both photos. A prompt
    of scope "image" is called for each side. Any other is called once for both sides, so that what photos share, a
    prompt for all or for a category, is encoded once.

    Args:
        prompt: prompt of any scope.
        source: B photos with the views of the prompt.
        target: the other photo of each pair.

    >>> from sd4match.prompting import EmptyPrompt
    >>> from sd4match.testing import FakeBackbone, FakeTextEncoder
    >>> prompt = EmptyPrompt(backbone=FakeBackbone(text_encoder=FakeTextEncoder()))
    >>> source, target = pair_prompts(prompt, ImageBatch({}, ("cat",)), ImageBatch({}, ("cat",)))
    >>> source.values.shape
    torch.Size([1, 16, 8])
    """
    if prompt.scope == "pair":
        shared = prompt(source, target)
        return shared, shared
    if prompt.scope == "image":
        return prompt(source), prompt(target)
    values = prompt(source + target).values.expand(len(source) + len(target), -1, -1)
    return PromptEmbedding(values[: len(source)]), PromptEmbedding(values[len(source) :])


def preprocessors(backbone: Backbone, prompt: Prompt) -> dict[str, Prepare]:
    """Return the preprocessing functions that the backbone and the prompt need, by name.

    Args:
        backbone: its function is named "backbone".
        prompt: its functions have the names in `prompt.views`.

    >>> from sd4match.prompting import NoPrompt
    >>> from sd4match.testing import FakeBackbone
    >>> list(preprocessors(FakeBackbone(), NoPrompt()))
    ['backbone']
    """
    return {"backbone": backbone.prepare, **prompt.views}


def pair_maps(
    backbone: Backbone, prompt: Prompt, source: ImageBatch, target: ImageBatch, sampling: Sampling
) -> tuple[FeatureMap, FeatureMap]:
    """Extract the feature maps of the sources and of the targets of B pairs, in one pass.

    Args:
        backbone: backbone.
        prompt: prompt of any scope.
        source: B photos with the views of backbone and prompt.
        target: the other photo of each pair.
        sampling: noise of the 2 B photos, sources first.

    >>> from sd4match.prompting import EmptyPrompt
    >>> from sd4match.structures.images import Views
    >>> from sd4match.testing import FakeBackbone, FakeTextEncoder, random_photo
    >>> backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    >>> photo = ImageBatch({"backbone": Views.of([backbone.prepare(random_photo())])}, (None,))
    >>> source, target = pair_maps(backbone, EmptyPrompt(backbone=backbone), photo, photo, Sampling(timestep=50))
    >>> source.values.shape
    torch.Size([1, 48, 8, 8])
    """
    encoded = backbone.encode(source.views["backbone"] + target.views["backbone"])
    embeddings = [side.values.expand(len(source), -1, -1) for side in pair_prompts(prompt, source, target)]
    maps = backbone.extract(encoded, PromptEmbedding(torch.cat(embeddings)), sampling)
    return maps[: len(source)], maps[len(source) :]
