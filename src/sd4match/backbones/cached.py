"""Decorators that encode a photo once: a backbone around a backbone, an image encoder around an image encoder."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from sd4match.protocols import Backbone, ImageEncoder, TextEncoder
from sd4match.spec import FeatureSpec, ImageFeatureSpec
from sd4match.types import FeatureMap, ImageFeatures, Latents, Photo, PromptEmbedding, Sampling, View, Views


class _Kept:
    """Tensors of photos by the digest of their pixels, on the CPU, up to `max_bytes`, the longest unused go first."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._rows: OrderedDict[str, tuple[Tensor, ...]] = OrderedDict()
        self._bytes = 0

    def rows(self, views: Views, compute: Callable[[Views], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """What `compute` gives for all views, computed for those that are not kept."""
        missing = list({key: i for i, key in enumerate(views.keys) if key not in self._rows}.values())
        found = {key: self._rows[key] for key in views.keys if key in self._rows}
        if missing:
            wanted = views[missing]
            fresh = compute(wanted)
            for row, key in enumerate(wanted.keys):
                found[key] = tuple(part[row].cpu() for part in fresh)
                self._rows[key] = found[key]
                self._bytes += sum(part.nbytes for part in found[key])
        for key in found:
            self._rows.move_to_end(key)
        while self._bytes > self.max_bytes and len(self._rows) > 1:
            _, dropped = self._rows.popitem(last=False)
            self._bytes -= sum(part.nbytes for part in dropped)
        return tuple(torch.stack(parts) for parts in zip(*(found[key] for key in views.keys), strict=True))


class CachedBackbone(nn.Module):
    """Keeps the latents of photos it has seen; the VAE costs more than the UNet, and ignores the prompt."""

    def __init__(self, backbone: Backbone, *, max_bytes: int = 1 << 30) -> None:
        super().__init__()
        self.backbone = backbone
        self.spec: FeatureSpec = backbone.spec
        self.text: TextEncoder | None = backbone.text
        self.fingerprint: str = backbone.fingerprint
        self._kept = _Kept(max_bytes)

    def prepare(self, photo: Photo) -> View:
        """As the inner backbone."""
        return self.backbone.prepare(photo)

    def encode(self, views: Views) -> Latents:
        """Encode the photos that are not kept, take the others from memory."""
        kept = iter(self._kept.rows(views, lambda missing: _moments(self.backbone.encode(missing))))
        return _latents(views, kept)

    def extract(self, latents: Latents, prompt: PromptEmbedding | None, sampling: Sampling) -> FeatureMap:
        """As the inner backbone."""
        return self.backbone.extract(latents, prompt, sampling)


def _moments(latents: Latents) -> tuple[Tensor, ...]:
    """Mean and log-variance of every part."""
    return (latents.mean, latents.log_variance, *(part for other in latents.others for part in _moments(other)))


def _latents(views: Views, kept: Iterator[Tensor]) -> Latents:
    """The way back."""
    mean, log_variance = next(kept), next(kept)
    return Latents(mean, log_variance, views.frames, views.keys, tuple(_latents(other, kept) for other in views.others))


def cached(backbone: Backbone) -> CachedBackbone:
    """The backbone itself if it keeps latents already, or one around it that does."""
    return backbone if isinstance(backbone, CachedBackbone) else CachedBackbone(backbone)


class CachedImageEncoder:
    """Keeps the features of photos it has seen."""

    def __init__(self, encoder: ImageEncoder, *, max_bytes: int = 1 << 30) -> None:
        self.encoder = encoder
        self.spec: ImageFeatureSpec = encoder.spec
        self._kept = _Kept(max_bytes)

    def prepare(self, photo: Photo) -> View:
        """As the inner encoder."""
        return self.encoder.prepare(photo)

    def encode(self, views: Views) -> ImageFeatures:
        """Encode the photos that are not kept, take the others from memory."""

        def features(missing: Views) -> tuple[Tensor, ...]:
            fresh = self.encoder.encode(missing)
            return fresh.local, fresh.pooled

        local, pooled = self._kept.rows(views, features)
        return ImageFeatures(local, pooled)
