"""All coordinate arithmetic: photo pixels <-> model pixels <-> feature cells.

Convention: points are (x, y), sizes are (height, width). Everything is differentiable and batched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sd4match.errors import InputError

__all__ = [
    "Alignment",
    "Grid",
    "ImageFrame",
    "QueryMode",
    "Size",
    "cells_to_pixels",
    "grid_points",
    "own_frame",
    "pad_frame",
    "padded_size",
    "pixels_to_cells",
    "squash_frame",
    "to_model",
    "to_photo",
]

Size = tuple[int, int]
"""(height, width)."""
Alignment = Literal["corners", "centers", "patch"]
"""Rule by which cells are aligned with pixels; see `pixels_to_cells`."""
QueryMode = Literal["bilinear", "floor", "pixel"]
"""Rule by which a source map is read at a query point; see `Grid.query_cells`."""


@dataclass(frozen=True)
class ImageFrame:
    """How a photo lies in a model's image: scaled by `scale` (x, y), then moved by `offset` (x, y)."""

    original_size: Size
    model_size: Size
    scale: tuple[float, float]
    offset: tuple[float, float] = (0.0, 0.0)


def squash_frame(original_size: Size, model_size: Size) -> ImageFrame:
    """Return the frame of a photo resized to `model_size` without regard to its aspect: x goes to x * W' / W.

    >>> squash_frame((200, 100), (96, 96)).scale
    (0.96, 0.48)
    """
    (height, width), (model_height, model_width) = original_size, model_size
    return ImageFrame(original_size, model_size, (model_width / width, model_height / height))


