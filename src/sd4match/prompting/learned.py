"""Prompts that are learned."""

from __future__ import annotations

from torch import nn

from sd4match.errors import InputError
from sd4match.prompting.config import SinglePromptConfig
from sd4match.prompting.fixed import text_encoder_of
from sd4match.prompting.splice import encode_slots, random_slots
from sd4match.protocols import Backbone, ParameterGroup, Scope
from sd4match.types import ImageBatch, PromptEmbedding


class SinglePrompt(nn.Module):
    """SD4Match-Single: one prompt for all photos, learned in token space.

    `token_embeddings` (slots, D) stand between BOS and EOS; see `splice.encode_slots`.
    """

    scope: Scope = "dataset"

    def __init__(self, *, backbone: Backbone, slots: int = 75, seed: int = 0) -> None:
        super().__init__()
        text = text_encoder_of(backbone)
        if not 1 <= slots <= text.token_budget - 2:
            raise InputError(f"slots must be 1 to {text.token_budget - 2} on this backbone, not {slots}")
        self.config = SinglePromptConfig(slots=slots, seed=seed)
        self.token_embeddings = nn.Parameter(random_slots(text, slots, seed=seed))
        self._text = [text]  # in a list, so that the frozen encoder is no part of this module's state

    def forward(self, images: ImageBatch, partners: ImageBatch | None = None) -> PromptEmbedding:
        """(B, L, D), the same for every photo."""
        embedding = encode_slots(self._text[0], self.token_embeddings[None])
        return PromptEmbedding(embedding.expand(len(images), -1, -1))

    def parameter_groups(self) -> list[ParameterGroup]:
        """The vectors."""
        return [ParameterGroup("token_embeddings", (self.token_embeddings,))]
