"""A prompt of few parameters."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from sd4match.backbones import Backbone
from sd4match.prompting import ImageBatch, Prompt, PromptEmbedding, encode_token_vectors, random_token_vectors
from sd4match.registry import register_prompt


@register_prompt("lowrank")
class LowRankPrompt(Prompt):
    """Learn one prompt for all photos as the product of two thin matrices, added to random tokens.

    Args:
        backbone: whose text encoder the prompt is for.
        num_tokens: S, the number of learned vectors.
        rank: R of the product (S, R) (R, D).
        seed: of the random tokens.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        num_tokens: Annotated[int, Field(ge=1)] = 20,
        rank: Annotated[int, Field(ge=1, description="rank of the learned change")] = 4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        assert backbone.text_encoder is not None
        self.text_encoder = backbone.text_encoder
        start = random_token_vectors(self.text_encoder, num_tokens, seed=seed).cpu()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("start", start)
        self.left = nn.Parameter(torch.zeros(num_tokens, rank))
        self.right = nn.Parameter(start.std() * torch.randn(rank, start.shape[1], generator=generator))

    def forward(self, images: ImageBatch, partners: ImageBatch | None = None) -> PromptEmbedding:
        """Return the prompt embedding (1, L, D), the same for all photos."""
        vectors = self.get_buffer("start") + self.left @ self.right
        return PromptEmbedding(encode_token_vectors(self.text_encoder, vectors[None]))
