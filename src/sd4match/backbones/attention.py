"""Cross-attention maps of the UNet: how much each cell of a photo attends to each token of a prompt."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor, nn

from sd4match.arguments import check_arguments
from sd4match.backbones.cached import CachedBackbone
from sd4match.backbones.joined import joined
from sd4match.backbones.stable_diffusion import StableDiffusionBackbone
from sd4match.checks import check_count
from sd4match.errors import InputError
from sd4match.interfaces import Backbone
from sd4match.structures.images import Photo, Views
from sd4match.structures.tensors import FeatureMap, PromptEmbedding, Sampling


@torch.no_grad()
@check_arguments
def token_attention(
    backbone: Backbone, photo: Photo, prompt: PromptEmbedding, sampling: Sampling, *, cells: int | None = None
) -> FeatureMap:
    """Return how much each cell of a photo attends to each token of a prompt.

    In every cross-attention that runs for the features, the weights are softmax(Q K^T / sqrt(d)) of the cell's query Q
    and the tokens' keys K. They are averaged over heads and over the noise ensemble, resized to the cells of the
    features (bilinear, as the features of several layers are) and averaged over the layers. At each cell the attention
    of all tokens adds up to 1.

    Convention: as DAAM (Tang et al., "What the DAAM: Interpreting Stable Diffusion Using Cross Attention", ACL 2023,
    Sec. 3), but with one timestep, and with means where DAAM sums over layers, heads and timesteps. `cells` chooses
    layers by their size, as Hertz et al. do ("Prompt-to-Prompt Image Editing with Cross-Attention Control", 2022), who
    average the maps of 16 x 16 cells.

    Args:
        backbone: Stable Diffusion, also inside a fusion or another wrapper; it is not changed.
        photo: photo whose cells are the queries.
        prompt: (1, L, D).
        sampling: timestep and ensemble.
        cells: side of the attention maps to average, for example 24; None: maps of all sizes.

    Returns:
        (1, L, h, w) in [0, 1], on the cells of the features; the channels are the tokens.

    Raises:
        InputError: the backbone has no cross-attention, or none of that size; the message says which there are.

    >>> from sd4match.testing import FakeBackbone, random_photo
    >>> prompt = PromptEmbedding(torch.zeros(1, 77, 8))
    >>> token_attention(FakeBackbone(), random_photo(), prompt, Sampling(timestep=0))
    Traceback (most recent call last):
        ...
    sd4match.errors.InputError: the backbone (fake) has no cross-attention with tokens: give a Stable Diffusion
    """
    if cells is not None:
        check_count("cells", cells)
    inner = next((module for module in backbone.modules() if isinstance(module, StableDiffusionBackbone)), None)
    missing = f"the backbone ({backbone.spec.architecture}) has no cross-attention with tokens"
    if inner is None:
        raise InputError(f"{missing}: give a Stable Diffusion")
    caches = (module for module in backbone.modules() if isinstance(module, CachedBackbone))
    encoder = next((cached for cached in caches if cached.backbone is inner), inner)
    encoded = encoder.encode(Views.of([encoder.prepare(photo)]))
    with _recorded(inner.unet) as records:
        features = inner.extract(encoded, prompt, sampling)
    if not records:
        raise InputError(f"{missing}: its blocks have none up to layer {inner.spec.layer}")
    maps = [torch.cat(record).mean(dim=0) for record in records.values()]
    sides = sorted({layer.shape[-1] for layer in maps})
    chosen = [layer for layer in maps if cells in (None, layer.shape[-1])]
    if not chosen:
        raise InputError(f"cells must be the side of an attention map, one of {sides}, not {cells}")
    resized = joined([layer[None] for layer in chosen], features.size)
    return FeatureMap(resized.unflatten(1, (len(chosen), -1)).mean(dim=1), features.grid)


@contextmanager
def _recorded(unet: nn.Module) -> Iterator[dict[nn.Module, list[Tensor]]]:
    """Record the attention of every layer that reads a prompt, while a UNet runs. Its processors are not replaced."""
    records: dict[nn.Module, list[Tensor]] = {}
    layers = [layer for layer in unet.modules() if isinstance(layer, Attention)]
    hooks = [layer.register_forward_pre_hook(partial(_record, records), with_kwargs=True) for layer in layers]
    try:
        yield records
    finally:
        for hook in hooks:
            hook.remove()


def _record(
    records: dict[nn.Module, list[Tensor]], layer: Attention, inputs: tuple[Tensor, ...], keywords: dict[str, Any]
) -> None:
    """Compute the attention of a layer from its inputs, if it reads a prompt."""
    context = keywords.get("encoder_hidden_states")
    if context is None:
        return
    if layer.added_kv_proj_dim is not None:
        raise InputError("attention cannot be read from blocks in which tokens and cells are keys of one softmax")
    queries = layer.head_to_batch_dim(layer.to_q(inputs[0]))
    keys = layer.head_to_batch_dim(layer.to_k(context))
    weights = layer.get_attention_scores(queries, keys)
    records.setdefault(layer, []).append(_as_maps(weights, layer.heads))


def _as_maps(weights: Float[Tensor, "rows_heads cells tokens"], heads: int) -> Float[Tensor, "rows tokens h w"]:
    """Return the mean over the heads, as square maps."""
    means = weights.float().unflatten(0, (-1, heads)).mean(dim=1).transpose(1, 2)
    side = math.isqrt(means.shape[-1])
    maps: Tensor = means.unflatten(-1, (side, side))
    return maps
