"""All coordinate arithmetic: photo pixels <-> model pixels <-> feature cells.

Convention: points are (x, y), sizes are (height, width). Everything is differentiable and batched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sd4match.errors import InputError

Size = tuple[int, int]
"""(height, width)."""
Alignment = Literal["corners", "centers", "patch"]
"""Rule by which cells are aligned with pixels; see `pixels_to_cells`."""


@dataclass(frozen=True)
class ImageFrame:
    """How a photo lies in a model's image: scaled by `scale` (x, y), then moved by `offset` (x, y)."""

    original_size: Size
    model_size: Size
    scale: tuple[float, float]
    offset: tuple[float, float] = (0.0, 0.0)


def squash_frame(original_size: Size, model_size: Size) -> ImageFrame:
    """The frame of a photo resized to `model_size` without regard to its aspect: x goes to x * W' / W.

    >>> squash_frame((200, 100), (96, 96)).scale
    (0.96, 0.48)
    """
    (height, width), (model_height, model_width) = original_size, model_size
    return ImageFrame(original_size, model_size, (model_width / width, model_height / height))


def pad_frame(original_size: Size, side: int) -> ImageFrame:
    """The frame of a photo whose longer side becomes `side`, centred in a square.

    Convention: SD-DINO's: the shorter side is rounded to whole pixels, and half of the rest, rounded down, comes first.

    >>> pad_frame((200, 100), 96)
    ImageFrame(original_size=(200, 100), model_size=(96, 96), scale=(0.48, 0.48), offset=(24.0, 0.0))
    """
    scale = side / max(original_size)
    height, width = padded_size(original_size, side)
    return ImageFrame(
        original_size, (side, side), (scale, scale), (float((side - width) // 2), float((side - height) // 2))
    )


def padded_size(original_size: Size, side: int) -> Size:
    """(H, W) of the photo inside the square of `pad_frame`."""
    height, width = (max(1, round(side * length / max(original_size))) for length in original_size)
    return height, width


def own_frame(original_size: Size) -> ImageFrame:
    """A photo's own pixels as a frame.

    >>> own_frame((200, 100)).scale
    (1.0, 1.0)
    """
    return ImageFrame(original_size, original_size, (1.0, 1.0))


def to_model(points: Float[Tensor, "batch points 2"], frames: Sequence[ImageFrame]) -> Float[Tensor, "batch points 2"]:
    """Photo pixels to model pixels, each image by its own frame."""
    scale, offset = _frame_tensors(points, frames)
    return points * scale + offset


def to_photo(points: Float[Tensor, "batch points 2"], frames: Sequence[ImageFrame]) -> Float[Tensor, "batch points 2"]:
    """Model pixels to photo pixels, each image by its own frame.

    >>> frame = squash_frame((200, 100), (96, 96))
    >>> to_photo(to_model(torch.tensor([[[50.0, 20.0]]]), [frame]), [frame])
    tensor([[[50., 20.]]])
    """
    scale, offset = _frame_tensors(points, frames)
    return (points - offset) / scale


def _frame_tensors(points: Tensor, frames: Sequence[ImageFrame]) -> tuple[Tensor, Tensor]:
    scale = points.new_tensor([frame.scale for frame in frames])[:, None]
    offset = points.new_tensor([frame.offset for frame in frames])[:, None]
    return scale, offset


def pixels_to_cells(
    points: Float[Tensor, "... 2"],
    image_size: Size,
    map_size: Size,
    *,
    alignment: Alignment,
    patch_offset: float | None = None,
) -> Float[Tensor, "... 2"]:
    """Places in an image of `image_size` as (fractional) cells of a map of `map_size`.

    With W pixels and w cells in a row:
      - "corners": the centres of the corner pixels lie on the centres of the corner cells: x (w - 1) / (W - 1)
      - "centers": pixels and cells cover the same area: (x + 1/2) w / W - 1/2
      - "patch": the centre of cell 0 is at pixel `patch_offset`: (x - patch_offset) w / W

    Args:
        points: (..., 2), (x, y) in pixels.
        image_size: (H, W).
        map_size: (h, w).
        alignment: the rule.
        patch_offset: for "patch" only; W / (2 w) and H / (2 h) if not given.

    Returns:
        (..., 2), (x, y) in cells; outside [0, w - 1] for points beyond the centres of the corner cells.

    >>> pixels_to_cells(torch.tensor([767.0, 0.0]), (768, 768), (48, 48), alignment="corners")
    tensor([47.,  0.])
    """
    scale, shift = _cell_rule(points, image_size, map_size, alignment, patch_offset)
    return points * scale + shift


def cells_to_pixels(
    cells: Float[Tensor, "... 2"],
    image_size: Size,
    map_size: Size,
    *,
    alignment: Alignment,
    patch_offset: float | None = None,
) -> Float[Tensor, "... 2"]:
    """The inverse of `pixels_to_cells`, with the same arguments.

    >>> cells_to_pixels(torch.tensor([1.0, 0.0]), (840, 840), (60, 60), alignment="patch", patch_offset=6.5)
    tensor([20.5000,  6.5000])
    """
    scale, shift = _cell_rule(cells, image_size, map_size, alignment, patch_offset)
    return (cells - shift) / scale


def photo_to_cells(
    points: Float[Tensor, "batch points 2"],
    frames: Sequence[ImageFrame],
    map_size: Size,
    *,
    alignment: Alignment,
    patch_offset: float | None = None,
) -> Float[Tensor, "batch points 2"]:
    """Photo pixels to cells of a map, each image by its own frame.

    >>> frame = squash_frame((100, 100), (96, 96))
    >>> photo_to_cells(torch.tensor([[[50.0, 25.0]]]), [frame], (24, 24), alignment="patch", patch_offset=0.0)
    tensor([[[12.,  6.]]])
    """
    scale, shift = _cell_rules(points, frames, map_size, alignment, patch_offset)
    return to_model(points, frames) * scale + shift


def cells_to_photo(
    cells: Float[Tensor, "batch points 2"],
    frames: Sequence[ImageFrame],
    map_size: Size,
    *,
    alignment: Alignment,
    patch_offset: float | None = None,
) -> Float[Tensor, "batch points 2"]:
    """The inverse of `photo_to_cells`."""
    scale, shift = _cell_rules(cells, frames, map_size, alignment, patch_offset)
    return to_photo((cells - shift) / scale, frames)


def _cell_rules(
    points: Tensor, frames: Sequence[ImageFrame], map_size: Size, alignment: Alignment, patch_offset: float | None
) -> tuple[Tensor, Tensor]:
    rules = [_cell_rule(points, frame.model_size, map_size, alignment, patch_offset) for frame in frames]
    scale, shift = (torch.stack(parts)[:, None] for parts in zip(*rules, strict=True))
    return scale, shift


def _cell_rule(
    points: Tensor, image_size: Size, map_size: Size, alignment: Alignment, patch_offset: float | None
) -> tuple[Tensor, Tensor]:
    """Cells = pixels * scale + shift, as two (2,) tensors, x first."""
    if min(*image_size, *map_size) < 1:
        raise InputError(f"sizes must be positive, not image {image_size} and map {map_size}")
    pixels = (image_size[1], image_size[0])
    cells = (map_size[1], map_size[0])
    if alignment == "corners":
        # One pixel or one cell has no extent: everything lies on it, and the way back goes to its pixel.
        scale = [(c - 1) / (p - 1) if c > 1 and p > 1 else 1.0 / p for p, c in zip(pixels, cells, strict=True)]
        shift = [0.0, 0.0]
    elif alignment == "centers":
        scale = [c / p for p, c in zip(pixels, cells, strict=True)]
        shift = [(s - 1.0) / 2.0 for s in scale]
    elif alignment == "patch":
        scale = [c / p for p, c in zip(pixels, cells, strict=True)]
        shift = [-0.5 if patch_offset is None else -patch_offset * s for s in scale]
    else:
        raise InputError(f"alignment must be corners, centers or patch, not {alignment!r}")
    return points.new_tensor(scale), points.new_tensor(shift)


def grid_points(size: Size, *, side: int) -> Float[Tensor, "points 2"]:
    """A regular grid of `side` x `side` points inside a photo, row by row, away from its border.

    >>> grid_points((100, 200), side=2)
    tensor([[ 49.5000,  24.5000],
            [149.5000,  24.5000],
            [ 49.5000,  74.5000],
            [149.5000,  74.5000]])
    """
    steps = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(steps * size[0] - 0.5, steps * size[1] - 0.5, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=-1)
