"""Prompts that are learned without looking at the photo: one for all, or one for each category."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sd4match.errors import ConfigError, InputError, choose_from
from sd4match.interfaces import Backbone, Scope
from sd4match.prompting.config import ClassPromptConfig, SinglePromptConfig
from sd4match.prompting.initial import initial_vectors, take_over
from sd4match.prompting.text import TextPrompt, clean_category, text_encoder_of
from sd4match.prompting.tokens import encode_slots
from sd4match.structures.images import ImageBatch
from sd4match.structures.tensors import ParameterGroup, PromptEmbedding


class SinglePrompt(nn.Module):
    """SD4Match-Single: one prompt for all photos.

    In token space `token_embeddings` (slots, D) stand between BOS and EOS; see `splice.encode_slots`. In hidden space
    `hidden_states` (L, D) are the prompt embedding itself.

    Args:
        backbone: what it conditions.
        settings: the fields of `SinglePromptConfig`: slots, space, init, start_from, seed.

    Raises:
        ConfigError: settings that do not go together, or with the backbone.
    """

    scope: Scope = "dataset"

    def __init__(self, *, backbone: Backbone, **settings: Any) -> None:
        super().__init__()
        self._text = [text_encoder_of(backbone)]  # a list, so that it is no part of this module's state
        self.config = config = SinglePromptConfig.of(**settings)
        config.check_spec(backbone.spec)
        start = initial_vectors(
            self._text[0], space=config.space, slots=config.slots, init=_text_of(config), seed=config.seed
        )
        self.token_embeddings = nn.Parameter(start) if config.space == "token" else None
        self.hidden_states = nn.Parameter(start) if config.space == "hidden" else None
        take_over(self, config, backbone)

    def token_vectors(
        self, images: ImageBatch, partners: ImageBatch | None = None
    ) -> Float[Tensor, "batch slots width"] | None:
        """(B, slots, D), what stands between BOS and EOS; None in hidden space."""
        return None if self.token_embeddings is None else self.token_embeddings.expand(len(images), -1, -1)

    def forward(self, images: ImageBatch, partners: ImageBatch | None = None) -> PromptEmbedding:
        """(B, L, D), the same for every photo."""
        if self.token_embeddings is None:
            assert self.hidden_states is not None
            return PromptEmbedding(self.hidden_states.expand(len(images), -1, -1))
        embedding = encode_slots(self._text[0], self.token_embeddings[None])
        return PromptEmbedding(embedding.expand(len(images), -1, -1))

    def parameter_groups(self) -> list[ParameterGroup]:
        """The vectors."""
        return [ParameterGroup(name, (vectors,)) for name, vectors in self.named_parameters()]


class ClassPrompt(nn.Module):
    """SD4Match-Class: one prompt for each category.

    Vectors as in `SinglePrompt`, a set for each of `config.categories`. A category that is not in a batch gets no
    gradient, so its vectors stay where they are.

    Args:
        backbone: what it conditions.
        settings: the fields of `ClassPromptConfig`: categories, fallback, slots, space, init, start_from, seed.

    Raises:
        ConfigError: no categories, or settings that do not go together, or with the backbone.
    """

    scope: Scope = "category"

    def __init__(self, *, backbone: Backbone, **settings: Any) -> None:
        super().__init__()
        self._text = [text_encoder_of(backbone)]
        self.config = config = ClassPromptConfig.of(**settings)
        config.check_spec(backbone.spec)
        if not config.categories:
            raise ConfigError("a class prompt needs to know its categories: prompt.categories is empty")
        starts = [
            initial_vectors(
                self._text[0], space=config.space, slots=config.slots, init=_text_of(config, category),
                seed=config.seed * 1_009 + row,
            )
            for row, category in enumerate(config.categories)
        ]  # fmt: skip
        vectors = nn.ParameterList(nn.Parameter(start) for start in starts)
        self.token_embeddings = vectors if config.space == "token" else None
        self.hidden_states = vectors if config.space == "hidden" else None
        self._fallback = TextPrompt(backbone=backbone) if config.fallback == "text" else None
        take_over(self, config, backbone)

    def row(self, category: str | None) -> int | None:
        """The place of a category in `config.categories`; None if the fallback answers for it.

        Raises:
            InputError: a photo without a category, or of one without a prompt.
        """
        if category is None:
            raise InputError("a class prompt needs the category of every photo, and one has none; name one")
        known = self.config.categories
        for name in (category, clean_category(category)):
            if name in known:
                return known.index(name)
        if self._fallback is not None:
            return None
        raise InputError(
            f"no prompt was learned for category {category!r}; {choose_from(category, known)} "
            "(fallback = text takes the text template for other categories)"
        )

    def token_vectors(
        self, images: ImageBatch, partners: ImageBatch | None = None
    ) -> Float[Tensor, "batch slots width"] | None:
        """(B, slots, D), what stands between BOS and EOS; None in hidden space or where a text answers."""
        rows = [self.row(category) for category in images.categories]
        if self.token_embeddings is None:
            return None
        known = [row for row in rows if row is not None]
        return torch.stack([self.token_embeddings[row] for row in known]) if len(known) == len(rows) else None

    def forward(self, images: ImageBatch, partners: ImageBatch | None = None) -> PromptEmbedding:
        """(B, L, D), by the category of each photo; each category goes through the text encoder once.

        Raises:
            InputError: a photo without a category, or of one without a prompt.
        """
        by_category = {category: self._embed(category) for category in dict.fromkeys(images.categories)}
        return PromptEmbedding(torch.stack([by_category[category] for category in images.categories]))

    def _embed(self, category: str | None) -> Tensor:
        row = self.row(category)
        if row is None:
            assert self._fallback is not None
            return self._fallback(ImageBatch({}, (category,))).values[0]
        if self.token_embeddings is None:
            assert self.hidden_states is not None
            hidden: Tensor = self.hidden_states[row]
            return hidden
        return encode_slots(self._text[0], self.token_embeddings[row][None])[0]

    def parameter_groups(self) -> list[ParameterGroup]:
        """The vectors of all categories."""
        return [ParameterGroup("categories", tuple(self.parameters()))]


def _text_of(config: SinglePromptConfig | ClassPromptConfig, category: str | None = None) -> str:
    """The `init`, with its category filled in."""
    return config.init.format(category=clean_category(category)) if category else config.init
