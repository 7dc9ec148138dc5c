"""How many floating-point operations the parts of the work take, counted on tensors without content."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.models import build_unet, build_vae
from sd4match.backbones.layers import Place
from sd4match.backbones.unet import features_at, prune

LAYER = Place(1, None)


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

    @property
    def training_limit(self) -> float:
        """Encode and whole UNet at every step, against kept latents and the UNet as far as it is read."""
        return (self.encode + self.unet + self.backward) / (self.unet_to_layer + self.backward)

    def features_limit(self, members: int, *, kept: bool) -> float:
        """An encoding for each member, against one, or none."""
        theirs = members * (self.encode + self.unet_to_layer)
        return theirs / (members * self.unet_to_layer + (0 if kept else self.encode))

    def pair_limit(self, members: int) -> float:
        """One encoding and `members` whole UNets, against as many up to the layer."""
        return (self.encode + members * self.unet) / (members * self.unet_to_layer)


def count(*, quarter: bool, image_size: int) -> Operations:
    """Count a model at a size; no arithmetic is done."""
    with torch.device("meta"):
        unet, vae = build_unet(quarter=quarter).requires_grad_(False), build_vae(quarter=quarter).requires_grad_(False)
        photo = torch.empty(1, 3, image_size, image_size)
        latents = torch.empty(1, 4, image_size // 8, image_size // 8)
        prompt = torch.empty(1, 77, unet.config.cross_attention_dim)
        times = torch.zeros(1, dtype=torch.long)
        with torch.no_grad():
            encode = _counted(lambda: vae.encode(photo))
            whole = _counted(lambda: unet(latents, times, prompt))
        prune(unet, [LAYER])
        learned = prompt.requires_grad_()
        with torch.no_grad():
            to_layer = _counted(lambda: features_at(unet, latents, 261, learned, [LAYER]))
        features = features_at(unet, latents, 261, learned, [LAYER])[0]
        backward = _counted(lambda: features.sum().backward())
    return Operations(encode, whole, to_layer, backward)


def _counted(work) -> int:  # type: ignore[no-untyped-def]
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()
