"""How a benchmark counts, by name. Numbers of different measurements are not comparable.

A data set gives points, boxes and photo sizes; a measurement makes of them the places to compare and the length that
alpha is a share of. It never needs other features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from sd4match.errors import ConfigError, DatasetError, choose_from
from sd4match.geometry import squash_frame, to_model
from sd4match.matching.pck import correct_points
from sd4match.registry import Settings
from sd4match.types import Size

Box = tuple[float, float, float, float]


class Measurement(Settings):
    """Squash the photo to a square, compare there, and count against the target's box."""

    name: str = "sd4match"
    frame_side: int = Field(768, ge=2, description="side of the square, in pixels, in which errors are measured")
    alphas: tuple[float, ...] = (0.05, 0.1, 0.15)
    inclusive: bool = Field(True, description="compare with <=, not <")
    reference: Literal["target_box"] = "target_box"

    def correct(
        self,
        predicted: Float[Tensor, "batch points 2"],
        target: Float[Tensor, "batch points 2"],
        visible: Bool[Tensor, "batch points"],
        *,
        photo_sizes: Sequence[Size],
        boxes: Sequence[Box | None],
    ) -> Bool[Tensor, "batch points alphas"]:
        """Which points are correct.

        Args:
            predicted: (B, N, 2), in original pixels of the target photos.
            target: (B, N, 2), likewise; clamped into the frame.
            visible: (B, N).
            photo_sizes: of the target photos.
            boxes: of the target objects, in original pixels; the longer side of the squashed box is the length.

        Raises:
            DatasetError: a target has no box.
        """
        if any(box is None for box in boxes):
            raise DatasetError(f"measurement {self.name!r} needs the box of every target object")
        frames = [squash_frame(size, (self.frame_side, self.frame_side)) for size in photo_sizes]
        corners = predicted.new_tensor([box for box in boxes if box is not None]).unflatten(1, (2, 2))
        squashed = to_model(corners, frames)
        length = (squashed[:, 1] - squashed[:, 0]).amax(dim=-1)
        truth = to_model(target, frames).clamp(0, self.frame_side - 1)
        return correct_points(
            to_model(predicted, frames), truth, visible, length, alphas=self.alphas, inclusive=self.inclusive
        )


MEASUREMENTS: dict[str, Measurement] = {"sd4match": Measurement()}
"""The known measurements, by name."""


def measurement(name: str) -> Measurement:
    """A measurement by its name.

    Raises:
        ConfigError: unknown.
    """
    if name not in MEASUREMENTS:
        raise ConfigError(f"unknown measurement {name!r}; {choose_from(name, MEASUREMENTS)}")
    return MEASUREMENTS[name]
