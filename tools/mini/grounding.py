"""Grounding loss, which trains the cross-attention of a part's cells to attend to the part's word.

Attention is recorded by attention processors that are used in training only, so the saved model is plain diffusers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.nn import functional as F


@dataclass
class AttentionRecord:
    """Head-averaged cross-attention (B, queries, 77) of every layer of the last forward pass."""

    maps: list[Tensor] = field(default_factory=list)


class RecordingProcessor:
    """Attention processor that computes the probabilities explicitly and records them.

    Args:
        record: where the probabilities are appended.
    """

    def __init__(self, record: AttentionRecord) -> None:
        self.record = record

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, attention_mask: None = None
    ) -> Tensor:
        """Compute attention and append the head-averaged probabilities to the record."""
        query, key, value = (
            projection(states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for projection, states in (
                (attn.to_q, hidden_states), (attn.to_k, encoder_hidden_states), (attn.to_v, encoder_hidden_states),
            )
        )  # fmt: skip
        probability = (query @ key.transpose(-1, -2) * attn.scale).softmax(dim=-1)
        self.record.maps.append(probability.mean(dim=1))
        out: Tensor = attn.to_out[0]((probability @ value).transpose(1, 2).flatten(2))
        return out


def record_cross_attention(unet: UNet2DConditionModel) -> AttentionRecord:
    """Install recording processors on all cross-attention layers (`attn2`) of a UNet and return their record."""
    record = AttentionRecord()
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            module.set_processor(RecordingProcessor(record))
    return record


def grounding_loss(record: AttentionRecord, tokens: Tensor, coverage: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the mean of -log attention to the target token over cells that have one, and over layers.

    Args:
        record: attention of this forward pass.
        tokens: (B, K), the token of each part, from `targets`.
        coverage: (B, K, h, w), how much of each cell belongs to it, zero for photos that are too noisy; pooled for
            coarser layers.

    Returns:
        The loss, and the fraction of cells whose largest attention (without BOS) is at the target token.
    """
    losses, hits = [], []
    for attention in record.maps:
        side = round(attention.shape[1] ** 0.5)
        wanted = F.adaptive_avg_pool2d(coverage, side).flatten(2).transpose(1, 2)
        total = wanted.sum().clamp_min(1.0)
        index = tokens[:, None].expand(-1, attention.shape[1], -1)
        losses.append(-(wanted * attention.gather(2, index).clamp_min(1e-6).log()).sum() / total)
        with torch.no_grad():
            best = attention[..., 1:].argmax(-1, keepdim=True) + 1
            hits.append(((best == index) * wanted).sum() / total)
    return torch.stack(losses).mean(), torch.stack(hits).mean()
