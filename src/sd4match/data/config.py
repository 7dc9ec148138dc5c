"""Configs of the data sets."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from sd4match.registry import ComponentConfig, datasets

Split = Literal["train", "validation", "test"]


class DatasetConfig(ComponentConfig):
    """What every data set's config says before it is built."""

    has_categories: ClassVar[bool] = True
    split: Split = "train"


@datasets.register
class SyntheticConfig(DatasetConfig):
    """Pairs from the procedural world; splits share no photo, whatever their sizes."""

    kind: Literal["synthetic"] = "synthetic"
    pairs: PositiveInt | None = Field(None, description="None: 2000 to train on, 160 to validate, 480 to test")
    photos_per_category: int | None = Field(None, ge=2, description="None: 120, 24, 50")
    size: int = Field(96, ge=32, description="side of a photo in pixels")
    distractors: float = Field(0.25, ge=0, le=1, description="share of photos with an object of another category")
    seed: int = Field(0, ge=0)
    implementation = "sd4match.data.synthetic.dataset:SyntheticPairs"
