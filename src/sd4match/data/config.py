"""Configs of the data sets. Importing this module loads neither torch nor numpy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field
from typing_extensions import override

from sd4match.errors import ConfigError, choose_from, shown
from sd4match.fields import Seed, check_field_text
from sd4match.registry import Component, Registry, datasets, register

if TYPE_CHECKING:
    from sd4match.data.ap10k import AP10KPairs
    from sd4match.data.folder import FolderPairs
    from sd4match.data.pf_pascal import PFPascalPairs
    from sd4match.data.pf_willow import PFWillowPairs
    from sd4match.data.spair import SPairPairs
    from sd4match.data.synthetic.dataset import SyntheticPairs
    from sd4match.interfaces import PairDataset

MOST_PAIRS = 1_000_000
"""Largest number of drawn pairs or photos."""

Split = Literal["train", "validation", "test"]
"""Split of a data set."""

PathText = Annotated[str | Path, AfterValidator(os.fspath), AfterValidator(check_field_text)]
"""Path that is stored as text, so that a config is equal before and after it is written to a file."""


class DatasetConfig(Component):
    """Base class of configs of data sets.

    A config reads no file; the data set does so when it is built. A subclass sets `kind`, may set `splits` and
    `has_categories`, defines `build`, and is registered with `register`.

    >>> class EmptyConfig(DatasetConfig):
    ...     kind: Literal["empty"] = "empty"
    >>> EmptyConfig().split
    'train'
    """

    registry: ClassVar[Registry[Any, Any]] = datasets
    has_categories: ClassVar[bool] = True
    """True if its pairs have categories, which some prompts need."""
    splits: ClassVar[tuple[Split, ...]] = ("train", "validation", "test")
    """Splits that exist. `sd4match data check` reads all of them unless one is named."""

    split: Split = "train"

    def build(self) -> PairDataset:
        """Build the data set.

        Raises:
            DatasetError: its files are missing or have another layout.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define build")


@register
class SyntheticConfig(DatasetConfig):
    """Config of the synthetic data set.

    Splits share no photo, whatever their sizes.

    >>> SyntheticConfig(split="test", pairs=3).build().split
    'test'
    """

    kind: Literal["synthetic"] = "synthetic"
    pairs: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="number of pairs; None: 2000 for training, 160 for validation, 480 for testing",
    )
    photos_per_category: int | None = Field(
        default=None, ge=2, le=10_000, description="number of photos of each category; None: 120, 24, 50"
    )
    size: int = Field(default=96, ge=32, le=2048, description="side of a photo in pixels")
    distractors: float = Field(
        default=0.25, ge=0, le=1, description="fraction of photos with an object of another category"
    )
    seed: Seed = 0

    @override
    def build(self) -> SyntheticPairs:
        from sd4match.data.synthetic.dataset import SyntheticPairs

        return SyntheticPairs(self)


class RootedConfig(DatasetConfig):
    """Base class of configs of data sets on disk, which have a root folder.

    >>> issubclass(SPairConfig, RootedConfig)
    True
    """

    root: PathText = Field(description="folder of the data set, as it was unpacked")


@register
class SPairConfig(RootedConfig):
    """Config of SPair-71k.

    >>> SPairConfig(root="SPair-71k", split="test").layout
    'large'
    """

    kind: Literal["spair"] = "spair"
    layout: Literal["large", "small"] = Field(
        default="large", description='lists of pairs; "small" is the benchmark\'s subset'
    )

    @override
    def build(self) -> SPairPairs:
        from sd4match.data.spair import SPairPairs

        return SPairPairs(self)


@register
class PFPascalConfig(RootedConfig):
    """Config of PF-Pascal, with the pair lists of NCNet or of the reference implementation.

    >>> PFPascalConfig(root="PF-Pascal", split="test").root
    'PF-Pascal'
    """

    kind: Literal["pf_pascal"] = "pf_pascal"

    @override
    def build(self) -> PFPascalPairs:
        from sd4match.data.pf_pascal import PFPascalPairs

        return PFPascalPairs(self)


