"""Evaluation protocols by name: how each benchmark counts. Numbers of different protocols are not comparable.

A data set gives points, boxes and photo sizes; a protocol turns them into the locations that are compared and the
length that alpha is a fraction of. It says how cells lie on photos, how source points are read, and with which matcher
the benchmark was published. Another protocol needs new features only if it puts photos into the model's image in
another way (`frame`).

| name | photo in the model's image | errors measured in | compare | matcher | published average |
| --- | --- | --- | --- | --- | --- |
| `sd4match` | squashed | the square of 768, truth clamped | <= | kernel soft arg-max | image |
| `dift` | squashed | the photo's own pixels | <= | arg-max over pixels | image, point |
| `sd-dino` | padded | the square of 840 | < | arg-max | point, by category |
| `geoaware` | padded | the square of 840 | < | window soft arg-max | image, point |

The reference length is the longer side of the target's box, in the frame in which errors are measured. On PF-Pascal it
is the side of the square (`dift`: the photo's longer side), on PF-Willow the extent of the target's keypoints stands
for the box. Importing this module loads no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from sd4match.arguments import check_arguments
from sd4match.checks import check_number, check_shape
from sd4match.errors import ConfigError, DatasetError, InputError, ShapeError, choose_from, shown
from sd4match.fields import Factor, Text
from sd4match.matching.matchers import KernelSoftArgmax, NearestNeighbor, PixelNearestNeighbor, WindowSoftArgmax
from sd4match.registry import AnyMatcher, Config, load_plugins, package_of

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from sd4match.geometry import Grid, ImageFrame, Size
    from sd4match.structures.pairs import Box, Reference
    from sd4match.structures.tensors import Correlation, FeatureMap

_DERIVED = "*"


class EvaluationProtocol(Config):
    """Rule by which a benchmark counts correct keypoints.

    Objects are frozen; `derive` returns a changed one. The defaults are SD4Match's.

    Raises:
        ConfigError: a field is unknown, or fields do not agree.

    >>> EvaluationProtocol(name="mine", alphas=(0.1,)).side
    768
    """

    name: Text = "sd4match"
    frame: Literal["squash", "pad"] = Field(default="squash", description="layout of photos in the model's image")
    error_frame: Literal["squash", "pad", "photo"] = Field(
        default="squash", description="frame in which errors are measured"
    )
    side: int | None = Field(
        default=768, ge=2, le=16_384, description="side of that square frame in pixels; None: the photo's own size"
    )
    alphas: tuple[float, ...] = Field(default=(0.05, 0.1, 0.15), min_length=1, max_length=100)
    inclusive: bool = Field(default=True, description="compare with <=, not <")
    clamp_truth: bool = Field(default=True, description="move true points outside the frame to its border")
    reference: Literal["data", "box", "photo"] = Field(
        default="data",
        description="length that alpha is a fraction of: the target's box, its photo, or as the data set defines",
    )
    alignment: Literal["corners", "centers", "patch"] = Field(
        default="corners", description="alignment of cells with photos; see `aligned`"
    )
    cell_shift: Factor = Field(default=0.0, description='for "patch": pixels from the center of a cell to its match')
    query_mode: Literal["bilinear", "floor", "pixel"] = Field(
        default="bilinear", description="sampling of source points"
    )
    matcher: AnyMatcher = Field(default=KernelSoftArgmax(), description="matcher of the publication")
    average: Literal["image", "point", "category_point"] = Field(
        default="image", description="average of the publication"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.side is None) != (self.error_frame == "photo"):
            raise ValueError(
                f"side = {self.side} does not go with error_frame = {self.error_frame!r}: squares have one"
            )
        if (self.error_frame == "pad" and self.frame == "squash") or (
            self.error_frame == "squash" and self.frame == "pad"
        ):
            raise ValueError(f"frame = {self.frame!r} does not go with error_frame = {self.error_frame!r}")
        names = {f"{alpha:g}" for alpha in self.alphas}  # as in reports
        if any(not 0 < alpha < 10 for alpha in self.alphas) or len(names) < len(self.alphas):
            raise ValueError(f"alphas must be positive, below 10 and different, not {shown(self.alphas)}")
        return self

    def derive(self, /, **changes: object) -> EvaluationProtocol:
        """Return this protocol with other fields.

        Unless only alphas differ, its name gets a star.

        Args:
            changes: new values by name of the field; `name` gives the protocol another name.

        Raises:
            ConfigError: a field is unknown, a value does not fit, or the name is that of another protocol.

        >>> get_protocol("dift").derive(inclusive=False).name, get_protocol("dift").derive(alphas=(0.2,)).name
        ('dift*', 'dift')
        """
        changed = self.model_copy(update=changes)
        if "name" in changes and changes["name"] != self.name:
            if changes["name"] in _known():
                raise ConfigError(f"{changes['name']!r} is another protocol; give yours a name of its own")
            return changed
        base = _known().get(self.name.rstrip(_DERIVED), self)
        same = changed.model_copy(update={"alphas": base.alphas, "name": base.name}) == base
        return changed.model_copy(update={"name": base.name if same else base.name.rstrip(_DERIVED) + _DERIVED})

    @property
    def is_published(self) -> bool:
        """True if it counts exactly as the benchmark of its name does."""
        return self.name in PROTOCOLS

    @check_arguments
    def error_frame_of(self, size: Size) -> ImageFrame:
        """Return the frame of a photo in which errors are measured.

        Args:
            size: (H, W) of the photo.
        """
        from sd4match import geometry

        if self.side is None:
            return geometry.own_frame(size)
        if self.error_frame == "pad":
            return geometry.pad_frame(size, self.side)
        return geometry.squash_frame(size, (self.side, self.side))

    @check_arguments
    def aligned(self, features: FeatureMap) -> FeatureMap:
        """Return a feature map on the grid of this protocol; no value changes.

        Convention: with "corners", cells are aligned with the corners of the model's own image (768 for Stable
        Diffusion 2.1, as published); with "centers" and "patch", they lie in the frame in which errors are measured.

        Args:
            features: maps of B photos.

        Raises:
            ConfigError: the alignment is "patch" and the error frame is not a square.
        """
        return features.with_grid(self._grid(features.grid))

    def _grid(self, own: Grid) -> Grid:
        if self.alignment == "corners":
            return replace(own, alignment="corners", offset=None)
        frames = tuple(self.error_frame_of(frame.original_size) for frame in own.frames)
        offset = None
        if self.alignment == "patch":
            if self.side is None:
                raise ConfigError(f"protocol {self.name!r}: alignment 'patch' needs a square frame")
            offset = self.side / own.size[1] / 2 + self.cell_shift
        return replace(own, frames=frames, alignment=self.alignment, offset=offset)

    @check_arguments
    def correlate(
        self, source: FeatureMap, target: FeatureMap, query_points: Float[Tensor, "batch points 2"]
    ) -> Correlation:
        """Correlate points of the source photos with the target maps as this benchmark does.

        Args:
            source: B maps.
            target: B maps.
            query_points: (B, N, 2), (x, y) in original pixels of the source photos.

        Returns:
            Correlation of values (B, N, h, w), on the grid of this protocol.

        Raises:
            ConfigError: the alignment is "patch" and the error frame is not a square.
            ShapeError: maps or queries differ in B, or the maps in C.
        """
        from sd4match.matching.correlation import correlate_maps

        return correlate_maps(self.aligned(source), self.aligned(target), query_points, query_mode=self.query_mode)

    @check_arguments
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
        """Return which points are correct at each alpha (Eq. 8).

        Args:
            predicted: (B, N, 2), (x, y) in original pixels of the target photos.
            target: (B, N, 2), true points, likewise.
            visible: (B, N).
            photo_sizes: (H, W) of each target photo.
            boxes: box of each target object, in original pixels, or None.
            reference: length that the data set's benchmark uses, "box" or "photo", for protocols that follow the data
                set.

        Returns:
            (B, N, len(alphas)), False for points that are not visible.

        Raises:
            DatasetError: the length of a box is needed, and a target has none or a malformed one.
            ShapeError: there is not one photo size and one box for each pair, or tensors differ in B or N.
        """
        from sd4match.geometry import to_model
        from sd4match.matching.pck import correct_points

        sizes = check_shape("predicted", predicted, "B N 2", of="numbers")
        check_shape("target", target, "B N 2", of="numbers", **sizes)
        if not len(predicted) == len(photo_sizes) == len(boxes):
            raise ShapeError(
                f"expected a photo size and a box for each of {len(predicted)} pairs, got {len(photo_sizes)} sizes "
                f"and {len(boxes)} boxes"
            )
        frames = [self.error_frame_of(size) for size in photo_sizes]
        truth = to_model(target.double(), frames)
        if self.clamp_truth:
            edges = truth.new_tensor([[frame.model_size[1] - 1, frame.model_size[0] - 1] for frame in frames])
            truth = truth.clamp(min=0).minimum(edges[:, None])
        length = self._lengths(visible, frames, boxes, reference if self.reference == "data" else self.reference)
        return correct_points(
            to_model(predicted.double(), frames), truth, visible, length, alphas=self.alphas, inclusive=self.inclusive
        )

    def _lengths(
        self, visible: Tensor, frames: Sequence[ImageFrame], boxes: Sequence[Box | None], reference: Reference
    ) -> Tensor:
        """Return the lengths (B,) that alpha is a fraction of, in pixels of the frames and in float64."""
        import torch

        from sd4match.geometry import to_model

        def tensor(values: object) -> Tensor:
            return torch.tensor(values, dtype=torch.float64, device=visible.device)

        if reference == "photo":
            return tensor([max(frame.model_size) for frame in frames])
        if any(box is None for box in boxes):
            raise DatasetError(
                f"protocol {self.name!r} needs the box of every target object; without boxes, derive it with "
                "reference: photo"
            )
        known = [box for box in boxes if box is not None]
        for box in known:
            _check_box(box)
        corners = to_model(tensor(known).reshape(-1, 2, 2), frames)
        return (corners[:, 1] - corners[:, 0]).amax(dim=-1)


def _check_box(box: Box) -> None:
    try:
        left, top, right, bottom = (check_number("box", number) for number in box)
    except InputError as reason:
        raise DatasetError(f"the box {shown(box)} of a target object: {reason}") from None
    if right < left or bottom < top:
        raise DatasetError(f"the box {shown(box)} of a target object is inside out: left, top, right, bottom")


_PADDED: dict[str, Any] = {
    "frame": "pad", "error_frame": "pad", "side": 840, "alphas": (0.01, 0.05, 0.1, 0.15), "inclusive": False,
    "clamp_truth": False, "alignment": "patch", "query_mode": "floor",
}  # fmt: skip

PROTOCOLS: dict[str, EvaluationProtocol] = {
    protocol.name: protocol
    for protocol in (
        EvaluationProtocol(),
        EvaluationProtocol(
            name="dift", error_frame="photo", side=None, alphas=(0.01, 0.05, 0.1, 0.15), clamp_truth=False,
            alignment="centers", query_mode="pixel", matcher=PixelNearestNeighbor(),
        ),
        EvaluationProtocol(
            name="sd-dino", **_PADDED, cell_shift=-0.5, matcher=NearestNeighbor(),
            average="category_point",
        ),
        EvaluationProtocol(name="geoaware", **_PADDED, matcher=WindowSoftArgmax()),
    )
}  # fmt: skip
"""Published protocols by name."""


_registered: dict[str, EvaluationProtocol] = {}
_packages: dict[str, str] = {}
_left_out: list[str] = []


def register_protocol(protocol: EvaluationProtocol) -> EvaluationProtocol:
    """Register a protocol under its name, like the published ones.

    An installed package registers one through the entry-point group `sd4match.protocols`. A later registration of the
    same name replaces the earlier one.

    Args:
        protocol: protocol with a new name, of letters, digits, ".", "-" and "_".

    Returns:
        The protocol itself.

    Raises:
        ConfigError: it is not a protocol, or its name is malformed or that of a published one.

    >>> mine = register_protocol(get_protocol("geoaware").derive(name="at-960", side=960))
    >>> get_protocol("at-960") is mine
    True
    """
    if not isinstance(protocol, EvaluationProtocol):
        raise ConfigError(f"only an EvaluationProtocol can be registered as a protocol, not {shown(protocol)}")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*\*?", protocol.name, re.ASCII):
        raise ConfigError(f"the name of a protocol is of letters, digits, - and _, not {shown(protocol.name)}")
    if protocol.name in PROTOCOLS or protocol.name.endswith(_DERIVED):
        raise ConfigError(f"{protocol.name!r} is another protocol; give yours a name of its own")
    _registered[protocol.name] = protocol
    return protocol


@cache
def _load_plugins() -> None:
    def accept(protocol: EvaluationProtocol, module: str) -> None:
        _packages[register_protocol(protocol).name] = package_of(module)

    _left_out.extend(load_plugins("sd4match.protocols", "protocols", accept))


def protocol_package(name: str) -> str:
    """Return name and version of the package of a protocol; "" for one that a program registered."""
    return package_of(__name__) if name in PROTOCOLS else _packages.get(name, "")


def all_protocols() -> dict[str, EvaluationProtocol]:
    """Return all protocols by name: the published ones, and those that are registered.

    >>> list(all_protocols())[:4]
    ['sd4match', 'dift', 'sd-dino', 'geoaware']
    """
    _load_plugins()
    return _known()


def _known() -> dict[str, EvaluationProtocol]:
    """Return the registered protocols without importing plugins, which may derive theirs during the import."""
    return {**PROTOCOLS, **_registered}


def get_protocol(name: str) -> EvaluationProtocol:
    """Return a protocol by its name.

    Args:
        name: name of a published or registered protocol.

    Raises:
        ConfigError: there is no protocol of that name.

    >>> get_protocol("sd-dino").side
    840
    """
    if not isinstance(name, str):
        raise ConfigError(f"the name of a protocol must be text, not {shown(name)}; {choose_from('', all_protocols())}")
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    known = all_protocols()
    if name not in known:
        reasons = "".join(f"; {reason}" for reason in _left_out)
        raise ConfigError(f"unknown protocol {shown(name)}; {choose_from(name[:80], known)}{reasons}")
    return known[name]


def parse_protocol(value: object) -> EvaluationProtocol:
    """Return a protocol from its name, from a mapping (`name` is the protocol that it changes), or from itself.

    Raises:
        ConfigError: a name or a field is unknown, or a value does not fit.

    >>> parse_protocol({"name": "dift", "alphas": [0.2]}).alphas
    (0.2,)
    """
    if isinstance(value, EvaluationProtocol):
        return value
    if isinstance(value, str):
        return get_protocol(value)
    if not isinstance(value, Mapping) or not all(isinstance(field, str) for field in value):
        raise ConfigError(f"a protocol is a name or its fields, not {shown(value)}; {choose_from('', all_protocols())}")
    fields = dict(value)
    name = fields.pop("kind", "sd4match")
    name = fields.pop("name", name)
    base = name.rstrip(_DERIVED) if isinstance(name, str) else name
    is_whole = {*fields, "name"} >= set(EvaluationProtocol.model_fields)
    if isinstance(base, str) and is_whole and base not in all_protocols():
        return PROTOCOLS["sd4match"].derive(name=name, **fields)
    return get_protocol(base).derive(**fields)


AnyProtocol = Annotated[EvaluationProtocol, BeforeValidator(parse_protocol)]
"""Config field that holds a protocol."""
