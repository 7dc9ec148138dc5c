"""Decorators that encode a photo once: a backbone around a backbone, an image encoder around an image encoder."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import cached_property

import torch
from torch import Tensor, nn

from sd4match.errors import SD4MatchError
from sd4match.hashing import digest
from sd4match.interfaces import Backbone, EncodesByWeights, ImageEncoder, TextEncoder
from sd4match.io.cache import Cache
from sd4match.structures.images import Photo, View, Views
from sd4match.structures.specs import FeatureSpec, ImageFeatureSpec
from sd4match.structures.tensors import FeatureMap, ImageFeatures, Latents, PromptEmbedding, Sampling


class CacheWarning(UserWarning):
    """What is computed cannot be kept on disk; no number changes."""


class _Kept:
    """What an encoder gave for the photos it has seen: in memory up to `max_bytes`, and on disk if there is a cache.

    A photo is known by the digest of its view. Each is encoded by itself, so that what it gives does not depend on what
    else is in its batch, nor on what is kept already.
    """

    def __init__(self, sort: str, encoder: object, *, max_bytes: int, cache: Cache | None) -> None:
        self.sort = sort
        self.encoder = encoder
        self.max_bytes = max_bytes
        self.cache = cache
        self._may_write = True
        self._rows: OrderedDict[str, tuple[Tensor, ...]] = OrderedDict()
        self._bytes = 0

    def rows(self, views: Views, compute: Callable[[Views], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """What `compute` gives for all views, computed for those that are not kept."""
        names = [view.digest for view in views.views]
        found: dict[str, tuple[Tensor, ...]] = {}
        for row, name in enumerate(names):
            if name not in found:
                found[name] = self._rows.get(name) or self._from_disk(name, views, row, compute)
                self._remember(name, found[name])
        return tuple(torch.stack(parts) for parts in zip(*(found[name] for name in names), strict=True))

    def _from_disk(
        self, name: str, views: Views, row: int, compute: Callable[[Views], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        cache, origin = self.cache, self._origin
        key = f"{self.sort}/{digest(origin, name)}"
        entry = cache.get(key) if cache is not None and origin is not None else None
        if entry is not None:
            return tuple(part for _, part in sorted(entry[0].items()))
        fresh = tuple(part[0].cpu() for part in compute(views[[row]]))
        if cache is None:
            return fresh
        try:
            if origin is not None and self._may_write:
                cache.put(key, {f"{number:03d}": part for number, part in enumerate(fresh)})
        except SD4MatchError as error:
            warnings.warn(f"{error}; going on without keeping more on disk", CacheWarning, stacklevel=2)
            self._may_write = False
        return tuple(cache.kept(part) for part in fresh)

    @cached_property
    def _origin(self) -> str | None:
        """What decides the numbers besides the view; None if that cannot be told, and so nothing is kept on disk."""
        if self.cache is None or not isinstance(self.encoder, EncodesByWeights):
            return None
        weights = self.encoder.weights_digest()
        if weights is None:
            return None
        modules = [part for part in (self.encoder, *vars(self.encoder).values()) if isinstance(part, nn.Module)]
        devices = {one.device.type for module in modules for one in module.parameters()}
        return digest(weights, sorted(devices), str(torch.__version__), self.cache.dtype)

    def _remember(self, name: str, parts: tuple[Tensor, ...]) -> None:
        if name not in self._rows:
            self._rows[name] = parts
            self._bytes += sum(part.nbytes for part in parts)
        self._rows.move_to_end(name)
        while self._bytes > self.max_bytes and len(self._rows) > 1:
            _, dropped = self._rows.popitem(last=False)
            self._bytes -= sum(part.nbytes for part in dropped)


class CachedBackbone(nn.Module):
    """Keeps the latents of photos it has seen; the VAE costs more than the UNet, and ignores the prompt.

    Args:
        backbone: any. On disk it is kept only if it can say by which weights it encodes (`EncodesByWeights`).
        max_bytes: of latents in memory.
        cache: on disk, shared with other processes and later runs; None: in memory alone.
    """

    def __init__(self, backbone: Backbone, *, max_bytes: int = 1 << 30, cache: Cache | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.spec: FeatureSpec = backbone.spec
        self.text: TextEncoder | None = backbone.text
        self.fingerprint: str = backbone.fingerprint
        self.cache = cache
        self._kept = _Kept("latents", backbone, max_bytes=max_bytes, cache=cache)

    def prepare(self, photo: Photo) -> View:
        """As the inner backbone."""
        return self.backbone.prepare(photo)

    def encode(self, views: Views) -> Latents:
        """Encode the photos that are not kept, take the others from memory or disk."""
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


def cached(backbone: Backbone, cache: Cache | None = None) -> CachedBackbone:
    """The backbone itself if it keeps latents already, or one around it that does."""
    return backbone if isinstance(backbone, CachedBackbone) else CachedBackbone(backbone, cache=cache)


class CachedImageEncoder:
    """Keeps the features of photos it has seen; see `CachedBackbone`."""

    def __init__(self, encoder: ImageEncoder, *, max_bytes: int = 1 << 30, cache: Cache | None = None) -> None:
        self.encoder = encoder
        self.spec: ImageFeatureSpec = encoder.spec
        self._kept = _Kept("image-features", encoder, max_bytes=max_bytes, cache=cache)

    def prepare(self, photo: Photo) -> View:
        """As the inner encoder."""
        return self.encoder.prepare(photo)

    def encode(self, views: Views) -> ImageFeatures:
        """Encode the photos that are not kept, take the others from memory or disk."""

        def features(missing: Views) -> tuple[Tensor, ...]:
            fresh = self.encoder.encode(missing)
            return fresh.local, fresh.pooled

        local, pooled = self._kept.rows(views, features)
        return ImageFeatures(local, pooled)


def beside(encoder: ImageEncoder, backbone: Backbone) -> CachedImageEncoder:
    """An image encoder that keeps its features where the backbone keeps its latents."""
    cache = backbone.cache if isinstance(backbone, CachedBackbone) else None
    return CachedImageEncoder(encoder, cache=cache)
