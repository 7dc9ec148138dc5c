"""Small components that need no weights, for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sd4match.errors import InputError
from sd4match.geometry import squash_frame
from sd4match.interfaces import TextEncoder
from sd4match.structures.images import Photo, View, Views
from sd4match.structures.pairs import PairKey, PairRecord, Reference
from sd4match.structures.specs import FeatureSpec, ImageFeatureSpec
from sd4match.structures.tensors import Correlation, FeatureMap, ImageFeatures, Latents, PromptEmbedding, Sampling


def random_photo(size: tuple[int, int] = (24, 32), *, seed: int = 0) -> Photo:
    """Noise in (H, W) pixels.

    >>> random_photo((4, 6)).size
    (4, 6)
    """
    rng = np.random.default_rng(seed)
    return Photo(rng.integers(0, 256, size=(*size, 3), dtype=np.uint8), f"random-{seed}")


def random_correlation(
    batch: int = 2, points: int = 3, map_size: tuple[int, int] = (8, 8), *, channels: int = 6, seed: int = 0
) -> Correlation:
    """A `Correlation` between random maps of 32 x 48 photos, for a matcher or a loss to chew on."""
    generator = torch.Generator().manual_seed(seed)
    frames = tuple(squash_frame((32, 48), (64, 64)) for _ in range(batch))
    source, target = (
        FeatureMap(torch.randn(batch, channels, *map_size, generator=generator), frames) for _ in range(2)
    )
    queries = torch.rand(batch, points, 2, generator=generator) * torch.tensor([47.0, 31.0])
    from sd4match.matching.correlation import correlate_maps

    return correlate_maps(source, target, queries)


class FakeTextEncoder:
    """A text encoder without weights to load: 32 tokens, width 8, 16 slots; each slot sees those before it.

    >>> text = FakeTextEncoder()
    >>> text.transform(text.embed(text.tokenize(["ab", ""]))).shape
    torch.Size([2, 16, 8])
    """

    width = 8
    token_budget = 16

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self._vocabulary = torch.randn(32, self.width, generator=generator)
        self._positions = 0.1 * torch.randn(self.token_budget, self.width, generator=generator)

    def tokenize(self, texts: Sequence[str]) -> Int[Tensor, "batch slots"]:
        """A token for each letter; BOS 0, EOS 1, padding 2.

        Raises:
            InputError: a text has more letters than there are slots.
        """
        rows = []
        for text in texts:
            if len(text) > self.token_budget - 2:
                raise InputError(f"{text!r} has {len(text)} tokens; there is room for {self.token_budget - 2}")
            row = self.frame_ids(len(text))
            row[1 : len(text) + 1] = torch.tensor([3 + ord(letter) % 29 for letter in text], dtype=row.dtype)
            rows.append(row)
        return torch.stack(rows)

    def frame_ids(self, slots: int) -> Int[Tensor, " slots"]:
        """BOS, place holders, EOS, padding."""
        return torch.tensor([0, *[2] * slots, 1, *[2] * (self.token_budget - slots - 2)])

    def vocabulary(self) -> Float[Tensor, "tokens width"]:
        """Without positions."""
        return self._vocabulary

    def embed(self, ids: Int[Tensor, "batch slots"]) -> Float[Tensor, "batch slots width"]:
        """Vocabulary plus positions."""
        return self._vocabulary[ids] + self._positions

    def transform(self, inputs: Float[Tensor, "batch slots width"]) -> Float[Tensor, "batch slots width"]:
        """The running mean over the slots before and its own, through tanh."""
        count = torch.arange(1, inputs.shape[1] + 1, dtype=inputs.dtype)[:, None]
        return torch.tanh(inputs.cumsum(dim=1) / count)


class FakeImageEncoder:
    """An image encoder without weights: colours of 4 x 4 patches of a 16 x 16 view, and their mean.

    >>> FakeImageEncoder().spec
    ImageFeatureSpec(patches=16, local=48, pooled=48)
    """

    spec = ImageFeatureSpec(patches=16, local=48, pooled=48)

    def prepare(self, photo: Photo) -> View:
        """Squash to 16 x 16."""
        from sd4match.backbones.preprocessing import squash

        return squash(photo, (16, 16))

    def encode(self, views: Views) -> ImageFeatures:
        """(B, 16, 48) and (B, 48)."""
        local = torch.nn.functional.pixel_unshuffle(views.pixels, 4).flatten(2).transpose(1, 2)
        return ImageFeatures(local, local.mean(dim=1))


class FakeBackbone:
    """A backbone without weights: colours of 4 x 4 patches, tinted by the prompt. Deterministic and fast.

    >>> backbone = FakeBackbone()
    >>> backbone.spec.prompt_width, backbone.prepare(random_photo()).pixels.shape
    (8, torch.Size([3, 32, 32]))
    """

    fingerprint = "unknown"

    def __init__(self, *, side: int = 32, text: TextEncoder | None = None) -> None:
        self.side = side
        self.text = text
        self.encoded = 0
        """Photos that went through `encode`."""
        self.extracted = 0
        """Feature maps made."""
        self.spec = FeatureSpec(
            channels=48,
            stride=4,
            prompt_width=8,
            token_budget=16,
            layers=1,
            native_size=(side, side),
            size_multiple=4,
            architecture="fake",
        )

    def prepare(self, photo: Photo) -> View:
        """Squash to the side."""
        from sd4match.backbones.preprocessing import squash

        return squash(photo, (self.side, self.side))

    def encode(self, views: Views) -> Latents:
        """The pixels themselves."""
        self.encoded += len(views.keys)
        return Latents(views.pixels, torch.full_like(views.pixels, -20.0), views.frames, views.keys)

    def extract(self, latents: Latents, prompt: PromptEmbedding | None, sampling: Sampling) -> FeatureMap:
        """Patches; the prompt's mean is added to the first channels, so that gradients reach it."""
        self.extracted += len(latents.keys)
        values = torch.nn.functional.pixel_unshuffle(latents.mean, 4)
        if prompt is not None and prompt.values.shape[1]:
            tint = prompt.values.mean(dim=1).expand(values.shape[0], -1)
            values = values + torch.nn.functional.pad(tint, (0, values.shape[1] - tint.shape[1]))[..., None, None]
        return FeatureMap(values, latents.frames)


