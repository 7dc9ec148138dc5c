"""CLIP's text transformer, split where learned vectors are inserted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer
from typing_extensions import override

from sd4match.errors import InputError, ShapeError, shown
from sd4match.interfaces import TextEncoder as TextEncoder


class ClipTextEncoder(TextEncoder):
    """CLIP text encoder of Stable Diffusion, which computes the (B, 77, D) embedding that cross-attention reads.

    Convention: padding and placeholders are the tokenizer's pad token (EOS in Stable Diffusion 1, id 0 in Stable
    Diffusion 2).

    Args:
        model: text transformer; it is frozen.
        tokenizer: tokenizer of the same model.
    """

    def __init__(self, model: CLIPTextModel, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.width = model.config.hidden_size
        self.max_length = model.config.max_position_embeddings

    @override
    def tokenize(self, texts: Sequence[str]) -> Int[Tensor, "batch tokens"]:
        lengths = [len(ids) for ids in self.tokenizer(list(texts)).input_ids]
        for text, length in zip(texts, lengths, strict=True):
            if length > self.max_length:
                raise InputError(f"{shown(text)} has {length - 2} tokens; there is room for {self.max_length - 2}")
        padded = self.tokenizer(list(texts), padding="max_length", max_length=self.max_length, return_tensors="pt")
        ids: Tensor = padded.input_ids
        return ids.to(self.device)

    @override
    def template_ids(self, num_tokens: int) -> Int[Tensor, " tokens"]:
        if not 0 <= num_tokens <= self.max_length - 2:
            raise ShapeError(f"{num_tokens} tokens with BOS and EOS do not fit into {self.max_length}")
        tokenizer = self.tokenizer
        pad, ends = tokenizer.pad_token_id, (tokenizer.bos_token_id, tokenizer.eos_token_id)
        ids = [ends[0], *[pad] * num_tokens, ends[1]]
        return torch.tensor(ids + [pad] * (self.max_length - len(ids)), device=self.device)

    @override
    def token_embeddings(self) -> Float[Tensor, "vocabulary width"]:
        weight: Tensor = self.model.embeddings.token_embedding.weight
        return weight

    @override
    def embed(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens width"]:
        embedded: Tensor = self.model.embeddings(input_ids=ids)
        return embedded

    @override
    def encode(self, inputs: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        inputs = inputs.to(self.token_embeddings().dtype)
        length = inputs.shape[1]
        causal = torch.full((length, length), -torch.inf, dtype=inputs.dtype, device=inputs.device).triu(1)
        hidden = self.model.encoder(inputs_embeds=inputs, attention_mask=causal[None, None]).last_hidden_state
        normed: Tensor = self.model.final_layer_norm(hidden)
        return normed
