"""Attention to tokens: softmax(Q K^T) of every cross-attention, by diffusers' own processor that stores it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch.nn import functional as F

from helpers.direct import no_type_checker  # noqa: F401 - a fixture of all tests here
from sd4match.backbones import (
    DebiasedBackbone,
    DebiasedConfig,
    Fusion,
    HogBackbone,
    HogConfig,
    MirroredBackbone,
    StableDiffusionConfig,
    cached,
    token_attention,
)
from sd4match.backbones.stable_diffusion import StableDiffusionBackbone
from sd4match.errors import InputError
from sd4match.structures.images import Views
from sd4match.structures.tensors import PromptEmbedding, Sampling
from sd4match.testing import random_photo

PHOTO, SAMPLING = random_photo((40, 60)), Sampling(timestep=50)


@pytest.fixture(scope="module")
def small(other_model) -> StableDiffusionBackbone:
    """Random weights, cross-attention at 8, 4, 2 and 1 cells a side."""
    return StableDiffusionConfig(weights=str(other_model), layers=2).build()


@pytest.fixture(scope="module")
def prompt(small):
    return PromptEmbedding(torch.randn(1, 9, small.spec.prompt_width, generator=torch.Generator().manual_seed(0)))


class Storing(AttnProcessor):
    """The published attention, without fused kernels, which keeps its weights: softmax(Q K^T / sqrt(d))."""

    def __init__(self, kept):
        self.kept = kept

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **more):
        if encoder_hidden_states is not None:
            query, key = attn.to_q(hidden_states), attn.to_k(encoder_hidden_states)
            width = query.shape[-1] // attn.heads
            heads = [
                torch.softmax(q @ k.transpose(1, 2) / width**0.5, dim=-1)
                for q, k in zip(query.split(width, dim=-1), key.split(width, dim=-1), strict=True)
            ]
            self.kept.append(torch.stack(heads).mean(dim=0))
        return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, **more)


def stored(backbone, prompt, sampling):
    """Return the attention (L, side, side) of each layer and pass, in the order in which they run."""
    kept, own = [], dict(backbone.unet.attn_processors)
    backbone.unet.set_attn_processor(Storing(kept))
    try:
        with torch.no_grad():
            backbone.extract(backbone.encode(Views.of([backbone.prepare(PHOTO)])), prompt, sampling)
    finally:
        backbone.unet.set_attn_processor(own)
    maps = []
    for weights in kept:
        for row in weights:
            side = round(len(row) ** 0.5)
            maps.append(row.T.reshape(-1, side, side))
    return maps


@pytest.mark.parametrize("members", [1, 3])
def test_it_is_the_mean_over_heads_members_and_layers(small, prompt, members):
    sampling = replace(SAMPLING, ensemble_size=members)
    attention = token_attention(small, PHOTO, prompt, sampling)
    maps = stored(small, prompt, sampling)
    assert {layer.shape[-1] for layer in maps} == {1, 2, 4, 8}
    size = attention.size
    resized = [F.interpolate(layer[None], size=size, mode="bilinear")[0] for layer in maps]
    assert torch.allclose(attention.values[0], torch.stack(resized).mean(dim=0), atol=1e-6)
    assert torch.allclose(attention.values.sum(dim=1), torch.ones(1, *size), atol=1e-5)
    assert attention.values.shape == (1, 9, *size)
    assert attention.grid.frames == (small.prepare(PHOTO).frame,)


def test_layers_of_one_size(small, prompt):
    attention = token_attention(small, PHOTO, prompt, SAMPLING, cells=4)
    maps = [layer for layer in stored(small, prompt, SAMPLING) if layer.shape[-1] == 4]
    resized = [F.interpolate(layer[None], size=attention.size, mode="bilinear")[0] for layer in maps]
    assert torch.allclose(attention.values[0], torch.stack(resized).mean(dim=0), atol=1e-6)
    with pytest.raises(InputError, match=r"cells must be the side of an attention map, one of \[.*\], not 3"):
        token_attention(small, PHOTO, prompt, SAMPLING, cells=3)


def hooks(unet):
    return sum(len(part._forward_pre_hooks) + len(part._forward_hooks) for part in unet.modules())


def test_the_backbone_stays_as_it_is_also_after_an_error(small, prompt, monkeypatch):
    encoded = small.encode(Views.of([small.prepare(PHOTO)]))
    before, processors = small.extract(encoded, prompt, SAMPLING).values, small.unet.attn_processors
    token_attention(small, PHOTO, prompt, SAMPLING)

    def fail(*arguments, **options):
        raise RuntimeError("it breaks off")

    with monkeypatch.context() as patch:
        patch.setattr(small.unet.up_blocks[1], "forward", fail)
        with pytest.raises(RuntimeError, match="it breaks off"):
            token_attention(small, PHOTO, prompt, SAMPLING)
    assert hooks(small.unet) == 0
    assert all(small.unet.attn_processors[name] is processor for name, processor in processors.items())
    assert torch.equal(small.extract(encoded, prompt, SAMPLING).values, before)


def test_wrappers_show_the_attention_of_the_backbone_inside(small, prompt):
    plain = token_attention(small, PHOTO, prompt, SAMPLING)
    hog = HogBackbone(HogConfig(image_size=64, cell=8, window=3))
    wrapped = [
        cached(small), MirroredBackbone(small), Fusion(backbones=[hog, small]),
        DebiasedBackbone(DebiasedConfig(backbone="hog", components=1), backbone=cached(small)),
    ]  # fmt: skip
    for backbone in wrapped:
        seen = token_attention(backbone, PHOTO, prompt, SAMPLING)
        assert torch.allclose(seen.values, plain.values, atol=1e-5), type(backbone).__name__
        assert seen.grid == plain.grid


def test_a_backbone_without_cross_attention_is_refused(small, prompt, monkeypatch):
    hog = HogBackbone(HogConfig(image_size=64, cell=8, window=3))
    with pytest.raises(InputError, match=r"the backbone \(hog.*\) has no cross-attention with tokens: give a Stable"):
        token_attention(hog, PHOTO, prompt, SAMPLING)
    monkeypatch.setattr(small, "extract", lambda *arguments: None)
    with pytest.raises(InputError, match="its blocks have none up to layer 2"):
        token_attention(small, PHOTO, prompt, SAMPLING)


def test_blocks_with_keys_of_both_sorts_are_refused(small, prompt, monkeypatch):
    layer = next(part for name, part in small.unet.named_modules() if name.endswith("attn2"))
    monkeypatch.setattr(layer, "added_kv_proj_dim", 8)
    with pytest.raises(InputError, match="attention cannot be read from blocks"):
        token_attention(small, PHOTO, prompt, SAMPLING)
    assert hooks(small.unet) == 0
