"""Wrappers that encode each photo once: around a backbone, and around an image encoder."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cached_property

import torch
from torch import Tensor
from typing_extensions import override

from sd4match.arguments import check_arguments
from sd4match.backbones.precision import without_autocast
from sd4match.checks import check_count
from sd4match.errors import SD4MatchError
from sd4match.hashing import arithmetic_settings, digest
from sd4match.interfaces import Backbone as Backbone
from sd4match.interfaces import ImageEncoder as ImageEncoder
from sd4match.io.cache import Cache
from sd4match.structures.images import Photo
from sd4match.structures.images import View as View
from sd4match.structures.images import Views as Views
from sd4match.structures.tensors import Encoded as Encoded
from sd4match.structures.tensors import FeatureMap as FeatureMap
from sd4match.structures.tensors import ImageFeatures as ImageFeatures
from sd4match.structures.tensors import PromptEmbedding
from sd4match.structures.tensors import Sampling as Sampling

_FORMAT = 4
"""Version of the entries on disk; entries of other versions are not read."""

Tensors = Mapping[str, Tensor]


class CacheWarning(UserWarning):
    """Warning that computed tensors cannot be written to the cache on disk; results do not change."""


class _EncodedPhotos:
    """Tensors computed for each photo, in memory up to `max_bytes`, and on disk if there is a cache.

    A photo is identified by the digest of its view. Photos are encoded outside of any autocast, and in batches of a
    size that does not change their bits according to the encoder. Tensors thus depend neither on the rest of the batch,
    nor on the precision of a training, nor on which photos are cached.
    """

    def __init__(
        self,
        folder: str,
        encoder: Backbone | ImageEncoder,
        *,
        shapes: Mapping[str, tuple[int, ...]] | None,
        max_bytes: int,
        cache: Cache | None,
    ) -> None:
        self.folder = folder
        self.encoder = encoder
        self.shapes = shapes
        """Shape of each tensor of a photo, checked in entries on disk; None if not known."""
        self.max_bytes = max_bytes
        self.cache = cache
        self._may_write = True
        self._entries: OrderedDict[str, Tensors] = OrderedDict()
        self._bytes = 0

    def tensors(self, views: Views, compute: Callable[[Views], Tensors]) -> dict[str, Tensor]:
        """Return the tensors of all views, by name, and compute those that are not cached.

        Args:
            views: B photos.
            compute: function that encodes a batch; the first dimension of each tensor is the batch.
        """
        digests = [view.digest for view in views.views]
        entries: dict[str, Tensors] = {}
        missing: dict[str, int] = {}
        for row, name in enumerate(digests):
            if name not in entries and name not in missing:
                entry = self._entries.get(name) or self._read(name)
                if entry is None:
                    missing[name] = row
                else:
                    entries[name] = entry
        names = list(missing)
        with without_autocast(self.encoder.device):
            for first in range(0, len(names), self._at_once):
                some = names[first : first + self._at_once]
                computed = compute(views[[missing[name] for name in some]])
                for number, name in enumerate(some):
                    own = {key: tensor[number].cpu().clone() for key, tensor in computed.items()}
                    entries[name] = self._write(name, own)
        for name in digests:
            self._remember(name, entries[name])
        rows = [entries[name] for name in digests]
        return {name: torch.stack([row[name] for row in rows]) for name in (rows[0] if rows else ())}

    def _read(self, name: str) -> Tensors | None:
        """Return the tensors of one photo from disk; None if they are not cached or damaged."""
        if self.cache is None or self._origin is None:
            return None
        key = self._key(name)
        entry = self.cache.get(key)
        if entry is None:
            return None
        problem = self._problem(entry[0])
        if problem is None:
            return entry[0]
        self.cache.discard(key, problem)
        return None

    def _write(self, name: str, computed: Tensors) -> Tensors:
        """Write the tensors of one photo, if there is a cache, and return them rounded as the cache rounds them."""
        cache = self.cache
        if cache is None:
            return computed
        try:
            if self._origin is not None and self._may_write:
                cache.put(self._key(name), computed)
        except SD4MatchError as error:
            warnings.warn(f"{error}; going on without keeping more on disk", CacheWarning, stacklevel=2)
            self._may_write = False
        return {name: cache.rounded(tensor) for name, tensor in computed.items()}

    def _key(self, name: str) -> str:
        return f"{self.folder}/{digest(self._origin, arithmetic_settings(self._device_type), name)}"

    @property
    def _at_once(self) -> int:
        return self.encoder.encoded_at_once if isinstance(self.encoder, Backbone) else 1

    def _problem(self, tensors: Tensors) -> str | None:
        """Return why the tensors of a file cannot be used; None if they can."""
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if self.shapes is not None and shapes != self.shapes:
            return f"its shapes are {shapes}, not {dict(self.shapes)}"
        finite = all(bool(tensor.isfinite().all()) for tensor in tensors.values())
        return None if finite else "its values are not finite"

    @cached_property
    def _origin(self) -> str | None:
        """Digest of the weights and of the format of entries; None if it is not known, and nothing is written then.

        It is computed on first use, after the encoder was moved to its device.
        """
        weights = self.encoder.weights_digest() if self.cache is not None else None
        if self.cache is None or weights is None:
            return None
        return digest(_FORMAT, weights, self.cache.dtype)

    @cached_property
    def _device_type(self) -> str:
        return self.encoder.device.type

    def _remember(self, name: str, entry: Tensors) -> None:
        """Store an entry in memory, and drop the least recently used ones beyond `max_bytes`."""
        if name not in self._entries:
            self._entries[name] = entry
            self._bytes += _size(entry)
        self._entries.move_to_end(name)
        while self._bytes > self.max_bytes and len(self._entries) > 1:
            _, dropped = self._entries.popitem(last=False)
            self._bytes -= _size(dropped)


def _size(entry: Tensors) -> int:
    return sum(tensor.nbytes for tensor in entry.values())


class CachedBackbone(Backbone):
    """Backbone that encodes each photo once, since its encoding does not depend on the prompt.

    Args:
        backbone: any. Photos are cached on disk only if it has a `weights_digest`.
        max_bytes: largest size in bytes of the encoded photos in memory.
        cache: cache on disk, shared with other processes and later runs; None: in memory only.

    >>> from sd4match.testing import FakeBackbone, random_photo
    >>> backbone = CachedBackbone(FakeBackbone())
    >>> views = Views.of([backbone.prepare(random_photo())])
    >>> encoded = [backbone.encode(views) for _ in range(2)]
    >>> backbone.backbone.encoded
    1
    """

    @check_arguments
    def __init__(self, backbone: Backbone, *, max_bytes: int = 1 << 30, cache: Cache | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.spec = backbone.spec
        self.text_encoder = backbone.text_encoder
        self.fingerprint = backbone.fingerprint
        check_count("encoded_at_once of the backbone", backbone.encoded_at_once)
        self.encoded_at_once = backbone.encoded_at_once
        self.cache = cache
        shapes = getattr(backbone, "encoded_shapes", None)
        self._photos = _EncodedPhotos("encoded", backbone, shapes=shapes, max_bytes=max_bytes, cache=cache)

    @override
    def prepare(self, photo: Photo) -> View:
        return self.backbone.prepare(photo)

    @override
    def encode(self, views: Views) -> Encoded:
        tensors = self._photos.tensors(views, lambda missing: self.backbone.encode(missing).tensors)
        return Encoded(tensors, views.frames, views.keys, views.names)

    @override
    def extract(self, encoded: Encoded, prompt: PromptEmbedding | None, sampling: Sampling) -> FeatureMap:
        return self.backbone.extract(encoded, prompt, sampling)

    @override
    def weights_digest(self) -> str | None:
        return self.backbone.weights_digest()


@check_arguments
def cached(backbone: Backbone, cache: Cache | None = None) -> CachedBackbone:
    """Wrap a backbone so that it encodes each photo once.

    Args:
        backbone: any.
        cache: cache on disk; None: in memory only.

    Returns:
        The wrapped backbone; a `CachedBackbone` is returned unchanged.

    >>> from sd4match.testing import FakeBackbone
    >>> backbone = cached(FakeBackbone())
    >>> cached(backbone) is backbone
    True
    """
    return backbone if isinstance(backbone, CachedBackbone) else CachedBackbone(backbone, cache=cache)


class CachedImageEncoder(ImageEncoder):
    """Image encoder that encodes each photo once.

    Args:
        encoder: any. Features are cached on disk only if it has a `weights_digest`.
        max_bytes: largest size in bytes of the features in memory.
        cache: cache on disk, shared with other processes and later runs; None: in memory only.
    """

    def __init__(self, encoder: ImageEncoder, *, max_bytes: int = 1 << 30, cache: Cache | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.spec = encoder.spec
        spec = encoder.spec
        shapes = {"local": (spec.patches, spec.local), "pooled": (spec.pooled,)}
        self._photos = _EncodedPhotos("image-features", encoder, shapes=shapes, max_bytes=max_bytes, cache=cache)

    @override
    def prepare(self, photo: Photo) -> View:
        return self.encoder.prepare(photo)

    @override
    def encode(self, views: Views) -> ImageFeatures:
        def compute(missing: Views) -> Tensors:
            features = self.encoder.encode(missing)
            return {"local": features.local, "pooled": features.pooled}

        tensors = self._photos.tensors(views, compute)
        return ImageFeatures(tensors["local"], tensors["pooled"])

    @override
    def weights_digest(self) -> str | None:
        return self.encoder.weights_digest()


def cached_image_encoder(encoder: ImageEncoder, backbone: Backbone) -> CachedImageEncoder:
    """Wrap an image encoder so that it encodes each photo once.

    Args:
        encoder: any.
        backbone: backbone whose cache on disk is used, if it has one.
    """
    cache = backbone.cache if isinstance(backbone, CachedBackbone) else None
    return CachedImageEncoder(encoder, cache=cache)
