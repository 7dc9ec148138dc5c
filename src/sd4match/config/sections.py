"""What training, evaluation and the cache are told: plain settings, parts of an experiment."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from sd4match.config.protocols import AnyMeasurement, Measurement
from sd4match.matching.config import NearestNeighborConfig
from sd4match.registry import AnyMatcher, Settings

if TYPE_CHECKING:
    from sd4match.io.cache import Cache
    from sd4match.structures.tensors import Sampling


class SamplingSettings(Settings):
    """How latents are made noisy."""

    timestep: int = Field(261, ge=0, lt=1000)
    ensemble_size: PositiveInt = 1
    posterior: Literal["image", "member", "mode"] = "image"

    def sampling(self, seed: int = 0) -> Sampling:
        """With evaluation noise from `seed`."""
        from sd4match.structures.tensors import EvaluationNoise, Sampling

        return Sampling(self.timestep, self.ensemble_size, EvaluationNoise(seed), self.posterior)


class TrainingSettings(Settings):
    """How a prompt is learned; the defaults are the paper's."""

    steps: PositiveInt = 30_000
    batch_size: PositiveInt = Field(9, description="pairs a step: devices x at once x accumulated")
    per_device: PositiveInt | None = Field(
        None, description="pairs that a device takes at once; None: its whole share. Halved where memory runs out"
    )
    mixed_precision: Literal["no", "bf16"] | None = Field(
        None, description="of the forward pass; None: what `accelerate launch` says, or no"
    )
    learning_rate: PositiveFloat = 1e-2
    schedule: Literal["constant", "cosine"] = Field("constant", description="cosine falls to a tenth")
    both_directions: bool = Field(False, description="also match from target to source")
    sampling: SamplingSettings = SamplingSettings()
    validate_every: PositiveInt = 1000
    validation_pairs: PositiveInt | None = Field(None, description="None: all")
    validation_matcher: AnyMatcher = NearestNeighborConfig()
    patience: PositiveInt | None = Field(None, description="stop after so many validations without a better prompt")
    checkpoint_every: PositiveInt = Field(500, description="steps; also with each better prompt, and at the end")
    keep_checkpoints: PositiveInt = Field(3, description="the last so many stay, and the best one")
    trackers: tuple[str, ...] = Field((), description="of accelerate, for example tensorboard; a CSV is always written")
    seed: NonNegativeInt = Field(0, description="of the order of pairs and of the noise")


class EvaluationSettings(Settings):
    """How matches are made and counted; the defaults are the paper's."""

    sampling: SamplingSettings = SamplingSettings(timestep=50, ensemble_size=8)
    batch_size: PositiveInt = 8
    measurement: AnyMeasurement = Field(Measurement(), description="how matches are counted: a name, or its fields")
    matchers: tuple[AnyMatcher, ...] = Field((), description="measured too, on the same features")
    categories: tuple[str, ...] = Field((), description="only pairs of these; (): all")
    limit: PositiveInt | None = Field(None, description="only the first so many pairs")
    skip_bad: bool = Field(False, description="leave out pairs whose annotation or photo cannot be read")
    bootstrap_samples: PositiveInt = 2000
    seed: NonNegativeInt = Field(0, description="of the noise and of the bootstrap")


class CacheSettings(Settings):
    """What is kept on disk between runs: latents of photos, and features of image encoders."""

    folder: str | None = Field(None, description="None: SD4MATCH_CACHE, or sd4match in the user's cache folder")
    limit: str = Field("10 GB", description='"500 MB"; "0" keeps nothing')
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        "float32", description="half precision takes half the room, and changes results a little"
    )

    @field_validator("limit", mode="before")
    @classmethod
    def _size(cls, limit: object) -> str:
        parse_size(str(limit))
        return str(limit)

    def open(self) -> Cache | None:
        """The cache; None if there is nothing for it to do."""
        import torch

        from sd4match.io.cache import Cache, cache_folder

        kept_in = None if self.dtype == "float32" else getattr(torch, self.dtype)
        if parse_size(self.limit) == 0 and kept_in is None:
            return None  # with half precision a cache without room still rounds: numbers do not depend on the limit
        folder = Path(self.folder).expanduser() if self.folder else cache_folder()
        return Cache(folder, limit=parse_size(self.limit), dtype=kept_in)


def parse_size(text: str) -> int:
    """Bytes of a size as people write it.

    Raises:
        ValueError: it is none.

    >>> parse_size("500 MB"), parse_size("1.5GB"), parse_size("0")
    (500000000, 1500000000, 0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip().upper())
    if found is None:
        raise ValueError(f'a size is written as "10 GB", "500 MB" or "0", not {text!r}')
    return int(float(found[1]) * 1000 ** " KMGT".index(found[2] or " "))
