"""CLIP's text transformer, opened where learned vectors go in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from sd4match.errors import InputError, ShapeError


class ClipTextEncoder(nn.Module):
    """Tokens -> vectors -> the (B, 77, D) that cross-attention reads. Frozen, differentiable in the vectors.

    Convention: padding follows the tokenizer's pad token (EOS in Stable Diffusion 1, id 0 in 2).
    """

    def __init__(self, model: CLIPTextModel, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.width: int = model.config.hidden_size
        self.token_budget: int = model.config.max_position_embeddings

    def tokenize(self, texts: Sequence[str]) -> Int[Tensor, "batch slots"]:
        """Ids with BOS, EOS and padding.

        Raises:
            InputError: a text has more tokens than there are slots.
        """
        lengths = [len(ids) for ids in self.tokenizer(list(texts)).input_ids]
        for text, length in zip(texts, lengths, strict=True):
            if length > self.token_budget:
                raise InputError(f"{text!r} has {length - 2} tokens; there is room for {self.token_budget - 2}")
        padded = self.tokenizer(list(texts), padding="max_length", max_length=self.token_budget, return_tensors="pt")
        ids: Tensor = padded.input_ids
        return ids.to(self.device)

    def frame_ids(self, slots: int) -> Int[Tensor, " slots"]:
        """BOS, `slots` place holders (the pad token), EOS, padding."""
        if not 0 <= slots <= self.token_budget - 2:
            raise ShapeError(f"{slots} slots with BOS and EOS do not fit into {self.token_budget}")
        tokenizer = self.tokenizer
        pad, ends = tokenizer.pad_token_id, (tokenizer.bos_token_id, tokenizer.eos_token_id)
        ids = [ends[0], *[pad] * slots, ends[1]]
        return torch.tensor(ids + [pad] * (self.token_budget - len(ids)), device=self.device)

    def vocabulary(self) -> Float[Tensor, "tokens width"]:
        """The embedding of every token, without positions."""
        weight: Tensor = self.model.embeddings.token_embedding.weight
        return weight

    def embed(self, ids: Int[Tensor, "batch slots"]) -> Float[Tensor, "batch slots width"]:
        """Vocabulary plus positions."""
        embedded: Tensor = self.model.embeddings(input_ids=ids)
        return embedded

    def transform(self, inputs: Float[Tensor, "batch slots width"]) -> Float[Tensor, "batch slots width"]:
        """Causal transformer and final layer norm."""
        inputs = inputs.to(self.vocabulary().dtype)
        slots = inputs.shape[1]
        causal = torch.full((slots, slots), -torch.inf, dtype=inputs.dtype, device=inputs.device).triu(1)
        hidden = self.model.encoder(inputs_embeds=inputs, attention_mask=causal[None, None]).last_hidden_state
        normed: Tensor = self.model.final_layer_norm(hidden)
        return normed

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.vocabulary().device
