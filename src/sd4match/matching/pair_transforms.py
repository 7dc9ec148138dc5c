"""Transforms of the two feature maps of a pair, applied after extraction. Importing this module loads no torch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, SerializeAsAny, model_validator

from sd4match.arguments import check_arguments
from sd4match.errors import ConfigError, InputError
from sd4match.fields import PositiveNumber
from sd4match.interfaces import PairTransform as PairTransform
from sd4match.registry import pair_transforms, register
from sd4match.structures.specs import FeatureSpec

if TYPE_CHECKING:
    from torch import Tensor

    from sd4match.structures.tensors import FeatureMap

_InnerTransform = Annotated[SerializeAsAny[PairTransform], BeforeValidator(pair_transforms.parse)]


@register
class CoPCA(PairTransform):
    """Reduce the channels of each layer to the principal directions of both maps together (SD-DINO).

    Each channel group is reduced by `functional.co_pca`. Then consecutive groups are L2-normalized together, `blocks`
    at a time, weighted and concatenated: for SD+DINO, three layers of Stable Diffusion as one block and DINOv2 as the
    other.

    >>> from sd4match.testing import random_correlation
    >>> maps = random_correlation()
    >>> source, target = CoPCA(components=2)(maps.source, maps.target)
    >>> source.values.shape[1], target.values.shape[1]
    (2, 2)
    """

    kind: Literal["co_pca"] = "co_pca"
    components: NonNegativeInt | tuple[NonNegativeInt, ...] = Field(
        default=256, description="channels of each group after reduction, or one number for all; 0: no reduction"
    )
    blocks: tuple[PositiveInt, ...] | None = Field(
        default=None, description="numbers of consecutive groups that are normalized together; None: all groups"
    )
    weights: tuple[PositiveNumber, ...] | None = Field(default=None, description="weight of each block; None: all 1")

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        blocks, weights = self.blocks, self.weights
        if weights is not None and len(weights) != (1 if blocks is None else len(blocks)):
            raise ValueError(f"{len(weights)} weights do not go with {1 if blocks is None else len(blocks)} blocks")
        if isinstance(self.components, tuple) and blocks is not None and len(self.components) != sum(blocks):
            raise ValueError(f"components of {len(self.components)} groups do not go with blocks of {sum(blocks)}")
        return self

    @check_arguments
    def __call__(self, source: FeatureMap, target: FeatureMap) -> tuple[FeatureMap, FeatureMap]:
        """Return both maps with fewer channels.

        Raises:
            InputError: the fields are for another number of groups than the maps have.
        """
        from sd4match.matching import functional

        groups = source.groups or (source.values.shape[1],)
        components = [self.components] * len(groups) if isinstance(self.components, int) else list(self.components)
        blocks = [len(groups)] if self.blocks is None else list(self.blocks)
        weights = [1.0] * len(blocks) if self.weights is None else list(self.weights)
        if len(components) != len(groups) or sum(blocks) != len(groups) or len(weights) != len(blocks):
            raise InputError(
                f"co-PCA has {len(components)} components, blocks {blocks} and {len(weights)} weights for maps of "
                f"{len(groups)} channel groups"
            )
        split = zip(source.values.split(groups, dim=1), target.values.split(groups, dim=1), components, strict=True)
        reduced = [functional.co_pca(own, other, count) for own, other, count in split]
        sizes = tuple(own.shape[1] for own, _ in reduced)
        sides = [functional.weighted_concatenation(values, blocks, weights) for values in zip(*reduced, strict=True)]
        groups = sizes if len(sizes) > 1 else ()
        return replace(source, values=sides[0], groups=groups), replace(target, values=sides[1], groups=groups)


@register
class MirroredAlignment(PairTransform):
    """Choose the source as it is or mirrored, whichever resembles the target more (GeoAware-SC's adaptive pose).

    Features tell left from right, so an object that faces the other way matches badly. A backbone of kind `mirrored`
    returns the features of each photo and of its mirror image on the same cells. Of the source, the half of the
    channels with the higher score is used; of the target, the first half. The score is the mean, over cells of the
    source, of the largest cosine with a cell of the target: GeoAware-SC's instance matching distance. Where photos have
    masks, only cells inside them count, as in GeoAware-SC; otherwise, all cells of the photos.

    Convention: points do not move; only their features change. Left and right keypoints are not exchanged.

    >>> from dataclasses import replace
    >>> from sd4match.testing import random_correlation
    >>> maps = random_correlation()
    >>> channels = maps.source.values.shape[1]
    >>> doubled = [
    ...     replace(side, values=side.values.repeat(1, 2, 1, 1), groups=(channels, channels))
    ...     for side in (maps.source, maps.target)
    ... ]
    >>> source, _ = MirroredAlignment()(*doubled)
    >>> source.values.shape[1] == channels
    True
    """

    kind: Literal["mirrored_alignment"] = "mirrored_alignment"
    every: PositiveInt = Field(
        default=2,
        le=1024,
        description="step between the cells of the source, in rows and columns, that the score uses without a mask",
    )
    then: _InnerTransform | None = Field(default=None, description="another transform, applied to the chosen maps")

    def check_spec(self, spec: FeatureSpec) -> None:
        """Check that the channels of a backbone are those of a photo and of its mirror image.

        Args:
            spec: spec of the backbone's maps.

        Raises:
            ConfigError: the channel groups are not two equal halves, or do not fit the transform `then`.
        """
        if not _is_doubled(spec.groups):
            raise ConfigError(
                "pair_transform 'mirrored_alignment' chooses between a photo and its mirror image: put the backbone "
                "into one of kind 'mirrored'"
            )
        if self.then is not None:
            half = len(spec.groups) // 2
            groups = spec.groups[:half] if half > 1 else ()
            self.then.check_spec(replace(spec, channels=spec.channels // 2, groups=groups))

    @check_arguments
    def __call__(self, source: FeatureMap, target: FeatureMap) -> tuple[FeatureMap, FeatureMap]:
        """Return both maps with half of their channels.

        Raises:
            InputError: the maps are not of a mirrored backbone.
        """
        import torch

        for side in (source, target):
            if not _is_doubled(side.groups):
                raise InputError(
                    f"mirrored alignment needs maps of a backbone of kind 'mirrored', not channel groups {side.groups}"
                )
        groups = source.groups[: len(source.groups) // 2]
        groups = groups if len(groups) > 1 else ()
        (plain, mirrored), (own, _) = (side.values.chunk(2, dim=1) for side in (source, target))
        better = self._score(mirrored, own, source, target) > self._score(plain, own, source, target)
        chosen = torch.where(better[:, None, None, None], mirrored, plain)
        pair = replace(source, values=chosen, groups=groups), replace(target, values=own, groups=groups)
        return pair if self.then is None else self.then(*pair)

    def _score(self, values: Tensor, own: Tensor, source: FeatureMap, target: FeatureMap) -> Tensor:
        """Return (B,), the mean of the largest cosines of cells in the source's mask, or that lie on the photo."""
        import torch

        from sd4match.geometry import to_model
        from sd4match.matching import functional

        if source.mask is None:
            height, width = source.size
            rows, columns = (torch.arange((side - 1) % self.every // 2, side, self.every) for side in (height, width))
            down, across = (cells.flatten() for cells in torch.meshgrid(rows, columns, indexing="ij"))
        else:
            down, across = source.mask.any(dim=0).nonzero().unbind(-1)
        cells = torch.stack([across, down], dim=-1).expand(len(source), -1, -1).to(values)
        if source.mask is None:
            points = to_model(source.grid.to_pixels(cells), source.grid.frames)
            frames = zip(source.grid.frames, points, strict=True)
            counted = torch.stack([frame.holds(own_points) for frame, own_points in frames]).to(values)
        else:
            counted = source.mask[:, down, across].to(values)
        cosines = functional.correlate(values, own, cells)
        if target.mask is not None:
            cosines = cosines.masked_fill(~target.mask[:, None], -torch.inf)
        best = cosines.flatten(2).amax(dim=2)
        return (best * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)


def _is_doubled(groups: tuple[int, ...]) -> bool:
    half = len(groups) // 2
    return half > 0 and groups[:half] == groups[half:]
