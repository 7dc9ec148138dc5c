"""Learned vectors into the text transformer's slots, between BOS and EOS."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sd4match.interfaces import TextEncoder


def encode_slots(text: TextEncoder, slots: Float[Tensor, "batch slots width"]) -> Float[Tensor, "batch budget width"]:
    """The prompt embedding of learned token vectors: [BOS, slots, EOS, padding] through the transformer.

    Convention: BOS, EOS and padding carry their position embedding; the learned vectors are used as they are, which is
    why they start from vocabulary embeddings with positions added.

    Args:
        text: of the backbone.
        slots: (B, S, D), S + 2 <= L.

    Returns:
        (B, L, D), differentiable in `slots`.
    """
    count = slots.shape[1]
    frame = text.embed(text.frame_ids(count)[None]).expand(slots.shape[0], -1, -1)
    return text.transform(torch.cat([frame[:, :1], slots.to(frame), frame[:, count + 1 :]], dim=1))


def random_slots(text: TextEncoder, count: int, *, seed: int) -> Float[Tensor, "slots width"]:
    """Embeddings of `count` random words of the vocabulary, positions added: where a learned prompt starts."""
    vocabulary = text.vocabulary()
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(vocabulary.shape[0], (count,), generator=generator)
    ids = text.frame_ids(count).clone()
    ids[1 : count + 1] = words.to(ids)
    with torch.no_grad():
        return text.embed(ids[None])[0, 1 : count + 1].float()