@register
class PFWillowConfig(RootedConfig):
    """Config of PF-Willow, which has only a test split.

    >>> PFWillowConfig(root="PF-Willow").split
    'test'
    """

    splits: ClassVar[tuple[Split, ...]] = ("test",)

    kind: Literal["pf_willow"] = "pf_willow"
    split: Split = "test"

    def build(self) -> PFWillowPairs:
        """Build the data set.

        Raises:
            DatasetError: the split is not "test", or the files are missing or have another layout.
        """
        from sd4match.data.pf_willow import PFWillowPairs

        return PFWillowPairs(self)


@register
class AP10KConfig(RootedConfig):
    """Config of AP-10K, with pairs that are drawn from a seed or those of GeoAware's preparation.

    >>> AP10KConfig(root="ap-10k", pairs="cross-species", split="test").pairs_per_group
    40
    """

    kind: Literal["ap10k"] = "ap10k"
    pairs: Literal["intra-species", "cross-species", "cross-family"] = Field(
        default="intra-species", description="two photos of one species, of two species of a family, or of two families"
    )
    pairs_per_group: int = Field(
        default=40, ge=1, le=MOST_PAIRS, description="largest number of pairs of each species, or of each family"
    )
    annotation_split: Literal[1, 2, 3] = Field(default=1, description="N of the files ap10k-SPLIT-splitN.json")
    seed: Seed = Field(default=0, description="seed from which the pairs are drawn")
    pair_list: PathText | None = Field(
        default=None, description="file of the drawn pairs; None: in ROOT/sd4match-pairs"
    )

    def build(self) -> AP10KPairs:
        """Build the data set; write the list of drawn pairs if it does not exist.

        Raises:
            DatasetError: the files are missing or have another layout, there are no such pairs, or the list belongs to
                other annotations or cannot be written.
        """
        from sd4match.data.ap10k import AP10KPairs

        return AP10KPairs(self)


@register
class FolderConfig(RootedConfig):
    """Config of a folder of the user's own photos with a file of points.

    >>> FolderConfig(root="my-photos", points="points.csv").points
    'points.csv'
    """

    splits: ClassVar[tuple[Split, ...]] = ("test",)

    kind: Literal["folder"] = "folder"
    points: PathText | None = Field(
        default=None, description="file of points, relative to the folder; None: points.json or points.csv"
    )
    exif: bool = Field(
        default=False,
        description="True: points are in the frame that viewers show, turned by EXIF; False: in stored pixels",
    )

    def build(self) -> FolderPairs:
        """Build the data set.

        Raises:
            DatasetError: the folder or the file of points is missing, or its content is wrong.
        """
        from sd4match.data.folder import FolderPairs

        return FolderPairs(self)


def dataset_kind(text: str) -> str:
    """Return the kind of a data set in a usual spelling: "PF-Willow" is "pf_willow", "SPair-71k" is "spair".

    Args:
        text: name of a data set; case and punctuation do not matter.

    Raises:
        ConfigError: no data set of that name is registered.

    >>> dataset_kind("PF-Willow"), dataset_kind("spair-71k"), dataset_kind("ap-10k")
    ('pf_willow', 'spair', 'ap10k')
    """
    if not isinstance(text, str):
        raise ConfigError(f"a data set is named by a text, not {shown(text)}")
    kinds = {_normalize(kind): kind for kind in datasets.kinds()}
    name = _normalize(text).removesuffix("71k")
    if name not in kinds:
        raise ConfigError(f"unknown data set {shown(text)}; {choose_from(text[:80], datasets.kinds())}")
    return kinds[name]


def _normalize(text: str) -> str:
    """Return letters and digits in lower case."""
    return "".join(letter for letter in text.lower() if letter.isalnum())
