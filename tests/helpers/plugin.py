"""One component of every sort, written as a package outside sd4match would: each is one class and one line."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import nn

from sd4match.backbones import (
    Backbone,
    Encoded,
    FeatureMap,
    FeatureSpec,
    ImageEncoder,
    ImageFeatures,
    ImageFeatureSpec,
    squash,
)
from sd4match.data import PairDataset, PairKey, PairRecord, Photo, Split
from sd4match.errors import InputError
from sd4match.geometry import Grid
from sd4match.matching import Matcher, MatchingLoss, PairTransform, ParameterGroup, functional, matches_from_cells
from sd4match.prompting import Prompt, PromptEmbedding, encode_token_vectors
from sd4match.registry import (
    register,
    register_backbone,
    register_dataset,
    register_image_encoder,
    register_loss,
    register_prompt,
)


@register
class CenterMatcher(Matcher):
    """Answers with the center of the cells that can be matched, the same for every point."""

    kind: Literal["center"] = "center"
    pull: float = 1.0

    def __call__(self, correlation):
        possible = correlation.values.isfinite()  # a photo's mask leaves -inf outside
        down, across = (possible.any(dim=side).float() for side in (3, 2))
        center = [(each * torch.arange(each.shape[2]).to(each)).sum(2) / each.sum(2) for each in (across, down)]
        return matches_from_cells(torch.stack(center, dim=-1) * self.pull, correlation, temperature=1.0)


@register
class Centered(PairTransform):
    """Subtracts the mean feature of both maps."""

    kind: Literal["centered"] = "centered"

    def __call__(self, source, target):
        mean = torch.cat([source.values.flatten(2), target.values.flatten(2)], dim=2).mean(dim=2)[..., None, None]
        return replace(source, values=source.values - mean), replace(target, values=target.values - mean)


@register_loss("scaled")
class ScaledLoss(nn.Module, MatchingLoss):
    """Cross-entropy at the rounded true cell, with a learned scale."""

    def __init__(self, *, scale: float = 5.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, correlation, targets):
        cells = correlation.target.grid.to_cells(targets.points).round().long()
        width = correlation.values.shape[-1]
        log_probability = functional.log_match_probability(correlation.values * self.scale, temperature=1.0).flatten(2)
        index = (cells[..., 1] * width + cells[..., 0]).clamp(0, log_probability.shape[-1] - 1)
        picked = log_probability.gather(2, index[..., None])[..., 0]
        seen = targets.visible
        pairs = -(picked * seen).sum(dim=1) / seen.sum(dim=1).clamp(min=1)
        return pairs.sum() / seen.any(dim=1).sum().clamp(min=1)

    def parameter_groups(self):
        return [ParameterGroup("scale", (self.scale,))]

    def log_values(self):
        return {"scale": self.scale.item()}


@register_prompt("suffix")
class SuffixPrompt(Prompt):
    """A few learned vectors after BOS."""

    scope = "category"

    def __init__(self, *, backbone, num_tokens: int = 2, note: str):
        super().__init__()
        self.text_encoder = backbone.text_encoder
        self.vectors = nn.Parameter(torch.zeros(num_tokens, backbone.text_encoder.width))
        self.note = note

    def forward(self, images, partners=None):
        if None in images.categories:
            raise InputError("a suffix needs the category of every photo")
        vectors = self.vectors.expand(len(images), -1, -1)
        return PromptEmbedding(encode_token_vectors(self.text_encoder, vectors))


@register_backbone("pixels")
class Pixels(Backbone):
    """Colors of the pixels of a small image."""

    def __init__(self, *, side: int = 12, device: str = "cpu") -> None:
        super().__init__()
        self.side = side
        self.spec = FeatureSpec(
            channels=3, stride=1, prompt_width=None, max_length=0, layers=1, native_size=(side, side), size_multiple=1,
            architecture=f"pixels {side}",
        )  # fmt: skip

    def prepare(self, photo):
        return squash(photo, (self.side, self.side))

    def encode(self, views):
        return Encoded({"pixels": views.pixels}, views.frames, views.keys)

    def extract(self, encoded, prompt, sampling):
        return FeatureMap(encoded.tensors["pixels"], Grid(encoded.frames, (self.side, self.side), "centers"))


@register_image_encoder("brightness")
class Brightness(ImageEncoder):
    """Brightness of 4 x 4 patches."""

    def __init__(self, *, backbone, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain
        self.encoded = 0
        self.spec = ImageFeatureSpec(patches=16, local=1, pooled=1)

    def prepare(self, photo):
        return squash(photo, (8, 8))

    def encode(self, views):
        self.encoded += len(views)
        local = nn.functional.avg_pool2d(views.pixels.mean(dim=1, keepdim=True), 2).flatten(2).transpose(1, 2)
        return ImageFeatures(self.gain * local, self.gain * local.mean(dim=1))


@register_dataset("two-photos")
class TwoPhotos(PairDataset):
    """Two photos of noise that share one point."""

    name, categories, reference = "two", ("fish",), "photo"

    def __init__(self, *, side: int = 60, split: Split = "test") -> None:
        self.side = side
        self.split = split
        self.keys = (PairKey(pair_id="a-b", source_id="1", target_id="2", category="fish"),)

    def __getitem__(self, index):
        key, points = self.keys[index], np.array([[10.0, 8.0]])
        return PairRecord(
            pair_id=key.pair_id, source_id=key.source_id, target_id=key.target_id, category=key.category,
            source_size=(self.side, self.side), target_size=(self.side, self.side), source_points=points,
            target_points=points, visible=np.array([True]),
        )  # fmt: skip

    def photo(self, image_id):
        values = np.random.default_rng(int(image_id)).integers(0, 256, (self.side, self.side, 3), dtype=np.uint8)
        return Photo(values, image_id)
