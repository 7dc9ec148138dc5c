"""A backbone around a backbone that encodes a photo once."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from sd4match.protocols import Backbone, TextEncoder
from sd4match.spec import FeatureSpec
from sd4match.types import FeatureMap, Latents, Photo, PromptEmbedding, Sampling, View, Views


class CachedBackbone(nn.Module):
    """Keeps the latents of photos it has seen, on the CPU; the VAE costs more than the UNet, and ignores the prompt.

    Latents are kept by the digest of the photo's pixels, up to `max_bytes`, the longest unused ones dropped first.
    """

    def __init__(self, backbone: Backbone, *, max_bytes: int = 1 << 30) -> None:
        super().__init__()
        self.backbone = backbone
        self.max_bytes = max_bytes
        self.spec: FeatureSpec = backbone.spec
        self.text: TextEncoder | None = backbone.text
        self.fingerprint: str = backbone.fingerprint
        self._kept: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()
        self._bytes = 0

    def prepare(self, photo: Photo) -> View:
        """As the inner backbone."""
        return self.backbone.prepare(photo)

    def encode(self, views: Views) -> Latents:
        """Encode the photos that are not kept, take the others from memory."""
        missing = [i for i, key in enumerate(views.keys) if key not in self._kept]
        missing = list({views.keys[i]: i for i in missing}.values())
        found = {key: self._kept[key] for key in views.keys if key in self._kept}
        if missing:
            rows = Views(
                views.pixels[missing], tuple(views.frames[i] for i in missing), tuple(views.keys[i] for i in missing)
            )
            fresh = self.backbone.encode(rows)
            for key, mean, log_variance in zip(fresh.keys, fresh.mean, fresh.log_variance, strict=True):
                found[key] = (mean.cpu(), log_variance.cpu())
                self._keep(key, found[key])
        for key in found:
            if key in self._kept:
                self._kept.move_to_end(key)
        means, log_variances = zip(*(found[key] for key in views.keys), strict=True)
        return Latents(torch.stack(means), torch.stack(log_variances), views.frames, views.keys)

    def _keep(self, key: str, moments: tuple[Tensor, Tensor]) -> None:
        self._kept[key] = moments
        self._bytes += sum(part.nbytes for part in moments)
        while self._bytes > self.max_bytes and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= sum(part.nbytes for part in dropped)

    def extract(self, latents: Latents, prompt: PromptEmbedding | None, sampling: Sampling) -> FeatureMap:
        """As the inner backbone."""
        return self.backbone.extract(latents, prompt, sampling)
