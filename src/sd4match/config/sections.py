"""Sections of an experiment: sampling, training, evaluation and the cache. Importing this module loads no torch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from sd4match.arguments import check_arguments
from sd4match.config.protocols import AnyProtocol, EvaluationProtocol
from sd4match.errors import ConfigError, choose_from, shown
from sd4match.fields import BatchSize, Count, PositiveNumber, Seed, Text
from sd4match.matching.matchers import NearestNeighbor
from sd4match.paths import as_path
from sd4match.registry import AnyMatcher, Config, ensembles

if TYPE_CHECKING:
    from sd4match.io.cache import Cache
    from sd4match.structures.tensors import Sampling

FloatType = Literal["float32", "float16", "bfloat16"]
LARGEST_SIZE = 10**18
"""Largest limit in bytes: a million terabytes."""


class SamplingConfig(Config):
    """Settings of the noise that is added to the latents before features are extracted (Eq. 1).

    >>> SamplingConfig(timestep=50, ensemble_size=8).sampling(seed=1).noise
    EvaluationNoise(seed=1)
    """

    timestep: int = Field(default=261, ge=0, lt=1000, description="diffusion timestep at which features are extracted")
    ensemble_size: int = Field(
        default=1, ge=1, le=1024, description="noise samples per photo whose features are averaged"
    )
    ensemble: Text = Field(
        default="independent",
        description="kind of these noises: independent (as published), antithetic or matched",
    )
    posterior: Literal["image", "member", "mode"] = Field(
        default="image", description="draw the latent once per photo, once per ensemble member, or take the mode"
    )

    @field_validator("ensemble")
    @classmethod
    def _check_ensemble(cls, ensemble: str) -> str:
        if ensemble not in ensembles.kinds():
            raise ValueError(f"unknown noise ensemble {shown(ensemble)}; {choose_from(ensemble, ensembles.kinds())}")
        return ensemble

    @check_arguments
    def sampling(self, seed: int = 0) -> Sampling:
        """Return the sampling with evaluation noise from `seed`.

        Args:
            seed: seed of the noise, at least 0.

        Returns:
            Sampling with evaluation noise.

        Raises:
            InputError: the seed is out of bounds.
        """
        from sd4match.structures.tensors import EvaluationNoise, Sampling

        return Sampling(self.timestep, self.ensemble_size, EvaluationNoise(seed), self.posterior, self.ensemble)


class TrainingConfig(Config):
    """Settings of a training; the defaults are the paper's.

    >>> TrainingConfig(steps=100).batch_size
    9
    """

    steps: int = Field(default=30_000, ge=1, le=10**8)
    batch_size: BatchSize = Field(
        default=9, description="pairs per step: devices x pairs at a time x accumulation steps"
    )
    per_device: BatchSize | None = Field(
        default=None,
        description="pairs that a device processes at a time; None: its whole share. Halved if memory runs out",
    )
    mixed_precision: Literal["no", "bf16"] | None = Field(
        default=None, description="precision of the forward pass; None: that of `accelerate launch`, or no"
    )
    learning_rate: PositiveNumber = 1e-2
    schedule: Literal["constant", "cosine"] = Field(default="constant", description="cosine decays to a tenth")
    both_directions: bool = Field(default=False, description="also match from target to source")
    sampling: SamplingConfig = SamplingConfig()
    validate_every: Count = Field(default=1000, description="steps between validations")
    validation_pairs: Count | None = Field(default=None, description="number of validation pairs; None: all")
    validation_matcher: AnyMatcher = NearestNeighbor()
    patience: Count | None = Field(
        default=None, description="stop after this many validations without a better prompt; None: never"
    )
    checkpoint_every: Count = Field(
        default=500, description="steps between checkpoints; one is also written with each better prompt and at the end"
    )
    keep_checkpoints: Count = Field(
        default=3, description="number of most recent checkpoints to keep, besides the best"
    )
    trackers: tuple[Text, ...] = Field(
        default=(), description="trackers of accelerate, for example tensorboard; CSV files are always written"
    )
    seed: Seed = Field(default=0, description="seed of the order of the pairs and of the noise")


class EvaluationConfig(Config):
    """Settings of an evaluation; the defaults are the paper's.

    >>> EvaluationConfig(protocol="dift", limit=100).protocol.alphas
    (0.01, 0.05, 0.1, 0.15)
    """

    sampling: SamplingConfig = SamplingConfig(timestep=50, ensemble_size=8)
    batch_size: BatchSize = Field(default=8, description="photos whose features are extracted at a time")
    protocol: AnyProtocol = Field(
        default=EvaluationProtocol(), description="rule by which matches are counted: a name, or fields"
    )
    matchers: tuple[AnyMatcher, ...] = Field(
        default=(), max_length=100, description="further matchers to evaluate on the same features"
    )
    categories: tuple[Text, ...] = Field(default=(), description="evaluate only pairs of these categories; (): all")
    limit: Count | None = Field(default=None, description="evaluate only this many pairs, from the first; None: all")
    skip_bad: bool = Field(default=False, description="skip pairs whose annotation or photo cannot be read")
    memory: str | None = Field(
        default=None, description='budget for feature maps in memory, for example "8 GB"; None: half of the free memory'
    )
    map_dtype: FloatType = Field(
        default="float32", description="precision of stored feature maps; half precision changes results slightly"
    )
    bootstrap_samples: int = Field(default=2000, ge=1, le=100_000)
    seed: Seed = Field(default=0, description="seed of the noise and of the bootstrap")

    @field_validator("memory", mode="before")
    @classmethod
    def _check_memory(cls, memory: object) -> str | None:
        return None if memory is None else _checked_size(memory)


class CacheConfig(Config):
    """Settings of the disk cache of encoded photos and image features, which all runs share.

    >>> CacheConfig(limit="0").open() is None
    True
    """

    folder: Text | None = Field(
        default=None, description="None: SD4MATCH_CACHE, or sd4match in the user's cache folder"
    )
    limit: str = Field(
        default="10 GB",
        description='maximal size, for example "500 MB", at most 1000000 TB; "0" turns the cache off',
    )
    dtype: FloatType = Field(
        default="float32", description="half precision takes half the space and changes results slightly"
    )

    @field_validator("folder")
    @classmethod
    def _check_folder(cls, folder: str | None) -> str | None:
        if folder is not None:
            as_path(folder, what="folder", error=ConfigError)
        return folder

    @field_validator("limit", mode="before")
    @classmethod
    def _check_limit(cls, limit: object) -> str:
        return _checked_size(limit)

    def open(self) -> Cache | None:
        """Open the cache; return None if it would have no effect."""
        import torch

        from sd4match.io.cache import Cache, cache_folder

        rounded_to = None if self.dtype == "float32" else getattr(torch, self.dtype)
        if parse_size(self.limit) == 0 and rounded_to is None:
            return None  # half precision rounds even without storing, so that results do not depend on the limit
        folder = cache_folder() if self.folder is None else as_path(self.folder, what="cache.folder", error=ConfigError)
        return Cache(folder, limit=parse_size(self.limit), dtype=rounded_to)


def parse_size(text: str) -> int:
    """Return the number of bytes of a size such as "10 GB".

    Args:
        text: a number with an optional unit B, KB, MB, GB or TB; units are powers of 1000.

    Raises:
        ValueError: it has another form, or is more than 1000000 TB.

    >>> parse_size("500 MB"), parse_size("1.5GB"), parse_size("0")
    (500000000, 1500000000, 0)
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)B?", text.strip().upper())
    if found is None:
        raise ValueError(f'a size is written as "10 GB", "500 MB" or "0", not {shown(text)}')
    size = float(found[1]) * 1000 ** " KMGT".index(found[2] or " ")
    if size > LARGEST_SIZE:
        raise ValueError(f"a size is at most {LARGEST_SIZE // 1000**4} TB, not {shown(text)}")
    return int(size)


def _checked_size(size: object) -> str:
    """Return a size as text; a whole number is a number of bytes."""
    if isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= LARGEST_SIZE:
        size = str(size)
    if not isinstance(size, str):
        raise ValueError(f'a size is written as "10 GB", "500 MB" or "0", not {shown(size)}')
    parse_size(size)
    return size
