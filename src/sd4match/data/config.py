"""Configs of the data sets."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from sd4match.errors import ConfigError, choose_from
from sd4match.registry import ComponentConfig, datasets

Split = Literal["train", "validation", "test"]


class DatasetConfig(ComponentConfig):
    """What every data set's config says before it is built."""

    has_categories: ClassVar[bool] = True
    splits: ClassVar[tuple[Split, ...]] = ("train", "validation", "test")
    """Those that it has; of one's own folder, what is looked at unless asked otherwise."""
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


class RootedConfig(DatasetConfig):
    """Of a data set on disk."""

    root: str = Field(description="its folder, as it was unpacked")


@datasets.register
class SPairConfig(RootedConfig):
    """SPair-71k."""

    kind: Literal["spair"] = "spair"
    layout: Literal["large", "small"] = "large"
    implementation = "sd4match.data.spair:SPairPairs"


@datasets.register
class PFPascalConfig(RootedConfig):
    """PF-Pascal, with the pair lists of NCNet or of the reference implementation."""

    kind: Literal["pf_pascal"] = "pf_pascal"
    implementation = "sd4match.data.pf_pascal:PFPascalPairs"


@datasets.register
class PFWillowConfig(RootedConfig):
    """PF-Willow, to test on."""

    kind: Literal["pf_willow"] = "pf_willow"
    splits: ClassVar[tuple[Split, ...]] = ("test",)
    implementation = "sd4match.data.pf_willow:PFWillowPairs"


@datasets.register
class AP10KConfig(RootedConfig):
    """AP-10K, with pairs of our own or of GeoAware's preparation."""

    kind: Literal["ap10k"] = "ap10k"
    pairs: Literal["intra-species", "cross-species", "cross-family"] = "intra-species"
    pairs_per_group: PositiveInt = Field(40, description="of a species, or of a family")
    annotation_split: Literal[1, 2, 3] = 1
    seed: int = Field(0, ge=0, description="of the drawing of pairs")
    pair_list: str | None = Field(None, description="file of the drawn pairs; None: in ROOT/sd4match-pairs")
    implementation = "sd4match.data.ap10k:AP10KPairs"


@datasets.register
class FolderConfig(RootedConfig):
    """One's own photos with a file of points."""

    kind: Literal["folder"] = "folder"
    splits: ClassVar[tuple[Split, ...]] = ("test",)
    points: str | None = Field(None, description="file of points; None: points.json or points.csv")
    exif: bool = Field(False, description="points were read off photos as viewers turn them")
    implementation = "sd4match.data.folder:FolderPairs"


def dataset_kind(text: str) -> str:
    """The kind that a user means: "PF-Willow" is "pf_willow", "SPair-71k" is "spair".

    Raises:
        ConfigError: nobody registered it.

    >>> dataset_kind("PF-Willow"), dataset_kind("spair-71k"), dataset_kind("ap-10k")
    ('pf_willow', 'spair', 'ap10k')
    """
    plain = {_plain(kind): kind for kind in datasets.kinds()}
    name = _plain(text).removesuffix("71k")
    if name not in plain:
        raise ConfigError(f"unknown data set {text!r}; {choose_from(text, datasets.kinds())}")
    return plain[name]


def _plain(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())
