"""How many floating-point operations the parts of the work take, counted on tensors without content."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.models import build_text_encoder, build_unet, build_vae
from sd4match.backbones.layers import LayerIndex
from sd4match.backbones.unet import features_at, prune

LAYER = LayerIndex(1, None)


@dataclass(frozen=True)
class Operations:
    """Of one image, in FLOPs (a multiplication with its addition counts as two)."""

    encode: int
    """The VAE's encoder."""
    unet: int
    """The whole UNet."""
    unet_to_layer: int
    """The UNet up to the end of up-block 1."""
    backward: int
    """From the features there back to the prompt."""
    text: int
    """The text encoder, of one prompt, forward and backward."""

    @property
    def training_limit(self) -> float:
        """Encode and whole UNet at every step, against kept latents and the UNet as far as it is read: of a pair."""
        theirs, ours = self.encode + self.unet + self.backward, self.unet_to_layer + self.backward
        return (2 * theirs + self.text) / (2 * ours + self.text)

    def features_limit(self, members: int, *, ours: int, kept: bool) -> float:
        """Return the limit of `members` passes, each with an encoding, against `ours` with one, or with none."""
        theirs = members * (self.encode + self.unet_to_layer)
        return theirs / (ours * self.unet_to_layer + (0 if kept else self.encode))

    def pair_limit(self, members: int) -> float:
        """One encoding and `members` whole UNets, against as many up to the layer."""
        return (self.encode + members * self.unet) / (members * self.unet_to_layer)


def count(*, quarter: bool, image_size: int, attention: bool = True) -> Operations:
    """Count a model at a size; no arithmetic is done.

    Args:
        quarter: the small one.
        image_size: in pixels.
        attention: with the products of queries, keys and values, which some counters leave out.
    """

    def counted(work: Callable[[], object]) -> int:
        with FlopCounterMode(display=False) as counter, nullcontext() if attention else _attention_left_out():
            work()
        return counter.get_total_flops()

    with torch.device("meta"):
        models = build_unet(quarter=quarter), build_vae(quarter=quarter), build_text_encoder(quarter=quarter)
        unet, vae, clip = (model.requires_grad_(False) for model in models)
        photo = torch.empty(1, 3, image_size, image_size)
        latents = torch.empty(1, 4, image_size // 8, image_size // 8)
        prompt = torch.empty(1, 77, unet.config.cross_attention_dim)
        times = torch.zeros(1, dtype=torch.long)
        with torch.no_grad():
            encode = counted(lambda: vae.encode(photo))
            whole = counted(lambda: unet(latents, times, prompt))
        prune(unet, [LAYER])
        learned = prompt.requires_grad_()
        with torch.no_grad():
            to_layer = counted(lambda: features_at(unet, latents, 261, learned, [LAYER]))
        features = features_at(unet, latents, 261, learned, [LAYER])[0]
        backward = counted(lambda: features.sum().backward())
        tokens = torch.empty(1, 77, clip.config.hidden_size, requires_grad=True)
        text = counted(lambda: clip.encoder(inputs_embeds=tokens).last_hidden_state.sum().backward())
    return Operations(encode, whole, to_layer, backward, text)


@contextmanager
def _attention_left_out() -> Iterator[None]:
    """Attention without products, through which gradients still pass."""

    def none(query: Tensor, key: Tensor, value: Tensor, **settings: object) -> Tensor:
        return query + (key + value).mean(dim=-2, keepdim=True)

    whole = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = none  # type: ignore[assignment]
    try:
        yield
    finally:
        F.scaled_dot_product_attention = whole
