"""Configs of the matchers and losses."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from sd4match.registry import ComponentConfig, losses, matchers, pair_transforms


@matchers.register
class NearestNeighborConfig(ComponentConfig):
    """Arg-max."""

    kind: Literal["nearest_neighbor"] = "nearest_neighbor"
    temperature: PositiveFloat = Field(0.04, description="of the score")
    implementation = "sd4match.matching.matchers:NearestNeighbor"


@matchers.register
class SoftArgmaxConfig(ComponentConfig):
    """Expected place."""

    kind: Literal["soft_argmax"] = "soft_argmax"
    temperature: PositiveFloat = 0.04
    implementation = "sd4match.matching.matchers:SoftArgmax"


@matchers.register
class KernelSoftArgmaxConfig(ComponentConfig):
    """SD4Match's inference; the defaults are the paper's."""

    kind: Literal["kernel_soft_argmax"] = "kernel_soft_argmax"
    temperature: PositiveFloat = 0.04
    sigma: PositiveFloat = Field(7.0, description="in cells")
    implementation = "sd4match.matching.matchers:KernelSoftArgmax"


@matchers.register
class WindowSoftArgmaxConfig(ComponentConfig):
    """GeoAware's inference."""

    kind: Literal["window_soft_argmax"] = "window_soft_argmax"
    temperature: PositiveFloat = 0.02
    window: int = Field(15, ge=1, description="in cells, odd")
    implementation = "sd4match.matching.matchers:WindowSoftArgmax"

    @field_validator("window")
    @classmethod
    def _odd(cls, window: int) -> int:
        if window % 2 == 0:
            raise ValueError(f"must be odd, not {window}")
        return window


@matchers.register
class BilinearNearestNeighborConfig(ComponentConfig):
    """Blended arg-max of the query's four cells."""

    kind: Literal["bilinear_nearest_neighbor"] = "bilinear_nearest_neighbor"
    temperature: PositiveFloat = Field(0.04, description="of the score")
    implementation = "sd4match.matching.matchers:BilinearNearestNeighbor"


@matchers.register
class PixelNearestNeighborConfig(ComponentConfig):
    """DIFT's inference."""

    kind: Literal["pixel_nearest_neighbor"] = "pixel_nearest_neighbor"
    temperature: PositiveFloat = Field(0.04, description="of the score")
    implementation = "sd4match.matching.matchers:PixelNearestNeighbor"


@pair_transforms.register
class CoPCAConfig(ComponentConfig):
    """SD-DINO's reduction of channels."""

    kind: Literal["co_pca"] = "co_pca"
    components: NonNegativeInt | tuple[NonNegativeInt, ...] = Field(
        256, description="of each channel group; 0 keeps it"
    )
    parts: tuple[PositiveInt, ...] | None = Field(None, description="groups that are normalised together")
    weights: tuple[float, ...] | None = Field(None, description="of each part")
    implementation = "sd4match.matching.pair_transforms:CoPCA"


@losses.register
class GaussianCrossEntropyConfig(ComponentConfig):
    """Eq. 5 of the paper; the defaults are the paper's."""

    kind: Literal["gaussian_cross_entropy"] = "gaussian_cross_entropy"
    temperature: PositiveFloat | Literal["learned"] = Field(
        0.04, description='"learned": beside the prompt, as in SimSC, from `initial_temperature` on'
    )
    initial_temperature: PositiveFloat | None = Field(None, description="of a learned one; None: 0.04")
    kernel_size: int = Field(7, ge=3, description="in cells, odd")
    implementation = "sd4match.matching.losses:GaussianCrossEntropy"

    @field_validator("kernel_size")
    @classmethod
    def _odd(cls, kernel_size: int) -> int:
        if kernel_size % 2 == 0:
            raise ValueError(f"must be odd, not {kernel_size}")
        return kernel_size

    @model_validator(mode="after")
    def _only_of_a_learned_one(self) -> GaussianCrossEntropyConfig:
        if self.initial_temperature is not None and self.temperature != "learned":
            raise ValueError(f"initial_temperature goes with temperature = learned, not with {self.temperature}")
        return self
