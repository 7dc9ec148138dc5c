"""How a benchmark counts, by name. Numbers of different measurements are not comparable.

A data set gives points, boxes and photo sizes; a measurement makes of them the places to compare and the length that
alpha is a share of. It says how cells lie on photos, how source points are read, and with which matcher it was
published. Changing it never needs new features of photos that were put into the model's image in the same way (`view`).

| name | photo in the model's image | errors measured in | compare | matcher | published average |
| --- | --- | --- | --- | --- | --- |
| `sd4match` | squashed | the square of 768, truth clamped | <= | kernel soft arg-max | image |
| `dift` | squashed | the photo's own pixels | <= | arg-max over pixels | image, point |
| `sd-dino` | padded | the square of 840 | < | arg-max | point, by category |
| `geoaware` | padded | the square of 840 | < | window soft arg-max | image, point |

The reference length is the longer side of the target's box, in the frame in which errors are measured.
On PF-Pascal the length is the side of the square (`dift`: the photo's longer side), on PF-Willow the extent of the
target's key points stands for the box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from sd4match.errors import ConfigError, DatasetError, choose_from
from sd4match.matching.config import KernelSoftArgmaxConfig, PixelNearestNeighborConfig
from sd4match.registry import AnyMatcher, Settings, describe, matchers

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from sd4match.geometry import ImageFrame, Size
    from sd4match.structures.pairs import Box, Reference
    from sd4match.structures.tensors import Correlation, FeatureMap

_DERIVED = "*"


class Measurement(Settings):
    """One way to count. Frozen; `derive` makes another one of it. The defaults are SD4Match's."""

    name: str = "sd4match"
    view: Literal["squash", "pad"] = Field("squash", description="how photos were put into the model's image")
    space: Literal["squash", "pad", "photo"] = Field("squash", description="the frame in which errors are measured")
    side: int | None = Field(768, ge=2, description="of that square frame, in pixels; None for the photo's own")
    alphas: tuple[float, ...] = Field((0.05, 0.1, 0.15), min_length=1)
    inclusive: bool = Field(True, description="compare with <=, not <")
    clamp_truth: bool = Field(True, description="true places outside the frame count as on its border")
    reference: Literal["data", "box", "photo"] = Field(
        "data", description="alpha is a share of the target's box, of its photo, or as the data set's benchmark has it"
    )
    alignment: Literal["corners", "centers", "patch"] = Field(
        "corners", description="how cells lie on photos; see `placed`"
    )
    cell_shift: float = Field(0.0, description='for "patch": pixels from the middle of a cell to where its match goes')
    query: Literal["bilinear", "floor", "pixel"] = Field("bilinear", description="how source points are read")
    matcher: AnyMatcher = Field(KernelSoftArgmaxConfig(), description="with which it was published")
    average: Literal["image", "point", "category_point"] = Field("image", description="which average was published")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.side is None) != (self.space == "photo"):
            raise ValueError(f"side = {self.side} does not go with space = {self.space!r}: squares have one")
        if (self.space == "pad" and self.view == "squash") or (self.space == "squash" and self.view == "pad"):
            raise ValueError(f"view = {self.view!r} does not go with space = {self.space!r}")
        if any(not 0 < alpha < 10 for alpha in self.alphas) or len(set(self.alphas)) < len(self.alphas):
            raise ValueError(f"alphas must be positive and different, not {self.alphas}")
        return self

    def derive(self, **changes: object) -> Measurement:
        """This one with other fields. Unless only alphas differ, a star behind its name says that it is another.

        Raises:
            ConfigError: an unknown field, or a value that does not fit.

        >>> measurement("dift").derive(inclusive=False).name, measurement("dift").derive(alphas=(0.2,)).name
        ('dift*', 'dift')
        """
        try:
            changed = Measurement.model_validate({**self.model_dump(), **changes})
        except ValidationError as error:
            raise ConfigError(f"measurement: {describe(error, Measurement)}") from None
        if "name" in changes and changes["name"] != self.name:
            if changes["name"] in MEASUREMENTS:
                raise ConfigError(f"{changes['name']!r} is a measurement of its own; give yours another name")
            return changed
        base = MEASUREMENTS.get(self.name.rstrip(_DERIVED), self)
        same = changed.model_copy(update={"alphas": base.alphas, "name": base.name}) == base
        return changed.model_copy(update={"name": base.name if same else base.name.rstrip(_DERIVED) + _DERIVED})

    @property
    def is_published(self) -> bool:
        """Whether it counts as the benchmark of its name does."""
        return self.name in MEASUREMENTS

    def frame(self, size: Size) -> ImageFrame:
        """The frame of a photo in which errors are measured."""
        from sd4match import geometry

        if self.side is None:
            return geometry.own_frame(size)
        if self.space == "pad":
            return geometry.pad_frame(size, self.side)
        return geometry.squash_frame(size, (self.side, self.side))

    def placed(self, features: FeatureMap) -> FeatureMap:
        """A feature map whose cells lie on its photos as this benchmark has it; no value changes.

        Convention: "corners" are those of the model's own image (768 for Stable Diffusion 2.1, as published); middles
        of areas and patches are laid on the frame in which errors are measured.
        """
        if self.alignment == "corners":
            return features.laid(features.frames, self.alignment)
        frames = tuple(self.frame(frame.original_size) for frame in features.frames)
        offset = None
        if self.alignment == "patch":
            if self.side is None:
                raise ConfigError(f"measurement {self.name!r}: alignment 'patch' needs a square frame")
            offset = self.side / features.map_size[1] / 2 + self.cell_shift
        return features.laid(frames, self.alignment, offset)

    def correlate(
        self,
        source: FeatureMap,
        target: FeatureMap,
        query_points: Float[Tensor, "batch points 2"],
        *,
        corners: bool = False,
    ) -> Correlation:
        """Correlate points of the source photos with the target maps as this benchmark does.

        Args:
            source: B maps.
            target: B maps.
            query_points: (B, N, 2), in original pixels of the source photos.
            corners: for a matcher that `ReadsCorners`.
        """
        from sd4match.matching.correlation import correlate_maps

        return correlate_maps(
            self.placed(source), self.placed(target), query_points, query_mode=self.query, corners=corners
        )

    def correct(
        self,
        predicted: Float[Tensor, "batch points 2"],
        target: Float[Tensor, "batch points 2"],
        visible: Bool[Tensor, "batch points"],
        *,
        photo_sizes: Sequence[Size],
        boxes: Sequence[Box | None],
        reference: Reference = "box",
    ) -> Bool[Tensor, "batch points alphas"]:
        """Which points are correct.

        Args:
            predicted: (B, N, 2), in original pixels of the target photos.
            target: (B, N, 2), likewise.
            visible: (B, N).
            photo_sizes: of the target photos.
            boxes: of the target objects, in original pixels.
            reference: what the data set's benchmark takes alpha of, if this measurement follows it.

        Raises:
            DatasetError: a target has no box, and its length is wanted.
        """
        from sd4match.geometry import to_model
        from sd4match.matching.pck import correct_points

        frames = [self.frame(size) for size in photo_sizes]
        truth = to_model(target, frames)
        if self.clamp_truth:
            edges = truth.new_tensor([[frame.model_size[1] - 1, frame.model_size[0] - 1] for frame in frames])
            truth = truth.clamp(min=0).minimum(edges[:, None])
        length = self._lengths(predicted, frames, boxes, reference if self.reference == "data" else self.reference)
        return correct_points(
            to_model(predicted, frames), truth, visible, length, alphas=self.alphas, inclusive=self.inclusive
        )

    def _lengths(
        self, like: Tensor, frames: Sequence[ImageFrame], boxes: Sequence[Box | None], reference: Reference
    ) -> Tensor:
        """(B,): what alpha is a share of, in pixels of the frames."""
        from sd4match.geometry import to_model

        if reference == "photo":
            return like.new_tensor([max(frame.model_size) for frame in frames])
        if any(box is None for box in boxes):
            raise DatasetError(
                f"measurement {self.name!r} needs the box of every target object; without boxes, derive it with "
                "reference: photo"
            )
        corners = to_model(like.new_tensor([box for box in boxes if box is not None]).unflatten(1, (2, 2)), frames)
        return (corners[:, 1] - corners[:, 0]).amax(dim=-1)


