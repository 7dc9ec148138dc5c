"""Small components that need no weights, for tests of custom components."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from sd4match.arguments import check_arguments
from sd4match.backbones.preprocessing import squash
from sd4match.checks import LARGEST_SEED, check_count
from sd4match.data.base import check_split_name
from sd4match.data.config import Split
from sd4match.errors import InputError, shown
from sd4match.geometry import Grid, squash_frame
from sd4match.interfaces import Backbone, ImageEncoder, PairDataset, TextEncoder
from sd4match.matching.correlation import correlate_maps
from sd4match.structures.images import Photo, View, Views
from sd4match.structures.pairs import PairKey, PairRecord
from sd4match.structures.specs import ImageFeatureSpec
from sd4match.structures.tensors import Correlation, Encoded, FeatureMap, ImageFeatures, PromptEmbedding, Sampling
from sd4match.testing.config import FAKE_LENGTH, FAKE_WIDTH, LARGEST_FAKE, fake_spec


@check_arguments
def random_photo(size: tuple[int, int] = (24, 32), *, seed: int = 0) -> Photo:
    """Return a photo of noise.

    Args:
        size: (H, W) in pixels, in [1, 4096].
        seed: seed of the noise, >= 0.

    Raises:
        InputError: an argument is out of range.

    >>> random_photo((4, 6)).size
    (4, 6)
    """
    for name, side in zip(("height", "width"), size, strict=True):
        check_count(f"the {name} of size", side, 1, LARGEST_FAKE)
    check_count("seed", seed, 0)
    rng = np.random.default_rng(seed)
    return Photo(rng.integers(0, 256, size=(*size, 3), dtype=np.uint8), f"random-{seed}")


@check_arguments
def random_correlation(
    batch: int = 2, points: int = 3, map_size: tuple[int, int] = (8, 8), *, channels: int = 6, seed: int = 0
) -> Correlation:
    """Return the correlation of random maps of 32 x 48 photos, as an input for matchers and losses.

    Args:
        batch: number B of pairs, >= 1.
        points: number N of query points of each pair, >= 0.
        map_size: (h, w) of both maps in cells.
        channels: number of channels of the maps, >= 1.
        seed: seed of the features and points, >= 0.

    Returns:
        Correlation with values (B, N, h, w).

    Raises:
        InputError: an argument is out of range.

    >>> random_correlation().values.shape
    torch.Size([2, 3, 8, 8])
    """
    for name, count in (("batch", batch), ("channels", channels), *(("map_size", side) for side in map_size)):
        check_count(name, count, 1, LARGEST_FAKE)
    check_count("points", points, 0, LARGEST_FAKE)
    check_count("seed", seed, 0, LARGEST_SEED)
    generator = torch.Generator().manual_seed(seed)
    grid = Grid((squash_frame((32, 48), (64, 64)),) * batch, map_size)
    source, target = (FeatureMap(torch.randn(batch, channels, *map_size, generator=generator), grid) for _ in range(2))
    queries = torch.rand(batch, points, 2, generator=generator) * torch.tensor([47.0, 31.0])
    return correlate_maps(source, target, queries)


class FakeTextEncoder(TextEncoder):
    """Text encoder without weights to load, with 32 tokens, width 8 and length 77.

    A text has one token per letter; BOS is 0, EOS 1, padding 2. The output is the tanh of the running mean over each
    token and those before it.

    >>> text_encoder = FakeTextEncoder()
    >>> text_encoder.encode(text_encoder.embed(text_encoder.tokenize(["ab", ""]))).shape
    torch.Size([2, 77, 8])
    """

    embeddings: Tensor
    positions: Tensor
    width = FAKE_WIDTH
    max_length = FAKE_LENGTH

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        embeddings = torch.randn(32, self.width, generator=generator)
        positions = 0.1 * torch.randn(self.max_length, self.width, generator=generator)
        self.register_buffer("embeddings", embeddings, persistent=False)
        self.register_buffer("positions", positions, persistent=False)

    @override
    @check_arguments
    def tokenize(self, texts: Sequence[str]) -> Int[Tensor, "batch tokens"]:
        if not texts:
            raise InputError("texts must hold one text or more")
        rows = []
        for text in texts:
            if len(text) > self.max_length - 2:
                raise InputError(f"{shown(text)} has {len(text)} tokens; there is room for {self.max_length - 2}")
            row = self.template_ids(len(text))
            row[1 : len(text) + 1] = torch.tensor([3 + ord(letter) % 29 for letter in text], dtype=row.dtype)
            rows.append(row)
        return torch.stack(rows)

    @check_arguments
    def template_ids(self, num_tokens: int) -> Int[Tensor, " tokens"]:
        """Return token ids (77,) of BOS, placeholders, EOS and padding.

        Args:
            num_tokens: number of placeholders, in [0, 75].

        Raises:
            InputError: they do not fit into 77 tokens.
        """
        check_count("num_tokens", num_tokens, 0, self.max_length - 2)
        return torch.tensor([0, *[2] * num_tokens, 1, *[2] * (self.max_length - num_tokens - 2)])

    @override
    def token_embeddings(self) -> Float[Tensor, "vocabulary width"]:
        return self.embeddings

    @override
    @check_arguments
    def embed(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens width"]:
        return self.embeddings[ids.to(self.device)] + self.positions

    @override
    @check_arguments
    def encode(self, inputs: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        count = torch.arange(1, inputs.shape[1] + 1, dtype=inputs.dtype, device=inputs.device)[:, None]
        return torch.tanh(inputs.cumsum(dim=1) / count)


class FakeImageEncoder(ImageEncoder):
    """Image encoder without weights. Its features are the colors of 4 x 4 patches of a 16 x 16 view, and their mean.

    >>> FakeImageEncoder().spec
    ImageFeatureSpec(patches=16, local=48, pooled=48)
    """

    spec = ImageFeatureSpec(patches=16, local=48, pooled=48)
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.eye(48), persistent=False)

    @override
    @check_arguments
    def prepare(self, photo: Photo) -> View:
        return squash(photo, (16, 16))

    @override
    @check_arguments
    def encode(self, views: Views) -> ImageFeatures:
        local = F.pixel_unshuffle(views.pixels.to(self.device), 4).flatten(2).transpose(1, 2) @ self.weight
        return ImageFeatures(local, local.mean(dim=1))


class FakeBackbone(Backbone):
    """Backbone without weights, deterministic and fast. Its features are the colors of 4 x 4 patches.

    The mean of the prompt is added to the first channels, so that gradients reach the prompt.

    Args:
        side: side of its image in pixels, a multiple of 4.
        text_encoder: text encoder for prompts that need one.

    >>> backbone = FakeBackbone()
    >>> backbone.spec.prompt_width, backbone.prepare(random_photo()).pixels.shape
    (8, torch.Size([3, 32, 32]))
    """

    tint: Tensor

    @check_arguments
    def __init__(self, *, side: int = 32, text_encoder: TextEncoder | None = None) -> None:
        super().__init__()
        self.side = side
        self.spec = fake_spec(side)
        self.text_encoder = text_encoder
        self.register_buffer("tint", torch.eye(FAKE_WIDTH, self.spec.channels), persistent=False)
        self.encoded = 0
        """Number of photos that `encode` has encoded."""
        self.extracted = 0
        """Number of feature maps that `extract` has returned."""

    @override
    @check_arguments
    def prepare(self, photo: Photo) -> View:
        return squash(photo, (self.side, self.side))

    @override
    @check_arguments
    def encode(self, views: Views) -> Encoded:
        self.encoded += len(views)
        return Encoded({"pixels": views.pixels}, views.frames, views.keys)

    @override
    @check_arguments
    def extract(self, encoded: Encoded, prompt: PromptEmbedding | None, sampling: Sampling) -> FeatureMap:
        self.extracted += len(encoded)
        values = F.pixel_unshuffle(encoded.tensors["pixels"].to(self.device), 4)
        if prompt is not None and prompt.values.shape[1]:
            values = values + (prompt.values.mean(dim=1).to(values.dtype) @ self.tint)[..., None, None]
        return FeatureMap(values, Grid(encoded.frames, (values.shape[2], values.shape[3])))


class FakePairs(PairDataset):
    """Data set of random photos with random points and boxes. A photo is always the same for an id.

    Splits have the same photos in other pairs.

    Args:
        pairs: number of pairs, >= 0.
        photos: number of photos they are drawn from, >= 2.
        points: number of points of even pairs, >= 1; odd pairs have one more.
        invisible_pair: index of a pair without a visible point; None: no such pair.
        split: name of the split.

    >>> pairs = FakePairs(pairs=3)
    >>> len(list(pairs)), pairs.photo(pairs[0].source_id).size
    (3, (24, 32))
    """

    name = "fake"
    categories = ("left", "right")

    @check_arguments
    def __init__(
        self,
        *,
        pairs: int = 6,
        photos: int = 4,
        points: int = 5,
        invisible_pair: int | None = None,
        split: Split = "test",
    ) -> None:
        for name, count, low in (("pairs", pairs, 0), ("photos", photos, 2), ("points", points, 1)):
            check_count(name, count, low, LARGEST_FAKE)
        self.split = check_split_name(split)
        self._pairs, self._photos, self._points, self._invisible_pair = pairs, photos, points, invisible_pair
        self.keys: tuple[PairKey, ...] = tuple(self[index] for index in range(pairs))

    @check_arguments
    def __getitem__(self, index: int) -> PairRecord:
        check_count("index", index, 0, self._pairs - 1)
        rng = np.random.default_rng(index + LARGEST_FAKE * ("test", "train", "validation").index(self.split))
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

    @override
    @check_arguments
    def photo(self, image_id: str) -> Photo:
        seed = int.from_bytes(hashlib.blake2b(image_id.encode(), digest_size=4).digest(), "little")
        return random_photo(seed=seed)