def pad_frame(original_size: Size, side: int) -> ImageFrame:
    """Return the frame of a photo whose longer side becomes `side`, centered in a square.

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
    """Return (H, W) of the photo inside the square of `pad_frame`."""
    height, width = (max(1, round(side * length / max(original_size))) for length in original_size)
    return height, width


def own_frame(original_size: Size) -> ImageFrame:
    """Return the frame of a photo in its own pixels.

    >>> own_frame((200, 100)).scale
    (1.0, 1.0)
    """
    return ImageFrame(original_size, original_size, (1.0, 1.0))


def to_model(points: Float[Tensor, "batch points 2"], frames: Sequence[ImageFrame]) -> Float[Tensor, "batch points 2"]:
    """Convert photo pixels to model pixels, each image by its own frame."""
    scale, offset = _frame_tensors(points, frames)
    return points * scale + offset


def to_photo(points: Float[Tensor, "batch points 2"], frames: Sequence[ImageFrame]) -> Float[Tensor, "batch points 2"]:
    """Convert model pixels to photo pixels, each image by its own frame.

    >>> frame = squash_frame((200, 100), (96, 96))
    >>> to_photo(to_model(torch.tensor([[[50.0, 20.0]]]), [frame]), [frame])
    tensor([[[50., 20.]]])
    """
    scale, offset = _frame_tensors(points, frames)
    return (points - offset) / scale


def _frame_tensors(points: Tensor, frames: Sequence[ImageFrame]) -> tuple[Tensor, Tensor]:
    return _cached_frame_tensors(tuple(frames), points.dtype, points.device)


# Points of the same photos are converted again and again, and making small tensors would take most of the time.
@lru_cache(maxsize=4096)
def _cached_frame_tensors(
    frames: tuple[ImageFrame, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):  # or they could not be used in a later backward pass
        scale = torch.tensor([frame.scale for frame in frames], dtype=dtype, device=device)[:, None]
        offset = torch.tensor([frame.offset for frame in frames], dtype=dtype, device=device)[:, None]
    return scale, offset


@lru_cache(maxsize=4096)
def _cell_rule_tensors(grid: Grid, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    rules = [_cell_rule(frame.model_size, grid.size, grid.alignment, grid.offset) for frame in grid.frames]
    with torch.inference_mode(False):
        scale, shift = torch.tensor(rules, dtype=dtype, device=device)[:, :, None].unbind(dim=1)
    return scale, shift


def pixels_to_cells(
    points: Float[Tensor, "... 2"],
    image_size: Size,
    map_size: Size,
    *,
    alignment: Alignment,
    offset: float | None = None,
) -> Float[Tensor, "... 2"]:
    """Convert points in an image of `image_size` to (fractional) cells of a map of `map_size`.

    With W pixels and w cells in a row:
      - "corners": the centers of the corner pixels lie on the centers of the corner cells: x (w - 1) / (W - 1)
      - "centers": pixels and cells cover the same area: (x + 1/2) w / W - 1/2
      - "patch": the center of cell 0 is at pixel `offset`: (x - offset) w / W

    Args:
        points: (..., 2), (x, y) in pixels.
        image_size: (H, W).
        map_size: (h, w).
        alignment: the rule.
        offset: for "patch" only; W / (2 w) and H / (2 h) if not given.

    Returns:
        (..., 2), (x, y) in cells; outside [0, w - 1] for points beyond the centers of the corner cells.

    >>> pixels_to_cells(torch.tensor([767.0, 0.0]), (768, 768), (48, 48), alignment="corners")
    tensor([47.,  0.])
    """
    scale, shift = points.new_tensor(_cell_rule(image_size, map_size, alignment, offset)).unbind()
    return points * scale + shift


def cells_to_pixels(
    cells: Float[Tensor, "... 2"],
    image_size: Size,
    map_size: Size,
    *,
    alignment: Alignment,
    offset: float | None = None,
) -> Float[Tensor, "... 2"]:
    """Convert cells to pixels; inverse of `pixels_to_cells`, with the same arguments.

    >>> cells_to_pixels(torch.tensor([1.0, 0.0]), (840, 840), (60, 60), alignment="patch", offset=6.5)
    tensor([20.5000,  6.5000])
    """
    scale, shift = cells.new_tensor(_cell_rule(image_size, map_size, alignment, offset)).unbind()
    return (cells - shift) / scale


@dataclass(frozen=True)
class Grid:
    """How the cells of a batch of feature maps lie on the photos.

    A grid is all that is needed to convert between cells of the maps and pixels of the photos. Two maps of the same
    values on different grids are the same features, read at different points of the photos.

    Args:
        frames: how each of the B photos lies in the model's image.
        size: (h, w), the number of cells.
        alignment: "corners", "centers" or "patch"; see `pixels_to_cells`.
        offset: pixel of the model's image at which the center of cell 0 lies; for "patch" only.

    >>> grid = Grid((squash_frame((100, 100), (96, 96)),), (24, 24), "patch", 0.0)
    >>> grid.to_cells(torch.tensor([[[50.0, 25.0]]]))
    tensor([[[12.,  6.]]])
    """

    frames: tuple[ImageFrame, ...]
    size: Size
    alignment: Alignment = "corners"
    offset: float | None = None

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, rows: slice | Sequence[int]) -> Grid:
        """Return the grid of some of the photos."""
        frames = self.frames[rows] if isinstance(rows, slice) else tuple(self.frames[row] for row in rows)
        return replace(self, frames=frames)

    def to_cells(self, points: Float[Tensor, "batch points 2"]) -> Float[Tensor, "batch points 2"]:
        """Convert photo pixels to (fractional) cells, each photo by its own frame.

        Args:
            points: (B, N, 2), (x, y) in original pixels.

        Returns:
            (B, N, 2), (x, y) in cells; outside [0, w - 1] x [0, h - 1] for points beyond the outermost cell centers.
        """
        scale, shift = self._cell_rules(points)
        return to_model(points, self.frames) * scale + shift

    def to_pixels(self, cells: Float[Tensor, "batch points 2"]) -> Float[Tensor, "batch points 2"]:
        """Convert cells to photo pixels; inverse of `to_cells`."""
        scale, shift = self._cell_rules(cells)
        return to_photo((cells - shift) / scale, self.frames)

    def query_cells(
        self, points: Float[Tensor, "batch points 2"], mode: QueryMode = "bilinear"
    ) -> Float[Tensor, "batch points 2"]:
        """Return the cells at which a map is read for query points in photo pixels.

        Args:
            points: (B, N, 2), (x, y) in original pixels.
            mode: "bilinear" reads between cells at the point itself (SD4Match), "floor" reads the cell whose area
                holds the point (SD+DINO, GeoAware), "pixel" reads between cells at the point rounded down to a whole
                pixel of the model's image (DIFT).
        """
        if mode == "floor":
            return replace(self, alignment="patch", offset=0.0).to_cells(points).floor()
        if mode == "pixel":
            points = to_photo(to_model(points, self.frames).floor(), self.frames)
        return self.to_cells(points)

    def _cell_rules(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return _cell_rule_tensors(self, like.dtype, like.device)


def _cell_rule(
    image_size: Size, map_size: Size, alignment: Alignment, offset: float | None
) -> tuple[list[float], list[float]]:
    """Return scale and shift of `cells = pixels * scale + shift`, x first."""
    if min(*image_size, *map_size) < 1:
        raise InputError(f"sizes must be positive, not image {image_size} and map {map_size}")
    pixels = (image_size[1], image_size[0])
    cells = (map_size[1], map_size[0])
    if alignment == "corners":
        # One pixel or one cell has no extent: every pixel lies on it, and the inverse returns its pixel.
        scale = [(c - 1) / (p - 1) if c > 1 and p > 1 else 1.0 / p for p, c in zip(pixels, cells, strict=True)]
        shift = [0.0, 0.0]
    elif alignment == "centers":
        scale = [c / p for p, c in zip(pixels, cells, strict=True)]
        shift = [(s - 1.0) / 2.0 for s in scale]
    elif alignment == "patch":
        scale = [c / p for p, c in zip(pixels, cells, strict=True)]
        shift = [-0.5 if offset is None else -offset * s for s in scale]
    else:
        raise InputError(f"alignment must be corners, centers or patch, not {alignment!r}")
    return scale, shift


def grid_points(size: Size, *, side: int) -> Float[Tensor, "points 2"]:
    """Return a regular grid of `side` x `side` points inside a photo, row by row, away from its border.

    >>> grid_points((100, 200), side=2)
    tensor([[ 49.5000,  24.5000],
            [149.5000,  24.5000],
            [ 49.5000,  74.5000],
            [149.5000,  74.5000]])
    """
    steps = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(steps * size[0] - 0.5, steps * size[1] - 0.5, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=-1)
