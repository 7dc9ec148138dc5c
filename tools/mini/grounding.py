"""The grounding loss: cross-attention of a named part's places is pushed to that part's word.

It works through attention processors used in training only, so that the saved model is plain diffusers.
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
    """Head-averaged cross-attention (B, query places, 77) of every layer of the last forward pass."""

    maps: list[Tensor] = field(default_factory=list)


class RecordingProcessor:
    """Attention computed in full, so that its probabilities can be kept."""

    def __init__(self, record: AttentionRecord) -> None:
        self.record = record

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, attention_mask: None = None
    ) -> Tensor:
        """Attend, and append the head-averaged probabilities to the record."""
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
    """Put recording processors on every cross-attention (`attn2`) of a UNet."""
    record = AttentionRecord()
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            module.set_processor(RecordingProcessor(record))
    return record


def grounding_loss(record: AttentionRecord, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """-log attention of the right word at the places that have one, averaged over places and layers.

    Args:
        record: from this forward pass.
        targets: (B, 77, h, w), the finest grid; coarser layers pool it.
        weights: (B,), zero for the noisy steps that are left out.

    Returns:
        The loss, and the share of places whose largest attention (BOS aside) is on the right word.
    """
    losses, hits = [], []
    for attention in record.maps:
        side = round(attention.shape[1] ** 0.5)
        wanted = F.adaptive_avg_pool2d(targets, side).flatten(2).transpose(1, 2) * weights[:, None, None]
        total = wanted.sum().clamp_min(1.0)
        losses.append(-(wanted * attention.clamp_min(1e-6).log()).sum() / total)
        with torch.no_grad():
            best = attention[..., 1:].argmax(-1) == wanted[..., 1:].argmax(-1)
            hits.append((best * wanted.sum(-1)).sum() / total)
    return torch.stack(losses).mean(), torch.stack(hits).mean()