class FakePairs:
    """A pair data set of random photos with random points and boxes.

    >>> pairs = FakePairs(pairs=3)
    >>> len(list(pairs)), pairs.photo(pairs[0].source_id).size
    (3, (24, 32))
    """

    name = "fake"
    split = "test"
    categories = ("left", "right")
    reference: Reference = "box"

    def __init__(self, *, pairs: int = 6, photos: int = 4, points: int = 5, invisible_pair: int | None = None) -> None:
        self._pairs, self._photos, self._points = pairs, photos, points
        self._invisible_pair = invisible_pair

    def __len__(self) -> int:
        return self._pairs

    def __iter__(self) -> Iterator[PairRecord]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> PairRecord:
        rng = np.random.default_rng(index)
        source, target = rng.choice(self._photos, size=2, replace=False)
        points = self._points + index % 2
        visible = rng.random(points) < 0.8
        visible[0] = True
        return PairRecord(
            pair_id=f"pair-{index}",
            source_id=str(source),
            target_id=str(target),
            category=self.categories[index % 2],
            source_size=(24, 32),
            target_size=(24, 32),
            source_points=rng.uniform((0, 0), (31, 23), size=(points, 2)),
            target_points=rng.uniform((0, 0), (31, 23), size=(points, 2)),
            visible=visible & (index != self._invisible_pair),
            source_box=(2.0, 2.0, 30.0, 22.0),
            target_box=(1.0, 3.0, 29.0, 20.0),
        )

    @property
    def keys(self) -> tuple[PairKey, ...]:
        """All pairs; a record is a key too."""
        return tuple(self)

    def photo(self, image_id: str) -> Photo:
        """Noise, always the same for an id."""
        seed = int.from_bytes(hashlib.blake2b(image_id.encode(), digest_size=4).digest(), "little")
        return random_photo(seed=seed)