_PADDED: dict[str, Any] = {
    "view": "pad", "space": "pad", "side": 840, "alphas": (0.01, 0.05, 0.1, 0.15), "inclusive": False,
    "clamp_truth": False, "alignment": "patch", "query": "floor",
}  # fmt: skip

MEASUREMENTS: dict[str, Measurement] = {
    one.name: one
    for one in (
        Measurement(),
        Measurement(
            name="dift", space="photo", side=None, alphas=(0.01, 0.05, 0.1, 0.15), clamp_truth=False,
            alignment="centers", query="pixel", matcher=PixelNearestNeighborConfig(),
        ),
        Measurement(
            name="sd-dino", **_PADDED, cell_shift=-0.5, matcher=matchers.parse("nearest_neighbor"),
            average="category_point",
        ),
        Measurement(name="geoaware", **_PADDED, matcher=matchers.parse("window_soft_argmax")),
    )
}  # fmt: skip
"""The benchmarks' own measurements, by name."""


def measurement(name: str) -> Measurement:
    """A measurement by its name.

    Raises:
        ConfigError: unknown.

    >>> measurement("sd-dino").side
    840
    """
    if name not in MEASUREMENTS:
        raise ConfigError(f"unknown measurement {name!r}; {choose_from(name, MEASUREMENTS)}")
    return MEASUREMENTS[name]


def parse_measurement(value: object) -> Measurement:
    """A measurement from its name, from a mapping (`name` says which one it is derived from), or from itself.

    >>> parse_measurement({"name": "dift", "alphas": [0.2]}).alphas
    (0.2,)
    """
    if isinstance(value, Measurement):
        return value
    if isinstance(value, str):
        return measurement(value)
    if not isinstance(value, Mapping):
        raise ConfigError(f"a measurement is a name or its fields, not {value!r}; known: {', '.join(MEASUREMENTS)}")
    fields = dict(value)
    name = str(fields.pop("name", fields.pop("kind", "sd4match")))
    base = name.rstrip(_DERIVED)
    if base not in MEASUREMENTS and set(fields) | {"name"} >= set(Measurement.model_fields):
        return MEASUREMENTS["sd4match"].derive(name=name, **fields)
    return measurement(base).derive(**fields)


AnyMeasurement = Annotated[Measurement, BeforeValidator(parse_measurement)]
"""A config field that holds a measurement."""
