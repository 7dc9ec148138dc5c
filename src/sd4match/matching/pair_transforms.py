"""Transforms of the two feature maps of a pair, applied after extraction. Importing this module loads no torch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from sd4match.arguments import check_arguments
from sd4match.errors import InputError
from sd4match.fields import PositiveNumber
from sd4match.interfaces import PairTransform as PairTransform
from sd4match.registry import register

if TYPE_CHECKING:
    from sd4match.structures.tensors import FeatureMap


@register
class CoPCA(PairTransform):
    """Reduce the channels of each layer to the principal directions of both maps together (SD-DINO).

    Each channel group is reduced by `functional.co_pca`. Then consecutive groups are L2-normalized together, `blocks`
    at a time, weighted and concatenated: for SD+DINO, three layers of Stable Diffusion as one block and DINOv2 as the
    other.
    """

    kind: Literal["co_pca"] = "co_pca"
    components: NonNegativeInt | tuple[NonNegativeInt, ...] = Field(
        default=256, description="channels kept of each group, or one number for all; 0 keeps the group as it is"
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
        kept = sizes if len(sizes) > 1 else ()
        return replace(source, values=sides[0], groups=kept), replace(target, values=sides[1], groups=kept)
