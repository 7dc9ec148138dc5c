"""Prompts that are not learned: the empty one and a text."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from sd4match.errors import InputError
from sd4match.interfaces import Backbone, Scope, TextEncoder
from sd4match.structures.images import ImageBatch
from sd4match.structures.tensors import ParameterGroup, PromptEmbedding


def text_encoder_of(backbone: Backbone) -> TextEncoder:
    """The backbone's text encoder.

    Raises:
        InputError: it has none.
    """
    if backbone.text is None:
        raise InputError(f"the backbone ({backbone.spec.architecture}) takes no prompt")
    return backbone.text


def clean_category(category: str) -> str:
    """The word of a category: PF-Willow's suffixes and underscores away.

    >>> clean_category("car(G)"), clean_category("potted_plant")
    ('car', 'potted plant')
    """
    return re.sub(r"\s*\(.*\)\s*$", "", category).replace("_", " ").strip()


class TextEmbeddings:
    """The text encoder's output of each text, computed once."""

    def __init__(self, text: TextEncoder) -> None:
        self.text = text
        self._kept: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, texts: list[str]) -> Tensor:
        """(B, L, D)."""
        for text in set(texts) - self._kept.keys():
            self._kept[text] = self.text.transform(self.text.embed(self.text.tokenize([text])))[0]
        return torch.stack([self._kept[text] for text in texts])


class EmptyPrompt:
    """The prompt "" for every photo."""

    scope: Scope = "dataset"

    def __init__(self, *, backbone: Backbone) -> None:
        self._embed = TextEmbeddings(text_encoder_of(backbone))

    def __call__(self, images: ImageBatch, partners: ImageBatch | None = None) -> PromptEmbedding:
        """(B, L, D)."""
        return PromptEmbedding(self._embed([""] * len(images)))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Nothing is learned."""
        return []


class TextPrompt:
    """A template filled with the category of each photo."""

    def __init__(
        self,
        *,
        backbone: Backbone,
        template: str = "a photo of a {category}",
        by_category: Mapping[str, str] | None = None,
    ) -> None:
        self._embed = TextEmbeddings(text_encoder_of(backbone))
        self.template = template
        self.by_category = dict(by_category or {})
        self.scope: Scope = "category" if "{category}" in template or self.by_category else "dataset"

    def __call__(self, images: ImageBatch, partners: ImageBatch | None = None) -> PromptEmbedding:
        """(B, L, D).

        Raises:
            InputError: the template wants a category and a photo has none, or the text is too long.
        """
        return PromptEmbedding(self._embed([self._fill(category) for category in images.categories]))

    def _fill(self, category: str | None) -> str:
        if category is None and self.scope == "category":
            raise InputError(f"the prompt {self.template!r} needs a category, and the photo has none; name one")
        template = self.by_category.get(category or "", self.template)
        return template.format(category=clean_category(category or ""))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Nothing is learned."""
        return []


class NoPrompt:
    """Nothing, for backbones that take no prompt.

    >>> NoPrompt(backbone=None)(ImageBatch({}, (None, None))).values.shape
    torch.Size([2, 0, 1])
    """

    scope: Scope = "dataset"

    def __init__(self, *, backbone: Backbone | None) -> None:
        pass

    def __call__(self, images: ImageBatch, partners: ImageBatch | None = None) -> PromptEmbedding:
        """No vector for each photo."""
        return PromptEmbedding(torch.zeros(len(images), 0, 1))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Nothing is learned."""
        return []
