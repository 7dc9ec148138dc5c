"""The rule of prompts in pairs, in one place."""

from __future__ import annotations

from sd4match.protocols import Backbone, LooksAtPhotos, Prepare, PromptProvider
from sd4match.types import ImageBatch, PromptEmbedding


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
